"""Who is at the other end of a UNIX socket, by the word of the kernel."""

from __future__ import annotations

import pwd
import socket
import struct
from typing import Any, Final

from walstream.errors import ServerNotTrusted

__all__ = ["check_peer", "peer_account"]

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


def check_peer(transport: Any, required: str | None) -> None:
    """See to it that user *required* runs the server, if it is at the end of a UNIX socket.

    :param required: libpq's ``requirepeer``; None: anybody will do.
    :raises ServerNotTrusted: in libpq's words, if somebody else runs it, or it can't be told who.
    """
    if required is None:
        return
    try:
        account = peer_account(transport)
        name = None if account is None else pwd.getpwuid(account).pw_name
    except KeyError:
        raise ServerNotTrusted(f"local user with ID {account} does not exist") from None
    except OSError as error:
        raise ServerNotTrusted(f"could not get peer credentials: {error}") from None
    if name is not None and name != required:
        raise ServerNotTrusted(
            f'requirepeer specifies "{required}", but actual peer user name is "{name}"'
        )
