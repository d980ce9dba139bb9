"""The tests that the manual names as proof exist."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
_PAGES = (_DOCS / "promises.md", _DOCS / "reference" / "scenarios.md")


class PromisesPageTests(SynchronousTestCase):
    """The pages that name tests, against the tests and the contracts."""

    def test_every_test_that_is_named_exists(self) -> None:
        """A test that was renamed or removed proves nothing."""
        sources = [*(_ROOT / "tests").rglob("*.py"), *(_ROOT / "walstream/testing").glob("*.py")]
        text = "".join(path.read_text("utf-8") for path in sources)
        existing = set(re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE))
        for page in _PAGES:
            named = set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
            self.assertNotEqual(named, set())
            self.assertEqual(named - existing, set(), page.name)
