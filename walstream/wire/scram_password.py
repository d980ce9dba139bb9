"""A password as SCRAM takes it: by SASLprep, or else as it is.

PostgreSQL's documentation, "SASL Authentication", and its ``scram_build_secret``: what SASLprep
(RFC 4013) does not allow, and what it leaves nothing of, is taken as it is, on both sides.
"""

from __future__ import annotations

from scramp import ScramException
from scramp.core import saslprep

__all__ = ["scram_password"]


def scram_password(password: str) -> bytes:
    """What of a password goes into its proofs and verifiers."""
    try:
        prepared = str(saslprep(password))
    except ScramException:
        prepared = ""
    return (prepared or password).encode("utf-8", "surrogateescape")
