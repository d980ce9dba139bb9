"""Tests for walstream.archive.restoring: what a server in recovery is given, and what it is not."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

from tests.unit.archives import IDENTITY, SIZE, DirectoryCase
from walstream.archive.end_mark import EndMark
from walstream.archive.identity import store_identity
from walstream.archive.restoring import restore
from walstream.errors import ArchiveError, FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.segments import backup_history_name
from walstream.interfaces import WALPosition
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder


class RestoreCase(DirectoryCase):
    """An archive of segments 3 to 5, and a server's data directory."""

    def setUp(self) -> None:
        super().setUp()
        for number in (3, 4, 5):
            self.put_segment(number)
        self.data = Path(self.mktemp())
        (self.data / "pg_wal").mkdir(parents=True)
        self.target = self.data / "pg_wal" / "RECOVERYXLOG"

    def restore(self, name: str, *, partial: bool = False) -> bool:
        """Ask for a file."""
        return restore(self.files, self.paths, name, str(self.target), partial=partial)

    def refused(self, name: str, *, partial: bool = False) -> str:
        """Why the server is to stop; it has been given nothing."""
        with self.assertRaises((ArchiveError, FormatError)) as caught:
            self.restore(name, partial=partial)
        self.assertEqual(os.listdir(self.data / "pg_wal"), [])
        return str(caught.exception)

    def assert_given(self, content: bytes) -> None:
        """The server has been given that, and nothing else lies about."""
        self.assertTrue(self.target.read_bytes() == content)
        self.assertEqual(os.listdir(self.data / "pg_wal"), ["RECOVERYXLOG"])

    def damage(self, path: Path, offset: int, data: bytes = b"\xff") -> None:
        """Write over a file."""
        content = bytearray(path.read_bytes())
        content[offset : offset + len(data)] = data
        path.write_bytes(content)

    def mark(self, lsn: int, timeline: int = 1) -> None:
        """The archive is durable up to there."""
        os.makedirs(self.paths.own, exist_ok=True)
        store_identity(self.files, self.paths, IDENTITY)
        mark = EndMark(self.files, self.paths)
        mark.write(WALPosition(timeline, LSN(lsn)))
        mark.close()


class SegmentTests(RestoreCase):
    """Finished segments."""

    def test_it_is_given(self) -> None:
        """As it is."""
        self.assertTrue(self.restore(self.name(4)))
        self.assert_given(self.read_segment(4))

    def read_segment(self, number: int) -> bytes:
        """What a segment holds."""
        return self.wal(SIZE.start(number), SIZE)

    def test_compressed(self) -> None:
        """It is decoded."""
        path = self.path / self.name(4)
        (self.path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        self.assertTrue(self.restore(self.name(4)))
        self.assert_given(self.read_segment(4))

    def test_behind_the_last(self) -> None:
        """There is none, and recovery may end."""
        self.assertFalse(self.restore(self.name(6)))
        self.assertFalse(self.restore(self.name(5, timeline=2)))

    def test_behind_a_switch(self) -> None:
        """The rest of a segment is zeros."""
        content = self.read_segment(5)[: PAGE_SIZE * 3].ljust(SIZE, b"\0")
        (self.path / self.name(5)).write_bytes(content)
        self.assertTrue(self.restore(self.name(5)))
        self.assert_given(content)

    def test_what_is_there_before_is_replaced(self) -> None:
        """Whatever it is."""
        self.target.write_bytes(b"old")
        self.assertTrue(self.restore(self.name(4)))
        self.assert_given(self.read_segment(4))

    def test_a_full_disk(self) -> None:
        """Leaves nothing behind, and is an error."""
        self.files.pwrite = failing_write  # type: ignore[method-assign]
        with self.assertRaises(OSError):
            self.restore(self.name(4))
        self.assertEqual(os.listdir(self.data / "pg_wal"), [])


class DamageTests(RestoreCase):
    """To PostgreSQL damage would be the end of WAL, and it would open."""

    def test_size(self) -> None:
        """A file that a full disk has cut off."""
        path = self.path / self.name(4)
        path.write_bytes(path.read_bytes()[:-1])
        self.assertIn("1048575 bytes", self.refused(self.name(4)))

    def test_first_header(self) -> None:
        """Another segment under this name."""
        (self.path / self.name(4)).write_bytes((self.path / self.name(5)).read_bytes())
        self.assertIn("is damaged", self.refused(self.name(4)))

    def test_any_header(self) -> None:
        """A page of zeros in the middle, as a crash leaves it."""
        self.damage(self.path / self.name(4), PAGE_SIZE * 7, bytes(PAGE_SIZE))
        self.assertIn("is damaged", self.refused(self.name(4)))

    def test_system(self) -> None:
        """Of another cluster."""
        self.mark(SIZE.start(5))
        self.put_segment(4, system_identifier=SYSTEM_IDENTIFIER + 1)
        self.assertIn("system identifier", self.refused(self.name(4)))

    def test_timeline(self) -> None:
        """A page can't be on a timeline that is not in the segment's history."""
        path = self.put_segment(4, timeline=3)
        path.rename(self.path / self.name(4, 2))
        self.put_history(2, (1, SIZE.start(4)))
        self.assertIn("timeline", self.refused(self.name(4, 2)))

    def test_compressed(self) -> None:
        """Cut off, or of something else."""
        path = self.path / self.name(4)
        content = path.read_bytes()
        path.unlink()
        for wrong in (gzip.compress(content)[:-9], gzip.compress(content + b"x"), b"nothing"):
            (self.path / f"{path.name}.gz").write_bytes(wrong)
            self.assertIn(f"{path.name}.gz", self.refused(path.name))

    def test_another_form_is_whole(self) -> None:
        """That one is given."""
        path = self.path / self.name(4)
        content = path.read_bytes()
        (self.path / f"{path.name}.gz").write_bytes(gzip.compress(content))
        self.damage(path, 0)
        self.assertTrue(self.restore(path.name))
        self.assert_given(content)


class RecordTests(RestoreCase):
    """Segments with records in them, which are checked on request."""

    def setUp(self) -> None:
        super().setUp()
        builder = WALBuilder(segment_size=SIZE, start=SIZE.start(4))
        builder.fill_segment()
        builder.noop()
        builder.switch()
        for name, content in builder.segments().items():
            (self.path / name).write_bytes(content)

    def check(self, number: int) -> bool:
        """Ask for a segment, with its records checked."""
        target = str(self.target)
        return restore(self.files, self.paths, self.name(number), target, records=True)

    def test_whole_ones(self) -> None:
        """Up to a segment's end, and up to a switch."""
        self.assertTrue(self.check(4))
        self.assertTrue(self.check(5))

    def test_a_damaged_one(self) -> None:
        """PostgreSQL would take it for the end of WAL."""
        self.damage(self.path / self.name(4), 300_001, b"\xff\xff")
        with self.assertRaisesRegex(FormatError, f"{self.name(4)} is damaged"):
            self.check(4)
        self.assertTrue(self.restore(self.name(4)), "page headers do not show it")


class HoleTests(RestoreCase):
    """A segment that is missing while later ones are there is not the end of WAL."""

    def setUp(self) -> None:
        super().setUp()
        (self.path / self.name(4)).unlink()

    def test_it_stops(self) -> None:
        """Both are named."""
        refusal = self.refused(self.name(4))
        self.assertIn(self.name(4), refusal)
        self.assertIn(self.name(5), refusal)

    def test_before_the_archive_begins(self) -> None:
        """So too: a backup that is older than the archive."""
        self.assertIn("missing", self.refused(self.name(2)))

    def test_an_unfinished_one_in_the_middle(self) -> None:
        """Is none that recovery could pass."""
        self.put_segment(4, partial=True)
        self.assertIn("missing", self.refused(self.name(4)))

    def test_in_pg_wal(self) -> None:
        """The server finds it there by itself: a backup that has its own WAL."""
        (self.data / "pg_wal" / self.name(4)).write_bytes(b"")
        self.assertFalse(self.restore(self.name(4)))

    def test_a_standby_waits(self) -> None:
        """It may get it from elsewhere, and does not open."""
        (self.data / "standby.signal").write_bytes(b"")
        self.assertFalse(self.restore(self.name(4)))

    def test_another_timeline_does_not_count(self) -> None:
        """A timeline ends where it was left."""
        self.put_segment(7, timeline=2)
        self.assertFalse(self.restore(self.name(6)))


class PartialTests(RestoreCase):
    """The segment that was not finished, on request."""

    def setUp(self) -> None:
        super().setUp()
        self.valid = PAGE_SIZE * 5 + 1000
        self.partial = self.put_segment(6, partial=True, valid=self.valid)

    def test_not_unasked(self) -> None:
        """To a standby it would be all of the segment, and more is to come."""
        self.assertFalse(self.restore(self.name(6)))

    def test_it_is_given(self) -> None:
        """At its full size, with zeros behind."""
        self.assertTrue(self.restore(self.name(6), partial=True))
        self.assert_given(self.wal(SIZE.start(6), self.valid).ljust(SIZE, b"\0"))

    def test_a_short_one(self) -> None:
        """Is filled up: it was copied, or another program's."""
        self.partial.write_bytes(self.wal(SIZE.start(6), self.valid))
        self.assertTrue(self.restore(self.name(6), partial=True))
        self.assert_given(self.wal(SIZE.start(6), self.valid).ljust(SIZE, b"\0"))

    def test_the_finished_one_is_better(self) -> None:
        """It is never passed over."""
        self.put_segment(6)
        self.assertTrue(self.restore(self.name(6), partial=True))
        self.assert_given(self.wal(SIZE.start(6), SIZE))

    def test_behind_what_is_durable(self) -> None:
        """What is no WAL there is left out: a power cut left it. What is WAL is given."""
        self.mark(SIZE.start(6) + PAGE_SIZE * 2)
        self.damage(self.partial, PAGE_SIZE * 4)
        self.assertTrue(self.restore(self.name(6), partial=True))
        self.assert_given(self.wal(SIZE.start(6), PAGE_SIZE * 4).ljust(SIZE, b"\0"))

    def test_damage_in_what_is_durable(self) -> None:
        """Is damage: commits that were confirmed would be missing."""
        self.mark(SIZE.start(6) + PAGE_SIZE * 4 + 1)
        self.damage(self.partial, PAGE_SIZE * 4)
        self.assertIn("is damaged", self.refused(self.name(6), partial=True))

    def test_none(self) -> None:
        """Then there is none."""
        self.assertFalse(self.restore(self.name(7), partial=True))


class DocumentTests(RestoreCase):
    """Histories of timelines and of backups."""

    def test_history(self) -> None:
        """As it is; if there is none, it is what the server looks for to find the newest."""
        self.put_history(2, (1, SIZE.start(6)))
        self.assertTrue(self.restore("00000002.history"))
        self.assert_given((self.path / "00000002.history").read_bytes())
        self.assertFalse(self.restore("00000003.history"))

    def test_a_damaged_history(self) -> None:
        """A server would follow it to nowhere."""
        for content in ("", "1\tnonsense\n"):
            (self.path / "00000002.history").write_text(content)
            self.assertIn("00000002.history", self.refused("00000002.history"))

    def test_backup_history(self) -> None:
        """As it is."""
        name = backup_history_name(1, LSN(SIZE.start(4) + 0x28), SIZE)
        (self.path / name).write_bytes(b"START WAL LOCATION")
        self.assertTrue(self.restore(name))
        self.assert_given(b"START WAL LOCATION")

    def test_other_names(self) -> None:
        """Nothing else is given, nor anything from elsewhere."""
        for name in (
            "",
            "../secret",
            "/etc/passwd",
            ".walstream/identity.json",
            "00000001000000000000000a",
            f"{self.name(4)}.gz",
            f"{self.name(4)}\n",
        ):
            self.assertIn("is not the name", self.refused(name))


class ArchiveTests(RestoreCase):
    """The directory itself."""

    def test_no_directory(self) -> None:
        """An archive that is not mounted is not the end of WAL."""
        self.path.rename(self.path.with_name("elsewhere"))
        self.assertIn("is it mounted?", self.refused(self.name(4)))

    def test_an_empty_directory(self) -> None:
        """Nor is the place where it should be mounted; for histories too."""
        for path in self.path.iterdir():
            path.unlink()
        for name in (self.name(4), "00000002.history"):
            self.assertIn("is it mounted?", self.refused(name))

    def test_an_archive_that_holds_nothing_yet(self) -> None:
        """Is one, by what walstream keeps in it."""
        for path in self.path.iterdir():
            path.unlink()
        self.mark(0)
        self.assertFalse(self.restore(self.name(4)))

    def test_another_clusters_archive(self) -> None:
        """Whatever the server would think of it."""
        control = self.data / "global" / "pg_control"
        control.parent.mkdir()
        control.write_bytes((SYSTEM_IDENTIFIER + 1).to_bytes(8, "little") + bytes(100))
        for name in (self.name(4), self.name(6), "00000002.history"):
            self.assertIn(f"this server is of system {SYSTEM_IDENTIFIER + 1}", self.refused(name))
        control.write_bytes(SYSTEM_IDENTIFIER.to_bytes(8, "little") + bytes(100))
        self.assertTrue(self.restore(self.name(4)))


class StartTests(RestoreCase):
    """It is started once for each segment."""

    def test_twisted_is_not_imported(self) -> None:
        """Nor what else takes its time."""
        code = (
            "import sys; from walstream.cli import main; status = main(sys.argv[1:]);"
            " print(status, *sorted({'twisted', 'zope', 'ctypes', 'shutil', 'tempfile'}"
            " & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "restore-wal", self.path, self.name(4), self.target],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.assertEqual(done.stdout, "0\n")


def failing_write(fd: int, data: object, offset: int) -> int:
    """A full disk."""
    raise OSError(28, os.strerror(28))
