"""What clients are told, as a table of docs/reference/clients.md, and whether it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.client_matrix.cases import DIFFERENT, DIRECT, FAILURES, METHODS, PACKETS, PSYCOPG2
from tests.client_matrix.outcome import Outcome
from tests.client_matrix.rules import HBA

__all__ = ["Table", "core", "missing", "with_tables"]

# What each client puts before what it has been told.
_BEFORE: Final = (
    r"exit status \d\n\w+: error: ",
    r"(streaming replication receiver \"walreceiver\" )?could not connect to the primary server: ",
    r"connection to server (at \"[^\"]*\", port PORT|on socket \"[^\"]*\") failed: ",
)
# What is each case's own.
_NAMED: Final = re.compile(r'\b(user|host|host name|role|for|file|database) "[^"]*"')


def core(said: str) -> Sequence[str]:
    """What a client has been told, line by line, without what it says of itself."""
    for words in _BEFORE:
        said = re.sub(words, "", said)
    said = said.replace("\0", "")
    lines = (line.strip().removeprefix("FATAL:").strip() for line in said.splitlines())
    return [re.sub("  +", " ", _NAMED.sub(r'\1 "…"', line)) for line in lines if line]


def _cell(said: str) -> str:
    lines = core(said)
    return "<br>".join(lines if lines == ["it streams"] else (f"`{line}`" for line in lines))


@dataclass(frozen=True)
class Table:
    """What came of every case, on some versions.

    :ivar outcomes: by the major version of the server.
    """

    outcomes: Mapping[int, Sequence[Outcome]]

    def methods(self) -> Iterator[str]:
        """What comes in."""
        yield "| how | rule | connection string |"
        yield "| --- | --- | --- |"
        for case in (*METHODS, DIRECT):
            facts = " ".join(f"{name}={_shown(value)}" for name, value in case.facts.items())
            yield f"| {case.name} | `{_rule(case.user)}` | `{facts}` |"

    def failures(self) -> Iterator[str]:
        """What is told to those that do not come in."""
        yield "| what is wrong | what the client prints |"
        yield "| --- | --- |"
        for case in (*FAILURES, *PACKETS):
            yield f"| {case.name} | {self._told(case.name, 'theirs')} |"

    def differences(self) -> Iterator[str]:
        """What is otherwise than at a server."""
        yield "| | PostgreSQL | walstream | why |"
        yield "| --- | --- | --- | --- |"
        for why, cases in DIFFERENT.items():
            for case in cases:
                theirs, ours = (self._told(case.name, side) for side in ("theirs", "ours"))
                yield f"| {case.name} | {theirs} | {ours} | {why} |"

    def _told(self, name: str, side: str) -> str:
        """All that is said, and by whom, if that is not one and the same."""
        said: dict[str, list[str]] = {}
        for major, each in self._of(name):
            by = said.setdefault(_cell(getattr(each, side)), [])
            by.append(PSYCOPG2 if each.client == PSYCOPG2 else str(major))
        if len(said) == 1:
            return next(iter(said))
        return "<br>".join(f"{_named(by)}: {cell}" for cell, by in said.items())

    def _of(self, name: str) -> list[tuple[int, Outcome]]:
        return [
            (major, each)
            for major, outcomes in self.outcomes.items()
            for each in outcomes
            if each.case.name == name
        ]


def _shown(value: str) -> str:
    return "/run/walstream" if value == "socket" else value


def _rule(user: str) -> str:
    """The line of a user, without where it comes from."""
    [line] = (line for line in HBA.splitlines() if user in line.split())
    kind, _, name, *rest = line.split()
    return " ".join((kind, "replication", name, *rest[kind != "local" :]))


def _named(by: Iterable[str]) -> str:
    """Versions, or psycopg2 if there are none: its libpq is its own."""
    versions = sorted({int(each) for each in by if each != PSYCOPG2})
    if not versions:
        return PSYCOPG2
    first, last = versions[0], versions[-1]
    return f"{first}–{last}" if last > first else str(first)


def with_tables(document: str, table: Table) -> str:
    """The document with these tables in the place of those that it has."""
    for name in ("methods", "failures", "differences"):
        lines = "\n".join(getattr(table, name)())
        begin, end = _marks(name)
        head, _, rest = document.partition(begin)
        document = f"{head}{begin}\n{lines}\n{end}{rest.partition(end)[2]}"
    return document


def missing(document: str, outcomes: Iterable[Outcome]) -> list[str]:
    """What clients have been told that is not in the row of the document that it belongs to."""
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in document.splitlines()}
    listed = {case.name for case in (*FAILURES, *PACKETS)}
    listed |= {case.name for cases in DIFFERENT.values() for case in cases}
    return [
        f"{each.case.name}: {cell}"
        for each in outcomes
        if each.case.name in listed
        for cell in (_cell(each.theirs), _cell(each.ours))
        if cell not in rows.get(each.case.name, "")
    ]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- clients: {name} -->", f"<!-- end of clients: {name} -->"
