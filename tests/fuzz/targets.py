"""All targets, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz import channel, encryption, formats, login, receiver, sender, stored, wire
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: Mapping[str, Target] = {
    target.name: target
    for module in (wire, formats, stored, encryption, channel, login, sender, receiver)
    for target in module.TARGETS
}
