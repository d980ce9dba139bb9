"""Every case by every client at both places, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import psycopg2

from tests.client_matrix import clients
from tests.client_matrix.cases import (
    DIFFERENT,
    DIRECT,
    FAILURES,
    METHODS,
    PACKET,
    PG_RECEIVEWAL,
    PSQL,
    PSYCOPG2,
    STANDBY,
    Case,
)
from tests.client_matrix.standby import Standby
from tests.client_matrix.world import Place, World
from walstream.embedded import Installation

__all__ = ["Outcome", "of_another_version", "outcomes", "surprises"]

_AT_ONCE = 4
# Who closes a connection before it has read all of it may keep what it has said from its client: in
# TLS 1.3 a client goes on before it knows whether its certificate will do.
_LOST = ("Connection reset by peer", "server closed the connection unexpectedly", "Broken pipe")
_TRIES = 5
_TOOLS: dict[str, Callable[[World, Case, Place], str]] = {
    PG_RECEIVEWAL: clients.pg_receivewal,
    PSQL: clients.psql,
    PSYCOPG2: clients.psycopg2_client,
    PACKET: clients.startup_packet,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    :ivar theirs: what the client says of the server.
    :ivar ours: what it says of us.
    """

    case: Case
    client: str
    theirs: str
    ours: str


def outcomes(world: World, cases: Iterable[Case]) -> list[Outcome]:
    """All of them, in order, as far as the clients of this version know what is asked of them."""
    majors = {PSYCOPG2: psycopg2.extensions.libpq_version() // 10000}
    major = world.clusters.installation.major
    wanted = [
        (case, client)
        for case in cases
        for client in case.clients
        if case.since <= majors.get(client, major)
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool, ThreadPoolExecutor(2) as sides:
        theirs, ours = sides.map(
            lambda place: _told(world, place, wanted, pool), (world.theirs, world.ours)
        )
    return [
        Outcome(case, client, *said)
        for (case, client), *said in zip(wanted, theirs, ours, strict=True)
    ]


def of_another_version(
    world: World, cases: Iterable[Case], installation: Installation
) -> Iterator[Outcome]:
    """What becomes of cases by another version's pg_receivewal."""
    for case in cases:
        if case.since <= installation.major:
            said = (
                clients.pg_receivewal(world, case, place, installation)
                for place in (world.theirs, world.ours)
            )
            yield Outcome(case, f"{PG_RECEIVEWAL} {installation.major}", *said)


def surprises(world: World, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """What is not as it should be: what differs, but for what is known to; what does not."""
    different = {case.name for cases in DIFFERENT.values() for case in cases}
    if world.clusters.installation.major < DIRECT.since:
        different.add(DIRECT.name)
    come_in = {case.name for case in METHODS}
    are_refused = {case.name for case in FAILURES}
    return [
        each
        for each in outcomes
        if (each.theirs != each.ours) is not (each.case.name in different)
        or (each.theirs != clients.IT_STREAMS and each.case.name in come_in)
        or (each.theirs == clients.IT_STREAMS and each.case.name in are_refused)
    ]


def _told(
    world: World, place: Place, wanted: Sequence[tuple[Case, str]], pool: Executor
) -> list[str]:
    """What each client says of a place."""
    said = [
        None if client == STANDBY else pool.submit(_by_a_tool, client, world, case, place)
        for case, client in wanted
    ]
    standby = Standby(world, place)
    return [
        _patiently(standby.come, case) if future is None else future.result()
        for (case, _), future in zip(wanted, said, strict=True)
    ]


def _by_a_tool(client: str, world: World, case: Case, place: Place) -> str:
    return _patiently(lambda case: _TOOLS[client](world, case, place), case)


def _patiently(come: Callable[[Case], str], case: Case) -> str:
    """Come, and again where what was said may have been lost on the way."""
    for _ in range(_TRIES):
        said = come(case)
        if not any(words in said for words in _LOST):
            break
    return said
