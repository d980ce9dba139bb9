"""Who is at the other end of a UNIX socket, by the word of the kernel."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from walstream.errors import ServerNotTrusted
from walstream.system.accounts import account_name

__all__ = ["peer_account", "peer_check"]

# struct ucred (unix(7), SO_PEERCRED): process, user, group. Of Linux only.
_CREDENTIALS: Final = struct.Struct("iII")


def peer_account(transport: Any) -> int | None:
    """The number of the user that runs the other end; None if that is no UNIX socket.

    :raises OSError: if the system does not tell.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, socket.socket) or handle.family != socket.AF_UNIX:
        return None
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise OSError("this system does not tell who is at the other end of a socket")
    credentials = handle.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def peer_check(transport: Any, required: str | None) -> Callable[[], None] | None:
    """What sees to it that user *required* runs the server; None: there is nothing to see to.

    It is for a thread, since it may wait for a directory service, and raises `ServerNotTrusted`, in
    libpq's words, if somebody else runs it.

    :param required: libpq's ``requirepeer``: at a UNIX socket it counts; None: anybody will do.
    :raises ServerNotTrusted: if it can't be told who runs it.
    """
    if required is None:
        return None
    try:
        account = peer_account(transport)
    except OSError as error:
        raise ServerNotTrusted(f"could not get peer credentials: {error}") from None
    return None if account is None else partial(_check_account, account, required)


def _check_account(account: int, required: str) -> None:
    name = account_name(account)
    if name is None:
        raise ServerNotTrusted(f"local user with ID {account} does not exist")
    if name != required:
        raise ServerNotTrusted(
            f'requirepeer specifies "{required}", but actual peer user name is "{name}"'
        )
