"""The contracts find what is wrong: each of these implementations has one fault."""

from __future__ import annotations

import gc
import unittest
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.test_testing_memory import MemoryProviderUnderTest, MemorySinkUnderTest
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor, SystemIdentity, WALPosition
from walstream.testing.contracts import (
    ProviderUnderTest,
    SinkUnderTest,
    provider_contract,
    sink_contract,
)
from walstream.testing.memory import MemoryCursor, MemoryProvider, MemorySink


class LimitlessCursor(MemoryCursor):
    """Gives more than it is asked for."""

    def read(self, limit: int) -> memoryview:
        return super().read(limit + 1)


class StandingCursor(MemoryCursor):
    """Gives the same for ever."""

    def read(self, limit: int) -> memoryview:
        before = self.position
        view = super().read(limit)
        self.position = before
        return view


class HastyCursor(MemoryCursor):
    """Is always ready."""

    def ready(self) -> Deferred[None]:
        return succeed(None)


class DeafCursor(MemoryCursor):
    """Learns of nothing once it waits."""

    _woken = False

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            super().wake()

    def ready(self) -> Deferred[None]:
        self._woken = False
        return super().ready()


class ForgetfulCursor(MemoryCursor):
    """Leaves its waiter alone when it is closed."""

    def close(self) -> None:
        self._waiter = None
        super().close()


class FrugalCursor(MemoryCursor):
    """Reads into one buffer again and again."""

    _buffer = bytearray(1 << 21)

    def read(self, limit: int) -> memoryview:
        view = super().read(limit)
        self._buffer[: len(view)] = view
        return memoryview(self._buffer)[: len(view)]


class ModestProvider(MemoryProvider):
    """Says less than it has."""

    def end(self) -> WALPosition:
        end = super().end()
        return WALPosition(end.timeline, LSN(end.lsn - 1))


class EndlessProvider(MemoryProvider):
    """Does not say when a timeline is over."""

    def is_ready(self, timeline: int, position: int) -> bool:
        return position < self.available(timeline)


class GenerousProvider(MemoryProvider):
    """Opens a cursor where nothing is held."""

    def open(self, timeline: int, start: LSN) -> Deferred[IWALCursor]:
        cursor = MemoryCursor(self, timeline, start)
        self.cursors.append(cursor)
        return succeed(cursor)


def provider(
    kind: type[MemoryProvider], cursor: type[MemoryCursor] = MemoryCursor
) -> Callable[[], ProviderUnderTest]:
    """Makes a provider with a fault."""

    class Faulty(kind):  # type: ignore[valid-type, misc]
        def open(self, timeline: int, start: LSN) -> Deferred[IWALCursor]:
            def replace(opened: MemoryCursor) -> IWALCursor:
                self.cursors.remove(opened)
                other = cursor(self, timeline, start)
                self.cursors.append(other)
                return other

            opening: Deferred[MemoryCursor] = super().open(timeline, start)
            return opening.addCallback(replace)

    def make() -> ProviderUnderTest:
        under_test = MemoryProviderUnderTest()
        under_test.provider = Faulty(under_test.provider.identity, under_test.start)
        return under_test

    return make


PROVIDER_FAULTS: list[tuple[Callable[[], ProviderUnderTest], str]] = [
    (provider(MemoryProvider, LimitlessCursor), "test_reads_are_contiguous"),
    (provider(MemoryProvider, StandingCursor), "test_reads_are_contiguous"),
    (provider(MemoryProvider, HastyCursor), "test_waits_for_wal"),
    (provider(MemoryProvider, DeafCursor), "test_waits_for_wal"),
    (provider(MemoryProvider, ForgetfulCursor), "test_close_cancels_waiting"),
    (provider(MemoryProvider, FrugalCursor), "test_views_outlive_what_comes_after"),
    (provider(ModestProvider), "test_end_is_where_the_wal_ends"),
    (provider(EndlessProvider), "test_a_waiting_cursor_learns_of_the_end"),
    (provider(GenerousProvider), "test_names_the_segment_that_is_not_held"),
]


class LazySink(MemorySink):
    """Keeps the caller's buffer instead of its contents."""

    def write(self, start: int, data: memoryview) -> None:
        super().write(start, data)
        self.kept = [*getattr(self, "kept", []), data]

    def stored(self, timeline: int, start: int, size: int) -> bytes:
        return b"".join(self.kept)[:size]


class PatientSink(MemorySink):
    """Takes whatever comes."""

    def write(self, start: int, data: memoryview) -> None:
        super().write(self.written, data)


class BoastfulSink(MemorySink):
    """Counts as durable what it has not been given yet."""

    def write(self, start: int, data: memoryview) -> None:
        super().write(start, data)
        self.flushed = self.written + 1


class OpenSink(MemorySink):
    """Takes any cluster's WAL."""

    def adopt(self, identity: SystemIdentity) -> Deferred[None]:
        self.identity = identity
        return succeed(None)


class SleepySink(MemorySink):
    """Never tells a producer to go on."""

    def resume(self) -> None:
        self.is_paused = False


class SilentSink(MemorySink):
    """Does not stop its producer."""

    def fail(self, reason: str = "") -> None:
        self.producer = None
        super().fail(reason)


class HurriedSink(MemorySink):
    """Lets a flush that is under way count for what came after it began."""

    def flush(self) -> Deferred[LSN]:
        if self._under_way is None:
            return super().flush()
        flushed: Deferred[LSN] = Deferred()
        self._under_way[1].append(flushed)
        return flushed


class LossySink(MemorySink):
    """Forgets who asks for a flush while one is under way."""

    def flush(self) -> Deferred[LSN]:
        return super().flush() if self._under_way is None else Deferred()


class RecedingSink(MemorySink):
    """Takes back what it said was durable when a stream begins again."""

    def begin(self, timeline: int, start: LSN) -> Deferred[None]:
        self.flushed = min(self.flushed, start)
        return super().begin(timeline, start)


class CarelessSink(MemorySink):
    """Ends a stream without making it durable."""

    def finish(self) -> Deferred[None]:
        return succeed(None)


def sink(kind: type[MemorySink]) -> Callable[[], SinkUnderTest]:
    """Makes a sink with a fault."""

    def make() -> SinkUnderTest:
        under_test = MemorySinkUnderTest()
        under_test.sink = kind(auto_flush=False, high_mark=1 << 20)
        return under_test

    return make


SINK_FAULTS: list[tuple[Callable[[], SinkUnderTest], str]] = [
    (sink(LazySink), "test_takes_pieces_of_any_size"),
    (sink(PatientSink), "test_refuses_what_does_not_continue"),
    (sink(BoastfulSink), "test_flushed_only_grows"),
    (sink(OpenSink), "test_refuses_another_system"),
    (sink(SleepySink), "test_a_paused_producer_is_resumed"),
    (sink(SilentSink), "test_fails_for_good"),
    (sink(HurriedSink), "test_flushes_can_be_called_while_one_is_under_way"),
    (sink(LossySink), "test_flushes_can_be_called_while_one_is_under_way"),
    (sink(RecedingSink), "test_goes_on_where_it_ended"),
    (sink(CarelessSink), "test_takes_whole_segments"),
]


class ContractTests(SynchronousTestCase):
    """The contracts themselves."""

    def failing(self, contract: type[SynchronousTestCase]) -> set[str]:
        """The names of the tests that fail."""
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(contract).run(result)
        gc.collect()
        self.flushLoggedErrors(CancelledError)  # of cursors that a failed test had waited for
        return {test.id().rpartition(".")[2] for test, _ in result.failures + result.errors}

    def test_a_good_provider_passes(self) -> None:
        """The machinery of this module adds no fault of its own."""
        self.assertEqual(self.failing(provider_contract(provider(MemoryProvider))), set())

    def test_a_good_sink_passes(self) -> None:
        """The machinery of this module adds no fault of its own."""
        self.assertEqual(self.failing(sink_contract(sink(MemorySink))), set())

    def test_is_named_after_what_it_tests(self) -> None:
        """A report says whose fault it is."""
        for contract, name in (
            (provider_contract(MemoryProviderUnderTest), "MemoryProviderContract"),
            (sink_contract(MemorySinkUnderTest), "MemorySinkContract"),
        ):
            self.assertEqual(contract.__name__, name)
            self.assertEqual(contract.__module__, MemorySinkUnderTest.__module__)

    def test_finds_the_faults_of_providers(self) -> None:
        """The test that is about it fails, whatever others do."""
        for make, test in PROVIDER_FAULTS:
            self.assertIn(test, self.failing(provider_contract(make)))

    def test_finds_the_faults_of_sinks(self) -> None:
        """The test that is about it fails, whatever others do."""
        for make, test in SINK_FAULTS:
            self.assertIn(test, self.failing(sink_contract(make)))
