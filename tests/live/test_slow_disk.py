"""A receiver on a slow disk: the reactor never waits for it, so answers are prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater

from tests.unit.conversation import COPY_BOTH, READY_FOR_QUERY, keepalive, wal, wal_message
from walstream.archive import ArchiveDirectory, Equipment
from walstream.archive.lane import ThreadLane
from walstream.formats.segments import SegmentSize
from walstream.protocols.login import Login
from walstream.protocols.receiver import ReceiverSettings, WALReceiver
from walstream.testing.disk import SlowFiles
from walstream.testing.wal import SYSTEM_IDENTIFIER
from walstream.wire.copydata import StandbyStatus, parse_standby_message
from walstream.wire.frames import FrameReader, backend_limit
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_ok,
    command_complete,
    data_row,
    parameter_status,
    row_description,
)

reactor = cast(Any, _reactor)

SIZE = SegmentSize(1 << 20)
START = SIZE.start(3)

# How long each sync takes, and what tells an answer, or a turn of the reactor, that has waited for
# one. On a busy machine some take their time anyway: whoever waits for the disk does so each time.
_SYNC = 0.4
_PROMPT = 0.2

_ANSWERS = {
    b"IDENTIFY_SYSTEM": [str(SYSTEM_IDENTIFIER), "1", "0/300000", ""],
    b"SHOW wal_segment_size": ["1MB"],
    b"SHOW wal_sender_timeout": ["1min"],
    b"SHOW synchronous_standby_names": ["receiver"],
    b"SHOW synchronous_commit": ["on"],
}


class Server(Protocol):
    """Plays a server, up to the stream.

    :ivar statuses: when each status update came, and what it said.
    """

    def __init__(self) -> None:
        self.streaming: Deferred[None] = Deferred()
        self.statuses: list[tuple[float, StandbyStatus]] = []
        self._has_started = False
        self._reader = FrameReader(lambda kind: backend_limit(kind))

    def dataReceived(self, data: bytes) -> None:
        if not self._has_started:
            self._has_started = True
            version = parameter_status("server_version", "18.6")
            self.say(authentication_ok() + version + READY_FOR_QUERY)
            return
        self._reader.feed(data)
        while (frame := self._reader.next()) is not None:
            if frame.kind == ord("Q"):
                self._answer(frame.body.rstrip(b"\0"))
            elif frame.kind == ord("d"):
                status = parse_standby_message(frame.body)
                assert isinstance(status, StandbyStatus)
                self.statuses.append((reactor.seconds(), status))

    def say(self, data: bytes) -> None:
        """Send something."""
        assert self.transport is not None
        self.transport.write(data)

    def _answer(self, question: bytes) -> None:
        if question.startswith(b"START_REPLICATION"):
            self.say(COPY_BOTH)
            self.streaming.callback(None)
            return
        values = _ANSWERS[question]
        columns = [Column("x", ColumnType.TEXT) for _ in values]
        row = data_row([value.encode() for value in values])
        self.say(row_description(columns) + row + command_complete("SHOW") + READY_FOR_QUERY)


@pytest_twisted.ensureDeferred
async def test_answers_are_prompt_while_the_disk_is_slow(tmp_path: Path) -> None:
    """Each keepalive is answered at once, no turn takes long, and syncs overlap with receiving."""
    files = SlowFiles(0.0)
    lanes = ThreadLane(reactor, "sync"), ThreadLane(reactor, "read")
    archive = ArchiveDirectory(tmp_path, reactor, equipment=Equipment(files, *lanes))
    await archive.storage.open()
    server = Server()
    factory = Factory.forProtocol(lambda: server)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    receiver = WALReceiver(archive, Login("receiver"), ReceiverSettings(synchronous=True), reactor)
    receiving = Factory.forProtocol(lambda: receiver)
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(receiving)
    receiver.finished.addErrback(lambda _: None)
    try:
        await server.streaming
        await _until(lambda: bool(server.statuses))
        files.seconds = _SYNC
        await _see_prompt_answers(server, files)
    finally:
        files.seconds = 0.0
        receiver.transport.abortConnection()  # type: ignore[union-attr]
        await receiver.finished
        await archive.storage.close()
        await port.stopListening()


async def _see_prompt_answers(server: Server, files: SlowFiles) -> None:
    turns = [reactor.seconds()]
    ticking = LoopingCall(lambda: turns.append(reactor.seconds()))
    ticking.start(0.005)
    begun = reactor.seconds()
    end: int = START
    answered: list[float] = []
    for _ in range(40):
        # A segment and more, in pieces, with a question behind each.
        server.say(wal_message(end, wal(end, 30_000), end + 30_000))
        end += 30_000
        asked, before = reactor.seconds(), len(server.statuses)
        server.say(keepalive(end, reply_requested=True))
        await _until(partial(_has_written, server, end))
        answered.append(reactor.seconds() - asked)
        assert len(server.statuses) > before
    received = reactor.seconds() - begun
    assert sorted(answered)[30] < _PROMPT, f"the answers took {answered}"
    await _until(lambda: server.statuses[-1][1].flush == end, timeout=20 * _SYNC)
    ticking.stop()
    long = [b - a for a, b in itertools.pairwise(turns) if b - a >= _PROMPT]
    assert sum(long) < files.syncs * _SYNC / 2, f"the reactor was kept for {long}"
    # Nothing was called durable before the first sync can have been over, and the syncs of all
    # that came took longer than receiving it.
    first = next(when for when, status in server.statuses if status.flush > START)
    assert first - begun >= _SYNC
    assert files.syncs * _SYNC > received
    assert all(
        a[1].flush <= b[1].flush for a, b in zip(server.statuses, server.statuses[1:], strict=False)
    )


def _has_written(server: Server, end: int) -> bool:
    return any(status.write == end for _, status in server.statuses)


async def _until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = reactor.seconds() + timeout
    while not condition():
        assert reactor.seconds() < deadline, "it does not come"
        await deferLater(reactor, 0.002)
