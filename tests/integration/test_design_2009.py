"""The design of December 2009 over a raw socket, byte by byte, and end to end."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Self

from tests.integration.load import finished_segments, identical
from tests.integration.test_send import archive_of
from tests.servers import Clusters
from tests.servers.daemon import Serving, Walstream
from walstream.embedded import Cluster

SEGMENT = 1 << 20


class RawClient:
    """Sends and reads bytes; knows nothing of walstream."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        body = b"user\0fujii\0replication\0on\0\0"
        self.socket.sendall(struct.pack("!II", 8 + len(body), 196608) + body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def query(self, text: str) -> None:
        body = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", 4 + len(body)) + body)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, f"the connection ended after {data!r}"
            data += piece
        return data

    def message(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!cI", self.exactly(5))
        return kind, self.exactly(length - 4)

    def until_ready(self) -> list[tuple[bytes, bytes]]:
        messages = [self.message()]
        while messages[-1][0] != b"Z":
            messages.append(self.message())
        return messages


def column(name: str, oid: int, size: int) -> bytes:
    return name.encode() + b"\0" + struct.pack("!IhIhih", 0, 0, oid, size, -1, 0)


def backup_history(primary: Cluster) -> tuple[str, str, bytes]:
    """Take a base backup's WAL positions and make the file that a server's archiver would keep."""
    with primary.connect() as connection:
        start = connection.execute("SELECT pg_backup_start('2009', true)::text").fetchone()
        assert start is not None
        name = connection.execute(
            "SELECT file_name, lpad(to_hex(file_offset), 8, '0')"
            " FROM pg_walfile_name_offset(%s::pg_lsn)",
            [start[0]],
        ).fetchone()
        assert name is not None
        stop = connection.execute("SELECT * FROM pg_backup_stop(false)").fetchone()
        assert stop is not None
    content = f"START WAL LOCATION: {start[0]} (file {name[0]})\n".encode()
    content += f"STOP WAL LOCATION: {stop[0]} (file {name[0]})\nLABEL: 2009\n".encode()
    return start[0], f"{name[0]}.{name[1].upper()}.backup", content


def test_every_byte_of_a_conversation(clusters: Clusters, tmp_path: Path) -> None:
    """Startup, the three queries, an error, and the stream, as the message designs them."""
    primary = clusters.primary()
    start, name, content = backup_history(primary)
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    (archive / name).write_bytes(content)
    segment = (archive / name[:24]).read_bytes()
    system = primary.query("SELECT system_identifier::text FROM pg_control_system()")[0][0]
    with (
        Serving("send", "-D", archive, log=tmp_path / "log") as sender,
        RawClient(sender.port) as client,
    ):
        welcome = client.until_ready()
        assert welcome[0] == (b"R", b"\0\0\0\0")
        assert welcome[-1] == (b"Z", b"I")

        client.query("GET_SYSTEM_IDENTIFIER")
        assert client.until_ready() == [
            (b"T", b"\0\x01" + column("systemid", 25, -1)),
            (b"D", b"\0\x01" + struct.pack("!I", len(system)) + system.encode()),
            (b"C", b"SELECT\0"),
            (b"Z", b"I"),
        ]
        client.query("GET_TIMELINE")
        assert client.until_ready() == [
            (b"T", b"\0\x01" + column("timeline", 23, 4)),
            (b"D", b"\0\x01\0\0\0\x01" + b"1"),
            (b"C", b"SELECT\0"),
            (b"Z", b"I"),
        ]
        client.query(f"GET_BACKUP_HISTORY_FILE {start}")
        assert client.until_ready() == [
            (b"T", b"\0\x02" + column("filename", 25, -1) + column("content", 25, -1)),
            (
                b"D",
                b"\0\x02"
                + (struct.pack("!I", len(name)) + name.encode())
                + (struct.pack("!I", len(content)) + content),
            ),
            (b"C", b"SELECT\0"),
            (b"Z", b"I"),
        ]
        client.query("GET_BACKUP_HISTORY_FILE FF/28")
        error, ready = client.until_ready()
        assert error[0] == b"E"
        assert b"C58P01\0" in error[1]
        assert ready == (b"Z", b"I")

        position = int(name[8:16], 16) * (1 << 32) + int(name[16:24], 16) * SEGMENT
        client.query(f"START REPLICATION: {position >> 32:X}/{position & 0xFFFFFFFF:X}")
        assert client.exactly(8) == b"H\0\0\0\x07\0\0\0"
        received = b""
        while len(received) < SEGMENT:
            kind, payload = client.message()
            assert kind == b"d"
            (at,) = struct.unpack("!Q", payload[:8])
            assert at == position + len(received)
            received += payload[8:]
        assert received == segment
        client.socket.sendall(b"X\0\0\0\x04")
        assert client.socket.recv(1) == b""


def test_the_receiver_speaks_it_too(clusters: Clusters, tmp_path: Path) -> None:
    """--dialect 2009 archives the same bytes, and the backup history file of its start."""
    primary = clusters.primary()
    start, name, content = backup_history(primary)
    for _ in range(3):
        primary.query("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'a', 'b')")
    archive = archive_of(primary, tmp_path / "archive")
    (archive / name).write_bytes(content)
    copy = tmp_path / "copy"
    names = [each for each in finished_segments(archive) if each >= name[:24]]
    with (
        Serving("send", "-D", archive, log=tmp_path / "sender") as sender,
        Walstream(
            *("receive", "-d", sender.conninfo(), "-D", copy, "--dialect", "2009"),
            *("--startpos", start, "--wal-segsize", "1"),
            log=tmp_path / "receiver",
        ) as receiver,
    ):
        assert identical(archive, copy, len(names)) == names
        assert (copy / name).read_bytes() == content
        assert receiver.stop() == 0


def test_a_server_without_it_says_so(clusters: Clusters, tmp_path: Path) -> None:
    """Against PostgreSQL the dialect fails with an error that names the way out."""
    primary = clusters.primary()
    with Walstream(
        *("receive", "-d", primary.conninfo(), "-D", tmp_path / "archive", "--no-loop"),
        *("--dialect", "2009", "--startpos", "0/1000000"),
        log=tmp_path / "log",
    ) as receiver:
        assert receiver.wait() == 1
        assert "cannot execute SQL commands in WAL sender" in receiver.text


def test_an_empty_archive_needs_a_start_position(clusters: Clusters, tmp_path: Path) -> None:
    """Without --startpos it ends with an error that names it: the dialect can't ask."""
    primary = clusters.primary()
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    copy = tmp_path / "copy"
    with (
        Serving("send", "-D", archive, log=tmp_path / "sender") as sender,
        Walstream(
            *("receive", "-d", sender.conninfo(), "-D", copy, "--dialect", "2009"),
            log=tmp_path / "receiver",
        ) as receiver,
    ):
        assert receiver.wait() == 1
        assert "--startpos" in receiver.text
