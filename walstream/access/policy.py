"""The files that say who comes in, read and checked: what is not right never takes effect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from walstream.errors import FormatError
from walstream.formats.hba import (
    AuthMethod,
    ClientCertificate,
    ConnectionKind,
    HBARule,
    read_hba,
)
from walstream.formats.ident_map import IdentLine, read_ident

__all__ = ["AccessFiles", "DiskFiles", "Policy", "read_policy"]


@dataclass(frozen=True, slots=True)
class AccessFiles:
    """Where the files are.

    :ivar hba: lines as of ``pg_hba.conf``.
    :ivar ident: lines as of ``pg_ident.conf``; None: there are no maps.
    :ivar roles: the file of roles.
    """

    hba: str
    ident: str | None
    roles: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What the files say, but for the roles."""

    rules: Sequence[HBARule]
    maps: Sequence[IdentLine]

    @property
    def is_by_nearness(self) -> bool:
        """Whether any rule goes by our own addresses."""
        return any(rule.address.near is not None for rule in self.rules)

    def open_to_strangers(self) -> HBARule | None:
        """The first rule that lets in another machine which proves nothing, if there is one."""
        return next(filter(_trusts_strangers, self.rules), None)

    def in_clear(self) -> HBARule | None:
        """The first rule by which another machine may come in unencrypted, if there is one."""
        return next(filter(_is_in_clear, self.rules), None)

    def warnings(
        self, *, has_tls: bool, has_authorities: bool, is_exposed: bool = False
    ) -> Iterator[str]:
        """What is hardly meant.

        :param has_tls: whether connections can be encrypted.
        :param has_authorities: whether clients are asked for certificates.
        :param is_exposed: whether other machines can connect, over a network that is not trusted.
        """
        if not self.rules:
            yield (
                "no line has the database replication, which all does not include: nobody comes in"
            )
        for rule in self.rules:
            if rule.kind is ConnectionKind.HOSTSSL and not has_tls:
                yield f"hostssl record cannot match because TLS is off: {rule.line.place}"
            elif rule.client_certificate is not ClientCertificate.ANY and not has_authorities:
                yield (
                    "nobody can come in with a certificate because --tls-ca is not given: "
                    f"{rule.line.place}"
                )
            if rule.kind is ConnectionKind.HOSTGSSENC:
                yield (
                    "hostgssenc record cannot match because GSSAPI is not offered: "
                    f"{rule.line.place}"
                )
        in_clear = self.in_clear()
        if is_exposed and in_clear is not None:
            yield (
                "other machines may come in unencrypted, unlike with hostssl: "
                f"{in_clear.line.place}"
            )


class DiskFiles:
    """The files as they are on disk. Waits for it."""

    def read(self, path: str) -> str:
        """The contents of a file, as they are: a carriage return begins no line."""
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory."""
        return os.listdir(path)


def read_policy(files: AccessFiles) -> Policy:
    """Read the rules and the maps.

    :raises FormatError: if anything is not right.
    """
    disk = DiskFiles()
    rules = read_hba(files.hba, disk)
    maps = [] if files.ident is None else read_ident(files.ident, disk)
    for rule in rules:
        if rule.ident_map is not None and files.ident is None:
            raise FormatError(f'there is no --ident for map "{rule.ident_map}": {rule.line.place}')
    return Policy(rules, maps)


def _trusts_strangers(rule: HBARule) -> bool:
    return rule.method is AuthMethod.TRUST and _reaches_out(rule)


def _is_in_clear(rule: HBARule) -> bool:
    kinds = (ConnectionKind.HOST, ConnectionKind.HOSTNOSSL, ConnectionKind.HOSTNOGSSENC)
    return rule.method is not AuthMethod.REJECT and rule.kind in kinds and _reaches_out(rule)


def _reaches_out(rule: HBARule) -> bool:
    """Whether it means clients of other machines that want WAL."""
    if rule.kind is ConnectionKind.LOCAL or rule.address.near == "samehost":
        return False
    network = rule.address.network
    return network is None or not network.is_loopback
