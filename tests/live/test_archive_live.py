"""An archive with real threads, a real reactor, and another process's eyes on the directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from tests.unit.archives import IDENTITY, SIZE, history, record_wal
from walstream.archive import ArchiveDirectory, ArchiveReader
from walstream.errors import ArchiveError, EndOfTimeline
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALProvider, WALPosition

reactor = cast(Any, _reactor)

START = SIZE.start(1)
LENGTH = 24 * SIZE + 123_456
PIECE = 128 * 1024


@pytest.fixture(scope="module")
def wal() -> bytes:
    """The WAL that is sent."""
    return record_wal(START, LENGTH)


@implementer(IPushProducer)
class _Source:
    """Writes WAL into an archive, a few pieces a turn, as a receiver does."""

    def __init__(self, archive: ArchiveDirectory, wal: bytes, start: int = START) -> None:
        self._archive = archive
        self._wal = memoryview(wal)
        self._start = start
        self._is_paused = False
        self._done: Deferred[None] = Deferred()

    def run(self, flush_every: int = 8) -> Deferred[None]:
        """Write all of it; fires when that is done and durable."""
        self._archive.registerProducer(self, True)
        self._turn(flush_every)
        return self._done

    def _turn(self, flush_every: int) -> None:
        if not self._is_paused:
            for _ in range(flush_every):
                offset = self._archive.written - self._start
                piece = self._wal[offset : offset + PIECE]
                if not piece:
                    self._end()
                    return
                self._archive.write(self._archive.written, piece)
            self._archive.flush()
        reactor.callLater(0, self._turn, flush_every)

    def _end(self) -> None:
        self._archive.unregisterProducer()
        self._archive.flush().addCallback(lambda _: None).chainDeferred(self._done)

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False

    def stopProducing(self) -> None:
        raise AssertionError("the archive has failed")


async def _read(provider: IWALProvider, wal: bytes, start: int = START, timeline: int = 1) -> int:
    """Read all of it, waiting where there is nothing yet; how often that was."""
    cursor = await provider.open(timeline, LSN(start))
    waits = 0
    try:
        while (offset := cursor.position - start) < len(wal):
            view = cursor.read(PIECE)
            if view:
                assert view == wal[offset : offset + len(view)], f"wrong at {LSN(start + offset)}"
            else:
                waits += 1
                await cursor.ready()
    finally:
        cursor.close()
    return waits


async def _opened(path: Path) -> ArchiveDirectory:
    archive = ArchiveDirectory(path, reactor)
    await archive.storage.open()
    await archive.adopt(IDENTITY)
    return archive


async def _until(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        await deferLater(reactor, 0.01, lambda: None)
    raise AssertionError("it has not happened within half a minute")


@pytest_twisted.ensureDeferred
async def test_written_read_and_followed_at_once(tmp_path: Path, wal: bytes) -> None:
    """Cursors here and in another archive object read what is being written, byte by byte."""
    archive = await _opened(tmp_path)
    reader = ArchiveReader(tmp_path, reactor)
    await reader.storage.open()
    await archive.begin(1, START)
    assert archive.end() == WALPosition(1, START)
    readers = [Deferred.fromCoroutine(_read(archive, wal)) for _ in range(3)]
    source = _Source(archive, wal).run()
    await _until(lambda: reader.end().lsn > START)
    readers += [Deferred.fromCoroutine(_read(reader, wal)) for _ in range(2)]
    await source
    await gatherResults(readers)
    end = WALPosition(1, LSN(START + LENGTH))
    assert archive.durable_position() == archive.end() == reader.end() == end
    await archive.storage.close()
    await reader.storage.close()
    for number in range(24):
        content = (tmp_path / SIZE.name(1, number + 1)).read_bytes()
        assert content == wal[number * SIZE : (number + 1) * SIZE]
    own = ["end", "identity.json", "ledger.json", "ledger.lock", "lock", "readers", "retention"]
    assert sorted(os.listdir(tmp_path / ".walstream")) == own


@pytest_twisted.ensureDeferred
async def test_timeline_switch_is_followed(tmp_path: Path, wal: bytes) -> None:
    """Readers of the old timeline are told where it ends, here and elsewhere."""
    archive = await _opened(tmp_path)
    reader = ArchiveReader(tmp_path, reactor)
    await reader.storage.open()
    await archive.begin(1, START)
    length = 3 * SIZE + 5000
    await _Source(archive, wal[:length]).run()
    await _until(lambda: reader.end().lsn == START + length)
    cursors = [await each.open(1, LSN(START + length)) for each in (archive, reader)]
    ends = [cursor.ready() for cursor in cursors]
    await archive.finish()
    descent = history(2, (1, START + length))
    await archive.store_history(2, descent.format())
    await archive.begin(2, SIZE.start(4))
    branch = record_wal(SIZE.start(4), LENGTH - 3 * SIZE, descent)
    await _Source(archive, branch, SIZE.start(4)).run()
    for end in ends:
        with pytest.raises(EndOfTimeline) as told:
            await end
        assert (told.value.next_timeline, told.value.switch_point) == (2, START + length)
    await _read(reader, wal[:length])
    await _read(reader, branch, SIZE.start(4), 2)
    for cursor in cursors:
        cursor.close()
    await archive.storage.close()
    await reader.storage.close()


@pytest_twisted.ensureDeferred
async def test_next_to_pg_receivewal(tmp_path: Path, wal: bytes) -> None:
    """Segments are noticed when they get their names, and so is a walstream that takes over."""
    reader = ArchiveReader(tmp_path, reactor)
    await reader.storage.open()
    assert reader.identity is None
    for number in (1, 2, 3):
        partial = tmp_path / f"{SIZE.name(1, number)}.partial"
        partial.write_bytes(wal[(number - 1) * SIZE : number * SIZE])
        partial.rename(tmp_path / SIZE.name(1, number))
        await _until(lambda number=number: reader.end().lsn == SIZE.start(number + 1))
    waits = Deferred.fromCoroutine(_read(reader, wal))
    archive = await _opened(tmp_path)
    await archive.begin(1, SIZE.start(4))
    await _Source(archive, wal).run()
    assert await waits > 0
    await archive.storage.close()
    await reader.storage.close()


@pytest_twisted.ensureDeferred
async def test_removed_directories(tmp_path: Path, wal: bytes) -> None:
    """Without walstream's own directory the archive is still followed; without any, not."""
    path = tmp_path / "archive"
    (path / ".walstream").mkdir(parents=True)
    reader = ArchiveReader(path, reactor)
    await reader.storage.open()
    (path / ".walstream").rmdir()
    await deferLater(reactor, 0.05, lambda: None)
    (path / SIZE.name(1, 1)).write_bytes(wal[:SIZE])
    await _until(lambda: reader.end().lsn == SIZE.start(2))
    (path / SIZE.name(1, 1)).unlink()
    path.rmdir()
    await deferLater(reactor, 0.05, lambda: None)
    assert reader.end().lsn == SIZE.start(2)
    await reader.storage.close()


_WRITER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.live.test_archive_live import START, _opened
from tests.unit.archives import BUILT, record_wal

async def write():
    archive = await _opened(sys.argv[1])
    await archive.begin(1, START)
    while archive.written + 300_000 < BUILT.stop:
        start = archive.written
        archive.write(start, memoryview(record_wal(start, 300_000)))
        print(int(await archive.flush()), flush=True)

Deferred.fromCoroutine(write()).addErrback(lambda failure: failure.printTraceback())
reactor.run()
"""


@pytest_twisted.ensureDeferred
async def test_killed_writer(tmp_path: Path) -> None:
    """It names itself while it runs; killed, it leaves what it has acknowledged, and no lock."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=root, env=environment, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        try:
            while acknowledged < START + 3 * SIZE:
                acknowledged = int(writer.stdout.readline())
            with pytest.raises(ArchiveError, match=f"process {writer.pid}"):
                await _opened(tmp_path)
        finally:
            writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")[:-1]
        acknowledged = max([acknowledged, *map(int, rest)])
    archive = await _opened(tmp_path)
    end = archive.durable_position()
    assert end is not None
    assert end.lsn >= acknowledged
    await _read(archive, record_wal(START, end.lsn - START))
    await archive.storage.close()
