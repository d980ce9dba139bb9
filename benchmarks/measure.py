"""Measuring whole processes, in pairs, and printing what came out."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Figures",
    "cpu_seconds",
    "cpu_seconds_of_children",
    "pairs",
    "ratio_line",
    "run",
    "run_against",
    "running",
    "settle",
]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run took: seconds of wall time and of CPU, and MiB of memory at its peak."""

    wall: float
    cpu: float
    memory: float = 0.0


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Figures:
    """Run a program to its end and measure all of it, its start included.

    :raises RuntimeError: if it failed; its output is in the text.
    """
    begun = time.perf_counter()
    arguments = [str(word) for word in command]
    reader, writer = os.pipe()
    pid = os.posix_spawnp(
        arguments[0],
        arguments,
        dict(os.environ if environment is None else environment),
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)],
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as output:
        text = output.read()
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    if status != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{text.decode(errors='replace')}")
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_against(command: Sequence[str | Path], cpu: Callable[[], float]) -> Figures:
    """Run a program to its end: its wall time, and the CPU time of what it is run against.

    :param cpu: what that has used so far, in seconds.
    :raises RuntimeError: if the program failed.
    """
    before = cpu()
    wall = run(command).wall
    return Figures(wall, cpu() - before)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a running process has used so far, in seconds; its ticks are 10 ms."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_seconds_of_children(pid: int) -> float:
    """The CPU time of those of a process's children that have ended, in seconds."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / _TICKS


def _stat(pid: int) -> list[str]:
    """What proc(5) has of a process, behind its name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


# What is written and removed at once does not reach the disk, up to about this size.
_SCRATCH = 1 << 30


def settle(scratch: Path, size: int, pause: float) -> None:
    """Bring disk and memory into the same state before each run, so that none pays for another.

    A virtual machine gives freed memory back to its host, and to have it again costs the first
    who writes as much as ten times the writing: so memory is filled by a file *scratch*. And its
    disk is often a token bucket, which is fast until it is empty: it gets *pause* seconds to fill.
    """
    block = bytes(1 << 20)
    with scratch.open("wb") as file:
        for _ in range(min(size, _SCRATCH) >> 20):
            file.write(block)
    scratch.unlink()
    os.sync()
    time.sleep(pause)


def pairs(
    ours: Callable[[], Figures], theirs: Callable[[], Figures], count: int, warm_up: int = 1
) -> list[tuple[Figures, Figures]]:
    """Run the two in turn, A B B A A B …, so that a machine that slows down is fair to both."""
    measured = []
    for number in range(-warm_up, count):
        if number % 2:
            first = ours()
            figures = first, theirs()
        else:
            second = theirs()
            figures = ours(), second
        if number >= 0:
            measured.append(figures)
            print(
                f"  pair {number + 1}: ours {figures[0].wall:6.2f} s wall {figures[0].cpu:6.2f} s "
                f"CPU, theirs {figures[1].wall:6.2f} s wall {figures[1].cpu:6.2f} s CPU",
                flush=True,
            )
    return measured


def ratio_line(name: str, ratios: Sequence[float], goal: str) -> str:
    """A line of the result: the median, the range, and what was wanted."""
    return (
        f"{name}: {statistics.median(ratios):.2f}x "
        f"({min(ratios):.2f}-{max(ratios):.2f}, n={len(ratios)}); goal {goal}"
    )


@contextmanager
def running(command: Sequence[str], checkout: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a command run, quietly and with that checkout of walstream, while the context lasts."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdout=quiet, stderr=quiet, cwd=checkout, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()
