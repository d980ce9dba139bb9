"""Amounts in words that people read."""

from __future__ import annotations

__all__ = ["in_bytes"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def in_bytes(number: int) -> str:
    """A number of bytes, such as ``1.5 GiB``."""
    size, unit = float(number), _UNITS[0]
    for unit in _UNITS:  # noqa: B007
        if size < 1024:
            break
        size /= 1024
    else:
        size *= 1024
    return f"{size:.0f} {unit}" if size >= 100 or size.is_integer() else f"{size:.1f} {unit}"
