"""Tests for `walstream.protocols.sender`: conversations with a client, byte by byte."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from tests.unit.conversation import (
    COPY_BOTH,
    COPY_DONE,
    COPY_OUT,
    IDENTITY,
    KEY,
    PID,
    READY_FOR_QUERY,
    SHUT_DOWN,
    SIZE,
    START,
    STARTUP,
    STREAMING_COMPLETE,
    SYNC,
    TERMINATE,
    FailingSlots,
    SenderCase,
    error,
    keepalive,
    kinds,
    messages,
    status,
    streamed,
    wal,
    wal_message,
)
from walstream.errors import WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor, WALPosition
from walstream.protocols.phases import SenderPhase
from walstream.protocols.settings import SenderSettings
from walstream.wire.copydata import HotStandbyFeedback
from walstream.wire.frames import frame
from walstream.wire.messages import copy_data, query
from walstream.wire.startup import startup_message
from walstream.wire.stream import WALPayload

MESSAGE = 131072

IDENTIFIED = (
    b"T\x00\x00\x00\x6f\x00\x04"
    b"systemid\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
    b"timeline\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x08\xff\xff\xff\xff\x00\x00"
    b"xlogpos\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
    b"dbname\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
    b"D\x00\x00\x00\x32\x00\x04"
    b"\x00\x00\x00\x137423190665107412305"
    b"\x00\x00\x00\x011"
    b"\x00\x00\x00\x080/402028"
    b"\xff\xff\xff\xff"
    b"C\x00\x00\x00\x14IDENTIFY_SYSTEM\x00" + READY_FOR_QUERY
)
SHUTDOWN_ERROR = error("FATAL", "57P01", "terminating connection due to administrator command")
NEXT_TIMELINE = (
    b"T\x00\x00\x00\x45\x00\x02"
    b"next_tli\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x08\xff\xff\xff\xff\x00\x00"
    b"next_tli_startpos\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
    b"D\x00\x00\x00\x17\x00\x02"
    b"\x00\x00\x00\x012"
    b"\x00\x00\x00\x080/402028"
)


class StartupTests(SenderCase):
    """A client says who it is, or does not."""

    def test_producer(self) -> None:
        """A session is a push producer, as its transport needs one."""
        verifyObject(IPushProducer, self.connect())

    def test_let_in(self) -> None:
        """After its startup packet a client is told all there is to know, and may ask."""
        answer = self.log_in()
        self.assertEqual(kinds(answer), "R" + 13 * "S" + "KZ")
        self.assertTrue(
            answer.endswith(b"K\x00\x00\x00\x0c\x00\x00\x00\x07" + KEY + READY_FOR_QUERY)
        )
        self.assertIs(self.session.phase, SenderPhase.READY)
        assert self.session.client is not None
        self.assertEqual(self.session.client.application_name, "pg_receivewal")

    def test_any_cut(self) -> None:
        """However the packets are cut, the client is let in, and its first query answered."""
        request = bytes.fromhex("00000008 04D2162F")
        said = startup_message(STARTUP) + query("IDENTIFY_SYSTEM")
        for index in range(len(said)):
            self.connect()
            pieces = (request[: index % 8], request[index % 8 :], said[:index], said[index:])
            heard = b"".join(self.say(piece) for piece in pieces)
            self.assertTrue(heard.startswith(b"NR\x00\x00"), index)
            self.assertTrue(heard.endswith(KEY + READY_FOR_QUERY + IDENTIFIED), index)
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_socket_options(self) -> None:
        """Small messages leave at once, and a dead client is noticed in the end."""
        self.connect()
        self.assertTrue(self.transport.getTcpNoDelay())
        self.assertTrue(self.transport.getTcpKeepAlive())

    def test_turned_away(self) -> None:
        """Who is not let in learns why, and the connection is closed."""
        self.connect()
        heard = self.say(startup_message({"user": "alice"}))
        self.assertEqual(
            heard,
            error(
                "FATAL",
                "0A000",
                "SQL is not available from a WAL archive",
                hint="Connect with replication=true, or to a PostgreSQL server.",
            ),
        )
        self.assertEqual(self.transport.peer_saw, "end")
        self.assertIsNone(self.session.client)

    def test_version_2(self) -> None:
        """A client of protocol 2 is turned away in words that it understands."""
        self.connect()
        heard = self.say(bytes.fromhex("00000008 00020000"))
        self.assertEqual(
            heard, b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0"
        )
        self.assertEqual(self.transport.peer_saw, "end")

    def test_junk(self) -> None:
        """Who speaks another protocol gets no answer."""
        self.connect()
        self.assertEqual(self.say(b"GET / HTTP/1.1\r\n\r\n"), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def test_too_slow(self) -> None:
        """Who does not say in time who it is, is shown the door."""
        self.connect()
        self.say(startup_message(STARTUP)[:-1])
        self.clock.advance(59.9)
        self.assertEqual(self.transport.peer_saw, "open")
        self.clock.advance(0.2)
        self.assertEqual(self.hear(), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def test_in_time(self) -> None:
        """Who is in may stay, silent or not."""
        self.log_in()
        self.clock.advance(100_000)
        self.assertEqual(self.transport.peer_saw, "open")
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_leaves_before_the_startup_packet(self) -> None:
        """A port scanner costs nothing but its connection."""
        self.connect()
        self.transport.peer_closed()
        self.assertEqual(self.gone, [self.session])

    def test_cancel_request(self) -> None:
        """A CancelRequest is passed on, and its connection closed without a word."""
        self.connect()
        heard = self.say(bytes.fromhex("00000010 04D2162E 00000009 0A0B0C0D"))
        self.assertEqual(heard, b"")
        self.assertEqual(self.cancelled, [(9, b"\x0a\x0b\x0c\x0d")])
        self.assertEqual(self.transport.peer_saw, "end")


class CommandTests(SenderCase):
    """Commands one after the other, and what is not one."""

    def test_pg_receivewal_before_its_stream(self) -> None:
        """What pg_receivewal asks is answered as PostgreSQL 18 does, byte by byte."""
        self.log_in()
        self.assertEqual(
            self.ask("SHOW data_directory_mode"),
            b"T\x00\x00\x00\x2c\x00\x01data_directory_mode\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
            b"D\x00\x00\x00\x0e\x00\x01\x00\x00\x00\x040700"
            b"C\x00\x00\x00\x09SHOW\x00" + READY_FOR_QUERY,
        )
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)
        self.assertEqual(
            self.ask("SHOW wal_segment_size"),
            b"T\x00\x00\x00\x29\x00\x01wal_segment_size\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
            b"D\x00\x00\x00\x0d\x00\x01\x00\x00\x00\x031MB"
            b"C\x00\x00\x00\x09SHOW\x00" + READY_FOR_QUERY,
        )

    def test_pipelined(self) -> None:
        """Queries that come all at once are answered one after the other, however many."""
        self.log_in()
        self.assertEqual(self.say(3000 * query("IDENTIFY_SYSTEM")), 3000 * IDENTIFIED)

    def test_pipelined_and_then_terminated(self) -> None:
        """A client may take its leave with its last query."""
        self.log_in()
        heard = self.say(query("IDENTIFY_SYSTEM") + TERMINATE + query("IDENTIFY_SYSTEM"))
        self.assertEqual(heard, IDENTIFIED)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_next_query_waits_for_the_answer(self) -> None:
        """While a command is answered nothing is read, and the next one is answered after it."""
        self.slots.held_back = Deferred()
        self.log_in()
        creation = query("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.assertEqual(self.say(creation + query("IDENTIFY_SYSTEM")), b"")
        self.assertTrue(self.transport.paused)
        self.transport.deliver(query("SHOW wal_level"))
        self.assertGreater(self.transport.unreceived, 0)
        self.slots.held_back.callback(None)
        self.assertEqual(kinds(self.hear()), "TDCZ" * 3)
        self.assertFalse(self.transport.paused)

    def test_error(self) -> None:
        """A command that cannot be done is answered by its error, and the session goes on."""
        self.log_in()
        self.assertEqual(
            self.ask("SELECT 1"),
            error(
                "ERROR",
                "0A000",
                "cannot execute SQL commands in WAL sender for physical replication",
            )
            + READY_FOR_QUERY,
        )
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_syntax_error(self) -> None:
        """So is one that is misspelled."""
        self.log_in()
        self.assertEqual(
            self.ask("IDENTIFY_SYSTEM please"),
            error("ERROR", "42601", "syntax error") + READY_FOR_QUERY,
        )

    def test_error_after_a_description(self) -> None:
        """A history file that is missing is found out after its description was sent."""
        self.log_in()
        heard = self.ask("TIMELINE_HISTORY 2")
        self.assertEqual(kinds(heard), "TEZ")
        self.assertIn(
            error(
                "ERROR",
                "58P01",
                'could not open file "pg_wal/00000002.history": No such file or directory',
            ),
            heard,
        )

    def test_broken_query(self) -> None:
        """A Query without its zero byte is an error, as with PostgreSQL; the session goes on."""
        self.log_in()
        heard = self.say(frame(b"Q", b"IDENTIFY_SYSTEM"))
        refusal = error("ERROR", "08P01", "invalid string in message")
        self.assertEqual(heard, refusal + READY_FOR_QUERY)
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_stray_copy_messages(self) -> None:
        """What a client may still be sending to a stream that broke off is ignored."""
        self.log_in()
        stray = copy_data(b"") + copy_data(b"?") + COPY_DONE + frame(b"f", b"\0") + frame(b"H")
        self.assertEqual(self.say(stray + query("IDENTIFY_SYSTEM")), IDENTIFIED)

    def test_sync(self) -> None:
        """Sync is answered by ReadyForQuery."""
        self.log_in()
        self.assertEqual(self.say(SYNC), READY_FOR_QUERY)

    def test_extended_query(self) -> None:
        """An extended query is refused once, and everything is skipped until Sync."""
        self.log_in()
        refusal = error(
            "ERROR",
            "08P01",
            "extended query protocol not supported in a replication connection",
        )
        for kind in (b"P", b"B", b"D", b"E", b"C"):
            skipped = frame(b"B") + frame(b"E") + query("IDENTIFY_SYSTEM") + frame(b"d")
            self.assertEqual(self.say(frame(kind, b"\0") + skipped), refusal, kind)
            self.assertEqual(self.say(SYNC), READY_FOR_QUERY, kind)
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_function_call(self) -> None:
        """One is refused, and nothing is skipped."""
        self.log_in()
        refusal = error(
            "ERROR",
            "08P01",
            "fastpath function calls not supported in a replication connection",
        )
        heard = self.say(frame(b"F", b"\0") + query("IDENTIFY_SYSTEM"))
        self.assertEqual(heard, refusal + READY_FOR_QUERY + IDENTIFIED)

    def test_terminated_while_skipping(self) -> None:
        """A client may take its leave also then."""
        self.log_in()
        self.say(frame(b"P") + TERMINATE)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_unknown_message(self) -> None:
        """A message of a type that there is not ends the session, in PostgreSQL's words."""
        for kind, number in ((b"p", 112), (b"?", 63), (b"\x00", 0)):
            self.log_in()
            heard = self.say(frame(kind, b"abc"))
            self.assertEqual(
                heard, error("FATAL", "08P01", f"invalid frontend message type {number}")
            )
            self.assertEqual(self.transport.peer_saw, "end")
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_impossible_length(self) -> None:
        """A message that is too long, or shorter than its length, gets no answer."""
        for length in (3, (1 << 17) + 5):
            self.log_in()
            self.assertEqual(self.say(b"Q" + length.to_bytes(4, "big")), b"")
            self.assertIn(f"length {length}", self.session.close_reason)
            self.assertEqual(self.transport.peer_saw, "end")
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_fault_of_ours(self) -> None:
        """A fault of ours goes into the log; the client gets a bland word, and is let go."""
        self.slots = FailingSlots()
        self.log_in()
        heard = self.ask("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.assertEqual(heard, error("FATAL", "XX000", "internal error; see the log of walstream"))
        self.assertEqual(self.transport.peer_saw, "end")
        (logged,) = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(str(logged.value), "the store has broken down")

    def test_leaves_while_a_command_is_answered(self) -> None:
        """What a command makes for a client that has gone meanwhile is not left behind."""
        self.slots.held_back = Deferred()
        self.log_in()
        self.ask("CREATE_REPLICATION_SLOT a TEMPORARY PHYSICAL")
        self.session.abort("the test wants it")
        self.clock.advance(0)
        self.assertEqual(self.gone, [self.session])
        self.slots.held_back.callback(None)
        self.assertEqual(list(self.slots.slots()), [])

    def test_fails_after_the_client_has_gone(self) -> None:
        """An error that nobody is there to be shown harms nobody."""
        self.slots.held_back = Deferred()
        self.log_in()
        self.ask("DROP_REPLICATION_SLOT a WAIT")
        self.session.abort("the test wants it")
        self.clock.advance(0)
        self.slots.held_back.callback(None)
        self.assertEqual(self.transport.unread, b"")

    def test_nothing_is_sent_behind_a_last_word(self) -> None:
        """An answer that is ready after the session was ended is not sent any more."""
        self.slots.held_back = Deferred()
        self.log_in()
        self.transport.deliver(query("CREATE_REPLICATION_SLOT a PHYSICAL"))
        self.session.shut_down()
        self.slots.held_back.callback(None)
        self.assertEqual(self.hear(), SHUTDOWN_ERROR)
        self.assertEqual(self.transport.peer_saw, "end")


class StreamTests(SenderCase):
    """A stream on the current timeline."""

    def test_transcript(self) -> None:
        """From START_REPLICATION to the client's CopyDone, byte by byte."""
        self.log_in()
        self.provider.hold_back()
        self.assertEqual(self.ask("START_REPLICATION 0/300000 TIMELINE 1"), COPY_BOTH)
        self.provider.let_go()
        expected = b"".join(
            wal_message(start, wal(start, MESSAGE), self.end)
            for start in range(START, START + SIZE, MESSAGE)
        )
        expected += wal_message(START + SIZE, wal(START + SIZE, 0x2028), self.end)
        self.assertEqual(self.hear(), expected)
        self.assertEqual(self.say(status(START)), b"")
        end = self.provider.append(wal(self.end, 56))
        self.assertEqual(self.hear(), wal_message(self.end, wal(self.end, 56), end))
        self.assertEqual(self.say(COPY_DONE), COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.provider.cursors, [])
        self.assertEqual(self.say(TERMINATE), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def test_unaligned_start(self) -> None:
        """From any byte on; the first message ends where a page does, as PostgreSQL's."""
        heard = self.stream(START + 0x1F88)
        sizes = [len(body) - 25 for kind, body in messages(heard) if kind == ord("d")]
        self.assertEqual(sizes[0], 123_000)
        self.assertEqual(sum(sizes), self.end - START - 0x1F88)

    def test_start_at_the_end(self) -> None:
        """A stream from the very end on waits for what comes."""
        self.assertTrue(self.stream(self.end).endswith(COPY_BOTH))
        end = self.provider.append(wal(self.end, 8))
        self.assertEqual(self.hear(), wal_message(self.end, wal(self.end, 8), end))

    def test_only_what_may_be_served(self) -> None:
        """WAL that is there but may not be served yet stays here."""
        self.stream(self.end)
        end = self.provider.append(wal(self.end, 100), visible=False)
        self.assertEqual(self.hear(), b"")
        self.provider.advance_end(end - 50)
        self.assertEqual(self.hear(), wal_message(self.end, wal(self.end, 50), end - 50))

    def test_start_ahead_of_the_end(self) -> None:
        """That there is no such WAL yet is said once the stream has begun."""
        self.settings = replace(self.settings, hold_ahead=0.0)
        self.log_in()
        self.assertEqual(
            self.ask("START_REPLICATION 0/402029 TIMELINE 1"),
            COPY_BOTH
            + error(
                "ERROR",
                "XX000",
                "requested starting point 0/402029 is ahead of the WAL flush position "
                "of this server 0/402028",
            )
            + READY_FOR_QUERY,
        )
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_start_before_what_is_held(self) -> None:
        """So is that there is such WAL no more."""
        self.log_in()
        for start, segment in (("0/200000", 2), ("0/0", 0)):
            self.assertEqual(
                self.ask(f"START_REPLICATION {start} TIMELINE 1"),
                COPY_BOTH
                + error(
                    "ERROR",
                    "58P01",
                    f"requested WAL segment 0000000100000000{segment:08X} has already been removed",
                )
                + READY_FOR_QUERY,
            )
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_wal_is_removed_meanwhile(self) -> None:
        """A stream whose WAL is removed before it was sent breaks off; the session goes on."""
        self.log_in()
        self.provider.hold_back()
        self.ask("START_REPLICATION 0/300000")
        self.provider.drop_before(self.end)
        self.provider.let_go()
        self.assertEqual(
            self.hear(),
            error(
                "ERROR",
                "58P01",
                "requested WAL segment 000000010000000000000003 has already been removed",
            )
            + READY_FOR_QUERY,
        )
        self.assertEqual(self.say(status(START) + query("IDENTIFY_SYSTEM")), IDENTIFIED)

    def test_timeline_that_is_not_ours(self) -> None:
        """A timeline of another history is refused, and no stream begins."""
        self.log_in()
        self.assertEqual(
            self.ask("START_REPLICATION 0/300000 TIMELINE 3"),
            error("ERROR", "XX000", "requested timeline 3 is not in this server's history")
            + READY_FOR_QUERY,
        )

    def test_fault_of_the_provider(self) -> None:
        """A fault of the provider's goes into the log, and the session ends."""
        self.stream()
        (cursor,) = self.provider.cursors
        waiter = cursor._waiter
        assert waiter is not None
        cursor._waiter = None
        waiter.errback(RuntimeError("the disk is on fire"))
        self.assertEqual(
            self.hear(), error("FATAL", "XX000", "internal error; see the log of walstream")
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_second_stream(self) -> None:
        """After a stream the next one may begin, also on the heels of CopyDone."""
        self.stream(self.end)
        again = COPY_DONE + query("IDENTIFY_SYSTEM") + query("START_REPLICATION 0/402000")
        heard = self.say(again + status(START))
        expected = COPY_DONE + STREAMING_COMPLETE + IDENTIFIED + COPY_BOTH
        expected += wal_message(0x402000, wal(0x402000, 0x28), self.end)
        self.assertEqual(heard, expected)
        self.assertEqual(self.standby().write, START)

    def test_single_bytes(self) -> None:
        """Also byte by byte."""
        said = query("START_REPLICATION 0/402000") + status(START, reply_requested=True)
        said += COPY_DONE + query("IDENTIFY_SYSTEM")
        self.log_in()
        heard = b"".join(self.say(bytes([byte])) for byte in said)
        self.assertEqual(kinds(heard), "WddcCCZTDCZ")

    def test_progress(self) -> None:
        """What the client reports is kept as it is, be it back, ahead or nothing."""
        self.stream()
        for positions in ((START, 0, 0), (2**64 - 1, 5, 2**64 - 1), (1, 0, 2)):
            self.assertEqual(self.say(status(*positions)), b"")
            progress = self.standby()
            self.assertEqual((progress.write, progress.flush, progress.apply), positions)

    def test_feedback(self) -> None:
        """Hot standby feedback is kept; the form before PostgreSQL 10 is an error."""
        self.stream()
        feedback = HotStandbyFeedback(9, 756, 0, 757, 1)
        self.assertEqual(self.say(copy_data(feedback.pack() + b"more")), b"")
        self.assertEqual(self.standby().feedback, feedback)

    def test_reply_requested(self) -> None:
        """A client that asks for a reply gets one at once: how far WAL was sent to it."""
        self.stream()
        self.assertEqual(
            self.say(status(START, reply_requested=True)),
            keepalive(self.end, reply_requested=False),
        )

    def test_short_message(self) -> None:
        """A message that is too short ends the stream with an error, and not the session."""
        for payload, text in (
            (b"", "no data left in message"),
            (b"r", "insufficient data left in message"),
            (b"h" + bytes(16), "insufficient data left in message"),
            (b"r" + bytes(32), "no data left in message"),
        ):
            self.stream()
            heard = self.say(copy_data(payload) + status(START))
            self.assertEqual(heard, error("ERROR", "08P01", text) + READY_FOR_QUERY)
            self.assertEqual(self.provider.cursors, [])
            self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_unknown_payload(self) -> None:
        """A payload of an unknown type closes the connection without a word."""
        self.stream()
        self.assertEqual(self.say(copy_data(b"?what")), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def test_message_that_does_not_belong(self) -> None:
        """Anything but CopyData, CopyDone and Terminate ends the session."""
        for message in (frame(b"f", b"why\0"), query("IDENTIFY_SYSTEM"), SYNC, frame(b"H")):
            self.stream()
            kind = chr(message[0])
            self.assertEqual(
                self.say(message), error("FATAL", "08P01", f'invalid standby message type "{kind}"')
            )
            self.assertEqual(self.transport.peer_saw, "end")
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_terminate(self) -> None:
        """A client may just leave: standbys do so when they stop."""
        self.stream()
        self.assertEqual(self.say(TERMINATE), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def test_client_is_killed(self) -> None:
        """A connection that breaks leaves nothing behind."""
        self.stream()
        self.transport.peer_closed(ConnectionLost)
        self.assertEqual(self.gone, [self.session])
        self.provider.append(wal(self.end, 100))

    def test_client_leaves_before_the_cursor_is_open(self) -> None:
        """A cursor that is opened for a client that has gone meanwhile is closed again."""
        opened: Deferred[None] = Deferred()
        really_open = self.provider.open

        def open_later(timeline: int, start: LSN) -> Deferred[IWALCursor]:
            waiter: Deferred[None] = Deferred()
            opened.chainDeferred(waiter)
            return waiter.addCallback(lambda _: really_open(timeline, start))

        self.provider.open = open_later  # type: ignore[method-assign]
        self.stream()
        self.session.abort("the test wants it")
        self.clock.advance(0)
        opened.callback(None)
        self.assertEqual(self.provider.cursors, [])


class SlotTests(SenderCase):
    """A stream that uses a slot."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.slots.create("s", 1, temporary=False, restart=None))
        self.slots.calls.clear()

    def stream_by_slot(self, start: str = "0/402028") -> bytes:
        self.log_in()
        return self.ask(f'START_REPLICATION SLOT "s" {start} TIMELINE 1')

    def test_use(self) -> None:
        """A slot is used from the stream's begin to its end, and moves with the flush position."""
        self.assertEqual(self.stream_by_slot(), COPY_BOTH)
        self.say(status(START + 10, START + 5))
        self.say(status(START + 20, 0))
        self.say(status(START + 30, START + 2))
        self.say(COPY_DONE)
        self.assertEqual(
            self.slots.calls,
            [
                ("acquire", "s", PID),
                ("advance", "s", WALPosition(1, LSN(START + 5))),
                ("advance", "s", WALPosition(1, LSN(START + 2))),
                ("release", "s", PID),
            ],
        )

    def test_missing_slot(self) -> None:
        """Without the slot there is no stream."""
        self.log_in()
        self.assertEqual(
            self.ask('START_REPLICATION SLOT "none" 0/300000'),
            error("ERROR", "42704", 'replication slot "none" does not exist') + READY_FOR_QUERY,
        )

    def test_busy_slot(self) -> None:
        """A slot is used by one session at a time; the other's use is left alone."""
        self.successResultOf(self.slots.acquire("s", 99))
        self.assertEqual(
            self.stream_by_slot(),
            error("ERROR", "55006", 'replication slot "s" is active for PID 99') + READY_FOR_QUERY,
        )
        self.say(TERMINATE)
        slot = self.successResultOf(self.slots.read("s"))
        assert slot is not None
        self.assertEqual(slot.active_pid, 99)
        self.slots.release("s", 99)

    def test_client_leaves_while_the_store_decides(self) -> None:
        """A slot that a client gets after it has gone is given back; no stream begins."""
        self.slots.held_back = Deferred()
        self.assertEqual(self.stream_by_slot(), b"")
        self.session.abort("the test wants it")
        self.clock.advance(0)
        self.slots.held_back.callback(None)
        self.assertEqual(
            self.slots.calls,
            [("acquire", "s", PID), ("end_session", PID), ("end_session", PID)],
        )

    def test_slot_is_taken_away(self) -> None:
        """A session whose slot is taken from it ends in PostgreSQL's way, in a stream or not."""
        words = error("FATAL", "57P01", "terminating connection due to administrator command")
        for begin in (self.log_in, self.stream_by_slot):
            begin()
            self.session.terminate()
            self.assertEqual(self.hear(), words)
            self.session.terminate()  # it is ending already
            self.assertEqual(self.hear(), b"")
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_refused_stream_releases_the_slot(self) -> None:
        """A stream that is refused does not keep the slot."""
        for start in ("0/502029", "0/100000"):
            self.slots.calls.clear()
            self.assertEqual(kinds(self.stream_by_slot(start)), "WEZ")
            self.assertEqual(self.slots.calls, [("acquire", "s", PID), ("end_session", PID)])
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_broken_off_stream_releases_the_slot(self) -> None:
        """Nor does one that breaks off."""
        self.stream_by_slot()
        self.say(copy_data(b"r"))
        self.assertEqual(self.slots.calls, [("acquire", "s", PID), ("end_session", PID)])

    def test_lost_connection_releases_the_slot(self) -> None:
        """Nor does one whose client is gone."""
        self.stream_by_slot()
        self.transport.peer_closed()
        self.assertEqual(self.slots.calls, [("acquire", "s", PID), ("end_session", PID)])

    def test_stream_is_refused_after_the_client_has_gone(self) -> None:
        """A slot is released once: by then it may be another session's."""
        opened: Deferred[IWALCursor] = Deferred()
        self.provider.open = lambda timeline, start: opened  # type: ignore[method-assign]
        self.stream_by_slot()
        self.session.abort("the test wants it")
        self.clock.advance(0)
        self.successResultOf(self.slots.acquire("s", 99))
        opened.errback(WALUnavailable("000000010000000000000003"))
        slot = self.successResultOf(self.slots.read("s"))
        assert slot is not None
        self.assertEqual(slot.active_pid, 99)
        self.slots.release("s", 99)

    def test_no_stream_at_the_end_of_a_timeline(self) -> None:
        """Nor does a stream that never began, for its timeline ends at its start."""
        self.provider.end_timeline()
        self.log_in()
        self.assertEqual(kinds(self.ask('START_REPLICATION SLOT "s" 0/402028 TIMELINE 1')), "TDCCZ")
        self.assertEqual(self.slots.calls, [("acquire", "s", PID), ("release", "s", PID)])


class EndOfTimelineTests(SenderCase):
    """A timeline that ends, before or while it is streamed."""

    def test_transcript(self) -> None:
        """The last WAL, CopyDone; then, after the client's, what follows; twice complete."""
        self.stream(self.end)
        before = wal_message(self.end, wal(self.end, 0), self.end)
        self.assertEqual(len(before), 30)
        self.provider.end_timeline()
        self.assertEqual(self.hear(), COPY_DONE)
        self.assertEqual(self.say(status(self.end)), b"")
        self.assertEqual(self.say(COPY_DONE), NEXT_TIMELINE + STREAMING_COMPLETE)
        self.assertEqual(
            self.ask("TIMELINE_HISTORY 2")[-60:],
            self.ask("TIMELINE_HISTORY 2")[-60:],
        )
        self.assertEqual(
            self.ask("START_REPLICATION 0/402000 TIMELINE 2"),
            COPY_BOTH + wal_message(0x402000, wal(0x402000, 0x28), self.end),
        )

    def test_historic_timeline(self) -> None:
        """A historic timeline is streamed up to its switch point, which is also its walEnd."""
        self.provider.end_timeline()
        self.provider.append(wal(self.end, 5000))
        heard = self.stream(0x402000, timeline=1)
        expected = COPY_BOTH + wal_message(0x402000, wal(0x402000, 0x28), self.end) + COPY_DONE
        self.assertTrue(heard.endswith(expected))
        self.assertEqual(self.say(COPY_DONE), NEXT_TIMELINE + STREAMING_COMPLETE)

    def test_historic_timeline_at_its_end(self) -> None:
        """Asked for nothing but its end, there is no stream: what follows is told at once."""
        self.provider.end_timeline()
        self.log_in()
        self.assertEqual(
            self.ask("START_REPLICATION 0/402028 TIMELINE 1"), NEXT_TIMELINE + STREAMING_COMPLETE
        )
        self.assertEqual(self.provider.cursors, [])

    def test_client_ends_a_historic_stream_early(self) -> None:
        """A client that has enough is told what follows even so."""
        self.provider.end_timeline()
        self.log_in()
        self.provider.hold_back()
        self.ask("START_REPLICATION 0/300000 TIMELINE 1")
        self.assertEqual(self.say(COPY_DONE), COPY_DONE + NEXT_TIMELINE + STREAMING_COMPLETE)

    def test_both_end_it_at_once(self) -> None:
        """A client's CopyDone that crosses ours is the answer to it."""
        self.stream(self.end)
        self.provider.end_timeline()
        self.assertEqual(self.say(COPY_DONE), COPY_DONE + NEXT_TIMELINE + STREAMING_COMPLETE)

    def test_next_stream_forgets_what_followed(self) -> None:
        """What followed one timeline is not told at the end of the next stream."""
        self.stream(self.end)
        self.provider.end_timeline()
        self.say(COPY_DONE)
        self.ask("START_REPLICATION 0/402028 TIMELINE 2")
        self.assertEqual(self.say(COPY_DONE), COPY_DONE + STREAMING_COMPLETE)

    def test_keepalives_go_on_until_the_client_answers(self) -> None:
        """A client that does not end its half is asked, and then given up, as always."""
        self.stream(self.end)
        self.provider.end_timeline()
        self.hear()
        self.clock.advance(30)
        self.assertEqual(self.hear(), keepalive(self.end, reply_requested=True))
        self.clock.advance(30)
        self.assertEqual(self.transport.peer_saw, "reset")

    def test_slot_moves_until_the_client_answers(self) -> None:
        """What the client makes durable after our CopyDone counts for its slot."""
        self.successResultOf(self.slots.create("s", 1, temporary=False, restart=None))
        self.log_in()
        self.ask("START_REPLICATION SLOT s 0/402028")
        self.provider.end_timeline()
        self.say(status(self.end, self.end) + COPY_DONE)
        self.assertEqual(
            self.slots.calls[-2:],
            [("advance", "s", WALPosition(1, LSN(self.end))), ("release", "s", PID)],
        )


class TimeoutTests(SenderCase):
    """``wal_sender_timeout``."""

    def test_silent_client(self) -> None:
        """A client is asked after half of the timeout, and cut off after all of it, silently."""
        self.stream()
        self.clock.advance(29.9)
        self.assertEqual(self.hear(), b"")
        self.clock.advance(0.1)
        self.assertEqual(self.hear(), keepalive(self.end, reply_requested=True))
        self.clock.advance(29.9)
        self.assertEqual(self.transport.peer_saw, "open")
        self.clock.advance(0.2)
        self.assertEqual(self.hear(), b"")
        self.assertEqual(self.transport.peer_saw, "reset")
        self.assertIn("timeout", self.session.close_reason)

    def test_client_that_reports(self) -> None:
        """A client that reports is neither asked nor cut off."""
        self.stream()
        for _ in range(20):
            self.clock.advance(29)
            self.assertEqual(self.say(status(START)), b"")

    def test_sending_is_no_sign_of_life(self) -> None:
        """That WAL is sent says nothing about who reads it."""
        self.stream()
        for _ in range(7):
            self.clock.advance(9)
            self.provider.append(wal(self.provider.end().lsn, 8))
            self.hear()
        self.assertEqual(self.transport.peer_saw, "reset")

    def test_clients_own_timeout(self) -> None:
        """A client may set its own by the options of its startup packet."""
        self.log_in(options="-c wal_sender_timeout=3s")
        self.ask("START_REPLICATION 0/402028")
        self.clock.advance(1.5)
        self.assertEqual(self.hear(), keepalive(self.end, reply_requested=True))
        self.clock.advance(1.5)
        self.assertEqual(self.transport.peer_saw, "reset")

    def test_client_is_told_its_own_timeout(self) -> None:
        """SHOW answers with the timeout that holds for the client that asks."""
        self.log_in(options="-c wal_sender_timeout=3s")
        self.assertIn(b"\x00\x00\x00\x023s", self.ask("SHOW wal_sender_timeout"))
        self.check_nothing_is_left()
        self.gone.clear()
        self.log_in()
        self.assertIn(b"\x00\x00\x00\x041min", self.ask("SHOW wal_sender_timeout"))

    def test_no_timeout(self) -> None:
        """With 0 nobody is ever asked."""
        self.settings = SenderSettings(sender_timeout=0)
        self.stream()
        self.clock.advance(100_000)
        self.assertEqual(self.hear(), b"")
        self.assertEqual(self.transport.peer_saw, "open")

    def test_no_timeout_outside_of_a_stream(self) -> None:
        """Between commands a client may be silent for as long as it likes."""
        self.stream()
        self.say(COPY_DONE)
        self.clock.advance(100_000)
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)


class ShutdownTests(SenderCase):
    """The service stops."""

    def test_idle_session(self) -> None:
        """A session without a stream is told, and closed."""
        self.log_in()
        self.session.shut_down()
        self.assertEqual(self.hear(), SHUTDOWN_ERROR)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_before_the_startup_packet(self) -> None:
        """So is one that has not begun."""
        self.connect()
        self.session.shut_down()
        self.assertEqual(self.hear(), SHUTDOWN_ERROR)

    def test_handshake(self) -> None:
        """A stream sends what there is, asks until it is acknowledged, and ends with COPY 0."""
        self.stream(START + SIZE)
        self.say(status(START + SIZE, START + SIZE))
        end = self.provider.append(wal(self.end, 120))
        self.session.shut_down()
        asks = keepalive(end, reply_requested=True)
        self.assertEqual(self.hear(), wal_message(self.end, wal(self.end, 120), end) + asks)
        self.assertEqual(self.say(status(end, self.end)), asks)
        self.assertEqual(self.say(status(end, end)), SHUT_DOWN)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_client_that_does_not_flush(self) -> None:
        """Of a client that reports no flush position, the write position counts."""
        self.stream()
        self.session.shut_down()
        self.hear()
        self.assertEqual(self.say(status(self.end)), SHUT_DOWN)

    def test_already_acknowledged(self) -> None:
        """If everything is acknowledged already, nothing is asked."""
        self.stream()
        self.say(status(self.end, self.end))
        self.session.shut_down()
        self.assertEqual(self.hear(), SHUT_DOWN)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_ahead_is_not_equal(self) -> None:
        """As with PostgreSQL, only a position that equals what was sent will do."""
        self.stream()
        self.session.shut_down()
        self.hear()
        self.assertEqual(
            self.say(status(self.end + 8, self.end + 8)), keepalive(self.end, reply_requested=True)
        )

    def test_everything_there_is(self) -> None:
        """Before the end all the WAL is sent, however much the client has still to read."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.session.shut_down()
        heard = self.hear()
        self.assertEqual(heard[:8], COPY_BOTH)
        found, others = streamed(heard[8:], START)
        self.assertEqual(found, wal(START, self.end - START))
        self.assertEqual(
            [frame(b"d", body) for _, body in others], [keepalive(self.end, reply_requested=True)]
        )
        self.assertEqual(self.say(status(self.end)), SHUT_DOWN)

    def test_question_while_the_output_is_full(self) -> None:
        """The question for the acknowledgement stays one when it has to wait for the client."""
        self.stream()
        self.say(status(START))
        self.provider.append(wal(self.end, MESSAGE))
        self.transport.turn()
        self.session.shut_down()
        self.transport.deliver(status(START))
        _, others = streamed(self.hear(), self.end)
        self.assertTrue(others)
        self.assertEqual(others[-1].body[-1], 1)

    def test_silent_client(self) -> None:
        """A client that does not acknowledge is given up after the sender's timeout."""
        self.stream()
        self.say(status(START))
        self.session.shut_down()
        self.clock.advance(30)
        self.clock.advance(30)
        self.assertEqual(self.transport.peer_saw, "reset")

    def test_client_ends_the_stream(self) -> None:
        """A client that ends its stream in that moment gets its result, and then is told."""
        self.stream()
        self.session.shut_down()
        self.hear()
        self.assertEqual(self.say(COPY_DONE), COPY_DONE + STREAMING_COMPLETE + SHUTDOWN_ERROR)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_client_leaves(self) -> None:
        """A client may leave before it has acknowledged."""
        self.stream()
        self.session.shut_down()
        self.hear()
        self.assertEqual(self.say(TERMINATE), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def test_broken_message(self) -> None:
        """A stream that breaks off in the shutdown is not followed by another."""
        self.stream()
        self.session.shut_down()
        self.hear()
        heard = self.say(copy_data(b"r"))
        self.assertTrue(heard.endswith(SHUTDOWN_ERROR))
        self.assertEqual(self.transport.peer_saw, "end")

    def test_wal_is_removed(self) -> None:
        """Nor does a session go on whose WAL vanishes in the shutdown."""
        self.log_in()
        self.provider.hold_back()
        self.ask("START_REPLICATION 0/300000")
        self.session.shut_down()
        self.provider.drop_before(self.end)
        self.provider.let_go()
        heard = self.hear()
        self.assertIn(b"has already been removed", heard)
        self.assertTrue(heard.endswith(SHUTDOWN_ERROR))

    def test_timeline_ends_in_the_shutdown(self) -> None:
        """A timeline that ends then ends in order, and after it the session."""
        self.stream()
        self.session.shut_down()
        self.hear()
        self.provider.end_timeline()
        self.assertEqual(self.hear(), COPY_DONE)
        self.assertEqual(
            self.say(status(self.end) + COPY_DONE),
            NEXT_TIMELINE + STREAMING_COMPLETE + SHUTDOWN_ERROR,
        )
        self.assertEqual(self.transport.peer_saw, "end")

    def test_after_the_end_of_a_timeline(self) -> None:
        """A client that has still to answer our CopyDone gets its result first."""
        self.stream()
        self.provider.end_timeline()
        self.assertEqual(self.hear(), COPY_DONE)
        self.session.shut_down()
        self.assertEqual(self.hear(), b"")
        self.assertEqual(self.say(COPY_DONE), NEXT_TIMELINE + STREAMING_COMPLETE + SHUTDOWN_ERROR)

    def test_while_a_command_is_answered(self) -> None:
        """A session that answers a command is told at once, and the connection closes."""
        self.slots.held_back = Deferred()
        self.log_in()
        self.ask("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.session.shut_down()
        self.assertEqual(self.hear(), SHUTDOWN_ERROR)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_twice(self) -> None:
        """Told a second time, a stream still ends in order."""
        self.stream()
        self.session.shut_down()
        self.hear()
        self.session.shut_down()
        self.assertEqual(self.say(status(self.end, self.end)), SHUT_DOWN)

    def test_after_the_end(self) -> None:
        """A session that is closed already has nothing to say."""
        self.stream()
        self.transport.deliver(TERMINATE)
        self.session.shut_down()
        self.session.cancel_stream()
        self.assertEqual(self.hear(), b"")

    def test_client_that_reads_nothing(self) -> None:
        """A client that does not take its last bytes is cut off after a while."""
        self.log_in()
        self.transport.deliver(query("IDENTIFY_SYSTEM"))
        self.session.shut_down()
        self.clock.advance(4.9)
        self.assertEqual(self.transport.peer_saw, "open")
        self.clock.advance(0.2)
        self.assertEqual(self.transport.peer_saw, "reset")
        self.assertEqual(self.gone, [self.session])


class CancelTests(SenderCase):
    """A CancelRequest names this session."""

    def test_stream_breaks_off(self) -> None:
        """The stream ends with an error, and the session goes on."""
        self.stream()
        self.session.cancel_stream()
        self.assertEqual(
            self.hear(),
            error("ERROR", "57014", "canceling statement due to user request") + READY_FOR_QUERY,
        )
        self.assertEqual(self.say(status(START) + COPY_DONE), b"")
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_cancelled_before_it_began(self) -> None:
        """Not lost on a stream whose WAL is still being looked for; the next one is not meant."""
        self.log_in()
        opening: list[Deferred[IWALCursor]] = []
        really = self.provider.open

        def slowly(timeline: int, start: LSN) -> Deferred[IWALCursor]:
            opening.append(Deferred())
            return opening[-1]

        self.patch(self.provider, "open", slowly)
        self.assertEqual(self.ask("START_REPLICATION 0/300000"), COPY_BOTH)
        self.session.cancel_stream()
        really(1, LSN(START)).chainDeferred(opening[0])
        cancelled = error("ERROR", "57014", "canceling statement due to user request")
        self.assertEqual(self.hear(), cancelled + READY_FOR_QUERY)
        self.patch(self.provider, "open", really)
        self.assertTrue(self.ask("START_REPLICATION 0/300000").startswith(COPY_BOTH))
        self.assertIs(self.session.phase, SenderPhase.STREAMING)

    def test_without_a_stream(self) -> None:
        """Without a stream there is nothing to cancel."""
        self.log_in()
        self.session.cancel_stream()
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)

    def test_reading_rests_with_a_full_output(self) -> None:
        """A stream that is cancelled with a full output leaves a session that does not read."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.session.cancel_stream()
        self.transport.deliver(100 * query("IDENTIFY_SYSTEM"))
        self.assertTrue(self.transport.paused)
        heard = self.hear()
        self.assertTrue(heard.endswith(READY_FOR_QUERY + 100 * IDENTIFIED))

    def test_a_full_output_is_not_kept_for_ever(self) -> None:
        """A client that reads nothing of a stream that broke off is given up."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.session.cancel_stream()
        self.clock.advance(self.settings.message_timeout)
        self.assertEqual(self.session.close_reason, "reading an answer took longer than 60 s")


class DesignOf2009Tests(SenderCase):
    """The dialect of December 2009, byte by byte."""

    def test_transcript(self) -> None:
        """The four commands, the stream, and the client's leave."""
        self.log_in(replication="on")
        self.assertEqual(
            self.ask("GET_SYSTEM_IDENTIFIER"),
            b"T\x00\x00\x00\x21\x00\x01systemid\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
            b"D\x00\x00\x00\x1d\x00\x01\x00\x00\x00\x137423190665107412305"
            b"C\x00\x00\x00\x0bSELECT\x00" + READY_FOR_QUERY,
        )
        self.assertEqual(
            self.ask("GET_TIMELINE"),
            b"T\x00\x00\x00\x21\x00\x01timeline\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00"
            b"D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011"
            b"C\x00\x00\x00\x0bSELECT\x00" + READY_FOR_QUERY,
        )
        self.assertEqual(kinds(self.ask("GET_BACKUP_HISTORY_FILE 0/2000020")), "EZ")
        self.assertEqual(
            self.ask("START REPLICATION: 0/402000"),
            COPY_OUT + b"d\x00\x00\x00\x34\x00\x00\x00\x00\x00\x40\x20\x00" + wal(0x402000, 0x28),
        )
        self.provider.append(wal(self.end, 8))
        self.assertEqual(
            self.hear(),
            b"d\x00\x00\x00\x14\x00\x00\x00\x00\x00\x40\x20\x28" + wal(self.end, 8),
        )
        self.assertEqual(self.say(TERMINATE), b"")
        self.assertEqual(self.transport.peer_saw, "end")

    def stream_2009(self) -> bytes:
        self.log_in()
        return self.ask("START REPLICATION: 0/300000")

    def test_everything_is_sent(self) -> None:
        """The WAL is complete and in its place."""
        heard = self.stream_2009()
        self.assertEqual(heard[:8], COPY_OUT)
        found, others = streamed(heard[8:], START, WALPayload.DESIGN_2009)
        self.assertEqual((found, others), (wal(START, self.end - START), []))

    def test_silence_is_its_way(self) -> None:
        """A client that says nothing, as it should, is neither asked nor cut off."""
        self.stream_2009()
        self.clock.advance(100_000)
        self.assertEqual(self.hear(), b"")
        self.assertEqual(self.transport.peer_saw, "open")

    def test_any_word_is_wrong(self) -> None:
        """Whatever it says but Terminate ends the session, in the words of 2010."""
        for message in (status(START), copy_data(b""), COPY_DONE, query("GET_TIMELINE"), SYNC):
            self.stream_2009()
            self.assertEqual(
                self.say(message),
                error("FATAL", "08P01", f"invalid standby closing message type {message[0]}"),
            )
            self.assertEqual(self.transport.peer_saw, "end")
            self.check_nothing_is_left()
            self.gone.clear()
        self.connect()

    def test_shutdown(self) -> None:
        """It cannot acknowledge anything: the stream ends at once."""
        self.stream_2009()
        self.session.shut_down()
        self.assertEqual(self.hear(), SHUT_DOWN)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_end_of_timeline(self) -> None:
        """It knows no way to another timeline: the stream ends."""
        self.stream_2009()
        self.provider.end_timeline()
        self.assertEqual(self.hear(), SHUT_DOWN)
        self.assertEqual(self.transport.peer_saw, "end")

    def test_ahead_of_the_end(self) -> None:
        """That there is no such WAL is said once the stream has begun."""
        self.log_in()
        heard = self.ask("START REPLICATION: 0/403000")
        self.assertEqual(heard[:8], COPY_OUT)
        self.assertEqual(kinds(heard), "HEZ")

    def test_both_dialects_in_one_session(self) -> None:
        """The commands may be mixed."""
        self.log_in()
        self.assertEqual(
            kinds(self.say(query("GET_TIMELINE") + query("IDENTIFY_SYSTEM"))), 2 * "TDCZ"
        )


class FlowTests(SenderCase):
    """A client that does not read.

    :ivar mark: what a transport holds at most before it pauses its producer.
    """

    mark = 65536

    def test_stream_rests(self) -> None:
        """What a client that does not read costs is the transport's mark and one message."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.clock.advance(0)
        self.assertLessEqual(len(self.transport.unread), self.mark + MESSAGE + 30)
        held = len(self.transport.unread)
        for _ in range(50):
            self.provider.append(wal(self.provider.end().lsn, 8192))
            self.transport.turn()
        self.assertEqual(len(self.transport.unread), held)

    def test_nothing_is_lost(self) -> None:
        """When it reads on, however little at a time, it gets everything in order."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        heard = bytearray()
        sizes = (1, 50_000, 7, 131_102, 131_103, 65_536)
        for turn in range(200):
            heard += self.transport.take(sizes[turn % len(sizes)])
        found, others = streamed(bytes(heard[8:]) + self.hear(), START)
        self.assertEqual((found, others), (wal(START, self.end - START), []))

    def test_it_is_heard(self) -> None:
        """What it says is heard, also while it reads nothing."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.transport.deliver(status(START + 5))
        self.assertEqual(self.standby().write, START + 5)

    def test_replies_do_not_pile_up(self) -> None:
        """However often it asks for a reply, while it reads nothing one is owed."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        held = len(self.transport.unread)
        for _ in range(10_000):
            self.session.dataReceived(status(START, reply_requested=True))
        self.assertEqual(len(self.transport.unread), held)
        _, others = streamed(self.hear()[8:], START)
        self.assertEqual(len(others), 1)
        self.assertEqual(others[0].body[-1], 0)

    def test_question_is_still_a_question_when_it_leaves(self) -> None:
        """A keepalive that asks for a reply does so also if it had to wait."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.clock.advance(30)
        self.transport.deliver(status(START, reply_requested=True))
        _, others = streamed(self.hear()[8:], START)
        self.assertEqual([message.body[-1] for message in others], [1])

    def test_question_is_asked_once(self) -> None:
        """A question that had to wait is not asked again with the next reply."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.clock.advance(30)
        self.hear()
        self.transport.deliver(status(START, reply_requested=True))
        self.assertEqual(self.hear(), keepalive(self.end, reply_requested=False))

    def test_it_is_given_up(self) -> None:
        """A client that neither reads nor speaks is cut off in the end."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.clock.advance(30)
        self.clock.advance(30)
        self.assertEqual(self.gone, [self.session])

    def test_commands_rest(self) -> None:
        """A client that asks without end and never reads is not answered without end."""
        self.log_in()
        for _ in range(20):
            self.transport.deliver(1000 * query("IDENTIFY_SYSTEM"))
        self.assertTrue(self.transport.paused)
        self.assertLessEqual(len(self.transport.unread), self.mark + len(IDENTIFIED))
        self.assertGreater(self.transport.unreceived, 0)
        self.assertEqual(self.hear(), 20_000 * IDENTIFIED)

    def test_syncs_rest(self) -> None:
        """Nor is one that sends Sync without end."""
        self.log_in()
        for _ in range(20):
            self.transport.deliver(5000 * SYNC)
        self.assertLessEqual(len(self.transport.unread), self.mark + 6)
        self.assertEqual(self.hear(), 100_000 * READY_FOR_QUERY)

    def test_last_word_is_read(self) -> None:
        """An error behind a full output reaches the client that reads in the end."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.transport.deliver(frame(b"f", b"\0"))
        heard = self.hear()
        self.assertTrue(heard.endswith(error("FATAL", "08P01", 'invalid standby message type "f"')))
        self.assertEqual(self.transport.peer_saw, "end")


class FullOutputTests(SenderCase):
    """A transport that has enough with any message."""

    buffer_size = 7  # also of each read

    def test_stream_waits(self) -> None:
        """A stream that begins while the output is full adds nothing to it."""
        self.log_in()
        self.transport.deliver(query("START_REPLICATION 0/300000"))
        self.assertEqual(self.transport.unread, COPY_BOTH)
        found, _ = streamed(self.hear()[8:], START)
        self.assertEqual(found, wal(START, self.end - START))

    def test_conversation(self) -> None:
        """A whole conversation works as any other."""
        self.log_in()
        self.assertEqual(self.ask("IDENTIFY_SYSTEM"), IDENTIFIED)
        heard = self.ask("START_REPLICATION 0/300000")
        self.assertEqual(streamed(heard[8:], START)[0], wal(START, self.end - START))
        self.provider.end_timeline()
        self.assertEqual(self.hear(), COPY_DONE)
        self.assertEqual(self.say(COPY_DONE), NEXT_TIMELINE + STREAMING_COMPLETE)
        self.assertEqual(self.ask("START_REPLICATION 0/402028"), COPY_BOTH)
        self.session.shut_down()
        self.assertEqual(self.hear(), keepalive(self.end, reply_requested=True))
        self.assertEqual(self.say(status(self.end)), SHUT_DOWN)


class OneReadTests(SenderCase):
    """A stream's command and messages for it that come together."""

    def test_commands_and_messages_in_one_read(self) -> None:
        """A client may send its first status, or its CopyDone, with START_REPLICATION."""
        self.log_in()
        heard = self.say(query("START_REPLICATION 0/402000") + status(START) + COPY_DONE)
        expected = COPY_BOTH + wal_message(0x402000, wal(0x402000, 0x28), self.end)
        self.assertEqual(heard, expected + COPY_DONE + STREAMING_COMPLETE)

    def test_any_cut(self) -> None:
        """However the client's messages are cut, the answers are the same."""
        said = query("START_REPLICATION 0/402000") + status(START, reply_requested=True)
        said += copy_data(HotStandbyFeedback(0, 1, 2, 3, 4).pack()) + COPY_DONE + SYNC
        self.log_in()
        expected = self.say(said)
        self.assertEqual(kinds(expected), "WddcCCZZ")
        for index in range(len(said)):
            self.assertEqual(self.say(said[:index]) + self.say(said[index:]), expected, index)

    def test_unknown_payload_in_one_read_with_the_command(self) -> None:
        """Also if it came together with the command that began the stream."""
        self.log_in()
        heard = self.say(query("START_REPLICATION 0/402028") + copy_data(b"?what"))
        self.assertEqual(heard, COPY_BOTH)
        self.assertEqual(self.transport.peer_saw, "end")


class TLSStreamTests(StreamTests):
    """The same over TLS."""

    kind = "tls"


class TLSFlowTests(FlowTests):
    """The same over TLS, which gathers up to 64,000 bytes of small messages before it counts."""

    kind = "tls"
    mark = 65536 + 64_000


class TLSShutdownTests(ShutdownTests):
    """The same over TLS."""

    kind = "tls"


class DirectStreamTests(StreamTests):
    """The same past the transport."""

    direct = True


class DirectEndOfTimelineTests(EndOfTimelineTests):
    """The same past the transport."""

    direct = True


class DirectShutdownTests(ShutdownTests):
    """The same past the transport."""

    direct = True


class IdentityTests(SenderCase):
    """A provider that does not know yet whose WAL it will hold."""

    def test_starting_up(self) -> None:
        """Until it knows, clients are told to come again."""
        self.provider.identity = None
        self.assertEqual(
            self.log_in(), error("FATAL", "57P03", "the database system is starting up")
        )
        self.provider.identity = IDENTITY
