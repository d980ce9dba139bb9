"""How a sample looks: as a block of lines that is drawn again and again, or as one line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from walstream.demo.sample import Sample

__all__ = ["ASCII", "FANCY", "Style", "block", "line", "size_text"]

_BAR_WIDTH = 14


@dataclass(frozen=True, slots=True)
class Style:
    """The characters to draw with.

    :ivar branch: leads from a server to the one that follows it.
    :ivar full: a cell of a bar that is full.
    :ivar parts: cells that are full in part, the emptiest first.
    :ivar empty: an empty cell.
    """

    branch: str
    full: str
    parts: str
    empty: str


FANCY = Style("└─ ", "█", "▏▎▍▌▋▊▉", "░")
ASCII = Style("`- ", "#", "", ".")


def block(sample: Sample, speed: float, style: Style) -> Sequence[str]:
    """Lines of at most 79 characters, always as many of them.

    :param speed: WAL in bytes per second.
    """
    segment = size_text(sample.segment_size)
    return [
        _row(f"{sample.seconds:.0f} s", "position", "behind", f"{segment} segment".ljust(14), ""),
        _row(
            "primary",
            str(sample.primary),
            "",
            _bar(sample.filled(sample.primary), style),
            f"{sample.written:,} rows written",
        ),
        _row(
            style.branch + "hub",
            str(sample.hub),
            size_text(sample.behind(sample.hub)),
            _bar(sample.filled(sample.hub), style),
            f"{_many(sample.segments, 'segment')} finished",
        ),
        _row(
            "   " + style.branch + "standby",
            str(sample.standby),
            size_text(sample.behind(sample.standby)),
            _bar(sample.filled(sample.standby), style),
            f"{sample.read_back:,} rows read back",
        ),
        f"  {size_text(speed)} of WAL a second; the primary has "
        f"{_many(sample.walsenders, 'walsender')}",
        f"  {sample.equal.count:,} rows compared and equal, checksum {sample.equal.checksum_text}",
    ]


def line(sample: Sample, speed: float) -> str:
    """The same in one line."""
    return (
        f"{sample.seconds:.0f} s: primary {sample.primary}, "
        f"hub {sample.hub} ({size_text(sample.behind(sample.hub))} behind), "
        f"standby {sample.standby} ({size_text(sample.behind(sample.standby))} behind); "
        f"{sample.written:,} rows written, {sample.read_back:,} read back, "
        f"{sample.equal.count:,} equal; {size_text(speed)}/s of WAL; "
        f"{_many(sample.walsenders, 'walsender')}"
    )


def size_text(size: float) -> str:
    """A number of bytes in PostgreSQL's units, of which one is 1024 of the next smaller."""
    if size < 1000:
        return f"{size:.0f} B"
    units = ["GB", "MB", "kB"]
    size /= 1024
    while size >= 1000 and len(units) > 1:
        size /= 1024
        units.pop()
    return f"{size:.1f}".removesuffix(".0") + f" {units[-1]}"


def _row(name: str, position: str, behind: str, bar: str, remark: str) -> str:
    return f"  {name:<14}{position:>11}{behind:>9}  {bar}  {remark}".rstrip()


def _bar(share: float, style: Style) -> str:
    steps = len(style.parts) + 1
    full, part = divmod(int(min(share, 1.0) * _BAR_WIDTH * steps), steps)
    text = style.full * full + (style.parts[part - 1] if part else "")
    return text.ljust(_BAR_WIDTH, style.empty)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
