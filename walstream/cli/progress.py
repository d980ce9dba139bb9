"""A progress bar, where somebody looks and tqdm is installed; otherwise nothing is shown.

The bar is on standard error, so what a command prints stays what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress"]


@contextmanager
def progress(
    total: int | None, what: str, unit: str = "segments"
) -> Iterator[Callable[[int], object]]:
    """Show how far a piece of work is; gives what to call with how much more is done.

    :param total: how much there is to do; None if that is not known.
    :param what: the work, in a word.
    :param unit: what is counted; ``B`` is shown in KiB, MiB and so on.
    """
    bar = _bar(total, what, unit) if sys.stderr.isatty() else None
    if bar is None:
        yield _ignore
        return
    try:
        yield bar.update
    finally:
        bar.close()


def _bar(total: int | None, what: str, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    in_bytes = unit == "B"
    return tqdm(
        total=total,
        desc=what,
        unit=unit if in_bytes else f" {unit}",
        unit_scale=in_bytes,
        unit_divisor=1024,
        leave=False,
        dynamic_ncols=True,
    )


def _ignore(done: int) -> None:
    pass
