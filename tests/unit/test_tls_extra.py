"""TLS takes an extra: without it everything else works, and says what is missing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.tls import extra

_ROOT = Path(__file__).parents[2] / "walstream"
_EXTRA = ("OpenSSL", "cryptography", "twisted.protocols.tls", "twisted.internet.ssl")


def imported_at_once(source: str) -> Iterator[str]:
    """What is imported when a module is: not in functions, nor for types only."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def needs(names: Iterator[str], needed: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for name in names for each in needed)


class ExtraTests(SynchronousTestCase):
    """The extra ``tls``."""

    def test_only_here(self) -> None:
        """What needs the extra is imported by modules of TLS alone, or when it is wanted."""
        sources = {
            ".".join(path.relative_to(_ROOT.parent).with_suffix("").parts): path.read_text("utf-8")
            for path in _ROOT.rglob("*.py")
        }
        needing = {name for name, text in sources.items() if needs(imported_at_once(text), _EXTRA)}
        self.assertIn("walstream.tls.server", needing)
        self.assertNotIn("walstream.tls.options", needing)
        allowed = ("walstream.tls", "walstream.testing.plain_tls")
        for name, text in sources.items():
            if not name.startswith(allowed):
                self.assertNotIn(name, needing)
                self.assertFalse(needs(imported_at_once(text), tuple(needing)), name)

    def test_missing(self) -> None:
        """The error names the extra."""
        extra.require("this")
        self.patch(extra, "is_installed", lambda: False)
        error = self.assertRaises(FormatError, extra.require, "--tls-certificate=x")
        self.assertEqual(
            str(error),
            "--tls-certificate=x is not possible: TLS needs more than is installed: "
            'pip install "walstream[tls]"',
        )
