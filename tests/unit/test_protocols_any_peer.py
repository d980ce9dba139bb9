"""Peers that say and do anything in any order: nothing breaks, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from tests.unit.conversation import (
    COPY_BOTH,
    COPY_DONE,
    COPY_OUT,
    READY_FOR_QUERY,
    SHUT_DOWN,
    START,
    STARTUP,
    STREAMING_COMPLETE,
    SYNC,
    TERMINATE,
    SenderCase,
    error,
    keepalive,
    messages,
    status,
    wal,
    wal_message,
)
from tests.unit.test_protocols_receiver import LET_IN, SYSTEM, ReceiverCase, next_timeline, result
from walstream.protocols.receiver import Dialect
from walstream.testing.memory import MemorySink
from walstream.wire.copydata import HotStandbyFeedback
from walstream.wire.frames import frame
from walstream.wire.messages import (
    authentication_cleartext,
    copy_data,
    notice_response,
    parameter_status,
    query,
)
from walstream.wire.startup import startup_message

CLIENT_SAYS = [
    *map(
        query,
        [
            "IDENTIFY_SYSTEM",
            "SHOW wal_segment_size",
            "TIMELINE_HISTORY 2",
            "SELECT 1",
            "START_REPLICATION 0/300000 TIMELINE 1",
            "START_REPLICATION 0/402028",
            "START_REPLICATION 0/402028 TIMELINE 2",
            "START_REPLICATION SLOT a 0/402000",
            "START_REPLICATION 0/100000",
            "START_REPLICATION 0/900000",
            "START REPLICATION: 0/300000",
            "GET_TIMELINE",
            "CREATE_REPLICATION_SLOT a PHYSICAL",
            "CREATE_REPLICATION_SLOT b TEMPORARY PHYSICAL RESERVE_WAL",
            "DROP_REPLICATION_SLOT a",
            "DROP_REPLICATION_SLOT b WAIT",
        ],
    ),
    status(START),
    status(START + 0x102028, START + 0x102028),
    status(2**64 - 1, 2**64 - 1, 2**64 - 1, reply_requested=True),
    copy_data(HotStandbyFeedback(1, 2, 3, 4, 5).pack()),
    copy_data(b""),
    copy_data(b"r"),
    COPY_DONE,
    SYNC,
    frame(b"P", b"\0"),
    frame(b"H"),
]
CLIENT_ENDS = [
    TERMINATE,
    copy_data(b"?"),
    frame(b"f", b"\0"),
    frame(b"p", b"\0"),
    b"Q\0\0\0\3",
    bytes(20),
]
SERVER_SAYS = [
    LET_IN,
    authentication_cleartext(),
    READY_FOR_QUERY,
    result(SYSTEM, b"1", b"0/300000", None),
    result(SYSTEM, b"2", b"0/512345", None),
    result(b"1MB"),
    result(b"1min"),
    result(b"00000002.history", b"1\t0/300100\tpromoted\n"),
    next_timeline(2, START + 0x100),
    error("ERROR", "58P01", "no such file"),
    error("FATAL", "57P01", "terminating connection"),
    COPY_BOTH,
    COPY_OUT,
    COPY_DONE,
    STREAMING_COMPLETE,
    SHUT_DOWN,
    wal_message(START, wal(START, 0x100), START + 0x100),
    wal_message(START + 0x100, wal(START + 0x100, 0x100), START + 0x200),
    copy_data(START.to_bytes(8, "big") + wal(START, 0x100)),
    keepalive(START, reply_requested=True),
    keepalive(START, reply_requested=False),
    parameter_status("a", "b"),
    notice_response("NOTICE", "00000", "hello"),
    b"R\0\0\0\3",
    bytes(20),
]
# What brings a receiver into a stream; the rest of the play follows.
SERVER_BEGINS = [
    LET_IN,
    result(SYSTEM, b"1", b"0/300000", None),
    result(b"1MB"),
    result(b"1min"),
    COPY_BOTH,
]


class AnyClientTests(SenderCase):
    """A client of a sender."""

    deeds = st.lists(
        st.one_of(
            st.sampled_from([*CLIENT_SAYS, *CLIENT_SAYS, *CLIENT_ENDS]),
            st.sampled_from(
                [
                    "append",
                    "end timeline",
                    "hold back",
                    "let go",
                    "drop",
                    "store waits",
                    "store goes on",
                    "shut down",
                    "cancel",
                    "a second",
                    "a minute",
                    "reset",
                    "leave",
                ]
            ),
            st.integers(1, 200_000),
        ),
        max_size=30,
    )

    def do(self, deed: str) -> None:
        deeds: dict[str, Callable[[], object]] = {
            "append": lambda: self.provider.append(wal(self.provider.end().lsn, 5000)),
            "end timeline": self.provider.end_timeline,
            "hold back": self.provider.hold_back,
            "let go": self.provider.let_go,
            "drop": lambda: self.provider.drop_before(self.provider.end().lsn),
            "store waits": lambda: setattr(self.slots, "held_back", Deferred()),
            "store goes on": self.store_goes_on,
            "shut down": lambda: self.session.shut_down(),
            "cancel": lambda: self.session.cancel_stream(),
            "a second": lambda: self.clock.advance(1),
            "a minute": lambda: self.clock.pump([1] * 60),
            "reset": lambda: self.transport.peer_closed(ConnectionLost),
            "leave": lambda: self.transport.peer_closed(ConnectionDone),
        }
        deeds[deed]()

    def store_goes_on(self) -> None:
        waiting, self.slots.held_back = self.slots.held_back, None
        if waiting is not None:
            waiting.callback(None)

    @settings(max_examples=250, deadline=None)
    @given(deeds, st.booleans(), st.booleans(), st.booleans())
    def test_anything(
        self, deeds: list[bytes | str | int], direct: bool, tls: bool, in_pieces: bool
    ) -> None:
        """Whatever it does, the sender holds little, and keeps nothing when it is gone."""
        self.setUp()
        vars(self).update(direct=direct and not tls, kind="tls" if tls else "tcp")
        self.connect()
        self._cleanups.clear()
        self.transport.deliver(startup_message(STARTUP))
        heard = b""
        for deed in deeds:
            if isinstance(deed, str):
                self.do(deed)
            elif isinstance(deed, int):
                heard += self.transport.take(deed)
            elif in_pieces:
                for index in range(0, len(deed), 3):
                    self.transport.deliver(deed[index : index + 3])
            else:
                self.transport.deliver(deed)
            self.assertLess(len(self.transport.unread), 400_000)
        self.store_goes_on()
        self.provider.let_go()
        was_open = self.transport.connected
        heard += self.hear()
        if was_open:
            messages(heard)  # whole ones
        if self.transport.connected:
            self.transport.peer_closed()
            self.hear()
            # TLS: a connection that the peer closed first lives on with a producer: until it ends.
            self.clock.pump([1] * 70)
            if self.transport.connected:
                self.session.abort("the test is over")
                self.clock.advance(0)
        self.check_nothing_is_left()
        self.assertEqual(self.flushLoggedErrors(), [])


class AnyServerTests(ReceiverCase):
    """A server of a receiver."""

    deeds = st.lists(
        st.one_of(
            st.sampled_from([*SERVER_SAYS, *SERVER_SAYS]),
            st.sampled_from(
                [
                    "stop",
                    "sink pauses",
                    "sink resumes",
                    "flush",
                    "sink fails",
                    "a second",
                    "a minute",
                ]
            ),
        ),
        max_size=20,
    )

    def do(self, deed: str) -> None:
        deeds: dict[str, Callable[[], object]] = {
            "stop": lambda: self.receiver.stop(),
            "sink pauses": self.sink.pause,
            "sink resumes": self.sink.resume,
            "flush": self.flush,
            "sink fails": self.sink.fail,
            "a second": lambda: self.clock.advance(1),
            "a minute": lambda: self.clock.pump([1] * 60),
        }
        deeds[deed]()

    def flush(self) -> None:
        if self.sink.needs_flush:
            self.sink.complete_flush()

    @settings(max_examples=250, deadline=None)
    @given(
        st.integers(0, len(SERVER_BEGINS)),
        deeds,
        st.sampled_from(Dialect),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    )
    def test_anything(
        self,
        begun: int,
        deeds: list[bytes | str],
        dialect: Dialect,
        synchronous: bool,
        tls: bool,
        in_pieces: bool,
    ) -> None:
        """Whatever it does, the receiver is over when the connection is, and tells why."""
        self.setUp()
        vars(self).update(direct=not tls, kind="tls" if tls else "tcp")
        self.sink = MemorySink(auto_flush=False)
        self.connect(dialect=dialect, synchronous=synchronous, start_position=START)
        self._cleanups.clear()
        for deed in [*SERVER_BEGINS[:begun], *deeds]:
            if isinstance(deed, str):
                self.do(deed)
            elif in_pieces:
                for index in range(0, len(deed), 7):
                    self.transport.deliver(deed[index : index + 7])
            else:
                self.transport.deliver(deed)
            self.transport.take()
        self.sink.resume()
        self.transport.peer_closed()
        self.transport.turn()
        self.check_nothing_is_left(self.receiver, self.transport)
        self.assertEqual(self.flushLoggedErrors(), [])
