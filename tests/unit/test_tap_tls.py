"""Tests for walstream.tap.tls_group, and for the contexts that it makes of the files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import fail, maybeDeferred
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority, write_key
from tests.unit.log_capture import capture_log
from walstream.errors import FormatError
from walstream.tap.options import SendOptions
from walstream.tls import extra
from walstream.tls.server import ServerFiles, ServerTLS
from walstream.tls.versions import TLSVersion


class TLSCase(SynchronousTestCase):
    """An authority, and a server's certificate."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.authority = Authority(self.directory, "authority")
        self.issued = self.authority.issue("localhost", "localhost", stem="server")
        self.files = (
            f"--tls-certificate={self.issued.certificate}",
            f"--tls-key={self.issued.key}",
        )

    def options(self, *words: str) -> SendOptions:
        options = SendOptions()  # type: ignore[no-untyped-call]
        options.parseOptions(  # type: ignore[no-untyped-call]
            ["-D", str(self.directory), "-l", "tcp:5433:interface=127.0.0.1", *words]
        )
        return options

    def refusal(self, *words: str) -> str:
        return str(self.assertRaises(usage.UsageError, self.options, *words))


class TLSOptionsTests(TLSCase):
    """The options of ``send`` and ``hub``."""

    def test_none(self) -> None:
        """Nobody has to have it."""
        self.assertIsNone(self.options().tls)

    def test_files(self) -> None:
        """They are read, and known by their whole paths."""
        revoked = self.authority.revoke()
        tls = self.options(
            *self.files,
            f"--tls-ca={self.authority.certificate}",
            f"--tls-crl={revoked}",
            "--tls-min-version=TLSv1.3",
        ).tls
        assert tls is not None
        self.assertEqual(
            tls.files,
            ServerFiles(
                self.issued.certificate,
                self.issued.key,
                self.authority.certificate,
                revoked,
                TLSVersion.V1_3,
            ),
        )

    def test_one_without_the_other(self) -> None:
        """What is of no use by itself is refused."""
        certificate, key = self.files
        self.assertIn("--tls-key is missing", self.refusal(certificate))
        for option in (key, "--tls-ca=x", "--tls-crl=x"):
            self.assertIn("without --tls-certificate", self.refusal(option))
        self.assertIn("without --tls-ca", self.refusal(*self.files, "--tls-crl=x"))

    def test_versions(self) -> None:
        """Older ones are not spoken."""
        for version in ("TLSv1.1", "TLSv1", "1.2"):
            self.assertIn("TLSv1.2 or TLSv1.3", self.refusal(f"--tls-min-version={version}"))

    def test_not_installed(self) -> None:
        """The error names the extra."""
        self.patch(extra, "is_installed", lambda: False)
        self.assertIn('pip install "walstream[tls]"', self.refusal(*self.files))


class ServerFilesTests(TLSCase):
    """What may be wrong with the files, in PostgreSQL's words where it has them."""

    def refusal_of(self, **changes: Path) -> str:
        files: dict[str, Any] = {
            "certificate": self.issued.certificate,
            "key": self.issued.key,
            **changes,
        }
        return str(self.assertRaises(FormatError, ServerTLS, ServerFiles(**files)))

    def file(self, text: str, mode: int = 0o600) -> Path:
        path = self.directory / "file"
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_missing(self) -> None:
        """Each is named."""
        missing = self.directory / "missing"
        for name, what in (
            ("certificate", "certificate"),
            ("key", "private key"),
            ("authorities", "root certificate"),
        ):
            said = self.refusal_of(**{name: missing})
            self.assertEqual(
                said, f'could not read {what} file "{missing}": No such file or directory'
            )

    def test_nonsense(self) -> None:
        """So is what is none."""
        nonsense = self.file("-----BEGIN NONSENSE-----")
        for name, what in (
            ("certificate", "certificate"),
            ("key", "private key"),
            ("authorities", "root certificate"),
        ):
            said = self.refusal_of(**{name: nonsense})
            self.assertIn(f'could not load {what} file "{nonsense}": ', said)
        said = self.refusal_of(authorities=self.authority.certificate, revoked=nonsense)
        self.assertIn("could not load certificate revocation list file", said)

    def test_permissions(self) -> None:
        """A key that others can read is no secret."""
        for mode in (0o640, 0o604, 0o660, 0o777):
            self.issued.key.chmod(mode)
            self.assertIn("has group or world access; it must have", self.refusal_of())
        self.issued.key.chmod(0o400)
        ServerTLS(ServerFiles(self.issued.certificate, self.issued.key))

    def test_no_file(self) -> None:
        """A key is in a plain file."""
        self.assertIn("is not a regular file", self.refusal_of(key=self.directory))

    def test_encrypted(self) -> None:
        """There is nobody to ask for a password."""
        key = write_key(self.directory / "secret", self.issued.private_key, password=b"sesame")
        self.assertTrue(self.refusal_of(key=key).endswith("it is encrypted"))

    def test_another_key(self) -> None:
        """They have to belong together."""
        other = self.authority.issue("other")
        self.assertIn("certificate does not match private key file", self.refusal_of(key=other.key))

    def test_reload(self) -> None:
        """What is right counts at once; what is wrong changes nothing, and is an error."""
        log = capture_log(self)
        tls = ServerTLS(ServerFiles(self.issued.certificate, self.issued.key))
        first = tls.context
        self.authority.issue("localhost", stem="server")
        self.assertTrue(self.successResultOf(tls.reload(maybeDeferred)))
        second = tls.context
        self.assertIsNot(first, second)
        self.issued.key.chmod(0o644)
        self.assertFalse(self.successResultOf(tls.reload(maybeDeferred)))
        self.assertIs(tls.context, second)
        self.assertIn("the old certificate stays in force: private key file", log[-1])

    def test_reload_that_cannot_be(self) -> None:
        """There is no thread for it: the old certificate stays in force then, too."""
        log = capture_log(self)
        tls = ServerTLS(ServerFiles(self.issued.certificate, self.issued.key))
        first = tls.context
        self.assertFalse(self.successResultOf(tls.reload(lambda _: fail(OSError("no thread")))))
        self.assertIs(tls.context, first)
        self.assertIn("the old certificate stays in force: no thread", log[-1])
