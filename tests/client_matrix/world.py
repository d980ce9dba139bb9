"""A server, a hub of ours behind it by the same rules, and a standby for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from psycopg.conninfo import make_conninfo

from tests.client_matrix.cases import Case
from tests.client_matrix.certificates import Certificates
from tests.client_matrix.rules import HBA, ROLES, ident_maps
from tests.integration.tls import give_tls
from tests.servers import Clusters
from tests.servers.daemon import Serving, Walstream, wait_until
from walstream.access.role_store import RoleStore
from walstream.embedded import Account, Cluster
from walstream.embedded.configuration import free_port
from walstream.formats.lsn import LSN
from walstream.formats.role_file import Role, with_role

__all__ = ["Place", "World", "world"]

_FILES = ("sslrootcert", "sslcert", "sslkey")
_SETTINGS: dict[str, str | int] = {
    "max_wal_senders": 50,
    "max_connections": 60,
    "wal_keep_size": "1GB",
    # Standbys are told where to go while they run, and try again until they get there.
    "wal_retrieve_retry_interval": "10ms",
}


@dataclass(frozen=True)
class Place:
    """Where clients come to: a server or a hub.

    :ivar sockets: the directory of its UNIX socket.
    :ivar standby: one that runs, and is told to come here.
    """

    port: int
    sockets: Path
    standby: Cluster


@dataclass(frozen=True)
class World:
    """Both places.

    :ivar primary: the server.
    :ivar hub: what receives its WAL, and serves it over TCP.
    :ivar sender: what serves the hub's archive at a UNIX socket.
    :ivar end: a position up to which both have WAL.
    """

    clusters: Clusters
    certificates: Certificates
    primary: Cluster
    hub: Serving
    sender: Walstream
    theirs: Place
    ours: Place
    end: LSN
    directory: Path

    def conninfo(self, case: Case, place: Place) -> str:
        """The connection string of a case, without its password."""
        facts = {"host": "127.0.0.1", "user": case.user, "port": str(place.port), **case.facts}
        if facts["host"] == "socket":
            facts["host"] = str(place.sockets)
        elif facts["host"] != "127.0.0.1":
            facts["hostaddr"] = "127.0.0.1"
        for name in _FILES:
            if name in facts:
                facts[name] = self.certificates.file(name, facts[name])
        return make_conninfo("", **facts)


@contextmanager
def world(clusters: Clusters, directory: Path) -> Iterator[World]:
    """Make all of it.

    :param directory: one that every user can enter.
    """
    certificates = Certificates(directory / "certificates", Account.for_servers())
    theirs, ours = (_sockets(directory / name) for name in ("theirs", "ours"))
    primary = _primary(clusters, certificates, theirs)
    hub_port = free_port()
    archive, rules = directory / "archive", _rules(primary, certificates, directory)
    with (
        Serving(
            *("hub", "-D", archive, "-d", primary.conninfo(), *rules),
            log=directory / "hub.log",
            port=hub_port,
        ) as hub,
        Walstream(
            *("send", "-D", archive, *rules),
            f"--listen=unix:{ours}/.s.PGSQL.{hub_port}:mode=666",
            log=directory / "send.log",
        ) as sender,
    ):
        hub.await_text("starting log streaming")
        backup = directory / "backup"
        primary.base_backup(backup)
        standbys = [clusters.standby_of(backup, "", f"of-{name}") for name in ("theirs", "ours")]
        # Something behind the beginning of a segment, which is where clients begin.
        primary.query("INSERT INTO come VALUES ('somebody')")
        end = LSN.parse(primary.end_of_wal())
        wait_until(lambda: LSN.parse(hub.end()[1]) >= end, "received by the hub")
        sender.await_text("listening on")
        places = Place(primary.port, theirs, standbys[0]), Place(hub.port, ours, standbys[1])
        yield World(clusters, certificates, primary, hub, sender, *places, end, directory)


def _sockets(directory: Path) -> Path:
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def _primary(clusters: Clusters, certificates: Certificates, sockets: Path) -> Cluster:
    settings = {**_SETTINGS, "unix_socket_directories": str(sockets)}
    primary = clusters.primary(hba=HBA.splitlines(), settings=settings)
    (primary.data / "pg_ident.conf").write_text(_maps())
    give_tls(primary, certificates.server, certificates.authority, certificates.revoked)
    primary.reload()
    wait_until(lambda: primary.query("SHOW ssl") == [("on",)], "encrypted")
    primary.query("CREATE TABLE come (who text)")
    for name, what in ROLES.items():
        primary.query(f"CREATE ROLE {name} {what}")
    return primary


def _rules(primary: Cluster, certificates: Certificates, directory: Path) -> Sequence[str | Path]:
    """By which options walstream lets in whom that server does: by copies of its files."""
    (directory / "hba").write_text(HBA)
    (directory / "ident").write_text(_maps())
    store = RoleStore(str(directory / "roles"))
    rows = primary.query(
        "SELECT rolname, rolpassword FROM pg_authid WHERE rolreplication AND rolcanlogin"
    )
    for name, verifier in rows:
        role = Role(name, verifier)
        store.change(partial(with_role, role=role, path=store.path))
    files = {
        "hba": directory / "hba",
        "ident": directory / "ident",
        "roles": store.path,
        "tls-certificate": certificates.server.certificate,
        "tls-key": certificates.server.key,
        "tls-ca": certificates.authority.certificate,
        "tls-crl": certificates.revoked,
    }
    return ["--auth-delay=0", *(f"--{name}={path}" for name, path in files.items())]


def _maps() -> str:
    return ident_maps({Account.for_servers().name, Account.ourselves().name})
