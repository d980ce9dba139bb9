"""The loss catalogue: its page, its guards and its tests belong together.

That each test fails without its guard takes minutes to see: ``python -m tools.mutations``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.access_guards import ACCESS_GUARDS
from tools.guard import Guard
from tools.mutations import CHECKOUT, GUARDS

_PAGE = CHECKOUT / "docs" / "reference" / "loss-catalogue.md"
_CLASSES = [f"L{number}" for number in range(1, 19)]


def _docstring(guard: Guard) -> str:
    """That of the guard's test."""
    module, suite, name = guard.test.split(".")
    tree = ast.parse((CHECKOUT / "tests" / "unit" / f"{module}.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == suite:
            for test in node.body:
                if isinstance(test, ast.FunctionDef) and test.name == name:
                    return ast.get_docstring(test) or ""
    raise AssertionError(f"there is no {guard.test}")


class LossCatalogueTests(SynchronousTestCase):
    """docs/reference/loss-catalogue.md and tools/mutations.py."""

    def test_every_guard_is_in_the_source(self) -> None:
        """Exactly once, and without it the module still is Python."""
        for guard in (*GUARDS, *ACCESS_GUARDS):
            source = (CHECKOUT / "walstream" / guard.file).read_text("utf-8")
            self.assertEqual(source.count(guard.snippet), 1, guard.what)
            self.assertNotEqual(guard.remove_from(source), source)

    def test_every_guard_has_its_test(self) -> None:
        """With a docstring."""
        for guard in (*GUARDS, *ACCESS_GUARDS):
            self.assertTrue(_docstring(guard), guard.test)

    def test_every_class_is_guarded(self) -> None:
        """At least once."""
        self.assertEqual({guard.kind for guard in GUARDS}, set(_CLASSES))

    def test_every_test_says_its_class(self) -> None:
        """So whoever changes it knows."""
        for guard in GUARDS:
            found = re.findall(r"\bL\d+\b", _docstring(guard))
            self.assertIn(guard.kind, found, guard.test)

    def test_the_page_has_every_class(self) -> None:
        """In order, with tests that exist, those of its guards among them."""
        rows = re.findall(r"^\| (L\d+) \|.*\| (.*) \|$", _PAGE.read_text("utf-8"), re.MULTILINE)
        self.assertEqual([loss for loss, _ in rows], _CLASSES)
        sources = [*(CHECKOUT / "tests").rglob("*.py"), *(_testing().glob("*.py"))]
        text = "".join(path.read_text("utf-8") for path in sources)
        existing = set(re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE))
        for loss, tests in rows:
            named = set(re.findall(r"`(test_\w+)`", tests))
            guarding = {guard.test.split(".")[-1] for guard in GUARDS if guard.kind == loss}
            self.assertEqual(named - existing, set())
            self.assertEqual(guarding - named, set())


def _testing() -> Path:
    return CHECKOUT / "walstream" / "testing"
