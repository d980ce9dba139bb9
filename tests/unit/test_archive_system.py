"""The ground an archive stands on: system calls, threads, mappings."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import ThreadLane
from walstream.archive.native import populate, start_writeback


class FileSystemTests(SynchronousTestCase):
    """`FileSystem` does what its names say."""

    def setUp(self) -> None:
        self.files = FileSystem()
        self.path = Path(self.mktemp())
        self.fd = self.files.open(str(self.path), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, self.fd)

    def test_set_size(self) -> None:
        """Grows and shrinks, keeps what it can, and takes the space at once."""
        self.files.write_all(self.fd, b"abc", 0)
        for size in (1 << 20, 1 << 21, 1 << 20, 2):
            self.files.set_size(self.fd, size)
            self.assertEqual(self.files.size_of(self.fd), size)
            self.assertEqual(self.path.read_bytes(), b"abc".ljust(size, b"\0")[:size])
        self.files.set_size(self.fd, 1 << 20)
        self.assertGreaterEqual(os.fstat(self.fd).st_blocks * 512, 1 << 20)

    def test_set_size_where_space_cannot_be_reserved(self) -> None:
        """Zeros are written then; other errors are errors."""
        for number in (errno.EOPNOTSUPP, errno.EINVAL):
            os.ftruncate(self.fd, 3)
            self.patch(os, "posix_fallocate", _failing(number))
            self.files.set_size(self.fd, 3_000_000)
            self.assertEqual(self.path.read_bytes(), bytes(3_000_000))
        self.patch(os, "posix_fallocate", _failing(errno.ENOSPC))
        self.assertRaises(OSError, self.files.set_size, self.fd, 4_000_000)

    def test_where_calls_are_missing(self) -> None:
        """Other systems have other means."""
        os.ftruncate(self.fd, 3)
        self.patch(self.files, "_reserve", lambda *_: False)
        self.files.set_size(self.fd, 1 << 20)
        self.assertEqual(self.path.read_bytes(), bytes(1 << 20))
        self.files.fdatasync(self.fd)

    def test_store_replaces_all_or_nothing(self) -> None:
        """A failure on the way leaves the old contents."""
        temporary = f"{self.path}.tmp"
        self.files.store(temporary, str(self.path), b"old")
        self.assertEqual(self.path.read_bytes(), b"old")
        self.patch(os, "fsync", _failing(errno.EIO))
        self.assertRaises(OSError, self.files.store, temporary, str(self.path), b"new")
        self.assertEqual(self.path.read_bytes(), b"old")

    def test_missing_files(self) -> None:
        """Their absence is an answer; so is what is there already."""
        path = self.mktemp()
        self.assertIs(self.files.find_size(path), None)
        self.files.unlink(path)
        self.files.make_directory(path)
        self.files.make_directory(path)
        self.assertEqual(self.files.names(path), [])

    def test_reads_the_beginning(self) -> None:
        """Or all of it."""
        self.files.write_all(self.fd, b"abcdef", 0)
        self.assertEqual(self.files.read(str(self.path), 2), b"ab")
        self.assertEqual(self.files.read(str(self.path)), b"abcdef")


class NativeTests(SynchronousTestCase):
    """`populate` and `start_writeback` are hints, and safe ones."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"x" * 100_000)
        with open(self.path, "rb") as file:
            self.mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def test_populate(self) -> None:
        """The mapping is as it was, and can still be closed."""
        populate(self.mapping, 0)
        populate(self.mapping, 100_000)
        self.assertEqual(self.mapping[:], b"x" * 100_000)
        self.mapping.close()

    def test_populate_of_a_file_that_was_shortened(self) -> None:
        """Is an error, where touching it would kill the process."""
        os.truncate(self.path, 10)
        try:
            supported = populate(self.mapping, 100_000)
        except OSError as error:
            self.assertIn(error.errno, (errno.EFAULT, errno.EIO))
        else:
            self.assertFalse(supported)

    def test_writeback(self) -> None:
        """Nothing is said of errors: fsync will."""
        with open(self.path, "r+b") as file:
            start_writeback(file.fileno(), 0, 4096)
        start_writeback(-1, 0, 4096)


class _Reactor:
    """Runs in the test's thread what threads have called."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._calls.put(lambda: function(*arguments))

    def turn(self) -> None:
        self._calls.get(timeout=10)()


class ThreadLaneTests(SynchronousTestCase):
    """`ThreadLane` runs jobs in threads of its own, in order."""

    def setUp(self) -> None:
        self.reactor = cast(Any, _Reactor())
        self.lane = ThreadLane(self.reactor, "test")

    def test_result(self) -> None:
        """It comes in the reactor's thread; the job ran in another."""
        result = self.lane.run(threading.get_ident)
        self.assertNoResult(result)
        self.reactor.turn()
        self.assertNotEqual(self.successResultOf(result), threading.get_ident())

    def test_order(self) -> None:
        """One after the other, in a single thread."""
        done: list[int] = []
        for number in range(100):
            self.lane.post(lambda number=number: done.append(number))  # type: ignore[misc]
        last = self.lane.run(lambda: done[:])
        self.reactor.turn()
        self.assertEqual(self.successResultOf(last), list(range(100)))

    def test_failure(self) -> None:
        """It is the Deferred's, or the log's; the lane goes on."""
        failing = self.lane.run(lambda: 1 // 0)
        self.reactor.turn()
        self.failureResultOf(failing, ZeroDivisionError)
        self.lane.post(lambda: [][1])
        self.reactor.turn()
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        again = self.lane.run(lambda: 1)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(again), 1)

    def test_out_of_memory(self) -> None:
        """Even if there is none left to say so in full: somebody waits for the answer."""

        class Exhausting(MemoryError):
            @property
            def __traceback__(self) -> None:  # type: ignore[override]
                raise MemoryError

        def exhaust() -> None:
            raise Exhausting

        for job in (exhaust, _raising(MemoryError), _raising(SystemExit)):
            result = self.lane.run(job)
            self.reactor.turn()
            self.failureResultOf(result, MemoryError, SystemExit)
        self.assertEqual(len(self.lane._threads), 1)

    def test_no_thread(self) -> None:
        """Whoever needs one is told, and nothing is left to be run later, out of order."""
        done: list[int] = []

        def cannot_start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch = self.patch(threading.Thread, "start", cannot_start)
        result = self.lane.run(lambda: done.append(1))
        self.assertIn("can't start new thread", str(self.failureResultOf(result, OSError).value))
        self.lane.post(lambda: done.append(2))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        patch.restore()
        self.lane.post(lambda: done.append(3))
        self.lane.run(lambda: None)
        self.reactor.turn()
        self.assertEqual(done, [3])

    def test_cancelled(self) -> None:
        """The job runs all the same; its result is let go."""
        gate = threading.Event()
        result = self.lane.run(gate.wait)
        result.addErrback(lambda _: None)
        result.cancel()
        gate.set()
        self.reactor.turn()

    def test_close(self) -> None:
        """What was given is done first; the threads have ended then, and nothing more is taken."""
        before = threading.active_count()
        done: list[int] = []
        self.lane.post(lambda: done.append(1))
        closing = self.lane.close()
        self.reactor.turn()
        self.successResultOf(closing)
        self.assertEqual((done, threading.active_count()), ([1], before))
        self.failureResultOf(self.lane.run(lambda: 1), RuntimeError)
        self.lane.post(lambda: done.append(2))
        self.assertEqual(done, [1])

    def test_close_before_use(self) -> None:
        """A lane that had nothing to do has no threads."""
        self.successResultOf(self.lane.close())

    def test_several_threads(self) -> None:
        """One job that waits does not hold up the next."""
        lane = ThreadLane(self.reactor, "test", 2)
        gate = threading.Event()
        waiting = lane.run(gate.wait)
        opened = lane.run(gate.set)
        self.reactor.turn()
        self.reactor.turn()
        self.assertTrue(self.successResultOf(waiting))
        self.successResultOf(opened)
        closing = lane.close()
        self.reactor.turn()
        self.assertNoResult(closing)
        self.reactor.turn()
        self.successResultOf(closing)

    def tearDown(self) -> None:
        if not self.lane.close().called:
            self.reactor.turn()


def _raising(error: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def _failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
