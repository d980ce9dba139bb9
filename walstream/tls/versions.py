"""The versions of TLS that there are, by PostgreSQL's names for them."""

from __future__ import annotations

from enum import Enum

__all__ = ["TLSVersion"]


class TLSVersion(Enum):
    """A version that is spoken here. What is older than that is broken."""

    V1_2 = "TLSv1.2"
    V1_3 = "TLSv1.3"

    @property
    def number(self) -> int:
        """As OpenSSL, and the protocol itself, number it."""
        return {TLSVersion.V1_2: 0x0303, TLSVersion.V1_3: 0x0304}[self]
