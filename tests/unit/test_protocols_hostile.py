"""What a client does about a server that is up to something: it is bounded, and nothing is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from tests.unit.test_protocols_client import LET_IN, is_password
from tests.unit.test_wire_authentication import ScramServer
from walstream.errors import Disconnected, ProtocolViolation, ServerNotTrusted, WalstreamError
from walstream.protocols.login import Login
from walstream.protocols.phases import ReceiverPhase
from walstream.protocols.receiver_settings import Dialect
from walstream.protocols.stream_client import StreamClient
from walstream.testing.peers import ScriptedPeer
from walstream.testing.transport import FlowTransport
from walstream.wire.frames import frame
from walstream.wire.messages import (
    authentication_cleartext,
    authentication_md5,
    authentication_ok,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    copy_data,
    data_row,
    error_response,
    notice_response,
    parameter_status,
    query,
)

T = TypeVar("T")


class HostileCase(SynchronousTestCase):
    """A client that has connected to a scripted server, and knows a password."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = FlowTransport(clock=self.clock)
        self.client = StreamClient(Login("alice", "sesame"), Dialect.MODERN, self.clock, 60.0)
        self.jobs: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.client.in_thread = self.in_thread  # type: ignore[method-assign]
        self.transport.connect(self.client)
        self.server = ScriptedPeer(self.transport, plays="server")
        self.server.expect_startup({"user": "alice"})

    def in_thread(self, job: Callable[[], T]) -> Deferred[T]:
        """A thread that is as slow as a test wants it."""
        result: Deferred[T] = Deferred()
        self.jobs.append((result, job))
        return result

    def finish_job(self) -> None:
        """The thread is done."""
        result, job = self.jobs.pop()
        result.callback(job())

    def given_up(self) -> WalstreamError:
        """Why: it has told nothing more, and the connection is cut."""
        self.assertTrue(self.transport.aborted)
        self.server.expect_closed()
        error = self.failureResultOf(self.client.logged_in(), WalstreamError).value
        assert isinstance(error, WalstreamError)
        return error


class LoginTests(HostileCase):
    """Until it has let us in."""

    def test_cleartext(self) -> None:
        """The password is not for whoever asks for it."""
        self.server.send(authentication_cleartext())
        self.assertIsInstance(self.given_up(), ServerNotTrusted)

    def test_md5(self) -> None:
        """Its hash is, with a word to the user."""
        self.assertIsNone(self.client.weakness)
        self.server.send(authentication_md5(b"salt"))
        self.server.expect(is_password)
        self.assertIn("md5", self.client.weakness or "")

    def test_much_work(self) -> None:
        """It is done in a thread; nothing is read meanwhile, and what comes is read after."""
        server = self.begin_scram(600_000)
        self.assertTrue(self.transport.paused)
        waiting = 1000 * notice_response("NOTICE", "00000", "wait")
        self.transport.deliver(waiting)
        self.assertEqual(self.transport.unreceived, len(waiting))
        self.server.expect_silence()
        self.finish_job()
        self.assertFalse(self.transport.paused)
        (proof,) = self.server.expect(is_password)
        final = server.server_final(bytes(5) + proof.body)
        self.server.send(authentication_sasl_final(final), LET_IN)
        self.assertIs(self.client.phase, ReceiverPhase.READY)

    def test_given_up_meanwhile(self) -> None:
        """When the work is done, nobody wants it."""
        for end in (StreamClient.abort, StreamClient.close):
            self.setUp()
            self.begin_scram(100_000)
            end(self.client, Disconnected("it took too long"))
            self.finish_job()
            self.assertIsInstance(self.given_up(), Disconnected)

    def test_work_that_fails(self) -> None:
        """The server's mistake, or ours."""
        for failure in (ProtocolViolation("a mistake"), RuntimeError("no threads")):
            self.setUp()
            self.begin_scram(100_000)
            self.jobs.pop()[0].errback(failure)
            self.assertIn(str(failure), str(self.given_up()))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def begin_scram(self, iterations: int) -> ScramServer:
        server = ScramServer(b"sesame", iterations)
        self.server.send(authentication_sasl(["SCRAM-SHA-256"]))
        (initial,) = self.server.expect(is_password)
        first = server.server_first(bytes(5) + initial.body)
        self.server.send(authentication_sasl_continue(first))
        return server

    def test_absurd_lengths(self) -> None:
        """They are not waited for: the header is enough."""
        for kind in b"RNvE":
            for length in (0, 3, 1 << 31, (1 << 32) - 1, 30_001):
                self.setUp()
                self.transport.deliver(bytes([kind]) + length.to_bytes(4, "big"))
                self.assertIsInstance(self.given_up(), ProtocolViolation)

    def test_half_a_message(self) -> None:
        """An Authentication message without a code, or a list of mechanisms without an end."""
        for body in (b"", b"\0\0", b"\0\0\0\x0a", b"\0\0\0\x0aSCRAM-SHA-256\0", b"\0\0\0\x05"):
            self.setUp()
            self.server.send(frame(b"R", body))
            self.assertIsInstance(self.given_up(), ProtocolViolation)
        many = b"".join(b"M%d\0" % number for number in range(21))
        for data in (many + b"\0", b"SCRAM-SHA-256\0\0more"):
            self.setUp()
            self.server.send(frame(b"R", b"\0\0\0\x0a" + data))
            self.assertIsInstance(self.given_up(), ProtocolViolation)

    def test_an_error_in_pieces(self) -> None:
        """It is one error, and shown when it is there."""
        for byte in error_response("FATAL", "28000", "no entry"):
            self.transport.deliver(bytes([byte]))
        error = self.failureResultOf(self.client.logged_in(), WalstreamError).value
        self.assertEqual(str(error), "FATAL: no entry (SQLSTATE 28000)")

    def test_what_it_says_cannot_forge_the_log(self) -> None:
        """It stays on its line, commands no terminal, and is not longer than people read."""
        said = "a\r\n2026-01-01 all is well\x1b[2J\u202e\u2028" + 3000 * "x"
        self.server.send(error_response("FATAL", "28000", said))
        text = str(self.failureResultOf(self.client.logged_in(), WalstreamError).value)
        self.assertTrue(
            text.startswith(r"FATAL: a\r\n2026-01-01 all is well\x1b[2J\u202e\u2028xxx")
        )
        self.assertTrue(text.endswith("xxx … (SQLSTATE 28000)"))
        self.assertLess(len(text), 2100)


class FloodTests(HostileCase):
    """More and more of what may come at any time."""

    def setUp(self) -> None:
        super().setUp()
        self.texts = capture_log(self)

    def test_notices(self) -> None:
        """The first few are logged."""
        self.server.send(*(notice_response("NOTICE", "00000", f"{n:03}") for n in range(500)))
        said = [text for text in self.texts if "upstream says" in text]
        self.assertEqual(len(said), 11)
        self.assertIn("not logged any more", said[-1])
        self.server.send(LET_IN)
        self.assertIs(self.client.phase, ReceiverPhase.READY)

    def test_parameters(self) -> None:
        """Some are remembered; too many end it."""
        self.server.send(authentication_ok())
        for number in range(200):
            self.server.send(parameter_status(f"p{number}", 20_000 * "v"))
            self.server.send(parameter_status("same", str(number)))
            if self.transport.aborted:
                break
        self.assertIsInstance(self.given_up(), ProtocolViolation)
        self.assertLess(sum(map(len, self.client.parameters.values())), 500_000)


class AnswerTests(HostileCase):
    """When something is asked."""

    def setUp(self) -> None:
        super().setUp()
        self.server.send(LET_IN)

    def ask(self) -> Deferred[Any]:
        answer = self.client.ask("IDENTIFY_SYSTEM")
        self.server.expect(query("IDENTIFY_SYSTEM"))
        return answer

    def test_absurd_lengths(self) -> None:
        """No message of any kind is waited for that is longer than it can have to be."""
        for kind in b"TDENACSZKWH":
            for length in (0, 3, (1 << 20) + 5, 1 << 31, (1 << 32) - 1):
                self.setUp()
                answer = self.ask()
                self.transport.deliver(bytes([kind]) + length.to_bytes(4, "big"))
                self.failureResultOf(answer, ProtocolViolation)
                self.given_up()

    def test_absurd_rows(self) -> None:
        """Counts and sizes that don't fit, and more rows than one."""
        for message in (
            frame(b"T", b"\x7f\xff"),
            frame(b"T", b"\xff\xffx"),
            frame(b"D", b"\x7f\xff"),
            frame(b"D", b"\x00\x01\x7f\xff\xff\xff"),
            frame(b"D", b"\x00\x01\xff\xff\xff\xfe"),
            11 * data_row([b"x"]),
        ):
            self.setUp()
            answer = self.ask()
            self.server.send(message)
            self.failureResultOf(answer, ProtocolViolation)
            self.given_up()

    def test_a_byte_a_second(self) -> None:
        """An answer has to be whole within the time, not just begun."""
        answer, began = self.ask(), self.clock.seconds()
        for byte in data_row([200 * b"x"]):
            if not answer.called:
                self.clock.advance(1)
                self.transport.deliver(bytes([byte]))
        self.failureResultOf(answer, Disconnected)
        self.assertLess(self.clock.seconds() - began, 62)
        self.given_up()

    def test_wal_unasked(self) -> None:
        """A stream that nobody asked for."""
        self.server.send(copy_data(b"w" + bytes(24) + b"wal"))
        self.assertIsInstance(self.given_up(), ProtocolViolation)
