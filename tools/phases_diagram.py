"""Prints the phases of both protocols, and what leads from one to another, for the manual.

    python -m tools.phases_diagram receiver
    python -m tools.phases_diagram sender

Each is a Markdown table of the phases and a Mermaid diagram of the transitions that the peer's
messages cause, made from the tables in `walstream.protocols.phases`. ``docs/reference/protocol.md``
holds what is printed; ``tests/unit/test_docs_phases.py`` sees to it that it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import TypeVar

from walstream.protocols.phases import RECEIVER_TRANSITIONS, SENDER_TRANSITIONS
from walstream.wire.frames import Backend, Frontend

__all__ = ["ROLES", "receiver", "sender"]

ROLES = ("receiver", "sender")

_Phase = TypeVar("_Phase", bound=Enum)


def receiver() -> str:
    """The phases of `WALReceiver`; it is the server that sends the messages."""
    return _page(RECEIVER_TRANSITIONS, Backend)


def sender() -> str:
    """The phases of `WALSender`; it is the client that sends the messages."""
    return _page(SENDER_TRANSITIONS, Frontend)


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


def main(arguments: list[str]) -> None:
    """Print the page of one role."""
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.exit("usage: python -m tools.phases_diagram receiver|sender")
    sys.stdout.write(receiver() if arguments[0] == "receiver" else sender())


if __name__ == "__main__":
    main(sys.argv[1:])
