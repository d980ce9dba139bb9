"""Tests for walstream.upstream.policy: nothing is downgraded in silence."""

from __future__ import annotations

from psycopg import pq
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.upstream.policy import check_policy
from walstream.upstream.settings import CONNECTION_STRING, Setting


def check(**options: str) -> None:
    """Check options that stand in the connection string."""
    check_policy({name: Setting(value, CONNECTION_STRING) for name, value in options.items()})


class PolicyTests(SynchronousTestCase):
    """What is done about each option that libpq knows."""

    def refusal(self, **options: str) -> str:
        """What is said of options that cannot be honoured."""
        return str(self.assertRaises(FormatError, check, **options))

    def test_every_option_is_decided(self) -> None:
        """Each option of this libpq's is used, harmless, or refused with a reason."""
        for option in pq.Conninfo.get_defaults():
            name = option.keyword.decode()
            try:
                check(**{name: "some value"})
            except FormatError as error:
                self.assertNotIn("does not know", str(error), name)

    def test_tls(self) -> None:
        """All of it is for `walstream.upstream.encryption` to say."""
        check(sslmode="verify-full", sslnegotiation="direct", sslrootcert="system")
        check(sslcert="c", sslkey="k", sslcrl="r", sslsni="1", sslcompression="1")

    def test_keys_are_not_written(self) -> None:
        """Whoever reads the keys of TLS reads what they encrypt."""
        self.assertIn("to no file", self.refusal(sslkeylogfile="/tmp/keys"))

    def test_unknown_value(self) -> None:
        """A value that libpq does not know either is invalid, in its words."""
        self.assertEqual(
            self.refusal(gssencmode="please"),
            'invalid gssencmode value: "please" (the connection string)',
        )

    def test_checks_that_cannot_be_made(self) -> None:
        """What would have to be checked of the server is refused, not forgotten."""
        self.assertIn("gssencmode=disable", self.refusal(gssencmode="require"))
        self.assertIn("protocol 3.0", self.refusal(min_protocol_version="3.2"))

    def test_checks_that_are_made(self) -> None:
        """Who the server is, and how it asks, is looked at when it does."""
        check(requirepeer="postgres", require_auth="scram-sha-256", channel_binding="require")
        self.assertEqual(
            self.refusal(channel_binding="maybe"),
            'invalid channel_binding value: "maybe" (the connection string)',
        )

    def test_secrets_are_not_shown(self) -> None:
        """A value that may be a secret is not in the message."""
        for name in ("scram_client_key", "oauth_client_secret"):
            said = self.refusal(**{name: "sesame"})
            self.assertIn(name, said)
            self.assertNotIn("sesame", said)

    def test_empty_value(self) -> None:
        """An empty value asks for nothing."""
        check(sslmode="", requirepeer="", gssencmode="")

    def test_option_of_a_later_libpq(self) -> None:
        """An option that nobody has looked at yet is refused."""
        said = self.refusal(teleport="yes")
        self.assertIn("teleport (the connection string)", said)
        self.assertIn("leave it out", said)
