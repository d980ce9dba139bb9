"""A replication slot as a value of the control socket's document.

``walstream status`` makes it too, of the slots' files, when no process serves: it imports little.
"""

from __future__ import annotations

from typing import Any

from walstream.interfaces import Slot

__all__ = ["slot_value"]


def slot_value(slot: Slot) -> dict[str, Any]:
    """What there is to tell of a slot."""
    return {
        "slot_name": slot.name,
        "temporary": slot.temporary,
        "active_pid": slot.active_pid,
        "restart_lsn": slot.restart and str(slot.restart.lsn),
        "restart_timeline": slot.restart and slot.restart.timeline,
        "invalidation_reason": slot.invalidation,
    }
