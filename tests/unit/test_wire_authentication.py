"""Tests for `walstream.wire.authentication`."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from scramp import ScramMechanism
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError, ProtocolViolation, ServerNotTrusted
from walstream.wire.authentication import PasswordExchange
from walstream.wire.fields import FieldReader
from walstream.wire.login_demands import ChannelBinding, LoginDemands, RequiredAuth
from walstream.wire.messages import AuthenticationCode
from walstream.wire.scram_server import ScramServerExchange
from walstream.wire.scram_verifier import ScramVerifier

SASL_MECHANISMS = b"SCRAM-SHA-256\0\0"
SALT = bytes(range(16))
END_POINT = bytes(range(32))


def demands(require_auth: str = "", channel_binding: str = "prefer") -> LoginDemands:
    """What a connection string asks for."""
    required = RequiredAuth.parse(require_auth) if require_auth else None
    return LoginDemands(required, ChannelBinding(channel_binding))


CLEARTEXT_ALLOWED = demands("password")


class ScramServer:
    """The server's side of SCRAM-SHA-256, computed here from RFC 5802 for raw password bytes."""

    def __init__(self, password: bytes, iterations: int = 4096) -> None:
        salted = hashlib.pbkdf2_hmac("sha256", password, SALT, iterations)
        self.client_key = _hmac(salted, b"Client Key")
        self.server_key = _hmac(salted, b"Server Key")
        self.iterations = iterations
        self.bare = b""
        self.first = b""

    def server_first(self, initial_response: bytes) -> bytes:
        """Answer a SASLInitialResponse."""
        prefix = b"SCRAM-SHA-256\0"
        body = initial_response[5:]
        assert body.startswith(prefix)
        size = int.from_bytes(body[len(prefix) : len(prefix) + 4], "big")
        message = body[len(prefix) + 4 :]
        assert len(message) == size
        assert message.startswith(b"n,,n=")
        self.bare = message[3:]
        nonce = self.bare.partition(b",r=")[2]
        salt = b64encode(SALT)
        self.first = b"r=%sSERVER,s=%s,i=%d" % (nonce, salt, self.iterations)
        return self.first

    def server_final(self, response: bytes) -> bytes:
        """Check a SASLResponse's proof, and sign the exchange."""
        without_proof, _, proof = response[5:].partition(b",p=")
        assert without_proof.startswith(b"c=biws,r=")
        message = b",".join((self.bare, self.first, without_proof))
        signature = _hmac(hashlib.sha256(self.client_key).digest(), message)
        expected = bytes(a ^ b for a, b in zip(self.client_key, signature, strict=True))
        assert proof == b64encode(expected), "wrong proof"
        return b"v=" + b64encode(_hmac(self.server_key, message))


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


class PasswordTests(SynchronousTestCase):
    """The methods that send the password, or a hash of it."""

    def test_trust(self) -> None:
        """A server that asks for nothing is answered by nothing, with or without a password."""
        for password in (None, "secret"):
            exchange = PasswordExchange("rep", password)
            self.assertIsNone(exchange.respond(AuthenticationCode.OK, b""))

    def test_cleartext(self) -> None:
        """The password in UTF-8."""
        self.assertEqual(
            PasswordExchange("rep", "geheim\u00e9", CLEARTEXT_ALLOWED).respond(3, b""),
            b"p\x00\x00\x00\x0dgeheim\xc3\xa9\x00",
        )

    def test_cleartext_is_for_servers_that_are_known(self) -> None:
        """It is sent to a server whose certificate was verified, or if the user says so."""
        exchange = PasswordExchange("rep", "secret")
        exchange.over_tls(END_POINT, verified=True)
        self.assertEqual(exchange.respond(3, b""), b"p\x00\x00\x00\x0bsecret\x00")
        plain, unverified = PasswordExchange("rep", "secret"), PasswordExchange("rep", "secret")
        unverified.over_tls(END_POINT, verified=False)
        for exchange in (plain, unverified, PasswordExchange("rep", "secret", demands("!md5"))):
            error = self.assertRaises(ServerNotTrusted, exchange.respond, 3, b"")
            self.assertIn("the password in cleartext", str(error))
            self.assertIn("sslmode=verify-full", str(error))
            self.assertIn("require_auth=password", str(error))

    def test_md5_is_weak(self) -> None:
        """It is answered, and the user should know; unless that was allowed by name."""
        exchange = PasswordExchange("alice", "secret")
        exchange.respond(5, b"salt")
        self.assertIn("require_auth=scram-sha-256", exchange.weakness or "")
        exchange = PasswordExchange("alice", "secret", demands("md5,scram-sha-256"))
        exchange.respond(5, b"salt")
        self.assertIsNone(exchange.weakness)

    def test_md5(self) -> None:
        """The hash of the hash of password and user, and the salt."""
        self.assertEqual(
            PasswordExchange("alice", "secret").respond(5, b"\x01\x02\x03\x04"),
            b"p\x00\x00\x00\x28md598a0412b9c31436fc53776e863350083\x00",
        )

    def test_md5_salt_has_four_bytes(self) -> None:
        """Any other salt is a violation, and the password stays where it is."""
        for salt in (b"", b"123", b"12345"):
            exchange = PasswordExchange("alice", "secret")
            self.assertRaises(ProtocolViolation, exchange.respond, 5, salt)

    def test_missing_password(self) -> None:
        """Whatever the method, the error says where a password can be given."""
        for password in (None, ""):
            for code, data in ((3, b""), (5, b"salt"), (10, SASL_MECHANISMS)):
                exchange = PasswordExchange("rep", password, demands("password,md5,scram-sha-256"))
                error = self.assertRaises(CommandError, exchange.respond, code, data)
                self.assertEqual(error.sqlstate, "28P01")
                self.assertEqual(
                    str(error),
                    "the server asks for a password, and none is known: "
                    "give one by --password-file, in a password file or in PGPASSWORD",
                )

    def test_password_is_given_once(self) -> None:
        """A server that asks again, perhaps in a weaker form, is a violation."""
        exchange = PasswordExchange("rep", "secret", demands("password,md5,scram-sha-256"))
        exchange.respond(10, SASL_MECHANISMS)
        for code, data in ((3, b""), (5, b"salt"), (10, SASL_MECHANISMS)):
            self.assertRaises(ProtocolViolation, exchange.respond, code, data)

    def test_password_is_not_shown(self) -> None:
        """Neither the exchange nor its attributes' texts have it."""
        exchange = PasswordExchange("rep", "secret")
        self.assertNotIn("secret", repr(exchange))


class UnsupportedTests(SynchronousTestCase):
    """Methods that walstream does not speak."""

    def test_methods_are_named(self) -> None:
        """The error names the method and what is supported instead."""
        for code, name in (
            (2, "Kerberos V5"),
            (7, "GSSAPI"),
            (8, "GSSAPI"),
            (9, "SSPI"),
            (99, "method number 99"),
        ):
            error = self.assertRaises(
                CommandError, PasswordExchange("rep", "secret").respond, code, b""
            )
            self.assertEqual(error.sqlstate, "28000")
            self.assertEqual(
                str(error),
                f"the server asks for authentication by {name}; "
                "supported are trust, password, md5 and scram-sha-256 (see pg_hba.conf)",
            )

    def test_mechanisms_are_named(self) -> None:
        """So are SASL mechanisms, if SCRAM-SHA-256 is not among them."""
        for data, names in (
            (b"OAUTHBEARER\0\0", "OAUTHBEARER"),
            (b"A\nB\0OAUTHBEARER\0\0", "A\\nB, OAUTHBEARER"),
            (b"\0", "no mechanism at all"),
        ):
            error = self.assertRaises(
                CommandError, PasswordExchange("rep", "secret").respond, 10, data
            )
            self.assertIn(f"authentication by SASL by {names}; supported are", str(error))

    def test_list_of_mechanisms_must_end(self) -> None:
        """A list that is cut is a violation."""
        for data in (b"", b"SCRAM-SHA-256", b"SCRAM-SHA-256\0"):
            exchange = PasswordExchange("rep", "secret")
            self.assertRaises(ProtocolViolation, exchange.respond, 10, data)


class ScramTests(SynchronousTestCase):
    """SCRAM-SHA-256."""

    def authenticate(self, exchange: PasswordExchange, server: ScramServer) -> None:
        """A whole exchange, up to AuthenticationOk."""
        first = exchange.respond(AuthenticationCode.SASL, SASL_MECHANISMS)
        assert first is not None
        proof = exchange.respond(AuthenticationCode.SASL_CONTINUE, server.server_first(first))
        assert proof is not None
        final = server.server_final(proof)
        self.assertIsNone(exchange.respond(AuthenticationCode.SASL_FINAL, final))
        self.assertIsNone(exchange.respond(AuthenticationCode.OK, b""))

    def begun(self) -> PasswordExchange:
        """An exchange whose first message is out; its nonce is ``NONCE``."""
        exchange = PasswordExchange("rep", "secret", nonce="NONCE")
        exchange.respond(AuthenticationCode.SASL, SASL_MECHANISMS)
        return exchange

    def test_messages_as_bytes(self) -> None:
        """The example of RFC 7677, section 3, but for the name, which PostgreSQL ignores."""
        exchange = PasswordExchange("user", "pencil", nonce="rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            exchange.respond(10, SASL_MECHANISMS),
            b"p\x00\x00\x00\x33SCRAM-SHA-256\x00\x00\x00\x00\x1dn,,n=*,r=rOprNGfwEbeRWgbNEkqO",
        )
        response = exchange.respond(
            11,
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        )
        assert response is not None
        self.assertTrue(
            response[5:].startswith(
                b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="
            )
        )

    def test_whole_exchange(self) -> None:
        """The server accepts our proof and we its signature, for any kind of password."""
        for password, prepared in (
            ("secret", b"secret"),
            ("p\u00e4ss", "p\u00e4ss".encode()),
            ("I\u00adX", b"IX"),  # SASLprep takes the soft hyphen away
            ("a\u00a0b", b"a b"),  # and makes a blank of a no-break space
        ):
            self.authenticate(PasswordExchange("rep", password), ScramServer(prepared))

    def test_password_that_saslprep_refuses_is_used_as_it_is(self) -> None:
        """As PostgreSQL does, on both sides."""
        for password in ("bell\a", "a\u0627", "\udcff"):
            raw = password.encode("utf-8", "surrogateescape")
            self.authenticate(PasswordExchange("rep", password), ScramServer(raw))

    def test_exchange_with_scramp_as_server(self) -> None:
        """Another implementation of the server's side agrees."""
        mechanism = ScramMechanism("SCRAM-SHA-256")
        information = mechanism.make_auth_info("secret")
        server = mechanism.make_server(lambda _user: information)
        exchange = PasswordExchange("rep", "secret")
        first = exchange.respond(10, SASL_MECHANISMS)
        assert first is not None
        server.set_client_first(first[5 + 14 + 4 :].decode())
        proof = exchange.respond(11, server.get_server_first().encode())
        assert proof is not None
        server.set_client_final(proof[5:].decode())
        self.assertIsNone(exchange.respond(12, server.get_server_final().encode()))

    def test_nonces_differ(self) -> None:
        """Two exchanges never begin alike."""
        first, second = (
            PasswordExchange("rep", "secret").respond(10, SASL_MECHANISMS) for _ in range(2)
        )
        self.assertNotEqual(first, second)

    def test_scram_is_chosen_among_others(self) -> None:
        """It is the only one that we speak without TLS."""
        exchange = PasswordExchange("rep", "secret")
        message = exchange.respond(10, b"OAUTHBEARER\0SCRAM-SHA-256\0\0")
        assert message is not None
        self.assertEqual(message[5:23], b"SCRAM-SHA-256\x00\x00\x00\x00\x49")

    def test_wrong_signature_is_a_violation(self) -> None:
        """A server that knows no verifier of our password is not believed."""
        exchange = PasswordExchange("rep", "secret")
        server = ScramServer(b"secret")
        first = exchange.respond(10, SASL_MECHANISMS)
        assert first is not None
        proof = exchange.respond(11, server.server_first(first))
        assert proof is not None
        server.server_key = bytes(32)
        error = self.assertRaises(
            ServerNotTrusted, exchange.respond, 12, server.server_final(proof)
        )
        self.assertEqual(str(error), "incorrect server signature")
        self.assertRaises(ServerNotTrusted, exchange.respond, AuthenticationCode.OK, b"")

    def test_skipped_signature_is_a_violation(self) -> None:
        """AuthenticationOk before the server has proved itself is refused, at every step."""
        exchange = self.begun()
        self.assertRaises(ServerNotTrusted, exchange.respond, AuthenticationCode.OK, b"")
        exchange.respond(11, b"r=NONCE1,s=" + b64encode(SALT) + b",i=4096")
        error = self.assertRaises(ServerNotTrusted, exchange.respond, AuthenticationCode.OK, b"")
        self.assertEqual(str(error), "the server did not prove that it knows the password")

    def test_steps_out_of_order_are_violations(self) -> None:
        """Nothing can be continued or ended that was not begun, and no step comes twice."""
        for code in (AuthenticationCode.SASL_CONTINUE, AuthenticationCode.SASL_FINAL):
            exchange = PasswordExchange("rep", "secret")
            self.assertRaises(ProtocolViolation, exchange.respond, code, b"v=")
        self.assertRaises(ProtocolViolation, self.begun().respond, 12, b"v=AAAA")
        exchange = self.begun()
        server_first = b"r=NONCE1,s=" + b64encode(SALT) + b",i=4096"
        exchange.respond(11, server_first)
        self.assertRaises(ProtocolViolation, exchange.respond, 11, server_first)

    def test_iterations_are_bounded(self) -> None:
        """Neither a second of work nor a password made cheap to guess can be asked for."""
        for asked, shown in (
            (b"1000001", "1000001"),
            (b"4095", "4095"),
            (b"1", "1"),
            (b"9" * 1000, "999999999"),
        ):
            server_first = b"r=NONCE1,s=" + b64encode(SALT) + b",i=" + asked
            error = self.assertRaises(ProtocolViolation, self.begun().respond, 11, server_first)
            self.assertEqual(
                str(error),
                f"the server asks for {shown} SCRAM iterations; 4096 to 1000000 are accepted "
                "(its scram_iterations when the password was set)",
            )

    def test_messages_are_bounded(self) -> None:
        """No authentication message is longer than libpq's limit."""
        for code in (10, 11, 12):
            error = self.assertRaises(ProtocolViolation, self.begun().respond, code, bytes(2001))
            self.assertEqual(str(error), "authentication message of 2001 bytes is too long")

    def test_malformed_messages_are_violations(self) -> None:
        """Everything that a server can get wrong in its first message."""
        salt = b64encode(SALT)
        for server_first in (
            b"",
            b"\xff\xfe",
            b"r=NONCE1",
            b"r=OTHER1,s=" + salt + b",i=4096",
            b"r=NONCE,s=" + salt + b",i=4096",
            b"r=NONCE1,s=!,i=4096",
            b"r=NONCE1,s=" + salt + b",i=4096,x=more",
            b"m=more,r=NONCE1,s=" + salt + b",i=4096",
            b"r=NONCE1\x07,s=" + salt + b",i=4096",
            b"r=NONCE" + 508 * b"1" + b"," + b"s=" + salt + b",i=4096",
            b"r=NONCE1,s=" + b64encode(SALT[:7]) + b",i=4096",
            b"r=NONCE1,s=" + b64encode(33 * SALT) + b",i=4096",
            b"r=NONCE1,s=" + salt[:-2] + b"A,i=4096",
            b"r=NONCE1,s=" + salt + b",i=x",
            b"r=NONCE1,s=" + salt + b",i=04096",
            b"r=NONCE1,s=" + salt + b",i=4096,i=4096",
            b"e=other-error",
            b"e=unheard-of",
        ):
            error = self.assertRaises(ProtocolViolation, self.begun().respond, 11, server_first)
            self.assertNotIn("secret", str(error))

    def test_much_work_is_told_from_little(self) -> None:
        """A few milliseconds are little; what is not to be done at all is as good as that."""
        exchange = self.begun()
        for count, much in ((b"4096", False), (b"10000", False), (b"10001", True)):
            data = b"r=NONCE1,s=" + b64encode(SALT) + b",i=" + count
            self.assertIs(exchange.is_laborious(11, data), much)
        self.assertFalse(exchange.is_laborious(12, b"v=a,i=100000"))
        self.assertFalse(exchange.is_laborious(11, b""))


PLUS = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"


class ChannelBindingTests(SynchronousTestCase):
    """SCRAM over TLS: whose certificate the other side has seen."""

    def begun(self, mechanisms: bytes, channel_binding: str = "prefer") -> PasswordExchange:
        exchange = PasswordExchange("rep", "secret", demands(channel_binding=channel_binding))
        exchange.over_tls(END_POINT, verified=False)
        self.first = exchange.respond(10, mechanisms) or b""
        return exchange

    def log_in(self, exchange: PasswordExchange, server: ScramServerExchange) -> None:
        """The rest of an exchange with our own walsender's side."""
        reader = FieldReader(self.first[5:])
        mechanism = reader.cstring().decode()
        proof = exchange.respond(11, server.begin(mechanism, reader.take(reader.int32()))) or b""
        exchange.respond(12, server.finish(proof[5:]))
        exchange.respond(0, b"")

    def server(self, end_point: bytes | None) -> ScramServerExchange:
        return ScramServerExchange("rep", ScramVerifier.of("secret"), b"mock", end_point)

    def test_it_is_bound_where_it_can_be(self) -> None:
        """Preferred or required: the mechanism with -PLUS, and the certificate's hash."""
        for wanted in ("prefer", "require"):
            exchange = self.begun(PLUS, wanted)
            self.assertIn(b"SCRAM-SHA-256-PLUS\0", self.first)
            self.assertIn(b"p=tls-server-end-point,,n=", self.first)
            self.log_in(exchange, self.server(END_POINT))

    def test_somebody_in_the_middle(self) -> None:
        """Who has another certificate can't pass the exchange on."""
        exchange = self.begun(PLUS)
        error = self.assertRaises(CommandError, self.log_in, exchange, self.server(bytes(32)))
        self.assertEqual(str(error), "SCRAM channel binding check failed")

    def test_somebody_in_the_middle_takes_it_away(self) -> None:
        """We say that we could have: the server that did offer it finds out."""
        exchange = self.begun(SASL_MECHANISMS)
        self.assertIn(b"y,,n=", self.first)
        error = self.assertRaises(CommandError, self.log_in, exchange, self.server(bytes(32)))
        self.assertEqual(str(error), "SCRAM channel binding negotiation error")
        self.log_in(self.begun(SASL_MECHANISMS), self.server(None))

    def test_disabled(self) -> None:
        """Then nothing is said of it."""
        exchange = self.begun(PLUS, "disable")
        self.assertIn(b"SCRAM-SHA-256\0", self.first)
        self.assertIn(b"n,,n=", self.first)
        self.log_in(exchange, self.server(END_POINT))

    def test_required(self) -> None:
        """Whatever is not bound is refused, before anything is sent, in libpq's words."""
        not_offered = (
            "channel binding is required, but server did not offer an authentication method "
            "that supports channel binding"
        )
        not_by_this = (
            "channel binding required but not supported by server's authentication request"
        )
        not_bound = (
            "channel binding required, but server authenticated client without channel binding"
        )
        for code, data, said in (
            (10, SASL_MECHANISMS, not_offered),
            (3, b"", not_by_this),
            (5, b"salt", not_by_this),
            (0, b"", not_bound),
        ):
            exchange = PasswordExchange("rep", "secret", demands(channel_binding="require"))
            exchange.over_tls(END_POINT, verified=True)
            error = self.assertRaises(ServerNotTrusted, exchange.respond, code, data)
            self.assertEqual(str(error), said)

    def test_required_without_tls(self) -> None:
        """There is nothing to bind to."""
        exchange = PasswordExchange("rep", "secret", demands(channel_binding="require"))
        error = self.assertRaises(ServerNotTrusted, exchange.respond, 10, SASL_MECHANISMS)
        self.assertEqual(str(error), "channel binding required, but SSL not in use")

    def test_offered_without_tls(self) -> None:
        """Somebody has taken TLS away."""
        error = self.assertRaises(
            ServerNotTrusted, PasswordExchange("rep", "secret").respond, 10, PLUS
        )
        self.assertEqual(
            str(error),
            "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
        )

    def test_a_certificate_that_nobody_can_bind_to(self) -> None:
        """It must not become a way to have no binding: an impostor could choose such a one."""
        for wanted in ("prefer", "require"):
            exchange = PasswordExchange("rep", "secret", demands(channel_binding=wanted))
            exchange.over_tls(None, verified=False)
            error = self.assertRaises(ServerNotTrusted, exchange.respond, 10, PLUS)
            self.assertIn("channel_binding=disable", str(error))
        exchange = PasswordExchange("rep", "secret")
        exchange.over_tls(None, verified=False)
        self.assertIn(b"y,,n=", exchange.respond(10, SASL_MECHANISMS) or b"")


class RequiredTests(SynchronousTestCase):
    """What ``require_auth`` lets a server ask for; libpq's words."""

    def refused(self, require_auth: str, code: int, data: bytes = b"") -> str:
        """What is said of a server's first message."""
        exchange = PasswordExchange("rep", "secret", demands(require_auth))
        exchange.over_tls(END_POINT, verified=True)
        return str(self.assertRaises(ServerNotTrusted, exchange.respond, code, data))

    def test_other_methods(self) -> None:
        """They are refused before anything is sent."""
        for code, data, requested in (
            (3, b"", "a cleartext password"),
            (5, b"salt", "a hashed password"),
            (7, b"", "GSSAPI authentication"),
            (9, b"", "SSPI authentication"),
            (2, b"", "an unknown authentication type"),
            (99, b"", "an unknown authentication type"),
        ):
            self.assertEqual(
                self.refused("scram-sha-256", code, data),
                f'authentication method requirement "scram-sha-256" failed: '
                f"server requested {requested}",
            )
        for required in ("md5", "!scram-sha-256,!oauth", "none"):
            self.assertEqual(
                self.refused(required, 10, SASL_MECHANISMS),
                f'authentication method requirement "{required}" failed: '
                "server requested SASL authentication",
            )
        for required, data, requested in (
            ("oauth", SASL_MECHANISMS, "SCRAM-SHA-256 authentication"),
            ("scram-sha-256", b"OAUTHBEARER\0\0", "OAUTHBEARER authentication"),
            ("!oauth", b"OTHER\0OAUTHBEARER\0\0", "OAUTHBEARER authentication"),
        ):
            self.assertEqual(
                self.refused(required, 10, data),
                f'authentication method requirement "{required}" failed: '
                f"server requested {requested}",
            )

    def test_methods_of_windows_and_kerberos(self) -> None:
        """Each is known by its name, although we have neither."""
        for required, code, requested in (
            ("!sspi", 9, "SSPI"),
            ("gss", 9, "SSPI"),
            ("!gss", 7, "GSSAPI"),
            ("sspi", 7, "GSSAPI"),
        ):
            self.assertEqual(
                self.refused(required, code),
                f'authentication method requirement "{required}" failed: '
                f"server requested {requested} authentication",
            )
        for required, code in (("sspi", 9), ("gss", 7)):
            exchange = PasswordExchange("rep", "secret", demands(required))
            error = self.assertRaises(CommandError, exchange.respond, code, b"")
            self.assertIn("supported are trust, password", str(error))

    def test_a_server_that_asks_for_nothing(self) -> None:
        """It may let us in unasked only where ``none`` is allowed."""
        for required in ("scram-sha-256", "password", "!none", "!none,!md5"):
            self.assertEqual(
                self.refused(required, 0),
                f'authentication method requirement "{required}" failed: '
                "server did not complete authentication",
            )
        for required in ("none", "scram-sha-256,none", "!md5"):
            PasswordExchange("rep", "secret", demands(required)).respond(0, b"")

    def test_half_an_exchange(self) -> None:
        """Where both SCRAM and nothing will do, half of SCRAM will not, other than with libpq."""
        exchange = PasswordExchange("rep", "secret", demands("scram-sha-256,none"))
        exchange.respond(10, SASL_MECHANISMS)
        self.assertRaises(ServerNotTrusted, exchange.respond, 0, b"")

    def test_methods_that_will_do(self) -> None:
        """Each by its name."""
        for required, code, data in (
            ("password", 3, b""),
            ("md5", 5, b"salt"),
            ("scram-sha-256", 10, SASL_MECHANISMS),
            ("!none", 10, SASL_MECHANISMS),
        ):
            exchange = PasswordExchange("rep", "secret", demands(required))
            self.assertTrue(exchange.respond(code, data))
            self.assertIsNone(exchange.weakness)
        for code, data in ((3, b""), (5, b"salt")):
            exchange = PasswordExchange("rep", "secret", demands("password,md5"))
            exchange.respond(code, data)
            exchange.respond(0, b"")
