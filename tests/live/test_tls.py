"""TLS for real: our sender, our client, and Twisted's transports between them, on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.certificates import Authority, Issued
from tests.unit.conversation import IDENTITY, MemorySlots
from walstream.errors import Disconnected
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.client import ReplicationClient
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.testing.memory import MemoryProvider
from walstream.tls.server import ServerFiles, ServerTLS
from walstream.upstream import parse_conninfo

running: Any = reactor


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Knows the server."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def issued(authority: Authority) -> Issued:
    """The server's certificate."""
    return authority.issue("server", "localhost", "127.0.0.1")


class Clients(Factory):
    """Makes clients that log in, and no more."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        return ReplicationClient(cast(UpstreamAddress, addr).login)


class Served:
    """A sender that listens.

    :ivar factory: makes its sessions.
    """

    def __init__(self, files: ServerFiles | None, settings: SenderSettings) -> None:
        provider = MemoryProvider(IDENTITY, WALPosition(1, LSN(3 << 20)))
        tls = None if files is None else ServerTLS(files)
        self.factory = WALSenderFactory(provider, MemorySlots(), settings, running, tls=tls)
        self.port: IListeningPort = running.listenTCP(0, self.factory, interface="127.0.0.1")
        self.number: int = cast(Any, self.port.getHost()).port

    async def log_in(self, options: str) -> ReplicationClient:
        """As walstream does, with these options."""
        conninfo = f"host=127.0.0.1 port={self.number} user=me sslcert=/none {options}"
        upstream = replace(parse_conninfo(conninfo, {"HOME": "/nonexistent"}), connect_timeout=10)
        connecting: Deferred[Any] = UpstreamEndpoint(running, upstream).connect(Clients())
        client: ReplicationClient = await connecting
        return client

    async def outcome(self, options: str) -> str:
        """What comes of it: the version of TLS, ``plain``, or the error."""
        try:
            client = await self.log_in(options)
        except Disconnected as error:
            return str(error)
        found = "plain" if client.encryption is None else client.encryption.protocol
        client.close(Disconnected("seen"))
        await self.until_empty()
        return found

    async def until_empty(self) -> None:
        """Wait until all sessions are over."""
        await until(lambda: not self.factory.sessions)


async def until(happened: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        await deferLater(running, 0.002)


@contextmanager
def serving(
    files: ServerFiles | None,
    settings: SenderSettings = SenderSettings(),  # noqa: B008
) -> Iterator[Served]:
    """A sender, for as long as the context lasts."""
    served = Served(files, settings)
    try:
        yield served
    finally:
        served.port.stopListening()
        for session in list(served.factory.sessions):
            session.abort("the test is over")


@pytest_twisted.ensureDeferred
async def test_modes(authority: Authority, issued: Issued) -> None:
    """From the least to the strictest, by request and from the first byte on."""
    trust = f"sslrootcert={authority.certificate}"
    with serving(ServerFiles(issued.certificate, issued.key)) as served:
        for options, expected in (
            ("sslmode=disable", "plain"),
            ("sslmode=allow", "plain"),
            ("sslmode=prefer", "TLSv1.3"),
            ("sslmode=require", "TLSv1.3"),
            ("sslmode=require ssl_max_protocol_version=TLSv1.2", "TLSv1.2"),
            (f"sslmode=verify-ca {trust}", "TLSv1.3"),
            (f"sslmode=verify-full {trust}", "TLSv1.3"),
            (f"sslmode=verify-full {trust} sslnegotiation=direct", "TLSv1.3"),
        ):
            assert await served.outcome(options) == expected, options
        for options, expected in (
            ("sslrootcert=system", "certificate verify failed: "),
            ("sslrootcert=system", "(at depth 0, serial number "),
            (f"{trust} sslmode=verify-full host=other hostaddr=127.0.0.1", "does not match host"),
            ("sslmode=require sslcertmode=require", "server did not request an SSL certificate"),
            ("sslmode=require channel_binding=require", "without channel binding"),
        ):
            assert expected in await served.outcome(options), options
    with serving(None) as served:
        assert await served.outcome("sslmode=prefer") == "plain"
        assert "server does not support SSL" in await served.outcome("sslmode=require")


@pytest_twisted.ensureDeferred
async def test_what_a_session_knows(authority: Authority, issued: Issued) -> None:
    """Version, cipher, whose certificate the client has, and what to bind a login to."""
    mine = authority.issue("me")
    files = ServerFiles(issued.certificate, issued.key, authority.certificate)
    with serving(files) as served:
        client = await served.log_in(
            f"sslmode=require sslcert={mine.certificate} sslkey={mine.key}"
        )
        (session,) = served.factory.sessions
        ours, theirs = client.encryption, session.encryption
        assert ours is not None and theirs is not None and theirs.subject is not None
        assert (theirs.protocol, theirs.bits) == ("TLSv1.3", 256)
        assert (theirs.subject.common_name, theirs.subject.distinguished_name) == ("me", "CN=me")
        assert ours.end_point == theirs.end_point is not None
        client.close(Disconnected("seen"))
        await served.until_empty()


class Mute(Protocol):
    """A client that says what it was given, and then nothing, and never closes."""

    def __init__(self, words: bytes) -> None:
        self.words = words
        self.lost = False

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(self.words)

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


@pytest_twisted.ensureDeferred
async def test_half_a_handshake(issued: Issued) -> None:
    """Who does not end it has the time of a login, and is then let go of."""
    settings = SenderSettings(startup_timeout=0.2, close_timeout=0.2)
    with serving(ServerFiles(issued.certificate, issued.key), settings) as served:
        for words in (b"\x16", bytes.fromhex("0000000804D2162F"), bytes.fromhex("1603010200 01")):
            client = Mute(words)
            endpoint = TCP4ClientEndpoint(running, "127.0.0.1", served.number)
            await connectProtocol(endpoint, client)
            await until(partial(getattr, client, "lost"))
            await served.until_empty()
