"""Tells how a client and a server come to terms about encryption: a TCP proxy that looks on."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Self

from walstream.wire.startup import GSSENC_REQUEST_CODE, SSL_REQUEST_CODE

__all__ = ["Tracer"]

_HANDSHAKE = b"\x16"
# By the code of a packet without a type: what is asked for. All others are startup packets.
_REQUESTS = {SSL_REQUEST_CODE: "ssl", GSSENC_REQUEST_CODE: "gss"}


class Tracer:
    """Passes connections to a port, in threads, until the context is left.

    It calls what it sees as PostgreSQL's ``005_negotiate_encryption`` does:

    * ``connect``, ``reconnect``
    * ``sslaccept``, ``sslreject``, ``gssaccept``, ``gssreject``, ``directsslaccept``,
      ``directsslreject``: an encryption was asked for, and what came of it
    * ``authok``, ``authfail``: what came of the login
    * ``error``: an error came in place of an answer

    What comes of a login within TLS it can't see, but tell from what the client does next.

    :ivar port: where it listens.
    :ivar answer: what to say to an SSLRequest in the server's place, before hanging up; None:
        what the server says.
    """

    def __init__(self, target: int) -> None:
        self.answer: bytes | None = None
        self._target = target
        self._conversations: list[_Conversation] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="tracer", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def told(self, outcome: str) -> str:
        """What has happened since this was asked last.

        :param outcome: how it has ended for the client: ``ssl`` and ``plain`` if it came in.
        """
        seen, self._conversations = self._conversations, []
        events: list[str] = []
        for number, each in enumerate(seen, start=1):
            events += ["reconnect" if events else "connect", *each.events]
            if each.is_encrypted:
                came_in = number == len(seen) and outcome == "ssl"
                events.append("authok" if came_in else "authfail")
        ended = outcome if outcome in ("ssl", "plain") else "fail"
        return f"{', '.join(events) or '-'} -> {ended}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                conversation = _Conversation()
                self._conversations.append(conversation)
                arguments = (client, conversation)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, client: socket.socket, conversation: _Conversation) -> None:
        with (
            client,
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            while True:
                for source in select.select([client, server], [], [], 10)[0]:
                    data = source.recv(65536)
                    if source is server:
                        conversation.server_says(data)
                        client.sendall(data)
                    elif conversation.client_says(data) and self.answer is not None:
                        conversation.server_says(self.answer)
                        client.sendall(self.answer)
                        return
                    else:
                        server.sendall(data)
                    if not data:
                        return


class _Conversation:
    """One connection, up to where it is encrypted or the client is in.

    :ivar events: what has happened, but for the connection itself.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self._asked = ""
        self._is_over = False

    @property
    def is_encrypted(self) -> bool:
        """Whether the rest cannot be seen."""
        return bool(self.events) and self.events[-1].endswith("accept")

    def client_says(self, data: bytes) -> bool:
        """Take a piece of the client's; whether it asks for TLS."""
        if self._is_over or not data:
            return False
        if data[:1] == _HANDSHAKE:
            self._asked = "directssl"
        else:
            self._asked = _REQUESTS.get(int.from_bytes(data[4:8], "big"), "auth")
        return self._asked == "ssl"

    def server_says(self, data: bytes) -> None:
        """Take a piece of the server's; nothing if it hangs up."""
        if self._is_over or not self._asked:
            return
        if self._asked == "auth":
            self._end({b"R": "authok", b"E": "authfail"}.get(data[:1], "error"))
        elif data[:1] in (b"S", b"G") or (self._asked == "directssl" and data[:1] == _HANDSHAKE):
            self._end(f"{self._asked}accept")
        elif self._asked == "directssl":
            self._end("directsslreject")
        elif data[:1] == b"N":
            self.events.append(f"{self._asked}reject")
            self._asked = ""
        else:
            self._end("error")

    def _end(self, event: str) -> None:
        self.events.append(event)
        self._is_over = True
