"""Tests for walstream.wire.scram_server and scram_verifier, against scramp's client."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramException
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.scram_messages import (
    BINDINGS,
    FINAL_MESSAGES,
    FIRST_MESSAGES,
    NONCE,
    NOT_UTF8,
    PLAIN,
    PLUS,
)
from walstream.errors import CommandError, FormatError
from walstream.wire.scram_client import ScramClientExchange
from walstream.wire.scram_server import ScramServerExchange
from walstream.wire.scram_verifier import ScramVerifier

PASSWORD = "correct horse"
SALT = b"0123456789abcdef"
VERIFIER = ScramVerifier.of(PASSWORD, salt=SALT)
SECRET = b"nobody knows"
END_POINT = b"\x05" * 32


def exchange(
    verifier: ScramVerifier | None = VERIFIER, end_point: bytes | None = None
) -> ScramServerExchange:
    return ScramServerExchange("u", verifier, SECRET, end_point)


def run(
    server: ScramServerExchange, password: str = PASSWORD, end_point: bytes | None = None
) -> str:
    """A whole exchange with scramp's client; the mechanism that it chose."""
    binding = None if end_point is None else ("tls-server-end-point", end_point)
    client = ScramClient(list(server.mechanisms), "*", password, channel_binding=binding)
    mechanism: str = client.mechanism_name
    first = server.begin(mechanism, client.get_client_first().encode())
    client.set_server_first(first.decode())
    client.set_server_final(server.finish(client.get_client_final().encode()).decode())
    return mechanism


class VerifierTests(SynchronousTestCase):
    """What is kept of a password."""

    def test_an_example(self) -> None:
        """That of RFC 7677, whose password is "pencil"."""
        text = (
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
            ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        )
        verifier = ScramVerifier.parse(text)
        self.assertEqual(str(verifier), text)
        self.assertEqual(ScramVerifier.of("pencil", salt=verifier.salt), verifier)

    def test_text(self) -> None:
        """Written and read, it is the same; its keys are not shown to who only prints it."""
        self.assertEqual(ScramVerifier.parse(str(VERIFIER)), VERIFIER)
        self.assertEqual(repr(VERIFIER), "ScramVerifier(iterations=4096)")
        self.assertNotEqual(ScramVerifier.of(PASSWORD).salt, ScramVerifier.of(PASSWORD).salt)

    def test_what_is_none(self) -> None:
        """It is refused without a word of what it was."""
        good = str(VERIFIER)
        short = b64encode(b"too short").decode()
        for text in (
            "",
            PASSWORD,
            "md5c0ffee",
            good[:-1],
            good + "$",
            good.replace("4096", "x"),
            good.replace("4096", "-1"),
            good.replace("4096", "0"),
            good.rpartition(":")[0] + ":" + short,
            good.replace("$4096", "$4096$"),
            f"SCRAM-SHA-256$4096:a=b${short}:{short}",
        ):
            error = self.assertRaises(FormatError, ScramVerifier.parse, text)
            self.assertNotIn(text or "?", str(error))

    def test_iterations(self) -> None:
        """As many as are wanted; too few or too many are refused."""
        self.assertEqual(ScramVerifier.of("x", iterations=5000).iterations, 5000)
        for iterations in (0, 4095, 10**9):
            self.assertRaises(FormatError, ScramVerifier.of, "x", iterations=iterations)

    def test_whose_it_is(self) -> None:
        """Told of a verifier that a server has made, with fewer iterations, too."""
        text = (
            "SCRAM-SHA-256$42:c2FsdHNhbHRzYWx0c2FsdA==$ZR3cVBEtmmc8Tu6wFH2di9q2ZLxC8B5ph8XoFUuaZeI="
            ":epJNyTPDrNBTeMWTFdS2SLIJGsNul5/aE5z7SnLZwUM="
        )
        self.assertTrue(ScramVerifier.parse(text).is_of("pass"))
        self.assertFalse(ScramVerifier.parse(text).is_of("Pass"))

    def test_mock(self) -> None:
        """The same user has the same each time; another, or another secret, has another."""
        mock = ScramVerifier.mock("u", SECRET, 5000)
        self.assertEqual(mock, ScramVerifier.mock("u", SECRET, 5000))
        self.assertEqual((mock.iterations, len(mock.salt)), (5000, len(SALT)))
        self.assertNotEqual(mock.salt, ScramVerifier.mock("v", SECRET).salt)
        self.assertNotEqual(mock.salt, ScramVerifier.mock("u", b"other").salt)


class ExchangeTests(SynchronousTestCase):
    """Who gets in."""

    def refusal(self, password: str, server: ScramServerExchange) -> CommandError:
        error: CommandError = self.assertRaises(CommandError, run, server, password)
        return error

    def test_who_knows_the_password(self) -> None:
        """With channel binding where both can."""
        self.assertEqual(run(exchange()), PLAIN)
        self.assertEqual(run(exchange(end_point=END_POINT), end_point=END_POINT), PLUS)
        self.assertEqual(run(exchange(end_point=END_POINT)), PLAIN)

    def test_passwords_of_any_kind(self) -> None:
        """SASLprep makes the same of what looks the same (RFC 4013)."""
        for stored, given_ in (
            ("I\u00adX", "IX"),
            ("\u00aa", "a"),
            ("pass word", "pass\u00a0word"),
        ):
            server = ScramServerExchange("u", ScramVerifier.of(stored), SECRET)
            self.assertEqual(run(server, given_), PLAIN)

    def test_passwords_as_they_are(self) -> None:
        """What SASLprep does not allow, or leaves nothing of, is taken as it is: PostgreSQL's."""
        for password in ("foo\abar", "foo\u06271bar", "\u00ad", "\udcff"):
            server = ScramServerExchange("u", ScramVerifier.of(password), SECRET)
            client = ScramClientExchange("SCRAM-SHA-256", password, None)
            proof = client.proof(server.begin("SCRAM-SHA-256", client.first()))
            client.verify(server.finish(proof))
            self.assertTrue(client.verified)

    def test_any_number_of_iterations(self) -> None:
        """A verifier is a server's, which may have been made with fewer than we make them."""
        for iterations in (1, 42, 20_000_000):
            verifier = ScramVerifier(iterations, SALT, b"s" * 32, b"k" * 32)
            server = ScramServerExchange("u", verifier, SECRET)
            first = server.begin("SCRAM-SHA-256", b"n,,n=,r=abcdefgh")
            self.assertTrue(first.endswith(f",i={iterations}".encode()))

    def test_who_does_not(self) -> None:
        """A wrong password, and a user that there is not, meet the same words."""
        wrong = self.refusal("wrong", exchange())
        unknown = self.refusal(PASSWORD, exchange(None))
        self.assertEqual((wrong.sqlstate, unknown.sqlstate), ("28P01", "28P01"))
        self.assertEqual(str(wrong), 'password authentication failed for user "u"')
        self.assertEqual(str(unknown), str(wrong))

    def test_nobody_fits_a_user_that_there_is_not(self) -> None:
        """Not even who knows what its keys are: zeros, of which nothing is the hash."""
        server = exchange(None)
        server._is_doomed = False
        self.assertEqual(self.refusal("", server).sqlstate, "28P01")

    def test_a_user_that_there_is_not_looks_like_others(self) -> None:
        """Asked twice, it has the same salt."""
        first = f"n,,n=,r={NONCE}".encode()
        answers = [exchange(None).begin(PLAIN, first).split(b",")[1:] for _ in range(2)]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(exchange().begin(PLAIN, first).split(b",")[1:][1], answers[0][1])

    def test_another_connection(self) -> None:
        """A man in the middle has another certificate: its hash is not ours."""
        other = b"\x06" * 32
        server = exchange(end_point=END_POINT)
        error = self.assertRaises(CommandError, run, server, PASSWORD, other)
        self.assertEqual(
            (error.sqlstate, str(error)), ("28000", "SCRAM channel binding check failed")
        )

    def test_the_name_in_the_message_does_not_matter(self) -> None:
        """The user is the startup packet's; what was said is what is signed."""
        for name in ("", "*", "somebody", "ä=2C"):
            server = exchange()
            client = ScramClient([PLAIN], "*", PASSWORD)
            first = client.get_client_first().replace("n=*", f"n={name}", 1)
            client.client_first_bare = first[3:]
            client.set_server_first(server.begin(PLAIN, first.encode()).decode())
            server.finish(client.get_client_final().encode())

    def test_a_nonce_that_is_none(self) -> None:
        """PostgreSQL takes it, and so do we: it is the client's who does without."""
        for first in ("n,,n=,r=", "n,,n=,r=,m=x"):
            for password, refused in ((PASSWORD, False), ("wrong", True)):
                server = exchange()
                answer = server.begin(PLAIN, first.encode()).decode()
                self.assertGreaterEqual(len(answer.split(",")[0]), 24)
                client = ScramClient([PLAIN], "*", password, c_nonce=answer[2])
                client.get_client_first()
                client.client_first_bare = first[3:]
                client.set_server_first(answer)
                final = client.get_client_final().encode()
                if refused:
                    self.assertRaises(CommandError, server.finish, final)
                else:
                    client.set_server_final(server.finish(final).decode())


class RefusedTests(SynchronousTestCase):
    """Messages that are not accepted, in PostgreSQL's words."""

    def begin(
        self, message: str | bytes, mechanism: str = PLAIN, end_point: bytes | None = None
    ) -> CommandError:
        data = message.encode() if isinstance(message, str) else message
        begin = exchange(end_point=end_point).begin
        error: CommandError = self.assertRaises(CommandError, begin, mechanism, data)
        return error

    def test_mechanisms(self) -> None:
        """Only what is offered."""
        for mechanism in ("", "SCRAM-SHA-1", PLUS, "scram-sha-256"):
            error = self.begin(f"n,,n=,r={NONCE}", mechanism)
            self.assertEqual(error.sqlstate, "08P01")
            self.assertIn("invalid SASL authentication mechanism", str(error))

    def test_binding(self) -> None:
        """It can't be argued away, or made up."""
        for message, mechanism, sqlstate, words in BINDINGS:
            error = self.begin(message, mechanism, END_POINT)
            self.assertEqual(error.sqlstate, sqlstate, message)
            self.assertIn(words, f"{error} {error.detail}")
        bare = f"n=,r={NONCE}"
        self.assertIn("without channel binding", str(self.begin(f"p=x,,{bare}").detail))
        self.assertIn(b"r=", exchange().begin(PLAIN, f"y,,{bare}".encode()))

    def test_first_messages(self) -> None:
        """Their form."""
        for message, sqlstate in FIRST_MESSAGES:
            self.assertEqual(self.begin(message).sqlstate, sqlstate, message)
        for message in NOT_UTF8:
            self.assertIn("not UTF-8", str(self.begin(message).detail))

    def test_final_messages(self) -> None:
        """Theirs, in the order in which PostgreSQL looks."""
        for message, sqlstate, words in FINAL_MESSAGES:
            server = exchange()
            first = server.begin(PLAIN, f"n,,n=,r={NONCE}".encode()).decode()
            nonce = first.split(",")[0][2:]
            said = message.format(nonce=nonce).encode()
            error = self.assertRaises(CommandError, server.finish, said)
            self.assertEqual(error.sqlstate, sqlstate, message)
            self.assertIn(words, f"{error} {error.detail}", message)

    def test_out_of_order(self) -> None:
        """There is no end without a beginning, and one beginning only is answered by that end."""
        self.assertRaises(CommandError, exchange().finish, b"c=biws,r=x,p=AAAA")
        server = exchange()
        run(server)
        self.assertRaises(CommandError, server.finish, b"c=biws,r=x,p=AAAA")

    @given(st.binary(max_size=200), st.booleans())
    def test_anything(self, data: bytes, is_plus: bool) -> None:
        """Whatever a client says, it is answered or refused, and gets nobody in."""
        server = exchange(end_point=END_POINT)
        mechanism = PLUS if is_plus else PLAIN
        try:
            server.begin(mechanism, data)
        except CommandError:
            return
        self.assertRaises(CommandError, server.finish, data)

    @given(st.text("nyp=,arcmv*a+/\0é", max_size=40))
    def test_anything_like_it(self, text: str) -> None:
        """So too if it looks like SCRAM."""
        server = exchange()
        try:
            server.begin(PLAIN, f"n,,n=,r={text}".encode())
        except CommandError:
            server.begin(PLAIN, f"n,,n=,r={NONCE}".encode())
        self.assertRaises(CommandError, server.finish, text.encode())

    def test_scramp_says_why(self) -> None:
        """What scramp refused is the cause of our refusal."""
        final = b"c=,r=,p=" + 43 * b"A" + b"="
        error = self.assertRaises(CommandError, exchange().finish, final)
        self.assertIsInstance(error.__cause__, ScramException)
