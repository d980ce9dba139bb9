"""Tests for `walstream.protocols.pump`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.unit.conversation import IDENTITY, NOW, SIZE, START, messages, streamed, wal, wal_message
from walstream.errors import EndOfTimeline, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor, WALPosition
from walstream.protocols.direct import direct_connection
from walstream.protocols.pump import MESSAGE_SIZE, WALPump
from walstream.testing.memory import MemoryCursor, MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.wire.stream import WALPayload

PAGE = 8192


class RecordingTransport:
    """Keeps what is written; what happens then is the test's."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.on_write: Callable[[], None] = lambda: None

    def writeSequence(self, iovec: list[bytes]) -> None:
        # As Twisted's, it takes only bytes.
        for data in iovec:
            assert isinstance(data, bytes)
            self.written += data
        self.on_write()


class PumpCase(SynchronousTestCase):
    """A pump out of a `MemoryProvider` which holds nothing yet."""

    payload = WALPayload.MODERN

    def setUp(self) -> None:
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        self.transport = RecordingTransport()
        self.idle: list[int] = []
        self.over: list[Failure] = []

    def make(self, start: int = START) -> WALPump:
        cursor = self.successResultOf(self.provider.open(1, LSN(start)))
        self.cursor = cast(MemoryCursor, cursor)
        self.pump = WALPump(
            cursor,
            cast(ITransport, self.transport),
            None,
            self.payload,
            lambda: NOW,
            self.on_idle,
            self.over.append,
        )
        return self.pump

    def on_idle(self) -> None:
        self.idle.append(self.pump.sent)

    def append(self, size: int) -> int:
        start = self.provider.end().lsn
        return self.provider.append(wal(start, size))

    def sizes(self) -> list[int]:
        """How much WAL each message holds."""
        return [len(body) - 25 for _, body in messages(bytes(self.transport.written))]


class WALPumpTests(PumpCase):
    """`WALPump` with a transport that takes everything."""

    def test_is_a_push_producer(self) -> None:
        """A pump is what a transport calls."""
        verifyObject(IPushProducer, self.make())

    def test_does_not_begin_by_itself(self) -> None:
        """Nothing is sent before the first `resumeProducing`."""
        self.append(100)
        self.make()
        self.assertEqual(self.transport.written, b"")

    def test_message(self) -> None:
        """What there is goes into one message of any size."""
        end = self.append(100)
        self.make().resumeProducing()
        self.assertEqual(self.transport.written, wal_message(START, wal(START, 100), end))

    def test_goes_on_when_there_is_more(self) -> None:
        """WAL that appears later is sent when it appears."""
        self.make().resumeProducing()
        for size in (1, 56, 8000, 200_000):
            self.append(size)
        self.assertEqual(streamed(bytes(self.transport.written), START), (wal(START, 208_057), []))
        self.assertTrue(self.pump.caught_up)
        self.assertEqual(self.pump.sent, START + 208_057)

    def test_full_messages_end_at_pages(self) -> None:
        """A message that is cut short by its size ends where a page does."""
        self.append(SIZE)
        self.make(START + 0x1F88).resumeProducing()
        self.assertEqual(self.sizes(), [123_000, *[MESSAGE_SIZE] * 6, 131_072])
        self.assertEqual(MESSAGE_SIZE, 16 * PAGE)

    def test_provider_boundaries(self) -> None:
        """A message may end earlier where the provider's own pieces do."""
        self.provider.append(wal(START, 300_000), visible=False)
        self.provider.append(wal(START + 300_000, 10), visible=False)
        self.provider.advance_end()
        self.make().resumeProducing()
        self.assertEqual(streamed(bytes(self.transport.written), START)[0], wal(START, 300_010))

    def test_never_past_the_end(self) -> None:
        """WAL that may not be served yet is not."""
        self.provider.append(wal(START, 1000), visible=False)
        self.make().resumeProducing()
        self.assertEqual(self.transport.written, b"")
        self.provider.advance_end(START + 10)
        self.assertEqual(self.transport.written, wal_message(START, wal(START, 10), START + 10))

    def test_design_of_2009(self) -> None:
        """In 2009 a message has nothing but its position before the WAL."""
        self.payload = WALPayload.DESIGN_2009
        self.append(SIZE)
        self.make().resumeProducing()
        found = streamed(bytes(self.transport.written), START, WALPayload.DESIGN_2009)
        self.assertEqual(found, (wal(START, SIZE), []))

    def test_idle(self) -> None:
        """Whenever there is nothing more for the moment, that is told."""
        self.make().resumeProducing()
        self.assertEqual(self.idle, [START])
        self.append(10)
        self.assertEqual(self.idle, [START, START + 10])

    def test_stop_when_idle(self) -> None:
        """Whoever is told that there is nothing more may stop the pump."""
        self.make()
        self.pump._idle = self.pump.stopProducing
        self.append(10)
        self.pump.resumeProducing()
        self.assertEqual(self.provider.cursors, [])
        self.append(10)
        self.assertEqual(self.pump.sent, START + 10)

    def test_provider_with_nothing_at_hand(self) -> None:
        """A provider that holds back is waited for."""
        self.append(10)
        self.provider.hold_back()
        self.make().resumeProducing()
        self.assertFalse(self.pump.caught_up)
        self.provider.let_go()
        self.assertTrue(self.pump.caught_up)


class PauseTests(PumpCase):
    """`pauseProducing`, `resumeProducing` and `stopProducing` at any time."""

    def test_paused_within_a_write(self) -> None:
        """A pause that comes within a write holds from the next message on."""
        self.append(SIZE)
        self.make()
        self.transport.on_write = self.pump.pauseProducing
        self.pump.resumeProducing()
        self.assertEqual(len(self.sizes()), 1)
        self.pump.resumeProducing()
        self.assertEqual(len(self.sizes()), 2)

    def test_paused_and_resumed_within_a_write(self) -> None:
        """A resume within a write lets the pump go on, and does not begin anew within itself."""
        for offset in range(0, 40_000, 8):
            self.provider.append(wal(START + offset, 8), visible=False)
        self.provider.advance_end()
        self.make()

        def there_and_back() -> None:
            self.pump.pauseProducing()
            self.pump.resumeProducing()

        self.transport.on_write = there_and_back
        self.pump.resumeProducing()
        self.assertEqual(streamed(bytes(self.transport.written), START), (wal(START, 40_000), []))

    def test_stopped_within_a_write(self) -> None:
        """A stop that comes within a write is the end."""
        self.append(SIZE)
        self.make()
        self.transport.on_write = self.pump.stopProducing
        self.pump.resumeProducing()
        self.assertEqual(len(self.sizes()), 1)
        self.assertEqual(self.provider.cursors, [])

    def test_paused_while_it_waits(self) -> None:
        """A pause while there is nothing holds when there is something."""
        self.make().resumeProducing()
        self.pump.pauseProducing()
        self.append(10)
        self.assertEqual(self.transport.written, b"")
        self.pump.resumeProducing()
        self.assertEqual(self.sizes(), [10])

    def test_often(self) -> None:
        """Each may come more than once, and changes nothing then."""
        self.make()
        for _ in range(3):
            self.pump.resumeProducing()
        self.append(10)
        for _ in range(3):
            self.pump.pauseProducing()
        self.append(10)
        for _ in range(3):
            self.pump.resumeProducing()
        self.assertEqual(self.sizes(), [10, 10])
        for _ in range(3):
            self.pump.stopProducing()
        self.append(10)
        self.pump.resumeProducing()
        self.assertEqual(self.sizes(), [10, 10])

    def test_stopped_while_it_waits(self) -> None:
        """The cursor is closed, and nobody waits for it any more."""
        self.make().resumeProducing()
        self.pump.stopProducing()
        self.assertEqual(self.provider.cursors, [])
        self.assertEqual(self.over, [])


class OverTests(PumpCase):
    """The end of a cursor."""

    def test_end_of_timeline(self) -> None:
        """When the timeline has ended and all of it is sent, that is told, once."""
        self.append(10)
        self.make().resumeProducing()
        self.provider.end_timeline()
        (failure,) = self.over
        error = failure.value
        assert isinstance(error, EndOfTimeline)
        self.assertEqual((error.next_timeline, error.switch_point), (2, START + 10))
        self.assertEqual(self.provider.cursors, [])
        self.assertEqual(self.pump.sent, START + 10)
        self.pump.resumeProducing()
        self.pump.stopProducing()
        self.assertEqual(len(self.over), 1)

    def test_end_of_timeline_while_paused(self) -> None:
        """A paused pump sends all there is before the end is told."""
        self.make()
        self.pump.pauseProducing()
        self.append(10)
        self.provider.end_timeline()
        self.assertEqual(self.over, [])
        self.pump.resumeProducing()
        self.assertEqual(self.sizes(), [10])
        self.assertEqual(len(self.over), 1)

    def test_wal_is_gone(self) -> None:
        """WAL that was removed before it was sent is told as such."""
        self.append(SIZE + 10)
        self.make()
        self.provider.drop_before(START + SIZE)
        self.pump.resumeProducing()
        (failure,) = self.over
        failure.trap(WALUnavailable)
        self.assertEqual(self.provider.cursors, [])

    def test_fault_of_the_provider(self) -> None:
        """Any other error is told as well."""
        self.make().resumeProducing()
        self.fail_cursor(RuntimeError("the disk is on fire"))
        (failure,) = self.over
        failure.trap(RuntimeError)

    def test_fault_after_the_stop(self) -> None:
        """What a cursor says after it was closed is nobody's business."""
        self.make().resumeProducing()
        waiter = self.cursor._waiter
        assert waiter is not None
        self.cursor._waiter = None
        self.pump.stopProducing()
        waiter.errback(RuntimeError("the disk is on fire"))
        self.assertEqual(self.over, [])

    def test_fault_in_a_read(self) -> None:
        """An error of `read` when the wait for WAL is over is not lost."""
        self.make().resumeProducing()

        def read(limit: int) -> memoryview:
            raise RuntimeError("the disk is on fire")

        self.cursor.read = read  # type: ignore[method-assign]
        self.append(10)
        (failure,) = self.over
        failure.trap(RuntimeError)

    def fail_cursor(self, error: Exception) -> None:
        waiter, self.cursor._waiter = self.cursor._waiter, None
        assert waiter is not None
        waiter.errback(error)


class LateProvider(MemoryProvider):
    """A provider whose cursors become ready some time after the WAL is there."""

    def __init__(self) -> None:
        super().__init__(IDENTITY, WALPosition(1, START))
        self.late: list[MemoryCursor] = []

    def _wake(self) -> None:
        self.late = list(self.cursors)

    def wake_late(self) -> None:
        """Now they do."""
        late, self.late = self.late, []
        for cursor in late:
            cursor.wake()


class Play:
    """A pump, and everything that can happen to it.

    :ivar within: what happens within the next writes.
    """

    def __init__(self, payload: WALPayload, provider: MemoryProvider, within: list[str]) -> None:
        self.provider = provider
        self.transport = RecordingTransport()
        self.transport.on_write = self.on_write
        self.within = within
        self.over: list[Failure] = []
        self.is_paused = self.is_stopped = self.has_ended = False
        opened: list[IWALCursor] = []
        provider.open(1, LSN(START)).addCallback(opened.append)
        self.pump = WALPump(
            opened[0],
            cast(ITransport, self.transport),
            None,
            payload,
            lambda: NOW,
            lambda: None,
            self.over.append,
        )

    def on_write(self) -> None:
        assert not self.is_paused, "a paused pump writes"
        assert not self.is_stopped, "a stopped pump writes"
        if self.within:
            self.do(self.within.pop())

    def do(self, step: str) -> None:
        {
            "pause": self.pause,
            "resume": self.resume,
            "pause and resume": self.pause_and_resume,
            "append": lambda: self.append(40),
            "append much": lambda: self.append(300_000),
            "ready": self.ready,
            "hold back": self.provider.hold_back,
            "let go": self.provider.let_go,
            "end timeline": self.end_timeline,
            "stop": self.stop,
        }[step]()

    def pause(self) -> None:
        self.is_paused = True
        self.pump.pauseProducing()

    def resume(self) -> None:
        self.is_paused = False
        self.pump.resumeProducing()

    def pause_and_resume(self) -> None:
        self.pause()
        self.resume()

    def stop(self) -> None:
        self.is_stopped = True
        self.pump.stopProducing()

    def append(self, size: int) -> None:
        if not self.has_ended:
            self.provider.append(wal(self.provider.end().lsn, size))

    def ready(self) -> None:
        if isinstance(self.provider, LateProvider):
            self.provider.wake_late()

    def end_timeline(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.provider.end_timeline()

    def finish(self) -> None:
        """Nothing stands in the way any more."""
        self.within.clear()
        for step in ("let go", "resume", "ready", "resume", "ready"):
            self.do(step)


OUTSIDE = ["pause", "resume", "append", "append much", "ready", "hold back", "let go"]
WITHIN = ["pause", "resume", "pause and resume", "append", "append much", "ready"]


class InterleavingTests(SynchronousTestCase):
    """Whatever the order of events, no byte is lost, repeated or put before another."""

    @settings(max_examples=300, deadline=None)
    @given(
        outside=st.lists(st.sampled_from([*OUTSIDE, "end timeline"]), max_size=40),
        within=st.lists(st.sampled_from([*WITHIN, "end timeline", "stop"]), max_size=40),
        late=st.booleans(),
        payload=st.sampled_from(WALPayload),
    )
    def test_any_order(
        self, outside: list[str], within: list[str], late: bool, payload: WALPayload
    ) -> None:
        """Pauses, resumes, WAL and its end may come in any order, also within writes."""
        provider = LateProvider() if late else MemoryProvider(IDENTITY, WALPosition(1, START))
        play = Play(payload, provider, within)
        for step in outside:
            play.do(step)
        play.finish()
        found, others = streamed(bytes(play.transport.written), START, payload)
        self.assertEqual(others, [])
        self.assertEqual(found, wal(START, len(found)))
        self.assertEqual(play.pump.sent, START + len(found))
        if play.is_stopped:
            self.assertEqual(provider.cursors, [])
            self.assertEqual(play.over, [])
        else:
            self.assertEqual(play.pump.sent, provider.end().lsn)
            self.assertEqual(len(play.over), int(play.has_ended))


class Session(Protocol):
    """Registers a pump as its transport's producer, and begins."""

    def __init__(self, make: Callable[[ITransport], WALPump]) -> None:
        self.make = make

    def begin(self) -> WALPump:
        assert self.transport is not None
        pump = self.make(self.transport)
        self.transport.registerProducer(pump, True)  # type: ignore[attr-defined]
        pump.resumeProducing()
        return pump


class TransportTests(SynchronousTestCase):
    """A pump and Twisted's own transports."""

    def run_over(self, transport: FlowTransport, amounts: list[int]) -> None:
        """A client reads *amounts* of bytes, with WAL appearing in between, then all."""
        provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        cursor = self.successResultOf(provider.open(1, LSN(START)))
        session = transport.connect(
            Session(
                lambda transport: WALPump(
                    cursor,
                    transport,
                    None,
                    WALPayload.MODERN,
                    lambda: NOW,
                    lambda: None,
                    lambda failure: None,
                )
            )
        )
        self.assertIsNone(direct_connection(session.transport))
        session.begin()
        heard = bytearray()
        for amount in amounts:
            provider.append(wal(provider.end().lsn, amount * 7 % 300_000))
            transport.turn()
            # The mark and one message, each with what TLS makes of them.
            self.assertLessEqual(len(transport.unread), 65536 + 64_000 + MESSAGE_SIZE + 30)
            heard += transport.take(amount)
        while piece := transport.take():
            heard += piece
        self.assertEqual(
            streamed(bytes(heard), START), (wal(START, provider.end().lsn - START), [])
        )

    amounts = st.lists(st.integers(1, 250_000), max_size=12)

    @settings(max_examples=25, deadline=None)
    @given(amounts)
    def test_tcp(self, amounts: list[int]) -> None:
        """A slow reader gets every byte in order, and costs a constant."""
        self.run_over(FlowTransport(), amounts)

    @settings(max_examples=10, deadline=None)
    @given(amounts)
    def test_tls(self, amounts: list[int]) -> None:
        """So does one over TLS."""
        self.run_over(FlowTransport("tls"), amounts)


class ReadyTests(PumpCase):
    """`IWALCursor.ready`, of which one may be outstanding."""

    def test_one_at_a_time(self) -> None:
        """WAL that is there before `ready` has fired is sent, and no second one asked for."""
        provider = LateProvider()
        self.provider = provider
        self.make().resumeProducing()
        self.append(10)
        self.pump.resumeProducing()
        self.assertEqual(self.sizes(), [10])
        self.append(20)
        self.pump.pauseProducing()
        self.pump.resumeProducing()
        self.assertEqual(self.sizes(), [10, 20])
        self.append(30)
        provider.wake_late()
        self.assertEqual(self.sizes(), [10, 20, 30])

    def test_fires_without_anything(self) -> None:
        """A `ready` that has fired with nothing to read is asked for again."""
        self.make().resumeProducing()
        waiter, self.cursor._waiter = self.cursor._waiter, None
        assert isinstance(waiter, Deferred)
        waiter.callback(None)
        self.assertIsNotNone(self.cursor._waiter)
        self.append(10)
        self.assertEqual(self.sizes(), [10])
