"""Makes one process's writes and syncs fail, by a small library that is loaded into it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Failing", "compilers_are_available"]

_SOURCE = Path(__file__).with_name("failing.c")


def compilers_are_available() -> bool:
    """Whether the library can be built here."""
    return shutil.which("cc") is not None


class Failing:
    """Switches failures on and off in processes that were started with `environment`.

    :param directory: where the library is built.
    :param root: the directory whose files can fail.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        self._library = directory / "failing.so"
        self._orders = directory / "failing.orders"
        self._root = root
        self._orders.unlink(missing_ok=True)
        command = ["cc", "-O1", "-fPIC", "-shared", "-o", self._library, _SOURCE, "-ldl"]
        subprocess.run([*map(str, command), "-lpthread"], check=True, timeout=60)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process has to be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAILING_ROOT": str(self._root),
            "FAILING_ORDERS": str(self._orders),
        }

    @contextmanager
    def calls(self, **errors: int) -> Iterator[None]:
        """Have calls fail: ``fsync``, ``fdatasync``, ``write``, ``fallocate``; by errno.

        ``clock`` is the number of seconds by which the time of day is set.
        """
        new = self._orders.with_suffix(".new")
        new.write_text(" ".join(f"{call} {number}" for call, number in errors.items()))
        new.rename(self._orders)
        try:
            yield
        finally:
            self._orders.unlink()
