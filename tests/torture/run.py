"""A run of many cycles, which can be interrupted and gone on with."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from tests.servers.disk import disks_are_available
from tests.servers.restoring import Restorer, copy_from, restore_wal
from tests.torture.cycle import Judge, Result, run_cycle
from tests.torture.failing import compilers_are_available
from tests.torture.plan import KINDS, SYSTEM_KINDS, Plan, draw
from tests.torture.world import Hang, World
from walstream.cli.main import main
from walstream.embedded import Installation

__all__ = ["possible_kinds", "torture"]

# A base backup is taken this often, so that a recovery does not replay the whole run.
_CYCLES_PER_BASE = 10


def possible_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Those of *kinds* that can be had on this machine; the others are told.

    :raises ValueError: if one is none of `KINDS`.
    """
    possible = []
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"there is no {kind}, only {', '.join(KINDS)}")
        if kind in SYSTEM_KINDS and not disks_are_available():
            print(f"left out: {kind}, which needs root and loop devices")
        elif kind in ("write", "fsync") and not compilers_are_available():
            print(f"left out: {kind}, which needs a C compiler")
        else:
            possible.append(kind)
    return tuple(possible)


def torture(
    directory: Path,
    installation: Installation,
    *,
    cycles: int,
    seed: int,
    kinds: Sequence[str],
    resume: bool = False,
    options: tuple[str, ...] = (),
) -> int:
    """Run up to so many cycles, and print what came of them; an exit status.

    :param directory: of the run; it keeps what is needed to go on, and to look into a loss.
    :param resume: go on with the run there; else what is there is removed.
    :param options: more of ``walstream receive``'s.
    """
    kinds = possible_kinds(kinds)
    if not resume:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    journal = _Journal(directory / "journal")
    with World(
        directory,
        installation,
        own_disk=any(kind in SYSTEM_KINDS for kind in kinds),
        may_fail=any(kind in ("write", "fsync") for kind in kinds),
        options=options,
    ) as world:
        for cycle in range(len(journal), cycles):
            plan = draw(seed, cycle, kinds)
            log = directory / f"walstream-{cycle % 10}.log"
            log.unlink(missing_ok=True)
            try:
                if cycle % _CYCLES_PER_BASE == 0 or not world.base.exists():
                    world.start_primary()
                    world.start_walstream(log)
                    world.new_base()
                world.clients.resume()
                # PostgreSQL's own way to read it has to work as well, if nothing is compressed.
                restore = copy_from if cycle % 2 and not options else _restore
                result = run_cycle(world, plan, log, Judge(restore, _verify))
            except Hang as hang:
                print(f"cycle {cycle + 1}: {plan}\n{hang}", flush=True)
                return 1
            except Exception:
                print(f"cycle {cycle + 1}: {plan}\n{traceback.format_exc()}", flush=True)
                return 1
            journal.add(plan, result, world.kills)
            print(_line(cycle, plan, result), flush=True)
            if result.troubles:
                print("\n".join(result.troubles))
                print(f"what is needed to look into it is in {directory}; the plan: {plan}")
                return 1
        print(journal.summary(), flush=True)
    return 0


def _restore(archive: Path) -> Restorer:
    return restore_wal(archive, "--partial")


def _verify(archive: Path) -> str:
    """What ``walstream verify`` has to say; nothing if all is good."""
    said = StringIO()
    with redirect_stdout(said):
        status = main(["verify", str(archive), "--jobs", "1"])
    return said.getvalue() if status else ""


def _line(cycle: int, plan: Plan, result: Result) -> str:
    return (
        f"{cycle + 1:4} {plan.kind:8} confirmed {result.confirmed:7} lost {result.lost} "
        f"stall {result.stall:5.2f} s, took {result.seconds:5.2f} s"
    )


class _Journal:
    """A line for each cycle that is over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kills = 0
        self._lines = (
            [json.loads(line) for line in path.read_text().splitlines()] if (path.exists()) else []
        )

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, plan: Plan, result: Result, kills: int) -> None:
        """Note a cycle; *kills* in all cycles since this process began."""
        line = {"kind": plan.kind, **asdict(result), "kills": kills - self._kills}
        self._kills = kills
        self._lines.append(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def summary(self) -> str:
        """All cycles in one line."""
        lost = sum(line["lost"] for line in self._lines)
        kinds = [line["kind"] for line in self._lines]
        counts = ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
        kills = sum(line["kills"] for line in self._lines)
        stalls = max((line["stall"] for line in self._lines), default=0.0)
        return (
            f"cycles: {len(self._lines)} ({counts}), confirmed commits: "
            f"{self._lines[-1]['confirmed'] if self._lines else 0}, kills: {kills}, "
            f"longest stall: {stalls:.2f} s, losses: {lost}"
        )
