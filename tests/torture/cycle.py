"""One cycle: load, something that breaks, a kill; then the archive is judged as it was left."""

from __future__ import annotations

import errno
import filecmp
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.restoring import Restorer
from tests.torture.plan import Plan
from tests.torture.recovery import recover
from tests.torture.world import World

__all__ = ["Judge", "Result", "run_cycle"]

_SEGMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class Judge:
    """How an archive is judged.

    :ivar restore: brings files out of it for the recovery.
    :ivar verify: says what is wrong with it; nothing if it is as it should be.
    """

    restore: Callable[[Path], Restorer]
    verify: Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a cycle.

    :ivar confirmed: commits, in all cycles so far.
    :ivar stall: seconds without a commit, from when nothing was broken any more.
    :ivar troubles: commits that are missing, or what is wrong with the archive.
    :ivar lost: how many commits are missing.
    """

    confirmed: int
    stall: float
    seconds: float
    lost: int
    troubles: tuple[str, ...]


def run_cycle(world: World, plan: Plan, log: Path, judge: Judge) -> Result:
    """Run a cycle to its end. Walstream does not run then, and commits wait for it.

    :raises Hang: if commits do not pass when they should.
    """
    begun = time.monotonic()
    world.start_primary()
    world.start_walstream(log)
    world.await_commits()
    _load(world, plan)
    stall = 0.0
    if plan.kind in ("kill", "both", "power"):
        _end(world, plan.kind, plan.variant)
    else:
        with _trouble(world, plan):
            time.sleep(plan.lasting)
            if plan.ends_during:
                _end(world, plan.ends_by, plan.variant)
        if not plan.ends_during:
            stall = world.await_commits()
            time.sleep(plan.after)
            _end(world, plan.ends_by, plan.variant)
    troubles, lost = _judge(world, judge)
    seconds = time.monotonic() - begun
    return Result(world.record.total, stall, seconds, lost, tuple(troubles))


def _load(world: World, plan: Plan) -> None:
    """Let the clients commit for a while, and disturb them."""
    begun = time.monotonic()
    for moment, disturbance in plan.disturbances:
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        _disturb(world, disturbance)
    time.sleep(max(0.0, begun + plan.before - time.monotonic()))
    world.clients.resume()


def _disturb(world: World, what: str) -> None:
    if what == "none":
        return
    if what == "idle":
        world.clients.pause()
        return
    with world.primary.connect() as connection:
        # None of these is to be confirmed by the standby.
        connection.execute("SET synchronous_commit = local")
        if what == "switch":
            connection.execute("SELECT pg_switch_wal()")
        elif what == "checkpoint":
            connection.execute("CHECKPOINT")
        else:
            # A record of several segments: somewhere in it the primary or walstream will be killed.
            connection.execute(
                "SELECT pg_logical_emit_message(true, 'torture', repeat('x', 3000000))"
            )


# What breaks, and passes.


def _trouble(world: World, plan: Plan) -> AbstractContextManager[object]:
    if plan.kind == "full":
        return _disk_is_full(world)
    if plan.kind in ("write", "fsync"):
        assert world.failing is not None
        return world.failing.calls(**_errors(plan))
    return _TROUBLES[plan.kind](world, plan)


def _errors(plan: Plan) -> Mapping[str, int]:
    if plan.kind == "fsync":
        return {"fsync": errno.EIO, "fdatasync": errno.EIO}
    number = errno.EIO if plan.variant < 0.5 else errno.ENOSPC
    return {"write": number, "fallocate": number}


@contextmanager
def _disk_is_full(world: World) -> Iterator[None]:
    assert world.disk is not None
    with world.disk.full():
        # More than the segments that were made ahead.
        _disturb(world, "big record")
        yield


@contextmanager
def _primary_is_killed(world: World, plan: Plan) -> Iterator[None]:
    world.kill_primary()
    if plan.variant < 0.5:
        world.start_primary()
    yield
    world.start_primary()


@contextmanager
def _connection_is_cut(world: World, plan: Plan) -> Iterator[None]:
    world.proxy.cut(reset=plan.variant < 0.5)
    yield


@contextmanager
def _connection_is_silent(world: World, plan: Plan) -> Iterator[None]:
    world.proxy.stall()
    yield
    if plan.variant < 0.5:
        world.proxy.cut()
    world.proxy.release()


_TROUBLES: Mapping[str, Callable[[World, Plan], AbstractContextManager[None]]] = {
    "primary": _primary_is_killed,
    "cut": _connection_is_cut,
    "stall": _connection_is_silent,
}


def _end(world: World, how: str, variant: float) -> None:
    is_first = variant < 0.5
    if how == "both" and is_first:
        world.kill_primary()
    world.kill_walstream()
    if how == "both" and not is_first:
        world.kill_primary()
    if how == "power":
        assert world.disk is not None
        world.disk.fail_power()


# The archive, as it was left.


def _judge(world: World, judge: Judge) -> tuple[list[str], int]:
    troubles = []
    if finding := judge.verify(world.archive):
        troubles.append(finding)
    troubles += _differences(world.archive, world.primary.data / "pg_wal")
    losses = recover(
        world.primary.installation,
        world.base,
        world.directory / "recovered",
        judge.restore(world.archive),
        world.record.runs(world.oldest_epoch),
    )
    troubles += [
        f"{missing} commits of client {run.client} from {run.first} to {run.last} are missing"
        for run, missing in losses
    ]
    if troubles:
        evidence = world.directory / "evidence"
        shutil.rmtree(evidence, ignore_errors=True)
        shutil.copytree(world.archive, evidence)
    return troubles, sum(missing for _, missing in losses)


def _differences(archive: Path, pg_wal: Path) -> list[str]:
    """Finished segments that are not those of the primary."""
    troubles = []
    for path in archive.glob("?" * 24):
        if path.stat().st_size != _SEGMENT:
            troubles.append(f"{path.name} has {path.stat().st_size} bytes")
            continue
        original = pg_wal / path.name
        if original.exists() and not filecmp.cmp(path, original, shallow=False):
            troubles.append(f"{path.name} is not the primary's")
    return troubles
