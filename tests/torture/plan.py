"""What happens in a cycle: drawn from the seed and the cycle's number, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["KINDS", "SYSTEM_KINDS", "Plan", "draw"]

#: What can break, and what it stands for.
KINDS = {
    "kill": "SIGKILL of walstream",
    "primary": "SIGKILL of the primary; walstream lives",
    "both": "SIGKILL of both at once",
    "cut": "the connection is reset, or closed",
    "stall": "the connection falls silent for a while, and is then perhaps cut",
    "full": "no space left on the archive's disk",
    "write": "writes fail, with EIO or ENOSPC",
    "fsync": "fsync and fdatasync fail, and what was not synced is lost",
    "power": "the archive's machine loses its power: what was not synced is lost",
}
#: Those that need a disk of the run's own: see `tests.servers.disk`.
SYSTEM_KINDS = ("full", "power")

_DISTURBANCES = ("switch", "big record", "checkpoint", "idle", "none", "none", "none")


@dataclass(frozen=True, slots=True)
class Plan:
    """One cycle.

    :ivar kind: of `KINDS`.
    :ivar before: seconds of load before it happens.
    :ivar disturbances: what the primary does meanwhile, at random moments.
    :ivar lasting: seconds that it lasts, if it is something that passes.
    :ivar after: seconds of load from when commits pass again to the kill that ends the cycle.
    :ivar variant: chooses among forms of *kind*; in [0, 1).
    :ivar ends_during: whether the kill that ends the cycle comes while it still lasts.
    :ivar ends_by: ``kill``, ``both`` or ``power``, for kinds that do not end the cycle themselves.
    """

    kind: str
    before: float
    disturbances: tuple[tuple[float, str], ...]
    lasting: float
    after: float
    variant: float
    ends_during: bool
    ends_by: str


def draw(seed: int, cycle: int, kinds: Sequence[str]) -> Plan:
    """The plan of a cycle. Each kind comes once in every so many cycles, in random order."""
    order = list(kinds)
    random.Random(f"{seed} {cycle // len(kinds)}").shuffle(order)
    chance = random.Random(f"{seed} {cycle} {' '.join(kinds)}")
    before = chance.choice((chance.uniform(0.01, 0.2), chance.uniform(0.1, 1.2)))
    disturbances = [(chance.uniform(0, before), chance.choice(_DISTURBANCES)) for _ in range(3)]
    return Plan(
        kind=order[cycle % len(kinds)],
        before=before,
        disturbances=tuple(sorted(disturbances)),
        lasting=chance.uniform(0.02, 0.8),
        after=chance.choice((0.0, chance.uniform(0, 0.5))),
        variant=chance.random(),
        ends_during=chance.random() < 0.3,
        ends_by=chance.choice(("kill", "kill", "power" if "power" in kinds else "both")),
    )
