"""The manual's page of options has every option that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from psycopg import pq
from twisted.python.usage import Options as UsageOptions
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.tap.options import DemoOptions, HubOptions, ReceiveOptions, SendOptions
from walstream.upstream.policy import check_policy
from walstream.upstream.settings import Setting

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "options.md"

_COMMANDS: dict[str, type[UsageOptions]] = {
    "receive": ReceiveOptions,
    "send": SendOptions,
    "hub": HubOptions,
    "demo": DemoOptions,
}

# What a table says of an option: its short names, the commands that have it, its default.
_Fact = tuple[frozenset[str], frozenset[str], str]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table behind *heading*, without its head."""
    part = _PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented_options() -> dict[str, _Fact]:
    """Long names, and what the page says of them."""
    facts = {}
    for names, commands, default, *_ in rows("Options"):
        long, *_ = re.findall(r"--([a-z-]+)", names)
        short = frozenset(re.findall(r"`-([A-Za-z])`", names))
        facts[long] = (short, frozenset(commands.split()), default.strip("`"))
    return facts


def actual_options() -> dict[str, _Fact]:
    """Long names, and what the classes say of them; all commands have --help."""
    found: dict[str, tuple[set[str], set[str], str]] = {}
    for command, kind in _COMMANDS.items():
        options = kind()
        for long in (name.rstrip("=") for name in options.longOpt):
            short = {s for s, name in options.synonyms.items() if name == long and len(s) == 1}
            default = options.defaults.get(long)
            text = str(default) if isinstance(default, str) else ""
            shorts, commands, _ = found.setdefault(long, (set(), set(), text))
            shorts |= short
            commands.add(command)
    return {
        name: (frozenset(shorts), frozenset(commands), default)
        for name, (shorts, commands, default) in found.items()
    }


class OptionsPageTests(SynchronousTestCase):
    """docs/reference/options.md against the classes of walstream.tap."""

    def test_every_option_is_documented_and_no_other(self) -> None:
        """With its short names, its commands and its default."""
        self.assertEqual(documented_options(), actual_options())

    def test_every_keyword_that_libpq_knows_is_documented(self) -> None:
        """Those of the installed libpq, but for what its own build adds."""
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        documented = {name for keyword, *_ in rows("CONNINFO") for name in names_in(keyword)}
        self.assertEqual({name for name in known if has_policy(name)} - documented, set())

    def test_what_is_documented_as_refused_is_refused(self) -> None:
        """And what is documented as used or ignored is not."""
        for keyword, verdict, values, *_ in rows("CONNINFO"):
            for name in names_in(keyword):
                for value in names_in(values) or ["x"]:
                    self.assertEqual(is_refused(name, value), verdict == "refused", (name, value))


def names_in(cell: str) -> list[str]:
    """The words in code quotes."""
    return re.findall(r"`([^`]+)`", cell)


def is_refused(name: str, value: str) -> bool:
    """Whether the connection string may not say that."""
    try:
        check_policy({name: Setting(value, "a test")})
    except FormatError:
        return True
    return False


def has_policy(name: str) -> bool:
    """Whether walstream knows the keyword at all."""
    try:
        check_policy({name: Setting("x", "a test")})
    except FormatError as error:
        return "does not know" not in str(error)
    return True
