"""Tests for walstream.upstream.encryption."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.tls.options import CertificateMode, ClientOptions, Method, SSLMode
from walstream.tls.versions import TLSVersion
from walstream.upstream import encryption
from walstream.upstream.encryption import parse_encryption
from walstream.upstream.settings import gather

HOME = Path("/home/me")
FILES = HOME / ".postgresql"


def parsed(text: str, **environ: str) -> ClientOptions | None:
    """What is made of a connection string, and of an environment."""
    environment = {"HOME": str(HOME), **environ}
    return parse_encryption(gather(text, environment), environment)


def options(text: str, **environ: str) -> ClientOptions:
    """The same, where there is to be TLS."""
    found = parsed(text, **environ)
    assert found is not None
    return found


class EncryptionTests(SynchronousTestCase):
    """libpq's options."""

    def refusal(self, text: str) -> str:
        return str(self.assertRaises(FormatError, parsed, text))

    def test_defaults(self) -> None:
        """TLS if it is to be had, and the files in the home directory."""
        self.assertEqual(
            options(""),
            ClientOptions(
                SSLMode.PREFER,
                root=FILES / "root.crt",
                certificate=FILES / "postgresql.crt",
                key=FILES / "postgresql.key",
                revoked_default=FILES / "root.crl",
            ),
        )

    def test_order(self) -> None:
        """What is tried, and in which order, is libpq's."""
        tried = {mode: options(f"sslmode={mode}").methods for mode in ("allow", "prefer")}
        self.assertEqual(tried["allow"], (Method.PLAIN, Method.TLS))
        self.assertEqual(tried["prefer"], (Method.TLS, Method.PLAIN))
        for mode in ("require", "verify-ca", "verify-full"):
            self.assertEqual(options(f"sslmode={mode}").methods, (Method.TLS,))
        self.assertIsNone(parsed("sslmode=disable"))

    def test_everything(self) -> None:
        """Each option has its place."""
        found = options(
            "sslmode=verify-ca sslnegotiation=direct sslrootcert=/r sslcert=/c sslkey=/k "
            "sslpassword=p sslcrl=/l sslcrldir=/d sslcertmode=require sslsni=0 "
            "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.3"
        )
        self.assertEqual(
            found,
            ClientOptions(
                SSLMode.VERIFY_CA,
                True,
                Path("/r"),
                Path("/c"),
                Path("/k"),
                "p",
                Path("/l"),
                Path("/d"),
                FILES / "root.crl",
                CertificateMode.REQUIRE,
                False,
                TLSVersion.V1_3,
                TLSVersion.V1_3,
            ),
        )
        self.assertNotIn("'p'", repr(found))

    def test_environment(self) -> None:
        """The environment counts where the string says nothing; PGREQUIRESSL counts least."""
        self.assertIs(options("", PGSSLMODE="require").mode, SSLMode.REQUIRE)
        self.assertIs(options("", PGREQUIRESSL="1").mode, SSLMode.REQUIRE)
        self.assertIs(options("", PGREQUIRESSL="1", PGSSLMODE="allow").mode, SSLMode.ALLOW)
        self.assertIsNone(parsed("sslmode=disable", PGSSLMODE="require"))
        self.assertEqual(options("", PGSSLROOTCERT="/r").root, Path("/r"))

    def test_whom_the_system_trusts(self) -> None:
        """It makes the mode the strictest that there is, and takes no other."""
        found = options("sslrootcert=system")
        self.assertIsNone(found.root)
        self.assertIs(found.mode, SSLMode.VERIFY_FULL)
        for mode in ("disable", "allow", "prefer", "require", "verify-ca"):
            self.assertEqual(
                self.refusal(f"sslrootcert=system sslmode={mode}"),
                f'weak sslmode "{mode}" may not be used with sslrootcert=system '
                '(use "verify-full")',
            )

    def test_direct(self) -> None:
        """There is no way back from it, so TLS has to be wanted."""
        for mode in ("disable", "allow", "prefer"):
            self.assertEqual(
                self.refusal(f"sslnegotiation=direct sslmode={mode}"),
                f'weak sslmode "{mode}" may not be used with sslnegotiation=direct '
                '(use "require", "verify-ca", or "verify-full")',
            )

    def test_versions(self) -> None:
        """What is older than 1.2 is not spoken, whatever is allowed."""
        self.assertIs(options("ssl_min_protocol_version=TLSv1").least, TLSVersion.V1_2)
        self.assertIn("TLSv1.2 and TLSv1.3", self.refusal("ssl_max_protocol_version=TLSv1.1"))
        self.assertEqual(
            self.refusal("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2"),
            "invalid SSL protocol version range",
        )

    def test_what_is_none_of_the_values(self) -> None:
        """It is said in libpq's words."""
        for name in ("sslmode", "sslnegotiation", "sslcertmode"):
            self.assertEqual(
                self.refusal(f"{name}=please"),
                f'invalid {name} value: "please" (the connection string)',
            )
        self.assertIn(
            'invalid "ssl_min_protocol_version" value: "please"',
            self.refusal("ssl_min_protocol_version=please"),
        )

    def test_a_certificate_that_must_be_asked_for(self) -> None:
        """Without TLS nobody asks for it: that is not to be forgotten."""
        found = options("sslmode=disable sslcertmode=require")
        self.assertEqual(found.methods, (Method.PLAIN,))

    def test_where_nothing_is_installed(self) -> None:
        """What insists on TLS is refused, with the extra named; what does not goes on without."""
        self.patch(encryption, "is_installed", lambda: False)
        for mode in ("disable", "allow", "prefer"):
            self.assertIsNone(parsed(f"sslmode={mode}"))
        for text in (
            "sslmode=require",
            "sslmode=verify-full",
            "sslrootcert=system",
            "sslcertmode=require",
        ):
            self.assertIn('pip install "walstream[tls]"', self.refusal(text))
