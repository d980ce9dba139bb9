"""Prints the phases of both protocols, and what leads from one to another, for the manual.

    python -m tools.phases_diagram receiver
    python -m tools.phases_diagram sender
    python -m tools.phases_diagram entry
    python -m tools.phases_diagram update

Each is a Markdown table of the phases and a Mermaid diagram of the transitions that the peer's
messages cause, made from the tables in `walstream.protocols.phases`. ``docs/reference/protocol.md``
holds what is printed, between two markers, where ``update`` puts it;
``tests/unit/test_docs_phases.py`` sees to it that it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import Enum, IntEnum
from pathlib import Path
from typing import TypeVar

from walstream.protocols.phases import (
    ENTRY_TRANSITIONS,
    RECEIVER_TRANSITIONS,
    SENDER_TRANSITIONS,
)
from walstream.wire.frames import Backend, Frontend

__all__ = ["PAGE", "cut", "entry", "receiver", "sender"]

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "protocol.md"

_Phase = TypeVar("_Phase", bound=Enum)


def receiver() -> str:
    """The phases of `WALReceiver`; it is the server that sends the messages."""
    return _page(RECEIVER_TRANSITIONS, Backend)


def sender() -> str:
    """The phases of `WALSender`; it is the client that sends the messages."""
    return _page(SENDER_TRANSITIONS, Frontend)


def entry() -> str:
    """The phases of a client that `WALSender` has not let in."""
    return _page(ENTRY_TRANSITIONS, Frontend)


def _page(transitions: Mapping[_Phase, Mapping[str, _Phase]], kinds: type[IntEnum]) -> str:
    rows = [f"| `{phase.name}` | {phase.value} |" for phase in transitions]
    table = "\n".join(["| phase | meaning |", "| --- | --- |", *rows])
    return f"{table}\n\n```mermaid\n{_diagram(transitions, kinds)}\n```\n"


def _diagram(transitions: Mapping[_Phase, Mapping[str, _Phase]], kinds: type[IntEnum]) -> str:
    phases = list(transitions)
    lines = ["stateDiagram-v2", f"    [*] --> {phases[0].name}"]
    for phase, followers in transitions.items():
        for follower in phases:
            causes = [kind for kind, leads_to in followers.items() if leads_to is follower]
            if causes:
                names = ", ".join(_message(kinds, kind) for kind in causes)
                lines.append(f"    {phase.name} --> {follower.name}: {names}")
    return "\n".join([*lines, f"    {phases[-1].name} --> [*]"])


def _message(kinds: type[IntEnum], kind: str) -> str:
    """The documentation's name of a message: CopyData for ``COPY_DATA``."""
    name = kinds(ord(kind)).name
    return "".join(word.capitalize() for word in name.split("_")) + f" ({kind})"


def cut(text: str, role: str) -> tuple[str, str, str]:
    """A page's *text* in three: up to the first marker of *role*, between the two, and the rest.

    :raises ValueError: if the markers are not there once each.
    """
    begin, end = f"<!-- phases: {role} -->\n", f"<!-- end of phases: {role} -->\n"
    before, rest = text.split(begin)
    generated, after = rest.split(end)
    return before + begin, generated, end + after


def update() -> None:
    """Bring the manual's page up to date."""
    text = PAGE.read_text("utf-8")
    for role, make in _ROLES.items():
        before, _, after = cut(text, role)
        text = before + make() + after
    PAGE.write_text(text, "utf-8")


_ROLES: Mapping[str, Callable[[], str]] = {
    "receiver": receiver,
    "sender": sender,
    "entry": entry,
}


def main(arguments: list[str]) -> None:
    """Print the phases of one role, or update the page."""
    match arguments:
        case ["update"]:
            update()
        case [role] if role in _ROLES:
            sys.stdout.write(_ROLES[role]())
        case _:
            sys.exit("usage: python -m tools.phases_diagram receiver|sender|entry|update")


if __name__ == "__main__":
    main(sys.argv[1:])
