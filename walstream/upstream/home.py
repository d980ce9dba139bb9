"""Who runs this process: libpq's defaults for the role and for the files in the home directory."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from walstream.system.accounts import account_name

__all__ = ["home_directory", "system_user"]


def home_directory(environ: Mapping[str, str]) -> Path:
    """``HOME``, or what the user database says (``pqGetHomeDirectory``)."""
    home = environ.get("HOME")
    return Path(home) if home else Path(pwd.getpwuid(os.geteuid()).pw_dir)


def system_user() -> str | None:
    """The name of the operating system's user; None if the user database has none."""
    return account_name(os.geteuid())
