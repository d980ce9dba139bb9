"""One target, fed by atheris (libFuzzer), in a process of its own: libFuzzer ends the one it is in.

``python -m tests.fuzz.engine TARGET [libFuzzer's options] DIRECTORY ...``
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    """Feed a target until libFuzzer has enough."""
    name, *options = sys.argv[1:]
    # It has no types, and need not be there where nobody fuzzes.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["walstream"]):
        targets = importlib.import_module("tests.fuzz.targets")
    importlib.import_module("tests.fuzz.watch").quiet_log()
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
