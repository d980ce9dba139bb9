"""Somebody in the middle: ends the client's TLS, and passes everything on to the true server."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from walstream.wire.frames import frame
from walstream.wire.messages import authentication_sasl

__all__ = ["Interceptor", "asking_for_cleartext", "without_channel_binding"]

_SSL_REQUEST = bytes.fromhex("00000008 04D2162F")

#: What is made of a piece that the server has sent.
Edit = Callable[[bytes], bytes]


def without_channel_binding(data: bytes) -> bytes:
    """The server's offer of mechanisms, less the one that would find us out."""
    return data.replace(
        authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
        authentication_sasl(["SCRAM-SHA-256"]),
    )


def asking_for_cleartext(data: bytes) -> bytes:
    """In place of the server's offer, a plain question for the password."""
    if not data.startswith(b"R"):
        return data
    return frame(b"R", b"\0\0\0\3")


class Interceptor:
    """Listens with a certificate of its own, from threads, until the context is left.

    :param target: the true server's port.
    :param edit: what it changes of what the server says.
    :param encrypts: whether clients get TLS. The server is talked to over TLS in any case.
    :ivar port: where it listens.
    :ivar heard: everything that clients have sent, without the encryption.
    """

    def __init__(
        self,
        target: int,
        certificate: Path,
        key: Path,
        edit: Edit = bytes,
        *,
        encrypts: bool = True,
    ) -> None:
        self.heard = bytearray()
        self._target = target
        self._edit = edit
        self._encrypts = encrypts
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(10)
                threading.Thread(target=self._intercept, args=(client,), daemon=True).start()

    def _intercept(self, plain: socket.socket) -> None:
        with plain, suppress(OSError):
            first = plain.recv(8, socket.MSG_PEEK)
            client = plain
            if first == _SSL_REQUEST:
                plain.recv(8)
                plain.sendall(b"S" if self._encrypts else b"N")
                if self._encrypts:
                    client = self._context.wrap_socket(plain, server_side=True)
            with client, self._reach() as server:
                self._relay(client, server)

    def _reach(self) -> ssl.SSLSocket:
        # TLS takes it over. Until then it is ours to close: a server may be stopped at any moment.
        with socket.create_connection(("127.0.0.1", self._target), 10) as server:
            server.sendall(_SSL_REQUEST)
            assert server.recv(1) in (b"S", b""), "it has TLS"
            return ssl._create_unverified_context().wrap_socket(server)

    def _note(self, data: bytes) -> bytes:
        self.heard += data
        return data

    def _relay(self, client: socket.socket, server: ssl.SSLSocket) -> None:
        """Until one of them ends: in one thread, since nothing of OpenSSL's is for two."""
        ways = {client: (server, self._note), server: (client, self._edit)}
        while True:
            pending = [end for end in ways if isinstance(end, ssl.SSLSocket) and end.pending()]
            for source in pending or select.select(list(ways), [], [], 10)[0]:
                target, edit = ways[source]
                source.settimeout(0.05)  # there may be nothing in it for us, as a session ticket
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                if not data:
                    return
                target.settimeout(10)
                target.sendall(edit(data))
