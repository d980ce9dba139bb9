"""Whether TLS can be spoken at all: it takes an extra."""

from __future__ import annotations

from importlib.util import find_spec

from walstream.errors import FormatError

__all__ = ["REMEDY", "is_installed", "require"]

REMEDY = 'TLS needs more than is installed: pip install "walstream[tls]"'


def is_installed() -> bool:
    """Whether what TLS takes is there."""
    return all(find_spec(name) is not None for name in ("OpenSSL", "cryptography"))


def require(what: str) -> None:
    """Check that TLS can be spoken.

    :param what: what it is wanted for.
    :raises FormatError: naming the extra, if it can't.
    """
    if not is_installed():
        raise FormatError(f"{what} is not possible: {REMEDY}")
