"""Tests for `walstream.protocols.client`: logging in and asking, with a scripted server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import COPY_BOTH, READY_FOR_QUERY, error
from tests.unit.log_capture import capture_log
from tests.unit.test_wire_authentication import ScramServer, demands
from walstream.errors import (
    CommandError,
    Disconnected,
    ProtocolViolation,
    ServerError,
    ServerNotTrusted,
    WalstreamError,
)
from walstream.protocols.client import ReplicationClient
from walstream.protocols.login import Login
from walstream.protocols.phases import ReceiverPhase
from walstream.testing.peers import ScriptedPeer, every_cut
from walstream.testing.transport import FlowTransport
from walstream.wire.frames import frame
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_cleartext,
    authentication_md5,
    authentication_ok,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    backend_key_data,
    command_complete,
    data_row,
    notice_response,
    parameter_status,
    password_message,
    query,
    ready_for_query,
    row_description,
    terminate,
)
from walstream.wire.startup import negotiate_protocol_version

LET_IN = (
    authentication_ok()
    + parameter_status("server_version", "18.6")
    + parameter_status("integer_datetimes", "on")
    + backend_key_data(5, b"\1\2\3\4")
    + READY_FOR_QUERY
)
CLEARTEXT_ALLOWED = demands("password,md5,scram-sha-256,none")
REFUSED = error("FATAL", "28P01", 'password authentication failed for user "alice"')
SHOWN = (
    row_description([Column("wal_level", ColumnType.TEXT)])
    + data_row([b"replica"])
    + command_complete("SHOW")
    + READY_FOR_QUERY
)


class ClientCase(SynchronousTestCase):
    """A client that has connected to a scripted server."""

    password: str | None = "secret"

    def setUp(self) -> None:
        self.transport = FlowTransport()
        login = Login("alice", self.password, demands=CLEARTEXT_ALLOWED)
        self.client = self.transport.connect(ReplicationClient(login))
        self.server = ScriptedPeer(self.transport, plays="server")
        self.server.expect_startup({"user": "alice", "replication": "on"})

    def failure(self, deferred: Deferred[Any]) -> WalstreamError:
        error = self.failureResultOf(deferred, WalstreamError).value
        assert isinstance(error, WalstreamError)
        return error

    def log_in(self) -> None:
        self.server.send(LET_IN)
        self.assertIs(self.client.phase, ReceiverPhase.READY)


class LoginTests(ClientCase):
    """From the startup packet to ReadyForQuery."""

    def test_startup_packet(self) -> None:
        """The first word is the startup packet: no TLS is asked for."""
        self.assertTrue(self.transport.getTcpNoDelay())
        self.assertTrue(self.transport.getTcpKeepAlive())
        self.server.expect_silence()

    def test_trust(self) -> None:
        """A server that asks for no password lets it in; its parameters are known then."""
        waiters = [self.client.logged_in(), self.client.logged_in()]
        self.log_in()
        for waiter in [*waiters, self.client.logged_in()]:
            self.assertEqual(self.successResultOf(waiter)["server_version"], "18.6")
        self.assertEqual(self.client.parameters["integer_datetimes"], "on")

    def test_any_cut(self) -> None:
        """However the server's messages are cut, it is let in."""
        for pieces in every_cut(LET_IN):
            self.setUp()
            for piece in pieces:
                self.transport.deliver(piece)
            self.assertIs(self.client.phase, ReceiverPhase.READY)
            self.assertEqual(len(self.client.parameters), 2)

    def test_cleartext(self) -> None:
        """A server that wants the password gets it."""
        waiter = self.client.logged_in()
        self.server.send(authentication_cleartext())
        self.server.expect(password_message(b"secret"))
        self.assertNoResult(waiter)
        self.log_in()
        self.successResultOf(waiter)

    def test_md5(self) -> None:
        """Or its hash."""
        self.server.send(authentication_md5(b"\x01\x02\x03\x04"))
        self.server.expect(b"p\x00\x00\x00\x28md598a0412b9c31436fc53776e863350083\x00")
        self.log_in()

    def scram(self, server: ScramServer) -> None:
        self.server.send(authentication_sasl(["SCRAM-SHA-256"]))
        (initial,) = self.server.expect(is_password)
        first = server.server_first(bytes(5) + initial.body)
        self.server.send(authentication_sasl_continue(first))
        (self.response,) = self.server.expect(is_password)

    def test_scram(self) -> None:
        """Or a proof that it is known, and proves in turn that it knows it."""
        server = ScramServer(b"secret")
        self.scram(server)
        final = server.server_final(bytes(5) + self.response.body)
        self.server.send(authentication_sasl_final(final))
        self.log_in()

    def test_scram_without_the_servers_proof(self) -> None:
        """A server that does not prove it is not believed, whatever it says instead."""
        for instead in (LET_IN, READY_FOR_QUERY, parameter_status("a", "b") + READY_FOR_QUERY):
            self.setUp()
            self.scram(ScramServer(b"secret"))
            waiter = self.client.logged_in()
            self.transport.deliver(instead)
            self.assertIsInstance(self.failure(waiter), ServerNotTrusted | ProtocolViolation)
            self.assertTrue(self.transport.aborted)

    def test_ready_without_a_word_about_authentication(self) -> None:
        """A server that lets nobody in explicitly lets nobody in."""
        waiter = self.client.logged_in()
        self.server.send(READY_FOR_QUERY)
        self.assertIsInstance(self.failure(waiter), ProtocolViolation)

    def test_asked_again_after_it_was_let_in(self) -> None:
        """A server that wants the password after AuthenticationOk does not get it."""
        waiter = self.client.logged_in()
        self.server.send(authentication_ok(), authentication_cleartext())
        self.assertIsInstance(self.failure(waiter), ProtocolViolation)

    def test_refused(self) -> None:
        """The server's error is what who waits gets, and the connection is given up."""
        waiter = self.client.logged_in()
        self.server.send(authentication_cleartext())
        self.server.expect(password_message(b"secret"))
        self.server.send(REFUSED)
        failure = self.failure(waiter)
        assert isinstance(failure, ServerError)
        self.assertEqual((failure.severity, failure.sqlstate), ("FATAL", "28P01"))
        self.assertIs(self.failure(self.client.logged_in()), failure)
        self.assertIs(self.failure(self.client.query("SHOW a")), failure)

    def test_unsupported_method(self) -> None:
        """A method that is not supported is named."""
        waiter = self.client.logged_in()
        self.server.send(frame(b"R", b"\0\0\0\x07"))
        self.assertIn("GSSAPI", str(self.failure(waiter)))

    def test_notice(self) -> None:
        """What a server wants its users to know is in the log."""
        texts = capture_log(self)
        self.server.send(notice_response("WARNING", "01000", "down for maintenance at noon"))
        self.assertTrue(any("down for maintenance at noon" in text for text in texts))
        self.log_in()

    def test_version_negotiation(self) -> None:
        """There is nothing to negotiate: a server that does can only be up to something."""
        waiter = self.client.logged_in()
        self.server.send(negotiate_protocol_version(3 << 16, []))
        self.assertIsInstance(self.failure(waiter), ProtocolViolation)

    def test_message_that_does_not_belong(self) -> None:
        """Anything else before it was let in breaks the protocol."""
        for message in (COPY_BOTH, data_row([]), command_complete("x"), frame(b"d", b"w")):
            self.setUp()
            waiter = self.client.logged_in()
            self.server.send(message)
            self.assertIsInstance(self.failure(waiter), ProtocolViolation)

    def test_what_is_no_postgresql(self) -> None:
        """A server of something else is found out by its first bytes."""
        for junk in (b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", bytes(20)):
            self.setUp()
            waiter = self.client.logged_in()
            self.transport.deliver(junk)
            self.assertIsInstance(self.failure(waiter), ProtocolViolation)

    def test_long_messages_before_it_is_let_in(self) -> None:
        """Before that, what a server may say is short, as libpq has it."""
        for header in (b"R\0\1\0\0", b"S\0\0\x20\0", b"E\0\1\0\0"):
            self.setUp()
            waiter = self.client.logged_in()
            self.transport.deliver(header)
            self.assertIsInstance(self.failure(waiter), ProtocolViolation)

    def test_server_closes(self) -> None:
        """A connection that ends is told as such, and who ended it."""
        for reason, text in (
            (ConnectionDone, "the server closed the connection"),
            (ConnectionLost, "Connection to the other side was lost in a non-clean fashion"),
        ):
            self.setUp()
            waiter = self.client.logged_in()
            self.transport.peer_closed(reason)
            failure = self.failure(waiter)
            self.assertIsInstance(failure, Disconnected)
            self.assertTrue(str(failure).startswith(text), str(failure))
            self.assertIs(self.client.phase, ReceiverPhase.CLOSED)

    def test_waiting_is_given_up(self) -> None:
        """Who waits may stop waiting; the login goes on."""
        waiter = self.client.logged_in()
        other = self.client.logged_in()
        waiter.cancel()
        self.failureResultOf(waiter, CancelledError)
        self.log_in()
        self.successResultOf(other)

    def test_closed_while_it_logs_in(self) -> None:
        """Who waits learns why it was closed."""
        waiter = self.client.logged_in()
        reason = Disconnected("enough")
        self.client.close(reason)
        self.assertIs(self.failure(waiter), reason)
        self.server.expect(terminate())
        self.server.expect_closed()
        self.assertIs(self.failure(self.client.logged_in()), reason)


def is_password(message: object) -> bool:
    """a PasswordMessage or a SASL response"""
    return getattr(message, "kind", None) == ord("p")


class NoPasswordTests(ClientCase):
    """A login without a password."""

    password = None

    def test_says_where_to_give_one(self) -> None:
        """If one is asked for, the error says where one can be given."""
        waiter = self.client.logged_in()
        self.server.send(authentication_cleartext())
        failure = self.failure(waiter)
        self.assertIsInstance(failure, CommandError)
        self.assertIn("password file", str(failure))
        self.assertTrue(self.transport.aborted)


class QueryTests(ClientCase):
    """One query at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.log_in()

    def test_result(self) -> None:
        """A query's answer is its columns and its rows."""
        answer = self.client.query("SHOW wal_level")
        self.server.expect(query("SHOW wal_level"))
        self.assertNoResult(answer)
        self.server.send(SHOWN)
        found = self.successResultOf(answer)
        self.assertEqual((found.columns, found.rows), (["wal_level"], [[b"replica"]]))
        self.assertFalse(found.streams)

    def test_any_cut(self) -> None:
        """However the answer is cut."""
        for pieces in every_cut(SHOWN):
            answer = self.client.query("SHOW wal_level")
            for piece in pieces:
                self.assertNoResult(answer)
                self.transport.deliver(piece)
            self.assertEqual(self.successResultOf(answer).rows, [[b"replica"]])

    def test_no_result(self) -> None:
        """A command without a result has neither columns nor rows."""
        answer = self.client.query("DROP_REPLICATION_SLOT a")
        self.server.send(command_complete("DROP_REPLICATION_SLOT") + READY_FOR_QUERY)
        found = self.successResultOf(answer)
        self.assertEqual((found.columns, found.rows), ([], []))

    def test_error(self) -> None:
        """An error is the query's own; the next one may be asked."""
        answer = self.client.query("SHOW nosuch")
        self.server.send(error("ERROR", "42704", "unrecognized", "a detail", "a hint"))
        self.assertNoResult(answer)
        self.server.send(READY_FOR_QUERY)
        failure = self.failure(answer)
        assert isinstance(failure, ServerError)
        self.assertEqual((failure.detail, failure.hint), ("a detail", "a hint"))
        answer = self.client.query("SHOW wal_level")
        self.server.send(SHOWN)
        self.assertEqual(self.successResultOf(answer).rows, [[b"replica"]])

    def test_error_behind_a_description(self) -> None:
        """What came before an error is forgotten."""
        answer = self.client.query("TIMELINE_HISTORY 2")
        self.server.send(row_description([Column("a", ColumnType.TEXT)]))
        self.server.send(error("ERROR", "58P01", "no such file") + READY_FOR_QUERY)
        self.assertIsInstance(self.failure(answer), ServerError)
        answer = self.client.query("IDENTIFY_SYSTEM")
        self.server.send(READY_FOR_QUERY)
        self.assertEqual(self.successResultOf(answer).columns, [])

    def test_one_after_the_other(self) -> None:
        """The next question may be asked as soon as the answer is there, in its callback."""
        rows = []

        async def ask() -> None:
            for _ in range(3):
                rows.append((await self.client.query("SHOW wal_level")).rows)

        done = Deferred.fromCoroutine(ask())
        for _ in range(3):
            self.server.expect(query("SHOW wal_level"))
            self.server.send(SHOWN)
        self.successResultOf(done)
        self.assertEqual(rows, 3 * [[[b"replica"]]])

    def test_two_at_a_time(self) -> None:
        """That is a mistake of the caller's."""
        answer = self.client.query("SHOW wal_level")
        self.assertRaises(RuntimeError, self.client.query, "SHOW wal_level")
        self.server.send(SHOWN)
        self.successResultOf(answer)

    def test_parameter_and_notice(self) -> None:
        """They may come at any time."""
        self.server.send(parameter_status("in_hot_standby", "off"))
        answer = self.client.query("SHOW wal_level")
        self.server.send(parameter_status("a", "b"), notice_response("NOTICE", "00000", "hello"))
        self.server.send(SHOWN)
        self.assertEqual(self.successResultOf(answer).rows, [[b"replica"]])
        self.assertEqual(self.client.parameters["in_hot_standby"], "off")

    def test_endless_result(self) -> None:
        """A server that sends rows without end is given up before it fills the memory."""
        answer = self.client.query("IDENTIFY_SYSTEM")
        row = data_row([bytes(1000)])
        for _ in range(1000):
            self.transport.deliver(100 * row)
            if answer.called:
                break
        self.assertIsInstance(self.failure(answer), ProtocolViolation)

    def test_server_is_shut_down(self) -> None:
        """A fatal error between questions ends the connection, and is why the next one fails."""
        self.server.send(error("FATAL", "57P01", "terminating connection"))
        failure = self.failure(self.client.query("IDENTIFY_SYSTEM"))
        assert isinstance(failure, ServerError)
        self.assertEqual(failure.sqlstate, "57P01")

    def test_fatal_error_to_a_question(self) -> None:
        """A fatal error has no ReadyForQuery: the end of the connection follows."""
        answer = self.client.query("IDENTIFY_SYSTEM")
        self.server.send(error("FATAL", "57P01", "terminating connection"))
        self.transport.peer_closed()
        self.assertIsInstance(self.failure(answer), ServerError)

    def test_server_closes(self) -> None:
        """A connection that ends without an answer is told as such."""
        answer = self.client.query("IDENTIFY_SYSTEM")
        self.transport.peer_closed()
        self.assertEqual(str(self.failure(answer)), "the server closed the connection")
        self.assertIsInstance(self.failure(self.client.query("SHOW a")), Disconnected)

    def test_unasked_answer(self) -> None:
        """An answer to nothing breaks the protocol."""
        for message in (SHOWN, ready_for_query(), COPY_BOTH):
            self.setUp()
            self.transport.deliver(message)
            self.assertTrue(self.transport.aborted)
            self.assertIs(self.client.phase, ReceiverPhase.CLOSED)

    def test_broken_message(self) -> None:
        """A message that has not its layout breaks the protocol."""
        for message in (
            frame(b"T", b"\0\1abc"),
            frame(b"D", b"\0\1\0"),
            frame(b"D", b""),
            b"T\0\0\0\3",
        ):
            self.setUp()
            answer = self.client.query("IDENTIFY_SYSTEM")
            self.transport.deliver(message)
            self.assertIsInstance(self.failure(answer), ProtocolViolation)

    def test_close(self) -> None:
        """It closes in order, with Terminate; who waits learns why."""
        answer = self.client.query("IDENTIFY_SYSTEM")
        reason = Disconnected("enough")
        self.client.close(reason)
        self.client.close(Disconnected("again"))
        self.server.expect(query("IDENTIFY_SYSTEM"), terminate())
        self.server.expect_closed()
        self.assertIs(self.failure(answer), reason)

    def test_answer_after_close(self) -> None:
        """What comes after a close is not looked at."""
        answer = self.client.query("IDENTIFY_SYSTEM")
        self.client.close(Disconnected("enough"))
        self.client.dataReceived(SHOWN)
        self.failure(answer)

    def test_abort(self) -> None:
        """An abort waits for nothing; the first reason counts."""
        answer = self.client.query("IDENTIFY_SYSTEM")
        reason = Disconnected("now")
        self.client.abort(reason)
        self.client.close(Disconnected("again"))
        self.transport.turn()
        self.assertEqual(self.transport.peer_saw, "reset")
        self.assertIs(self.failure(answer), reason)

    def test_abort_after_close(self) -> None:
        """Who has lost patience with a close may abort."""
        self.client.close(Disconnected("enough"))
        self.client.abort(Disconnected("now"))
        self.transport.turn()
        self.assertEqual(self.transport.peer_saw, "reset")
