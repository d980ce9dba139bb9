"""Tests for walstream.access.role_store: the file of roles on disk."""

from __future__ import annotations

import os
import stat
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from walstream.access.role_store import RoleStore
from walstream.errors import FormatError
from walstream.formats.role_file import Role, with_role, without_role
from walstream.wire.scram_verifier import ScramVerifier

VERIFIER = str(ScramVerifier.of("Geheim 1"))


def add(path: str, names: list[str]) -> None:
    """Add roles, one after the other."""
    store = RoleStore(path)
    for name in names:
        store.change(partial(with_role, role=Role(name), path=path))


class RoleStoreTests(SynchronousTestCase):
    """Reading and changing."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "roles"
        self.store = RoleStore(str(self.path))

    def change(self, role: Role) -> None:
        self.store.change(partial(with_role, role=role, path=self.store.path))

    def test_no_file(self) -> None:
        """There are no roles; and nothing is made by looking."""
        roles = self.store.read()
        self.assertEqual((roles.roles, roles.verifiers, roles.iterations), ({}, {}, None))
        self.assertEqual(os.listdir(self.directory), [])

    def test_change(self) -> None:
        """What is there by hand stays; the file is for its owner only, and nothing else is left."""
        old = os.umask(0)
        try:
            self.change(Role("a", VERIFIER))
        finally:
            os.umask(old)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.path.write_text("# mine\n" + self.path.read_text())
        self.change(Role("b"))
        self.assertEqual(self.path.read_text(), f"# mine\na {VERIFIER}\nb -\n")
        self.store.change(partial(without_role, name="a", path=self.store.path))
        self.assertEqual(self.path.read_text(), "# mine\nb -\n")
        self.assertEqual(sorted(os.listdir(self.directory)), ["roles", "roles.lock"])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_a_change_that_would_be_wrong(self) -> None:
        """Is not made."""
        self.change(Role("a"))
        for edit in (lambda _: "a", lambda _: "a -\na -\n"):
            with self.assertRaises(FormatError):
                self.store.change(edit)
        self.assertEqual(self.path.read_text(), "a -\n")

    def test_a_lock_that_is_a_link(self) -> None:
        """It is not followed: what root makes there is handed over to whose the directory is."""
        elsewhere = self.directory / "elsewhere"
        os.symlink(elsewhere, f"{self.path}.lock")
        self.assertRaises(OSError, self.change, Role("a"))
        self.assertFalse(elsewhere.exists() or self.path.exists())

    def test_what_root_makes(self) -> None:
        """It belongs to whose the archive is, for the process that reads it is his."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
        os.chown(self.directory, 65534, 65533)
        own = self.directory / ".walstream"
        self.store = RoleStore(str(own / "roles"))
        for _ in range(2):
            self.store.make_directory()
            self.change(Role("a"))
        for path in (own, own / "roles", own / "roles.lock"):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (65534, 65533), path)

    def test_a_failed_change(self) -> None:
        """Leaves the old file, whole."""
        self.change(Role("a"))

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fail)
        with self.assertRaises(OSError):
            self.change(Role("b"))
        self.assertEqual(self.path.read_text(), "a -\n")

    def test_a_change_is_durable(self) -> None:
        """The file is synced before it has its name, and then the directory."""
        calls: list[str] = []
        fsync, rename = os.fsync, os.rename

        def sync(fd: int) -> None:
            calls.append(kind(fd))
            fsync(fd)

        def give_name(old: str, new: str) -> None:
            calls.append("rename")
            rename(old, new)

        self.patch(os, "fsync", sync)
        self.patch(os, "rename", give_name)
        self.change(Role("a"))
        self.assertEqual(calls, ["file", "rename", "directory"])

    def test_two_at_a_time(self) -> None:
        """Nothing of either is lost."""
        context = get_context("fork")
        names = [[f"{letter}{number}" for number in range(20)] for letter in "abcd"]
        workers = [context.Process(target=add, args=(self.store.path, each)) for each in names]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        self.assertEqual(set(self.store.read().roles), {name for each in names for name in each})

    def test_others_may_read_it(self) -> None:
        """Then it is not read, nor changed."""
        self.change(Role("a", VERIFIER))
        for mode in (0o640, 0o604, 0o610, 0o660):
            self.path.chmod(mode)
            for do in (self.store.read, lambda: self.change(Role("b"))):
                with self.assertRaises(FormatError) as caught:
                    do()
                self.assertIn("has group or world access", str(caught.exception))
        self.path.chmod(0o400)
        self.assertEqual(set(self.store.read().roles), {"a"})

    def test_what_is_no_file(self) -> None:
        """A directory, a pipe that nobody writes to, too much, or no text."""
        os.mkfifo(self.path, 0o600)
        with self.assertRaises(FormatError):
            self.store.read()
        self.path.unlink()
        self.path.mkdir(0o700)
        with self.assertRaises((FormatError, OSError)):
            self.store.read()
        self.path.rmdir()
        self.path.touch(0o600)
        self.path.write_bytes(b"\xff -\n")
        with self.assertRaises(FormatError):
            self.store.read()
        os.truncate(self.path, (32 << 20) + 1)
        with self.assertRaises(FormatError):
            self.store.read()

    def test_a_verifier_that_is_none(self) -> None:
        """Is told by the role's name; what it is may be secret."""
        self.path.touch(0o600)
        self.path.write_text("a Geheim1\n")
        with self.assertRaises(FormatError) as caught:
            self.store.read()
        self.assertIn('role "a"', str(caught.exception))
        self.assertNotIn("Geheim", str(caught.exception))

    def test_it_is_read_when_it_has_changed(self) -> None:
        """Else what is known is good."""
        self.change(Role("a"))
        first = self.store.read()
        self.assertIs(self.store.read(first), first)
        self.change(Role("b"))
        second = self.store.read(first)
        self.assertEqual(set(second.roles), {"a", "b"})
        self.path.chmod(0o644)
        with self.assertRaises(FormatError):
            self.store.read(second)
        self.path.unlink()
        self.assertEqual(self.store.read(second).roles, {})

    def test_iterations(self) -> None:
        """Those of most."""
        for name, iterations in (("a", 4096), ("b", 5000), ("c", 5000)):
            self.change(Role(name, str(ScramVerifier.of("x", iterations=iterations))))
        self.change(Role("d"))
        self.assertEqual(self.store.read().iterations, 5000)

    def test_secret(self) -> None:
        """The same each time, for its owner only, another one elsewhere."""
        secret = self.store.secret()
        self.assertEqual(len(secret), 32)
        self.assertEqual(RoleStore(str(self.path)).secret(), secret)
        self.assertEqual(stat.S_IMODE(Path(f"{self.path}.secret").stat().st_mode), 0o600)
        self.assertNotEqual(RoleStore(str(self.directory / "other")).secret(), secret)
        Path(f"{self.path}.secret").write_bytes(b"torn")
        self.assertEqual(len(self.store.secret()), 32)

    def test_a_secret_that_cannot_be_kept(self) -> None:
        """Is a secret even so."""
        store = RoleStore(str(self.directory / "nowhere" / "roles"))
        self.assertEqual(len(store.secret()), 32)
        self.assertNotEqual(store.secret(), store.secret())


def kind(fd: int) -> str:
    """What is synced."""
    return "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
