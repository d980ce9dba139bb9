"""The upstream: its hosts, which of them will do, and how to log in. A value, and one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from walstream.protocols.login import Login
from walstream.tls.options import ClientOptions
from walstream.upstream.hosts import UpstreamHost
from walstream.upstream.passfile import find_password
from walstream.upstream.private_file import read_secret

__all__ = ["TargetSessionAttrs", "Upstream"]


class TargetSessionAttrs(Enum):
    """Which kind of server will do (libpq's ``target_session_attrs``)."""

    ANY = "any"
    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    PRIMARY = "primary"
    STANDBY = "standby"
    PREFER_STANDBY = "prefer-standby"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the upstream may be, and who we are to it.

    :ivar hosts: to be tried in this order.
    :ivar account: as whom to log in, wherever; its password is None unless it was given outright.
    :ivar passfile: where to look for a password that wasn't given (libpq's password file).
    :ivar password_file: a file with nothing but the password, in place of *passfile*.
    :ivar credentials: where systemd puts a service's secrets, whose permissions are its business.
    :ivar wanted: which kind of server will do.
    :ivar shuffled: try the hosts in random order (``load_balance_hosts=random``).
    :ivar connect_timeout: seconds to give each host until we are logged in; None: no limit.
    :ivar tls: how to encrypt the connection; None: not at all.
    :ivar tcp_options: libpq's ``keepalives…`` and ``tcp_user_timeout``, as far as they were given.
    """

    hosts: tuple[UpstreamHost, ...]
    account: Login
    passfile: Path | None = None
    password_file: Path | None = None
    credentials: Path | None = None
    wanted: TargetSessionAttrs = TargetSessionAttrs.ANY
    shuffled: bool = False
    connect_timeout: float | None = 30.0
    tls: ClientOptions | None = None
    tcp_options: Mapping[str, int] = field(default_factory=dict)

    def login(self, host: UpstreamHost) -> Login:
        """As whom to log in at *host*; looks the password up anew, so that it may be changed.

        :raises FormatError: if it has to be in *password_file*, and can't be had from there.
        """
        account = self.account
        if account.password is not None:
            return account
        if self.password_file is not None:
            return replace(account, password=read_secret(self.password_file, self.credentials))
        if self.passfile is None:
            return account
        password = find_password(
            self.passfile, host, account.database, account.user, self.credentials
        )
        return replace(account, password=password)
