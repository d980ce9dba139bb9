"""The samples of docs/howto/library.md run."""

from __future__ import annotations

import re
import sys
import unittest
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

_PAGE = Path(__file__).parents[2] / "docs" / "howto" / "library.md"


def samples() -> list[str]:
    """The page's blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", _PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


class LibraryPageTests(SynchronousTestCase):
    """What does not need a server is run; the rest is compiled."""

    def module(self, name: str, source: str) -> ModuleType:
        """A module of that source, which can be imported by its name during the test."""
        module = ModuleType(name)
        exec(compile(source, f"{_PAGE.name}: {name}", "exec"), module.__dict__)
        sys.modules[name] = module
        self.addCleanup(sys.modules.pop, name)
        return module

    def test_every_sample_is_python(self) -> None:
        """None has a syntax error."""
        self.assertEqual(len(samples()), 5)
        for source in samples():
            compile(source, _PAGE.name, "exec")

    def test_the_sample_of_a_sink_passes_the_contract(self) -> None:
        """As the page's last sample tests it."""
        _, sink, provider, processes, contract = samples()
        self.module("digests", sink)
        self.module("recent", provider)
        self.module("several", processes)
        case = self.module("test_digests", contract).DigestsContract
        result = unittest.TestResult()
        unittest.TestLoader().loadTestsFromTestCase(case).run(result)
        self.assertGreater(result.testsRun, 10)
        self.assertEqual([*result.errors, *result.failures], [])
