"""Options about the replication slots that an archive has for its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walstream.tap.group import CommandOptions
from walstream.tap.values import whole_number

if TYPE_CHECKING:
    from walstream.services.slot_care import SlotCare

__all__ = ["SlotOptions"]


class SlotOptions(CommandOptions):
    """How slots are kept. The names are those of PostgreSQL's settings."""

    optParameters = [
        [
            "max-replication-slots",
            None,
            "1000",
            "How many replication slots the archive's clients can have.",
        ],
        [
            "idle-replication-slot-timeout",
            None,
            None,
            "Lose a slot that nobody has used for this time, such as 30d.",
        ],
    ]

    def postOptions(self) -> None:
        """Gather them."""
        from walstream.formats.quantities import parse_duration
        from walstream.services.slot_care import SlotCare

        super().postOptions()
        self.slot_care: SlotCare = SlotCare(
            most=self.checked("max-replication-slots", whole_number) or 0,
            idle_timeout=self.checked("idle-replication-slot-timeout", parse_duration) or 0.0,
        )
