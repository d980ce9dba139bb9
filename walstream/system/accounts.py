"""The accounts of this machine."""

from __future__ import annotations

import pwd

__all__ = ["account_name"]


def account_name(number: int) -> str | None:
    """The name of an account, if there is one of that number.

    For a thread, where the reactor runs: a directory service may be asked, which takes its time.
    """
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return None
