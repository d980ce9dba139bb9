"""Record what real clients and servers of PostgreSQL 15 to 18 say: ``python -m tests.fuzz.record``.

It writes the files of ``corpus`` anew. Passwords are in none: everybody is trusted.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.fuzz.recordings import CORPUS
from tests.servers import Clusters, Templates, installation
from walstream.embedded import Account, Cluster, workspace

MAJORS: Final = (15, 16, 17, 18)
# Of each direction of a connection so much is kept: what follows is more of the same.
_KEPT: Final = 4096


class Recorder:
    """Forwards connections to a port, and keeps the beginning of what passes.

    :ivar said: for each connection what the client said, and what it was answered.
    """

    def __init__(self, target: int) -> None:
        self.said: list[tuple[bytearray, bytearray]] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                said = bytearray(), bytearray()
                self.said.append(said)
                for source, sink, kept in ((client, server, said[0]), (server, client, said[1])):
                    threading.Thread(
                        target=_forward, args=(source, sink, kept), daemon=True
                    ).start()


def _forward(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            kept += data[: _KEPT - len(kept)]
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def recorded(port: int, name: str) -> Iterator[int]:
    """Write down what passes through the port that is given."""
    recorder = Recorder(port)
    try:
        yield recorder.port
    finally:
        recorder.close()
    for number, (client, server) in enumerate(recorder.said):
        suffix = f"-{number}" if number else ""
        (CORPUS / f"{name}{suffix}.client").write_bytes(client)
        (CORPUS / f"{name}{suffix}.server").write_bytes(server)


def record(clusters: Clusters, base: Path, major: int) -> None:
    """Have one version's clients talk to its server."""
    primary = clusters.primary(f"primary{major}", settings={"wal_keep_size": "100MB"})
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")
    _pg_receivewal(primary, base, major)
    with recorded(primary.port, f"basebackup-{major}") as port:
        _run(
            primary,
            "pg_basebackup",
            port,
            "-D",
            base / f"copy{major}",
            "-X",
            "stream",
            "-c",
            "fast",
        )
    with recorded(primary.port, f"standby-{major}") as port:
        standby = clusters.standby(
            primary,
            primary.conninfo(port=port, application_name="standby"),
            f"standby{major}",
            settings={"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s"},
        )
        standby.wait_for_replay(primary.end_of_wal())
        time.sleep(2)
        primary.stop()
        standby.stop()


def _pg_receivewal(primary: Cluster, base: Path, major: int) -> None:
    directory = base / f"wal{major}"
    primary.account.make_directory(directory)
    with recorded(primary.port, f"receivewal-slot-{major}") as port:
        _run(primary, "pg_receivewal", port, "--create-slot", "--slot=s")
    with recorded(primary.port, f"receivewal-{major}") as port:
        end = primary.end_of_wal()
        _run(primary, "pg_receivewal", port, "-D", directory, "--slot=s", f"--endpos={end}", "-n")


def _run(cluster: Cluster, tool: str, port: int, *options: str | Path) -> None:
    conninfo = cluster.conninfo(port=port, gssencmode="prefer", sslmode="prefer")
    cluster.run([cluster.installation.tool(tool), "-d", conninfo, *options])


def main() -> None:
    """Write the corpus anew."""
    CORPUS.mkdir(exist_ok=True)
    for old in (*CORPUS.glob("*.client"), *CORPUS.glob("*.server")):
        old.unlink()
    with workspace("walstream-record-") as base:
        account = Account.for_servers()
        for major in MAJORS:
            programs = installation(major).for_user(account, base / f"programs{major}")
            place = base / f"clusters{major}"
            account.make_directory(place)
            clusters = Clusters(programs, place, Templates(place, account))
            try:
                record(clusters, place, major)
            finally:
                clusters.end()


if __name__ == "__main__":
    main()
