"""What `walstream.testing.peers` promises, and how it puts a failure."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from walstream.testing.peers import ScriptedPeer, every_cut
from walstream.testing.transcript import describe, describe_startup
from walstream.testing.transport import FlowTransport
from walstream.wire.copydata import HotStandbyFeedback, Keepalive, StandbyStatus, wal_data_header
from walstream.wire.frames import Backend, Frame, Frontend, StartupPacket, frame
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_ok,
    command_complete,
    copy_both_response,
    copy_data,
    copy_done,
    data_row,
    error_response,
    notice_response,
    parameter_status,
    password_message,
    query,
    ready_for_query,
    row_description,
)
from walstream.wire.startup import PROTOCOL_3_0, SSL_REQUEST_CODE, startup_message


def named(kind: Backend) -> Callable[[Frame], bool]:
    """Whether a message is of that kind."""

    def is_of_kind(message: Frame) -> bool:
        return message.kind == kind

    is_of_kind.__doc__ = f"a {kind.name}"
    return is_of_kind


class Actor(Protocol):
    """The protocol under test: a test says what it writes."""

    transport: ITransport

    def connectionMade(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class ScriptedPeerTests(SynchronousTestCase):
    """`ScriptedPeer`, against a protocol that writes what the test tells it to."""

    def play(self, role: str) -> ScriptedPeer:
        transport = FlowTransport()
        self.actor = transport.connect(Actor())
        self.write = self.actor.transport.write
        return ScriptedPeer(transport, plays="server" if role == "server" else "client")

    def failure(self, action: Callable[[], object]) -> list[str]:
        """The lines of the AssertionError, without their indent."""
        error = self.assertRaises(AssertionError, action)
        return [line.strip() for line in str(error).splitlines()]

    def test_plays_the_server(self) -> None:
        """Startup packet, messages, the end: a whole session by the script."""
        server = self.play("server")
        self.write(startup_message({"user": "postgres", "replication": "true"}))
        packet = server.expect_startup({"replication": "true"})
        self.assertEqual(packet.code, PROTOCOL_3_0)
        server.send(authentication_ok(), ready_for_query())
        self.assertEqual(self.actor.received, authentication_ok() + ready_for_query())
        self.write(query("IDENTIFY_SYSTEM") + query("SHOW x"))
        (first,) = server.expect(query("IDENTIFY_SYSTEM"))
        self.assertEqual(first.kind, Frontend.QUERY)
        server.expect(query("SHOW x"))
        server.expect_silence()
        self.actor.transport.loseConnection()
        server.expect_closed()

    def test_plays_the_client(self) -> None:
        """Several messages may be expected as one piece of bytes, or by predicates."""
        client = self.play("client")
        client.send(query("IDENTIFY_SYSTEM"))
        self.write(command_complete("IDENTIFY_SYSTEM") + ready_for_query() + copy_done())
        found = client.expect(
            command_complete("IDENTIFY_SYSTEM") + ready_for_query(), named(Backend.COPY_DONE)
        )
        self.assertEqual([chr(message.kind) for message in found], ["C", "Z", "c"])

    def test_reads_what_is_not_a_message(self) -> None:
        """The answer to SSLRequest is a byte; after it come messages again."""
        client = self.play("client")
        self.write(b"N")
        self.write(authentication_ok())
        client.expect_bytes(b"N")
        client.expect(authentication_ok())

    def test_accepts_any_segmentation(self) -> None:
        """Messages are put together from pieces."""
        client = self.play("client")
        for piece in (command_complete("X")[:3], command_complete("X")[3:]):
            self.write(piece)
        client.expect(command_complete("X"))

    def test_shows_what_came_instead(self) -> None:
        """Both messages are in words, and so is what led to it."""
        client = self.play("client")
        client.send(query("START_REPLICATION 0/1000000"))
        self.write(parameter_status("a", "b"))
        client.expect(parameter_status("a", "b"))
        self.write(error_response("ERROR", "42601", "syntax error"))
        self.assertEqual(
            self.failure(lambda: client.expect(copy_both_response())),
            [
                "the client expected",
                "message 1 of 1 to be CopyBothResponse b'\\x00\\x00\\x00'",
                "and got",
                "ErrorResponse ERROR: syntax error (SQLSTATE 42601)",
                "after",
                "> Query 'START_REPLICATION 0/1000000'",
                "< ParameterStatus a = 'b'",
            ],
        )

    def test_quotes_a_predicate(self) -> None:
        """By its docstring."""
        client = self.play("client")
        self.write(ready_for_query())
        lines = self.failure(lambda: client.expect(named(Backend.COPY_DONE)))
        self.assertEqual(lines[1], "message 1 of 1 to be a COPY_DONE")
        self.assertEqual(lines[3], "ReadyForQuery b'I'")

    def test_says_that_nothing_came(self) -> None:
        """Or the beginning of a message, or the end of the connection."""
        client = self.play("client")
        self.assertEqual(self.failure(lambda: client.expect(ready_for_query()))[3], "nothing")
        self.write(b"Z\0\0")
        lines = self.failure(lambda: client.expect(ready_for_query()))
        self.assertEqual(lines[3], "the beginning of a message: b'Z\\x00\\x00'")
        client = self.play("client")
        self.actor.transport.loseConnection()
        lines = self.failure(lambda: client.expect(ready_for_query()))
        self.assertEqual(lines[3], "nothing, and the connection's end")

    def test_says_what_breaks_the_silence(self) -> None:
        """Silence, the end and plain bytes are expectations like any other."""
        client = self.play("client")
        self.assertEqual(self.failure(client.expect_closed)[3], "it is open")
        self.write(ready_for_query() + copy_done())
        lines = self.failure(client.expect_silence)
        self.assertEqual(lines[3:5], ["ReadyForQuery b'I'", "CopyDone"])
        self.assertEqual(self.failure(lambda: client.expect_bytes(b"S"))[3], "b'Z'")

    def test_says_what_is_wrong_with_a_startup_packet(self) -> None:
        """The parameters that came are shown."""
        server = self.play("server")
        self.assertEqual(self.failure(lambda: server.expect_startup({}))[3], "nothing")
        self.write(startup_message({"user": "x"}))
        lines = self.failure(lambda: server.expect_startup({"replication": "true"}))
        self.assertEqual(lines[3], "StartupMessage {'user': 'x'}")

    def test_startup_packets_may_be_told_by_a_predicate(self) -> None:
        """An SSLRequest has no parameters."""
        server = self.play("server")
        self.write(frame(b"?", SSL_REQUEST_CODE.to_bytes(4, "big"))[1:])
        server.expect_startup(lambda packet: packet.code == SSL_REQUEST_CODE)
        self.assertEqual(server.transcript, ["< SSLRequest"])

    def test_says_that_it_is_no_message(self) -> None:
        """A length that cannot be."""
        client = self.play("client")
        self.write(b"Z\0\0\0\1")
        self.assertIn("has length 1", self.failure(lambda: client.expect(ready_for_query()))[3])

    def test_expects_whole_messages_only(self) -> None:
        """Half a message in the script is the script's mistake."""
        self.assertRaises(ValueError, self.play("client").expect, b"Z\0\0")

    def test_remembers_what_it_sent(self) -> None:
        """Startup packets and bytes that are no message too."""
        client = self.play("client")
        client.send(startup_message({"user": "x"}), query("SHOW x"), b"\xff")
        self.assertEqual(
            client.transcript, ["> StartupMessage {'user': 'x'}", "> Query 'SHOW x'", "> b'\\xff'"]
        )


class EveryCutTests(SynchronousTestCase):
    """`every_cut`."""

    def test_cuts_everywhere(self) -> None:
        """Whole, in two, and byte by byte."""
        self.assertEqual(
            list(every_cut(b"abc")),
            [(b"abc",), (b"a", b"bc"), (b"ab", b"c"), (b"a", b"b", b"c")],
        )


class TranscriptTests(SynchronousTestCase):
    """`describe`."""

    def of(self, message: bytes, sender: str = "server") -> str:
        only = Frame(message[0], message[5:])
        return describe(only, "server" if sender == "server" else "client")

    def test_puts_messages_in_words(self) -> None:
        """What they say rather than how they look."""
        columns = [Column("systemid", ColumnType.TEXT), Column("timeline", ColumnType.INT8)]
        for message, words in (
            (authentication_ok(), "Authentication OK"),
            (row_description(columns), "RowDescription systemid, timeline"),
            (data_row([b"7", None]), "DataRow [b'7', None]"),
            (notice_response("NOTICE", "00000", "hello"), "NoticeResponse NOTICE: hello (SQLSTATE"),
            (copy_done(), "CopyDone"),
            (command_complete("SHOW"), "CommandComplete 'SHOW'"),
        ):
            self.assertTrue(self.of(message).startswith(words), self.of(message))

    def test_puts_the_stream_in_words(self) -> None:
        """WAL with its positions, keepalives, and what a standby says."""
        wal = copy_data(wal_data_header(0x1000000, 0x1000100, 0) + bytes(40))
        self.assertEqual(self.of(wal), "CopyData WAL 0/1000000 + 40 bytes, server's end 0/1000100")
        keepalive = copy_data(Keepalive(0x1000000, 0, True).pack())
        self.assertEqual(self.of(keepalive), "CopyData keepalive, end 0/1000000, asks for a reply")
        status = StandbyStatus(3, 2, 1, 0, False)
        self.assertEqual(self.of(copy_data(status.pack()), "client"), f"CopyData {status!r}")
        feedback = HotStandbyFeedback(0, 1, 2, 3, 4)
        self.assertEqual(self.of(copy_data(feedback.pack()), "client"), f"CopyData {feedback!r}")

    def test_the_sender_decides_what_a_letter_means(self) -> None:
        """D is DataRow or Describe."""
        self.assertEqual(self.of(frame(b"D", b"S\0"), "client"), "Describe b'S\\x00'")
        self.assertEqual(self.of(password_message(b"secret"), "client"), "Password 7 bytes")

    def test_never_fails(self) -> None:
        """What has not its layout is shown as it is."""
        for message, words in (
            (frame(b"D", b"\1"), "DataRow malformed: b'\\x01'"),
            (frame(b"d", b"w\1"), "CopyData malformed: b'w\\x01'"),
            (frame(b"d", b"r\1"), "CopyData malformed: b'r\\x01'"),
            (frame(b"d", b"?"), "CopyData b'?'"),
            (frame(b"d", b"k"), "CopyData b'k'"),
            (frame(b"!", b"x" * 99), f"message of unknown type b'!' {b'x' * 60!r} … 99 bytes"),
            (frame(b"R", bytes((0, 0, 0, 99))), "Authentication 99"),
        ):
            self.assertEqual(self.of(message), words)

    def test_startup_packets(self) -> None:
        """Of any code, well made or not."""
        for packet, words in (
            (StartupPacket(SSL_REQUEST_CODE, b""), "SSLRequest"),
            (StartupPacket(PROTOCOL_3_0, b"user\0me\0\0"), "StartupMessage {'user': 'me'}"),
            (StartupPacket(PROTOCOL_3_0, b"user"), "StartupMessage malformed: b'user'"),
            (StartupPacket(7, b"?"), "startup packet of code 7, b'?'"),
        ):
            self.assertEqual(describe_startup(packet), words)
