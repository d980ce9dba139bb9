"""What peers call themselves, made fit to be shown: in logs, to terminals, to other clients."""

from __future__ import annotations

__all__ = ["clean_ascii"]


def clean_ascii(name: str) -> str:
    """A name with all but printable ASCII as ``\\xNN``, as PostgreSQL has an ``application_name``.

    (``pg_clean_ascii``; before 16 it had a question mark in those places.)
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
        for byte in name.encode("utf-8", "surrogateescape")
    )
