"""Timeline history: which timelines a timeline descends from, and where it left each of them.

Reads and writes the contents of ``0000000N.history`` files; knows nothing of where they are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from walstream.errors import FormatError
from walstream.formats.lsn import INVALID, LSN
from walstream.formats.segments import history_file_name

__all__ = ["TimelineHistory", "TimelineSwitch"]

# PostgreSQL reads "%u\t%X/%X" with sscanf, for which the tab is any run of blanks, and ignores
# the rest of the line (readTimeLineHistory in timeline.c). The rest is the reason.
_LINE = re.compile(r"([0-9]{1,10})\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s(.*))?", re.ASCII)
_TIMELINE_MAX = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TimelineSwitch:
    """One line of a history file: where a timeline was left for the next one.

    :ivar timeline: the timeline that was left.
    :ivar switch_point: the first position that is no longer on it.
    :ivar reason: in PostgreSQL's words, for people only.
    """

    timeline: int
    switch_point: LSN
    reason: str


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """A timeline and its ancestors, the oldest first. Timeline 1 has none, and no file.

    Switch points ascend as a rule, but PostgreSQL does not enforce it: a recovery that was told
    to follow timeline 2 and stopped before 2 began makes a timeline 3 that leaves 2 before that.
    Where it matters, the answers are those of PostgreSQL's timeline.c.
    """

    timeline: int
    ancestors: tuple[TimelineSwitch, ...]

    @classmethod
    def parse(cls, timeline: int, content: bytes) -> Self:
        """Read the contents of the history file of *timeline*.

        :raises FormatError: naming the file and the line that is wrong.
        """
        # A reason may hold the name of a restore point, in an encoding that nobody knows.
        text = content.decode("utf-8", "surrogateescape")
        ancestors: list[TimelineSwitch] = []
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.lstrip()
            if not stripped or stripped.startswith("#"):
                continue
            try:
                switch = _parse_line(stripped)
                _check_order(ancestors, switch, timeline)
            except FormatError as error:
                name = history_file_name(timeline)
                raise FormatError(f"{name}, line {number}: {error}") from None
            ancestors.append(switch)
        return cls(timeline, tuple(ancestors))

    def format(self) -> bytes:
        """The contents of the history file, as PostgreSQL writes it.

        It copies the parent's file and puts an empty line before its own (writeTimeLineHistory).
        """
        lines = (
            f"{switch.timeline}\t{switch.switch_point}\t{switch.reason}\n"
            for switch in self.ancestors
        )
        return "\n".join(lines).encode("utf-8", "surrogateescape")

    def __contains__(self, timeline: int) -> bool:
        return timeline == self.timeline or any(
            switch.timeline == timeline for switch in self.ancestors
        )

    def switch_point(self, timeline: int) -> LSN | None:
        """The first position that is no longer on *timeline*; None for the newest, which goes on.

        :raises KeyError: if *timeline* is not in this history.
        """
        if timeline == self.timeline:
            return None
        return self.ancestors[self._index(timeline)].switch_point

    def successor(self, timeline: int) -> int:
        """The timeline that follows the ancestor *timeline* in this history.

        :raises KeyError: if *timeline* is not an ancestor; the newest has no successor.
        """
        following = self._index(timeline) + 1
        if following == len(self.ancestors):
            return self.timeline
        return self.ancestors[following].timeline

    def timeline_at(self, lsn: int) -> int:
        """The timeline on which the byte at *lsn* lies (``tliOfPointInHistory``)."""
        newer = self.timeline
        for switch in reversed(self.ancestors):
            if lsn >= switch.switch_point:
                return newer
            newer = switch.timeline
        return newer

    def _index(self, timeline: int) -> int:
        for index, switch in enumerate(self.ancestors):
            if switch.timeline == timeline:
                return index
        raise KeyError(timeline)


def _parse_line(line: str) -> TimelineSwitch:
    match = _LINE.fullmatch(line)
    if match is None:
        raise FormatError(f"expected a timeline, an LSN and a reason, not {line[:200]!r}")
    switch = TimelineSwitch(int(match[1]), LSN.parse(match[2]), match[3] or "")
    if not 1 <= switch.timeline <= _TIMELINE_MAX:
        raise FormatError(f"{switch.timeline} is not a timeline")
    if switch.switch_point == INVALID:
        raise FormatError(f"timeline {switch.timeline} cannot end at {INVALID}")
    return switch


def _check_order(before: list[TimelineSwitch], switch: TimelineSwitch, newest: int) -> None:
    if before and switch.timeline <= before[-1].timeline:
        raise FormatError(
            f"timelines must ascend, but {switch.timeline} follows {before[-1].timeline}"
        )
    if switch.timeline >= newest:
        raise FormatError(f"timeline {newest} cannot descend from timeline {switch.timeline}")
