"""Every kind of login, right and wrong, with all of the log: no password is anywhere in it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.live.impostors import LET_IN, Move, impostor
from tests.unit.conversation import START
from tests.unit.test_wire_authentication import ScramServer
from walstream.protocols.receiver import ReceiverSettings
from walstream.services import assembly
from walstream.upstream import parse_conninfo
from walstream.wire.messages import (
    authentication_cleartext,
    authentication_md5,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    error_response,
)

reactor = cast(Any, _reactor)

RIGHT = "right-sesame"
WRONG = "wrong-sesame"
SECRETS = (RIGHT, WRONG, "sesame")
REFUSED = error_response("FATAL", "28P01", 'password authentication failed for user "me"')


@implementer(ILogObserver)
class _Everything:
    """All that is logged: its text, and the text of each thing that is in it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.texts += [formatEvent(event), repr(event)]


@contextmanager
def everything() -> Iterator[list[str]]:
    """What is logged, at every level."""
    observer = _Everything()
    globalLogPublisher.addObserver(observer)
    try:
        yield observer.texts
    finally:
        globalLogPublisher.removeObserver(observer)


def scram(*, knows: str) -> list[Move]:
    """A server that knows a password's verifier, and takes any proof; the exchange's moves."""
    server = ScramServer(knows.encode())

    def final(data: bytes) -> bytes:
        try:
            return authentication_sasl_final(server.server_final(data)) + LET_IN
        except AssertionError:
            return REFUSED

    return [
        lambda data: authentication_sasl(["SCRAM-SHA-256"]),
        lambda data: authentication_sasl_continue(server.server_first(data)),
        final,
    ]


def proves_nothing() -> list[Move]:
    return [*scram(knows=RIGHT)[:2], LET_IN]


@dataclass(frozen=True)
class Login:
    """A login, and what it comes to."""

    moves: list[Move]
    conninfo: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    said: str = "silent for too long"


ALLOW = "require_auth=password,md5"
CLEARTEXT: Move = authentication_cleartext()
MD5: Move = authentication_md5(b"salt")
LOGINS = (
    Login([CLEARTEXT, LET_IN], f"password={RIGHT} {ALLOW}"),
    Login([CLEARTEXT, REFUSED], f"password={WRONG} {ALLOW}", said="authentication failed"),
    Login([CLEARTEXT, LET_IN], f"password={RIGHT}", said="in cleartext"),
    Login([MD5, LET_IN], f"password={RIGHT}"),
    Login([MD5, REFUSED], f"password={WRONG}", said="authentication failed"),
    Login(scram(knows=RIGHT), f"password={RIGHT}"),
    Login(scram(knows=RIGHT), f"password={WRONG}", said="authentication failed"),
    Login(proves_nothing(), f"password={RIGHT}", said="did not prove"),
    Login([b"garbage" * 100], f"password={RIGHT}", said="has length"),
    Login(scram(knows=RIGHT), environ={"PGPASSWORD": RIGHT}),
    Login(scram(knows=RIGHT), "passfile={passfile}"),
    Login(scram(knows=RIGHT), "passfile={open_passfile}", said="none is known"),
    Login(scram(knows=RIGHT), environ={"CREDENTIALS_DIRECTORY": "{credentials}"}),
    Login([LET_IN], f"password={RIGHT} sslpassword={WRONG}"),
)


def places(directory: Path) -> dict[str, str]:
    """Files with the password in them."""
    credentials = directory / "credentials"
    credentials.mkdir()
    (credentials / "walstream.upstream.password").write_text(RIGHT)
    found = {"credentials": str(credentials)}
    for name, mode in (("passfile", 0o600), ("open_passfile", 0o644)):
        path = directory / name
        path.write_text(f"*:*:*:*:{RIGHT}\n")
        path.chmod(mode)
        found[name] = str(path)
    return found


@pytest_twisted.ensureDeferred
async def test_no_secret_is_logged(tmp_path: Path) -> None:
    """Nor is one in the archive, in an error, or in the text of any object that there is."""
    files = places(tmp_path)
    for number, login in enumerate(LOGINS):
        archive = tmp_path / f"archive-{number}"
        with everything() as log:
            said, objects = await try_login(login, archive, files)
        assert login.said in said, (number, said)
        texts = [said, *log, *objects]
        assert any("127.0.0.1" in text for text in texts)
        texts += [path.read_text("latin-1") for path in archive.rglob("*") if path.is_file()]
        for secret in SECRETS:
            assert not [text for text in texts if secret in text], (number, secret)


async def try_login(login: Login, archive: Path, files: Mapping[str, str]) -> tuple[str, list[str]]:
    """What a login comes to, and the texts of all objects of ours that were there."""
    factory = impostor(login.moves, end=START)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    place = f"host=127.0.0.1 port={port.getHost().port} sslmode=disable user=me "
    environ = {name: text.format_map(files) for name, text in login.environ.items()}
    upstream = parse_conninfo(
        place + login.conninfo.format_map(files), {"HOME": "/nonexistent", **environ}
    )
    service = assembly.receive(
        reactor,
        archive,
        upstream,
        ReceiverSettings(receive_timeout=0.3),
        retry=False,
        control="none",
    )
    service.startService()
    try:
        await service.finished().addTimeout(30.0, reactor)
        said = "nothing"
    except Exception as error:
        said = f"{error} {error!r}"
    objects = list(texts_of_objects())
    await service.stopService()
    await port.stopListening()
    return said, objects


def texts_of_objects() -> Iterator[str]:
    """Of everything that is an instance of a class of walstream's, or of the SCRAM library's."""
    for each in gc.get_objects():
        if str(type(each).__module__).startswith(("walstream.", "scramp.")):
            yield repr(each)
            yield str(each)
