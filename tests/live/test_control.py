"""Control sockets on the running reactor: who connects, who does not read, and archives that go."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.unit.log_capture import captured_log
from walstream.archive.lane import ThreadLane
from walstream.archive.paths import ArchivePaths
from walstream.archive.process_names import new_name
from walstream.errors import ArchiveLost
from walstream.services import control, control_files, control_port
from walstream.services.control import ArchivePlace, ControlSocket, FixedPlace, Place
from walstream.services.control_files import SocketFile, ask, socket_names

reactor = cast(Any, _reactor)


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come often."""
    monkeypatch.setattr(control, "_INTERVAL", 0.02)


@pytest.fixture
def paths(tmp_path: Path) -> ArchivePaths:
    """An archive's directory."""
    root = tmp_path / "archive"
    root.mkdir()
    return ArchivePaths(str(root))


async def until(happened: Callable[[], bool]) -> None:
    """Wait until something is so."""
    give_up = reactor.seconds() + 30
    while not happened():
        assert reactor.seconds() < give_up
        await deferLater(reactor, 0.005)


@asynccontextmanager
async def controlled(
    place: Place, document: Callable[[], Iterator[bytes]] | None = None
) -> AsyncIterator[ControlSocket]:
    """A control socket while the context lasts."""
    lane = ThreadLane(reactor, "test-control")
    made = ControlSocket(place, document or (lambda: iter([b"{", b"}\n"])), lane, reactor)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def only(paths: ArchivePaths) -> str:
    """The only socket of an archive."""
    (name,) = socket_names(paths.control)
    return os.path.join(paths.control, name)


async def told(path: str) -> bytes | None:
    """What a socket says, asked as `walstream status` asks."""
    return await deferToThread(ask, path, 5.0)


def connect(path: str) -> socket.socket:
    """A reader that does nothing yet."""
    return control_files._connect(path, 0.0)


@pytest_twisted.ensureDeferred
async def test_one_document(paths: ArchivePaths) -> None:
    """Who connects gets all of it, again and again; nobody else could. In the end it is gone."""
    pieces = [b'{"numbers": [0', *(b", %d" % number for number in range(1, 1000)), b"]}"]
    async with controlled(ArchivePlace(paths), lambda: iter(pieces)):
        path = only(paths)
        for _ in range(3):
            assert len(json.loads(await told(path) or b"")["numbers"]) == 1000
        assert os.stat(paths.control).st_mode & 0o777 == 0o700
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert socket_names(paths.control) == []


@pytest_twisted.ensureDeferred
async def test_who_does_not_read(paths: ArchivePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs a few pieces for a while, and is cut; the others are served meanwhile."""
    monkeypatch.setattr(control_port, "_PATIENCE", 0.2)
    made = 0

    def endless() -> Iterator[bytes]:
        nonlocal made
        while made < 1000:
            made += 1
            yield bytes(1 << 16)

    async with controlled(ArchivePlace(paths), endless) as served:
        reader = connect(only(paths))
        await until(lambda: len(served.factory.answers) == 1)
        await until(lambda: served.factory.answers == set())
        assert made < 100, "it was buffered"
        reader.close()


@pytest_twisted.ensureDeferred
async def test_many_who_ask(paths: ArchivePaths) -> None:
    """Eight are served; the ninth is turned away at once, and may come again."""
    waiting = [bytes(1 << 20)] * 20
    async with controlled(ArchivePlace(paths), lambda: iter(waiting)) as served:
        readers = [connect(only(paths)) for _ in range(8)]
        await until(lambda: len(served.factory.answers) == 8)
        assert await told(only(paths)) == b""
        readers.pop().close()
        await until(lambda: len(served.factory.answers) == 7)
        assert len(await told(only(paths)) or b"") == 20 << 20
        for reader in readers:
            reader.close()


@pytest_twisted.ensureDeferred
async def test_what_it_is_told(paths: ArchivePaths) -> None:
    """Nobody reads it."""
    async with controlled(ArchivePlace(paths)):
        reader = connect(only(paths))
        reader.send(b"GET / HTTP/1.1\r\n" * 100)
        answer = b""

        def read() -> bool:
            nonlocal answer
            try:
                piece = reader.recv(100)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            answer += piece
            return not piece

        await until(read)
        assert answer == b"{}\n"
        reader.close()


@pytest_twisted.ensureDeferred
async def test_who_cannot_be_answered(paths: ArchivePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of descriptors, or by a fault of ours: the next one is."""
    monkeypatch.setattr(control_port, "_REST", 0.02)
    adopts = reactor.adoptStreamConnection
    failures: list[Exception] = []

    def adopt(*details: Any) -> None:
        if failures:
            raise failures.pop()
        adopts(*details)

    monkeypatch.setattr(reactor, "adoptStreamConnection", adopt)
    async with controlled(ArchivePlace(paths)):
        for error in (OSError(errno.EMFILE, "too many open files"), RuntimeError("a fault")):
            failures.append(error)
            with captured_log() as log:
                assert await told(only(paths)) == b""
            assert await told(only(paths)) == b"{}\n"
            is_said = any("could not be answered" in line for line in log)
            assert is_said is isinstance(error, RuntimeError)


@pytest_twisted.ensureDeferred
async def test_a_document_that_fails(paths: ArchivePaths) -> None:
    """Is in the log, and breaks the answer off; the process goes on."""

    def failing() -> Iterator[bytes]:
        yield b"{"
        raise ZeroDivisionError

    with captured_log() as log:
        async with controlled(ArchivePlace(paths), failing):
            with suppress(ConnectionResetError):
                assert await told(only(paths)) in (b"", b"{")
            assert "cannot tell how this process is" in log


@pytest_twisted.ensureDeferred
async def test_an_archive_that_is_moved(paths: ArchivePaths, tmp_path: Path) -> None:
    """Without it there is no socket, not in another directory in its place either."""
    away = tmp_path / "away"
    async with controlled(ArchivePlace(paths)):
        os.rename(paths.root, away)
        await until(lambda: not _listens(away / ".walstream" / "control"))
        os.mkdir(paths.root)
        await deferLater(reactor, 0.1)
        assert os.listdir(paths.root) == []
        os.rmdir(paths.root)
        os.rename(away, paths.root)
        await until(lambda: _listens(Path(paths.control)))
        assert await told(only(paths)) == b"{}\n"
        shutil.rmtree(paths.control)
        await until(lambda: _listens(Path(paths.control)))
        assert await told(only(paths)) == b"{}\n"


def _listens(directory: Path) -> bool:
    return not all(
        control_files._is_stale(str(directory / name)) for name in socket_names(str(directory))
    )


@pytest_twisted.ensureDeferred
async def test_an_archive_that_is_let_go(paths: ArchivePaths) -> None:
    """Nothing of it stays open, from the moment on; once it is ours again there is a socket."""
    is_ours = True

    def assure() -> None:
        if not is_ours:
            raise ArchiveLost("it is gone")

    async with controlled(ArchivePlace(paths, assure)) as served:
        path = only(paths)
        is_ours = False
        served.release()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            connect(path)
        await until(lambda: socket_names(paths.control) == [])
        await deferLater(reactor, 0.1)
        assert socket_names(paths.control) == []
        is_ours = True
        await until(lambda: len(socket_names(paths.control)) == 1)


@pytest_twisted.ensureDeferred
async def test_what_dead_processes_left(paths: ArchivePaths) -> None:
    """Is removed by the next one."""
    os.makedirs(paths.control)
    SocketFile.make(os.path.join(paths.control, new_name())).listener.close()
    async with controlled(ArchivePlace(paths)):
        assert await told(only(paths)) == b"{}\n"


@pytest_twisted.ensureDeferred
async def test_no_place_for_it(paths: ArchivePaths, tmp_path: Path) -> None:
    """The log says so once, with the way out; the process goes on, and it is tried on."""
    Path(paths.own).write_text("no directory")
    with captured_log() as log:
        async with controlled(ArchivePlace(paths)):
            await deferLater(reactor, 0.2)
            (said,) = (text for text in log if "there is no control socket" in text)
            assert "--control=PATH" in said
            os.unlink(paths.own)
            await until(lambda: len(socket_names(paths.control)) == 1)
        async with controlled(FixedPlace(str(tmp_path / "control"))):
            assert await told(str(tmp_path / "control")) == b"{}\n"
    assert not (tmp_path / "control").exists()


@pytest_twisted.ensureDeferred
async def test_it_is_looked_around(paths: ArchivePaths) -> None:
    """Again and again, whether anybody connects or not."""
    looks: list[None] = []
    lane = ThreadLane(reactor, "test-control")
    made = ControlSocket(
        ArchivePlace(paths), lambda: iter([]), lane, reactor, lambda: looks.append(None)
    )
    await made.open()
    await until(lambda: len(looks) > 3)
    await made.close()
