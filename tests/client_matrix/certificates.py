"""The certificates that clients show, good and bad, by the names that cases give them."""

from __future__ import annotations

from pathlib import Path

from tests.certificates import Authority, Issued
from walstream.embedded import Account

__all__ = ["Certificates"]


class Certificates:
    """An authority, what it has issued, and what it has not.

    :param directory: where all of it is; every client can read it.
    :param account: the user that standbys run as.
    :ivar server: the servers'.
    :ivar revoked: the list of those that the authority has revoked.
    """

    def __init__(self, directory: Path, account: Account) -> None:
        directory.mkdir(mode=0o755)
        self._directory = directory
        self.authority = Authority(directory, "authority")
        other = Authority(directory, "other-authority")
        self.server = self.authority.issue("localhost", "localhost", "127.0.0.1")
        shown = [self.authority.issue(name) for name in ("certified", "friend", "certain")]
        revoked = self.authority.issue("certified", stem="revoked")
        expired = self.authority.issue("certified", stem="expired", expired=True)
        forged = other.issue("certified", stem="forged")
        self.revoked = self.authority.revoke(revoked)
        for each in (*shown, revoked, expired, forged):
            _give(each, account)

    def file(self, parameter: str, name: str) -> str:
        """The file that a parameter of a connection string names."""
        kind = ".key" if parameter == "sslkey" else ".crt"
        return str(self._directory / f"{name}{kind}")


def _give(issued: Issued, account: Account) -> None:
    # Whoever may not read a key has none; we may, if we are root.
    account.own(issued.key)
    issued.certificate.chmod(0o644)
