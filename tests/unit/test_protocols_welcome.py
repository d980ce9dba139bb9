"""Tests for `walstream.protocols.welcome`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, KEY, PID, READY_FOR_QUERY, kinds
from walstream.errors import CommandError, ProtocolViolation
from walstream.interfaces import WALPosition
from walstream.protocols.welcome import Client, Welcome
from walstream.testing.memory import MemoryProvider
from walstream.wire.messages import parse_parameter_status
from walstream.wire.startup import startup_message

SSL_REQUEST = bytes.fromhex("00000008 04D2162F")
GSSENC_REQUEST = bytes.fromhex("00000008 04D21630")
CANCEL_REQUEST = bytes.fromhex("00000010 04D2162E 00000007 01020304")


LONG_KEY = bytes(range(32))


def startup(parameters: Mapping[str, str] | None = None, *, version: int = 0x30000) -> bytes:
    """A startup packet of a version, for replication unless told otherwise."""
    packet = startup_message({"user": "alice", "replication": "true", **(parameters or {})})
    return packet[:4] + version.to_bytes(4, "big") + packet[8:]


class WelcomeCase(SynchronousTestCase):
    """A `Welcome` for the session 7."""

    def setUp(self) -> None:
        self.provider = MemoryProvider(IDENTITY)
        self.cancelled: list[tuple[int, bytes]] = []
        self.welcome = Welcome(
            self.provider,
            PID,
            KEY,
            lambda pid, key: self.cancelled.append((pid, key)),
        )

    def answers(self, data: bytes) -> list[bytes]:
        """What is answered to *data*."""
        self.welcome.feed(data)
        return list(iter(self.welcome.next, None))

    def refusal(self, data: bytes) -> CommandError:
        self.welcome.feed(data)
        try:
            while self.welcome.next() is not None:
                pass
        except CommandError as error:
            self.assertIsNone(self.welcome.client)
            return error
        raise AssertionError("the client was let in")


class LetInTests(WelcomeCase):
    """Clients that are let in."""

    def test_answer(self) -> None:
        """Behind AuthenticationOk: the parameters, the session's number and key, ReadyForQuery."""
        self.assertEqual(self.answers(startup()), [b""])
        answer = self.welcome.greeting()
        self.assertEqual(kinds(answer), 13 * "S" + "KZ")
        self.assertTrue(
            answer.endswith(b"K\x00\x00\x00\x0c\x00\x00\x00\x07\x01\x02\x03\x04" + READY_FOR_QUERY)
        )
        self.assertIn(b"S\x00\x00\x00\x18server_version\x0018.6\x00", answer)
        self.assertIn(b"S\x00\x00\x00\x19integer_datetimes\x00on\x00", answer)

    def test_client(self) -> None:
        """From then on it is known who the client is; what it sends next is not for us."""
        self.assertIsNone(self.welcome.client)
        self.answers(startup({"application_name": "pg_receivewal"}) + b"Q and so on")
        client = self.welcome.client
        assert client is not None
        self.assertEqual(client.user, "alice")
        self.assertEqual(client.application_name, "pg_receivewal")
        self.assertEqual(self.welcome.take_rest(), b"Q and so on")
        self.assertFalse(self.welcome.finished)

    def test_any_cut(self) -> None:
        """However the packets are cut, the answers are the same."""
        packets = SSL_REQUEST, startup()
        expected = [answer for packet in packets for answer in self.answers(packet)]
        self.assertEqual(len(expected), 2)
        for index in range(len(packets[1])):
            self.setUp()
            pieces = [piece for each in packets for piece in (each[:index], each[index:])]
            found = [answer for piece in pieces for answer in self.answers(piece)]
            self.assertEqual(found, expected, index)

    def test_all_ways_to_say_true(self) -> None:
        """PostgreSQL's clients, standbys and the design of 2009 say it in their own ways."""
        for value in ("true", "on", "1", "yes", "T", "ON"):
            self.setUp()
            self.assertEqual(len(self.answers(startup({"replication": value}))), 1, value)

    def test_encryption_is_refused_and_the_client_goes_on(self) -> None:
        """SSLRequest and GSSENCRequest are answered by N, in either order."""
        self.assertEqual(self.answers(SSL_REQUEST), [b"N"])
        self.assertEqual(self.answers(GSSENC_REQUEST), [b"N"])
        self.assertEqual(len(self.answers(startup())), 1)
        self.setUp()
        self.assertEqual(self.answers(GSSENC_REQUEST), [b"N"])
        self.assertEqual(self.answers(SSL_REQUEST), [b"N"])

    def test_newer_minor_version(self) -> None:
        """A client of 3.7 is told that 3.2 it is, before all else; where 17 is told, 3.0."""
        (answer,) = self.answers(startup(version=0x30007))
        self.assertEqual(answer, bytes.fromhex("76 0000000C 00030002 00000000"))
        self.setUp()
        self.provider.identity = replace(IDENTITY, server_version="17.9")
        (answer,) = self.answers(startup(version=0x30002))
        self.assertEqual(answer, bytes.fromhex("76 0000000C 00030000 00000000"))
        self.assertTrue(self.welcome.greeting().endswith(KEY + READY_FOR_QUERY))

    def test_version_3_2(self) -> None:
        """A client of 3.2 is told the whole of the key, one of 3.1 its first four bytes."""
        for version, key in ((0x30002, LONG_KEY), (0x30001, LONG_KEY[:4])):
            self.welcome = Welcome(self.provider, PID, LONG_KEY, lambda pid, key: None)
            self.assertEqual(self.answers(startup(version=version)), [b""])
            self.assertTrue(self.welcome.greeting().endswith(key + READY_FOR_QUERY))

    def test_unknown_extensions(self) -> None:
        """A client that asks for extensions is told which of them it does not have: all."""
        (answer,) = self.answers(startup({"_pq_.foo": "1"}))
        self.assertEqual(answer, bytes.fromhex("76 00000015 00030000 00000001") + b"_pq_.foo\0")

    def test_reports_what_the_client_chose(self) -> None:
        """Names that are not UTF-8 are reported back as they came."""
        packet = startup({"application_name": "caf\udce9"})
        self.answers(packet)
        answer = self.welcome.greeting()
        self.assertIn(b"application_name\x00caf\\xe9\x00", answer)

    def test_each_parameter_once(self) -> None:
        """ParameterStatus messages are well formed."""
        self.answers(startup({"application_name": "a"}))
        answer = self.welcome.greeting()
        reader = [body for body in answer.split(b"S\x00\x00\x00")[1:]]
        names = [parse_parameter_status(body[1 : body[0] - 3])[0] for body in reader]
        self.assertEqual(len(names), 13)
        self.assertEqual(len(set(names)), 13)


class EncryptionTests(WelcomeCase):
    """Clients that ask for TLS where it is to be had."""

    def setUp(self) -> None:
        super().setUp()
        self.welcome.may_encrypt = True

    def test_tls_follows(self) -> None:
        """S is answered, and nothing is read before the connection is encrypted."""
        self.assertEqual(self.answers(SSL_REQUEST), [b"S"])
        self.assertTrue(self.welcome.awaits_encryption)
        self.assertEqual(self.answers(startup()), [])
        self.assertIsNone(self.welcome.client)
        self.welcome.encrypted()
        self.assertEqual(len(self.answers(b"")), 1)
        self.assertIsNotNone(self.welcome.client)

    def test_what_was_sent_in_the_clear(self) -> None:
        """Whatever stands behind the request, in full or begun, ends the connection unread."""
        for injected in (startup(), startup()[:1], b"\x16", CANCEL_REQUEST):
            for request in (SSL_REQUEST, GSSENC_REQUEST):
                self.setUp()
                error = self.refusal(request + injected)
                self.assertEqual(error.sqlstate, "08P01")
                self.assertIn("received unencrypted data after", str(error))
                assert error.detail is not None
                self.assertIn("man-in-the-middle", error.detail)
                self.assertEqual(self.cancelled, [])
                self.assertFalse(self.welcome.awaits_encryption)

    def test_where_there_is_no_tls(self) -> None:
        """The same, behind the answer that there is none: as PostgreSQL."""
        self.welcome.may_encrypt = False
        self.welcome.feed(SSL_REQUEST + startup())
        self.assertEqual(self.welcome.next(), b"N")
        self.assertRaises(CommandError, self.welcome.next)

    def test_gssapi_first(self) -> None:
        """Who is refused the one may ask for the other."""
        self.assertEqual(self.answers(GSSENC_REQUEST), [b"N"])
        self.assertEqual(self.answers(SSL_REQUEST), [b"S"])

    def test_nothing_on_top_of_it(self) -> None:
        """Once encrypted on request, both requests are taken for unknown versions."""
        for request in (SSL_REQUEST, GSSENC_REQUEST):
            self.setUp()
            self.answers(SSL_REQUEST)
            self.welcome.encrypted()
            error = self.refusal(request)
            self.assertIn("unsupported frontend protocol 1234.", str(error))

    def test_begun_with_it(self) -> None:
        """Who has begun encrypted may still ask, and is told that there is no more of it."""
        self.welcome.encrypted()
        self.assertEqual(self.answers(SSL_REQUEST), [b"N"])
        self.assertEqual(self.answers(GSSENC_REQUEST), [b"N"])
        self.assertEqual(len(self.answers(startup())), 1)

    def test_cancel_request(self) -> None:
        """A CancelRequest may come encrypted too."""
        self.answers(SSL_REQUEST)
        self.welcome.encrypted()
        self.answers(CANCEL_REQUEST)
        self.assertEqual(self.cancelled, [(7, b"\x01\x02\x03\x04")])
        self.assertTrue(self.welcome.finished)


class TurnedAwayTests(WelcomeCase):
    """Clients that are not let in, in PostgreSQL's words where it has them."""

    def test_no_user(self) -> None:
        """A client has to say who it is."""
        error = self.refusal(startup({"user": ""}))
        self.assertEqual(error.sqlstate, "28000")
        self.assertEqual(str(error), "no PostgreSQL user name specified in startup packet")

    def test_broken_packet(self) -> None:
        """Parameters must end where the packet does."""
        packet = startup() + b"x"
        error = self.refusal(len(packet).to_bytes(4, "big") + packet[4:])
        self.assertEqual(error.sqlstate, "08P01")
        self.assertIn("expected terminator as last byte", str(error))

    def test_no_replication(self) -> None:
        """Who wants SQL is told where to go."""
        for parameters in ({"replication": "off"}, {"replication": "0"}):
            self.setUp()
            error = self.refusal(startup(parameters))
            self.assertEqual(error.sqlstate, "0A000")
            self.assertEqual(str(error), "SQL is not available from a WAL archive")
            self.assertEqual(
                error.hint, "Connect with replication=true, or to a PostgreSQL server."
            )
        packet = startup_message({"user": "alice"})
        self.setUp()
        self.assertEqual(self.refusal(packet).sqlstate, "0A000")

    def test_logical_replication(self) -> None:
        """So is who wants logical replication."""
        error = self.refusal(startup({"replication": "database"}))
        self.assertEqual(error.sqlstate, "0A000")
        self.assertEqual(str(error), "logical replication is not available from a WAL archive")

    def test_nonsense_for_replication(self) -> None:
        """Whatever is no boolean is refused as PostgreSQL does."""
        error = self.refusal(startup({"replication": "Database"}))
        self.assertEqual(error.sqlstate, "22023")
        self.assertEqual(str(error), 'invalid value for parameter "replication": "Database"')
        assert error.hint is not None

    def test_nothing_to_serve_yet(self) -> None:
        """While it is not known whose WAL is served, nobody is let in."""
        self.provider.identity = None
        error = self.refusal(startup())
        self.assertEqual(error.sqlstate, "57P03")
        self.assertEqual(str(error), "the database system is starting up")

    def test_version_4(self) -> None:
        """A protocol of the future is refused, and the client told what there is."""
        error = self.refusal(startup(version=0x40000))
        self.assertEqual(error.sqlstate, "0A000")
        self.assertEqual(
            str(error), "unsupported frontend protocol 4.0: server supports 3.0 to 3.2"
        )
        self.assertIn(b"VFATAL\0", self.welcome.refusal(error))

    def test_version_2(self) -> None:
        """A protocol of the past is refused in words that it understands."""
        error = self.refusal(startup(version=0x20000))
        refusal = self.welcome.refusal(error)
        self.assertTrue(refusal.startswith(b"EFATAL:  unsupported frontend protocol 2.0: "))
        self.assertTrue(refusal.endswith(b"\n\0"))

    def test_encryption_asked_for_twice(self) -> None:
        """The second time it is taken for a version, and refused."""
        for request in (SSL_REQUEST, GSSENC_REQUEST):
            self.setUp()
            self.assertEqual(self.answers(request), [b"N"])
            error = self.refusal(request)
            self.assertIn("unsupported frontend protocol 1234.", str(error))
            self.assertIn(b"VFATAL\0", self.welcome.refusal(error))

    def test_what_is_no_packet(self) -> None:
        """What cannot be a startup packet is not answered: it may be of any protocol."""
        for junk in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\xa5", bytes(8)):
            self.setUp()
            self.welcome.feed(junk)
            self.assertRaises(ProtocolViolation, self.welcome.next)


class CancelRequestTests(WelcomeCase):
    """CancelRequest."""

    def test_is_passed_on(self) -> None:
        """It is passed on, not answered, and the connection has done what it came for."""
        self.assertEqual(self.answers(CANCEL_REQUEST), [b""])
        self.assertEqual(self.cancelled, [(7, b"\x01\x02\x03\x04")])
        self.assertTrue(self.welcome.finished)
        self.assertIsNone(self.welcome.client)

    def test_nothing_follows(self) -> None:
        """Whatever stands behind it is not looked at."""
        self.assertEqual(self.answers(CANCEL_REQUEST + CANCEL_REQUEST + startup()), [b""])
        self.assertEqual(len(self.cancelled), 1)

    def test_after_ssl_request(self) -> None:
        """A client may ask for encryption first."""
        self.assertEqual(self.answers(SSL_REQUEST), [b"N"])
        self.assertEqual(self.answers(CANCEL_REQUEST), [b""])
        self.assertEqual(len(self.cancelled), 1)

    def test_broken(self) -> None:
        """A key that is too short, or missing, names no session, and does no harm."""
        for body in (b"", b"\x00\x00", b"\x00\x00\x00\x07"):
            self.setUp()
            packet = (8 + len(body)).to_bytes(4, "big") + CANCEL_REQUEST[4:8] + body
            self.assertEqual(self.answers(packet), [b""])
            ((_, key),) = self.cancelled
            self.assertEqual(key, b"")


class ClientTests(SynchronousTestCase):
    """`Client`."""

    def test_text_for_the_log(self) -> None:
        """A client is shown by its user and the name of its application."""
        client = Client({"user": "alice", "application_name": "standby1", "password": "x"})
        self.assertEqual(str(client), "user=alice application_name=standby1")
        self.assertNotIn("password", repr(client))

    def test_no_application_name(self) -> None:
        """Without an application name it is shown as PostgreSQL shows it."""
        self.assertEqual(str(Client({"user": "alice"})), "user=alice application_name=[unknown]")

    def test_cannot_forge_the_log(self) -> None:
        """What a client says of itself cannot end a line of the log, nor break it."""
        text = str(Client({"user": "a\nb", "application_name": "caf\udce9\x1b[31m"}))
        self.assertTrue(text.isprintable(), ascii(text))
        self.assertEqual(text.encode().decode(), text)

    def test_fields_cannot_be_forged(self) -> None:
        """What has blanks or quotes in it is in quotes: it is one field, whatever it says."""
        text = str(Client({"user": "a host=1.2.3.4", "application_name": 'x" user="b'}))
        self.assertEqual(text, r'user="a host=1.2.3.4" application_name="x\" user=\"b"')
        text = str(Client({"user": "a\\", "application_name": ""}))
        self.assertEqual(text, r'user="a\\" application_name=[unknown]')

    def test_provider_position_is_not_needed(self) -> None:
        """A provider that holds nothing but knows whose WAL it will hold lets clients in."""
        provider = MemoryProvider(IDENTITY, WALPosition(1, IDENTITY.segment_size.start(9)))
        welcome = Welcome(provider, PID, KEY, lambda pid, key: None)
        welcome.feed(startup())
        self.assertIsNotNone(welcome.next())
