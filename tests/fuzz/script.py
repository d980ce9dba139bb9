"""What a peer does, read from an input byte by byte."""

from __future__ import annotations

__all__ = ["Script"]


class Script:
    """Takes an input apart. At its end there are zeros and nothing."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self) -> int:
        """A number from 0 to 255."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def piece(self) -> bytes:
        """Some bytes, behind their number."""
        size = self.number()
        self._at += size
        return self._data[self._at - size : self._at]
