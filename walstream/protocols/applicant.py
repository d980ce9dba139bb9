"""What a connection tells of the client at its other end, before it has proved anything."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ISSLTransport

from walstream.gates import Applicant
from walstream.protocols.unix_peer import peer_account
from walstream.protocols.welcome import Client
from walstream.wire.encryption import Encryption

__all__ = ["applicant"]

_LONGEST_NAME: Final = 63  # NAMEDATALEN - 1


def applicant(client: Client, transport: Any, encryption: Encryption | None) -> Applicant:
    """Who asks to come in over *transport*, and says that it is *client*."""
    peer = transport.getPeer()
    address = peer.host if isinstance(peer, IPv4Address | IPv6Address) else None
    return Applicant(
        _clipped(client.user),
        client.application_name,
        address,
        account=_account(transport) if address is None else None,
        is_encrypted=encryption is not None or bool(ISSLTransport.providedBy(transport)),
        subject=None if encryption is None else encryption.subject,
        end_point=None if encryption is None else encryption.end_point,
    )


def _clipped(user: str) -> str:
    """A name as PostgreSQL takes it: of one that is too long, the beginning."""
    return user.encode("utf-8", "surrogateescape")[:_LONGEST_NAME].decode(
        "utf-8", "surrogateescape"
    )


def _account(transport: Any) -> int | None:
    """The user number of the process at the other end of a UNIX socket, if the system tells it."""
    try:
        return peer_account(transport)
    except OSError:
        return None
