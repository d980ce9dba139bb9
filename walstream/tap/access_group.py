"""Options about who comes in: the rules, the maps, the roles."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.python import usage

from walstream.tap.group import CommandOptions
from walstream.tap.values import seconds

if TYPE_CHECKING:
    from walstream.services.access import Access

__all__ = ["AccessOptions"]


class AccessOptions(CommandOptions):
    """Who comes in, of those who can connect."""

    optParameters = [
        [
            "hba",
            None,
            None,
            "The rules about who comes in, and what a client has to prove: a file as pg_hba.conf, "
            "of which the lines for replication count. Without it everybody comes in who can "
            "connect.",
        ],
        ["ident", None, None, "The maps that the rules name: a file as pg_ident.conf."],
        [
            "roles",
            None,
            None,
            "The roles, their passwords' verifiers and limits: a file that walstream role makes. "
            "ARCHIVE/.walstream/roles unless given.",
        ],
        [
            "auth-delay",
            None,
            "0.25",
            "Seconds by which the answer to a wrong password is late; twice as late after the next "
            "from the same address, up to 5 s. 0: none is.",
        ],
    ]

    def postOptions(self) -> None:
        """Check that the rest has its rules."""
        super().postOptions()
        self.auth_delay: float = self.checked("auth-delay", seconds) or 0.0
        for name in ("ident", "roles"):
            if self[name] is not None and not self.has_rules:
                raise usage.UsageError(f"--{name} is of use with --hba only: leave it out")

    @property
    def has_rules(self) -> bool:
        """Whether there are rules."""
        return self["hba"] is not None

    @property
    def has_tls(self) -> bool:
        """Whether connections can be encrypted."""
        return bool(self.get("tls-certificate"))

    def make_access(self, archive: str, *, may_trust_strangers: bool) -> Access | None:
        """Who comes in; None: everybody."""
        from walstream.access.policy import AccessFiles
        from walstream.archive.paths import ArchivePaths
        from walstream.services.access import Access

        if not self.has_rules:
            return None
        files = AccessFiles(
            os.path.abspath(self["hba"]),
            None if self["ident"] is None else os.path.abspath(self["ident"]),
            os.path.abspath(self["roles"] or ArchivePaths(archive).roles),
        )
        has_authorities = bool(self.get("tls-ca"))
        return Access(files, self.auth_delay, may_trust_strangers, self.has_tls, has_authorities)
