"""What the inputs at hand reach, and whether feeding them over and over makes the process grow.

``python -m tests.fuzz.replay TARGET DIRECTORY`` prints it as JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import quiet_log

__all__ = ["growth", "inputs_of", "lines_reached", "main"]

Line = tuple[str, int]

# Rounds before a process has all that it keeps, and the least number of inputs fed after them.
_WARM_UP = 3
_ROUNDS = 20
_SECONDS = 10.0


def inputs_of(target: Target, directory: Path | None = None) -> list[bytes]:
    """The seeds, and what was found to reach something new."""
    found = [] if directory is None else [path.read_bytes() for path in directory.iterdir()]
    return [b"", *target.seeds(), *found]


def lines_reached(target: Target, inputs: Sequence[bytes]) -> tuple[int, int]:
    """How many lines of its modules' functions they reach, and how many there are."""
    files = {str(importlib.import_module(name).__file__) for name in target.modules}
    reached: set[Line] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for data in inputs:
            target.run(data)
    finally:
        sys.settrace(before)
    lines = {line for file in files for line in _lines(file)}
    return len(reached & lines), len(lines)


def _lines(file: str) -> Iterator[Line]:
    """The lines of functions; a module's and a class's own run when they are imported."""
    todo = [compile(Path(file).read_text(), file, "exec")]
    while todo:
        code = todo.pop()
        todo += [each for each in code.co_consts if isinstance(each, CodeType)]
        if code.co_flags & 0x2:  # CO_NEWLOCALS: a function's
            first = code.co_firstlineno
            yield from ((file, line) for _, _, line in code.co_lines() if line and line != first)


def growth(target: Target, inputs: Sequence[bytes]) -> tuple[int, int]:
    """By how many bytes the process grows when it is fed them again and again; and how often."""
    fed = 0
    sizes = []
    end = time.monotonic() + _SECONDS
    for round_ in range(_ROUNDS):
        for data in inputs:
            target.run(data)
        gc.collect()
        sizes.append(_anonymous())
        fed += len(inputs)
        if time.monotonic() > end and round_ > _WARM_UP:
            break
    return sizes[-1] - sizes[min(_WARM_UP, len(sizes) - 1)], fed


def _anonymous() -> int:
    """The anonymous memory of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print it."""
    name, directory = sys.argv[1:]
    quiet_log()
    target = TARGETS[name]
    inputs = inputs_of(target, Path(directory))
    reached, lines = lines_reached(target, inputs)
    grown, fed = growth(target, inputs)
    print(json.dumps({"lines": lines, "reached": reached, "grown": grown, "fed": fed}))


if __name__ == "__main__":
    main()
