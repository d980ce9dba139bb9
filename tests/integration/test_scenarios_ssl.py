"""PostgreSQL's own tests of certificates, with walstream at either end.

They are ``ssl/t/001_ssltests.pl``, ``002_scram.pl``, and of ``004_sni.pl`` what clients see;
docs/reference/scenarios.md has the table of all. Options of clients alone, whatever the server, are
in ``test_tls_receiver.py``.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from tests.certificates import Authority, Issued
from tests.certificates import name as subject_name
from tests.integration.attempts import CLIENTS, NOTHING, authenticated, libpq, walstream
from tests.integration.tls import Known, by_hash, give_tls, shown_serial, small_archive
from tests.servers import Clusters
from tests.servers.daemon import Serving, wait_until
from walstream.access.role_store import RoleStore
from walstream.embedded import Cluster
from walstream.formats.role_file import Role, with_role
from walstream.wire.scram_verifier import ScramVerifier

HBA = """
local   all         postgres                trust
host    all         postgres  127.0.0.1/32  trust
hostssl replication anybody   127.0.0.1/32  trust
hostssl replication certified 127.0.0.1/32  cert
hostssl replication another   127.0.0.1/32  cert
hostssl replication by_dn     127.0.0.1/32  cert clientname=DN map=dn
hostssl replication by_re     127.0.0.1/32  cert clientname=DN map=re
hostssl replication by_cn     127.0.0.1/32  cert map=cn
hostssl replication verified  127.0.0.1/32  trust clientcert=verify-full
hostssl replication anyones   127.0.0.1/32  trust clientcert=verify-ca
hostssl replication password  127.0.0.1/32  scram-sha-256 clientcert=verify-full
hostssl replication bound     127.0.0.1/32  scram-sha-256
"""
IDENT = """
dn  "CN=dn-user,OU=Testing,OU=Engineering,O=PGDG"  by_dn
re  "/^.*OU=Testing,.*$"                           by_re
cn  dn-user                                        by_cn
"""
USERS = re.findall(r"^hostssl replication (\w+)", HBA, re.MULTILINE)


class Pair:
    """A server and a sender of ours, by the same rules and with the same files.

    :ivar servers: their ports.
    """

    def __init__(self, primary: Cluster, sender: Serving, files: Path) -> None:
        self.servers = {"postgresql": primary.port, "walstream": sender.port}
        self.sender = sender
        self._primary = primary
        self._files = files

    def show(self, issued: Issued, authorities: Path | None = None) -> None:
        """Have both show a certificate, which they have not shown yet, and trust authorities."""
        pem = issued.certificate.read_bytes()
        contents = {"server.crt": pem, "server.key": issued.key.read_bytes()}
        if authorities is not None:
            contents["authorities.crt"] = authorities.read_bytes()
        for name, content in contents.items():
            (self._files / name).write_bytes(content)
            (self._primary.directory / f"tls-{name}").write_bytes(content)
        self._primary.reload()
        os.kill(self.sender.process.pid, signal.SIGHUP)
        wait_until(lambda: set(self._serials()) == {issued.x509.serial_number}, "reloaded")

    def _serials(self) -> list[int]:
        return [shown_serial(port) for port in self.servers.values()]

    async def differences(self, cases: Mapping[str, str]) -> list[tuple[str, ...]]:
        """What does not end as it should: options of a client, and what it says, if it is refused.

        Of both it says the same.
        """
        wrong = []
        for options, words in cases.items():
            said = {}
            for client, attempt in CLIENTS.items():
                for server, port in self.servers.items():
                    where = f"host=127.0.0.1 port={port} dbname=postgres user=anybody {NOTHING}"
                    told = await attempt(f"{where} {options}")
                    said[client, server] = told.replace(str(port), "PORT")
            came_in = set(said.values()) == {"ssl"}
            is_right = all(words in each for each in said.values()) if words else came_in
            if not is_right or len(set(said.values())) > len(CLIENTS):
                wrong.append((options, words, *map(repr, said.items())))
        return wrong


@contextmanager
def pair(
    clusters: Clusters, files: Path, root: Authority, revoked: Path | None = None
) -> Iterator[Pair]:
    """The two, with a first certificate; *root* is whom clients are to be known by at first."""
    first = root.issue("first")
    joined(files / "server.crt", first.certificate)
    joined(files / "server.key", first.key).chmod(0o600)
    joined(files / "authorities.crt", root.certificate)
    primary = clusters.primary(hba=HBA.splitlines(), settings={"log_connections": "on"})
    store = RoleStore(str(files / "roles"))
    verifier = str(ScramVerifier.of("sesame"))
    for name in ("password", "bound"):
        store.change(partial(with_role, role=Role(name, verifier), path=store.path))
    for user in USERS:
        primary.query(f"CREATE ROLE {user} LOGIN REPLICATION PASSWORD '{verifier}'")
    give_tls(primary, Known(files / "server"), Known(files / "authorities"))
    if revoked is not None:
        give_revoked(primary, revoked)
    (primary.data / "pg_ident.conf").write_text(IDENT)
    primary.restart()
    for name, text in (("hba", HBA), ("ident", IDENT)):
        (files / name).write_text(text)
    options: list[str | Path] = ["--hba", files / "hba", "--ident", files / "ident"]
    options += ["--roles", store.path, "--auth-delay=0", "--tls-certificate", files / "server.crt"]
    options += ["--tls-key", files / "server.key", "--tls-ca", files / "authorities.crt"]
    options += [] if revoked is None else ["--tls-crl", revoked]
    archive = small_archive(files / "archive")
    with Serving("send", "-D", archive, *options, log=files / "log") as sender:
        yield Pair(primary, sender, files)


def give_revoked(primary: Cluster, directory: Path) -> None:
    """Have a server go by a copy of a directory of lists."""
    copy = primary.directory / "revoked"
    copy.mkdir()
    for path in directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    primary.configure({"ssl_crl_dir": str(copy)})


# Certificates: the common name, the others, and which hosts they are good for; else what is said.
NAMES: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
    (
        "common-name.test",
        (),
        {
            "common-name.test": "",
            "wronghost.test": (
                'certificate for "common-name.test" does not match host name "wronghost.test"'
            ),
        },
    ),
    # An address in the common name is good as it is written.
    (
        "192.0.2.1",
        (),
        {
            "192.0.2.1": "",
            "192.000.002.001": (
                'certificate for "192.0.2.1" does not match host name "192.000.002.001"'
            ),
        },
    ),
    ("", ("DNS:192.0.2.1",), {"192.0.2.1": ""}),
    (
        "",
        ("dns1.alt-name.test", "dns2.alt-name.test", "*.wildcard.test"),
        {
            "dns1.alt-name.test": "",
            "dns2.alt-name.test": "",
            "foo.wildcard.test": "",
            "wronghost.alt-name.test": (
                'certificate for "dns1.alt-name.test" (and 2 other names) does not match host name '
                '"wronghost.alt-name.test"'
            ),
            "deep.subdomain.wildcard.test": "(and 2 other names) does not match host name",
        },
    ),
    (
        "",
        ("single.alt-name.test",),
        {
            "single.alt-name.test": "",
            "wronghost.alt-name.test": 'for "single.alt-name.test" does not match host name',
            "deep.subdomain.wildcard.test": 'for "single.alt-name.test" does not match host name',
        },
    ),
    (
        "",
        ("192.0.2.1", "2001:db8::1"),
        {
            "192.0.2.1": "",
            "192.000.002.001": "",
            "192.0.2.2": 'for "192.0.2.1" (and 1 other name) does not match host name "192.0.2.2"',
            "2001:DB8::1": "",
            "2001:db8:0:0:0:0:0:1": "",
            "2001:db8::0.0.0.1": "",
            "::1": 'for "192.0.2.1" (and 1 other name) does not match host name "::1"',
            "2001:DB8::1/128": "(and 1 other name) does not match host name",
        },
    ),
    # Of a host's name the common name says nothing where there are others,
    (
        "common-name.test",
        ("dns1.alt-name.test", "dns2.alt-name.test"),
        {
            "dns1.alt-name.test": "",
            "dns2.alt-name.test": "",
            "common-name.test": 'for "dns1.alt-name.test" (and 1 other name) does not match host',
        },
    ),
    # but it does where all others are addresses,
    (
        "common-name.test",
        ("192.0.2.1", "2001:db8::1"),
        {"common-name.test": "", "192.0.2.1": "", "2001:db8::1": ""},
    ),
    # and so it is the other way round.
    (
        "192.0.2.1",
        ("192.0.2.2", "2001:db8::1"),
        {
            "192.0.2.2": "",
            "2001:db8::1": "",
            "192.0.2.1": 'for "192.0.2.2" (and 1 other name) does not match host name "192.0.2.1"',
        },
    ),
    (
        "192.0.2.1",
        ("dns1.alt-name.test", "dns2.alt-name.test"),
        {"192.0.2.1": "", "dns1.alt-name.test": "", "dns2.alt-name.test": ""},
    ),
    ("", (), {"common-name.test": "could not get server's host name from server certificate"}),
]


@pytest_twisted.ensureDeferred
async def test_whose_certificate_it_is(clusters: Clusters, tmp_path: Path) -> None:
    """001_ssltests: names, addresses and wildcards, in the common name and beside it."""
    root = Authority(tmp_path, "root")
    with pair(clusters, tmp_path, root) as both:
        wrong = []
        for number, (common_name, others, hosts) in enumerate(NAMES):
            both.show(root.issue(common_name, *others, stem=f"names-{number}"))
            where = f"hostaddr=127.0.0.1 sslrootcert={root.certificate}"
            cases = {
                f"{where} sslmode=verify-full host={host}": words for host, words in hosts.items()
            }
            cases[f"{where} sslmode=verify-ca host=wronghost.test"] = ""
            cases[f"{where} sslmode=require host=wronghost.test"] = ""
            wrong += await both.differences(cases)
        assert not wrong, "\n".join(map(str, wrong))


FAILED = "certificate verify failed"

# {} is the directory of the authorities' files.
OF_THE_WHOLE_CHAIN = {
    "sslmode=require": "",
    "sslmode=verify-ca": 'root certificate file "/nonexistent" does not exist',
    "sslmode=verify-full": 'root certificate file "/nonexistent" does not exist',
    "sslmode=require sslrootcert={}/client_ca.crt": FAILED,
    "sslmode=verify-ca sslrootcert={}/client_ca.crt": FAILED,
    "sslmode=verify-full sslrootcert={}/client_ca.crt": FAILED,
    # Those between are not enough, neither here,
    "sslmode=verify-ca sslrootcert={}/server_ca.crt": FAILED,
    # nor missing where the server has them not.
    "sslmode=verify-ca sslrootcert={}/root.crt": FAILED,
    "sslmode=require sslrootcert={}/root+server_ca.crt": "",
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt": "",
    "sslmode=verify-full sslrootcert={}/root+server_ca.crt": "",
    "sslmode=verify-ca sslrootcert={}/both-1.crt": "",
    "sslmode=verify-ca sslrootcert={}/both-2.crt": "",
    "sslmode=require sslcertmode=disable sslrootcert={}/root+server_ca.crt": "",
    "sslmode=require sslcertmode=allow sslrootcert={}/root+server_ca.crt": "",
    "sslmode=require sslcertmode=require sslrootcert={}/root+server_ca.crt": (
        "server accepted connection without a valid SSL certificate"
    ),
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt sslcrl={}/client_ca.crl": FAILED,
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt sslcrldir={}/client-crldir": FAILED,
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt sslcrl={}/root+server.crl": "",
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt sslcrldir={}/root+server-crldir": "",
}
OF_ONE_THAT_IS_SHOWN_WITH_ITS_CHAIN = {
    "sslmode=verify-ca sslrootcert={}/root.crt": "",
    "sslmode=verify-full sslrootcert={}/root.crt": "",
    "sslrootcert=system": FAILED,
    "sslrootcert=system sslmode=verify-ca": (
        'weak sslmode "verify-ca" may not be used with sslrootcert=system'
    ),
}
# Where $SSL_CERT_FILE names the root.
OF_WHOM_THE_SYSTEM_TRUSTS = {
    "sslrootcert=system sslmode=verify-full": "",
    "sslrootcert=system host=common-name.test.bad": (
        'certificate for "common-name.test" does not match host name "common-name.test.bad"'
    ),
}
OF_ONE_THAT_IS_REVOKED = {
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt": "",
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt sslcrl={}/root+server.crl": FAILED,
    "sslmode=verify-ca sslrootcert={}/root+server_ca.crt sslcrldir={}/root+server-crldir": FAILED,
}


def joined(path: Path, *parts: Path) -> Path:
    """A file made of others."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest_twisted.ensureDeferred
async def test_whom_a_client_believes(
    clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """001_ssltests: roots, those between, whom the system trusts, and what is revoked."""
    root = Authority(tmp_path, "root")
    server_ca = Authority(tmp_path, "server_ca", root)
    client_ca = Authority(tmp_path, "client_ca", root)
    server, revoked = (server_ca.issue("common-name.test", stem=stem) for stem in ("a", "b"))
    alone = Issued(tmp_path / "alone", [server.x509], server.private_key)
    gone = Issued(tmp_path / "gone", [revoked.x509], revoked.private_key)
    whole = server_ca.issue("common-name.test", stem="whole")
    lists = {
        root: root.revoke(file="root.crl"),
        server_ca: server_ca.revoke(revoked, file="server_ca.crl"),
    }
    joined(tmp_path / "root+server.crl", *lists.values())
    by_hash(tmp_path / "root+server-crldir", lists)
    by_hash(tmp_path / "client-crldir", {client_ca: client_ca.revoke(file="client_ca.crl")})
    of_servers = joined(tmp_path / "root+server_ca.crt", root.certificate, server_ca.certificate)
    of_clients = joined(tmp_path / "root+client_ca.crt", root.certificate, client_ca.certificate)
    joined(tmp_path / "both-1.crt", of_clients, of_servers)
    joined(tmp_path / "both-2.crt", of_servers, of_clients)

    def cases(table: Mapping[str, str]) -> dict[str, str]:
        where = "hostaddr=127.0.0.1 host=common-name.test"
        return {
            f"{where} {options.format(*[tmp_path] * 2)}": words for options, words in table.items()
        }

    with pair(clusters, tmp_path, root) as both:
        both.show(alone)
        wrong = await both.differences(cases(OF_THE_WHOLE_CHAIN))
        both.show(whole)
        wrong += await both.differences(cases(OF_ONE_THAT_IS_SHOWN_WITH_ITS_CHAIN))
        monkeypatch.setenv("SSL_CERT_FILE", str(root.certificate))
        wrong += await both.differences(cases(OF_WHOM_THE_SYSTEM_TRUSTS))
        monkeypatch.delenv("SSL_CERT_FILE")
        both.show(gone)
        wrong += await both.differences(cases(OF_ONE_THAT_IS_REVOKED))
        assert not wrong, "\n".join(map(str, wrong))
        # The one thing that is not the same: a list that is not there is none to libpq.
        where = f"host=127.0.0.1 port={both.servers['postgresql']} user=anybody dbname=postgres"
        missing = f"{where} sslmode=verify-ca sslrootcert={of_servers} sslcrl=/nonexistent"
        assert libpq(missing) == "ssl"
        assert 'revocation list file "/nonexistent": No such file' in await walstream(missing)


# Who comes, with which certificate, if with any; and what else is said.
Of = dict[tuple[str, ...], str]
OF_CLIENTS: Of = {
    ("certified", ""): "connection requires a valid client certificate",
    ("certified", "certified"): "",
    ("certified", "certified", "sslcertmode=require"): "",
    ("certified", "certified", "sslcertmode=allow"): "",
    ("certified", "certified", "sslcertmode=disable"): (
        "connection requires a valid client certificate"
    ),
    ("certified", "certified", "channel_binding=require"): (
        "channel binding required, but server authenticated client without channel binding"
    ),
    ("another", "certified"): 'certificate authentication failed for user "another"',
    ("by_dn", "dn-user"): "",
    ("by_dn", "certified"): 'certificate authentication failed for user "by_dn"',
    ("by_re", "dn-user"): "",
    ("by_re", "certified"): 'certificate authentication failed for user "by_re"',
    ("by_cn", "dn-user"): "",
    ("by_cn", "by_cn"): 'certificate authentication failed for user "by_cn"',
    ("verified", "verified"): "",
    ("verified", "certified"): '"trust" authentication failed for user "verified"',
    ("verified", ""): "connection requires a valid client certificate",
    ("anyones", "certified"): "",
    ("anyones", ""): "connection requires a valid client certificate",
    ("password", "password", "password=sesame"): "",
    ("password", "password", "password=sesame channel_binding=require"): "",
    ("password", "password", "password=wrong"): "password authentication failed",
    ("password", "certified", "password=sesame"): "password authentication failed",
    ("password", "", "password=sesame"): "connection requires a valid client certificate",
}
UNKNOWN = "unknown ca"
# Where only the root is known, those between have to come along,
OF_A_CHAIN: Of = {
    ("certified", "certified"): UNKNOWN,
    ("certified", "with-chain"): "",
    ("certified", "long"): UNKNOWN,
}
# and where it is not, nothing helps.
OF_STRANGERS: Of = {("certified", "certified"): UNKNOWN, ("certified", "with-chain"): UNKNOWN}
OF_REVOKED: Of = {
    ("certified", "certified"): "",
    ("certified", "gone"): "certificate revoked",
    ("certified", "gone-utf8"): "certificate revoked",
}


@pytest_twisted.ensureDeferred
async def test_certificates_of_clients(clusters: Clusters, tmp_path: Path) -> None:
    """001_ssltests and 002_scram: by rules and maps, by those between, and what is revoked."""
    root = Authority(tmp_path, "root")
    client_ca = Authority(tmp_path, "client_ca", root)
    engineer = [
        (NameOID.ORGANIZATION_NAME, "PGDG"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Testing"),
    ]
    subjects = {
        **{user: subject_name(user) for user in ("certified", "verified", "password", "by_cn")},
        "dn-user": subject_name("dn-user", *engineer),
        "long": subject_name(f"ssl-{60 * '1'}", (NameOID.ORGANIZATION_NAME, 60 * "x")),
        "gone": subject_name("certified"),
        "gone-utf8": subject_name("Οδυσσέας"),
    }
    issued = {
        stem: client_ca.issue("", stem=f"chain-{stem}", subject=subject)
        for stem, subject in subjects.items()
    }
    for stem, each in issued.items():
        Issued(tmp_path / stem, [each.x509], each.private_key)
    certified = issued["certified"]
    Issued(tmp_path / "with-chain", [certified.x509, client_ca.x509], certified.private_key)
    lists = {
        root: root.revoke(file="root.crl"),
        client_ca: client_ca.revoke(issued["gone"], issued["gone-utf8"], file="client_ca.crl"),
    }
    crldir = by_hash(tmp_path / "root+client-crldir", lists)
    known = joined(tmp_path / "root+client_ca.crt", root.certificate, client_ca.certificate)
    stranger = Authority(tmp_path, "stranger")

    def cases(table: Of) -> dict[str, str]:
        found = {}
        for (user, stem, *more), words in table.items():
            shown = f"sslcert={tmp_path}/{stem}.crt sslkey={tmp_path}/{stem}.key" if stem else ""
            found[f"sslmode=require user={user} {shown} {' '.join(more)}"] = words
        return found

    with pair(clusters, tmp_path, root) as both:
        both.show(root.issue("second"), known)
        wrong = await both.differences(cases(OF_CLIENTS))
        both.show(root.issue("third"), root.certificate)
        wrong += await both.differences(cases(OF_A_CHAIN))
        both.show(root.issue("fourth"), stranger.certificate)
        wrong += await both.differences(cases(OF_STRANGERS))
        text, theirs = both.sender.text, clusters.all[0].log.read_text()
    (tmp_path / "again").mkdir()
    with pair(clusters, tmp_path / "again", root, crldir) as both:
        both.show(root.issue("fifth"), known)
        wrong += await both.differences(cases(OF_REVOKED))
        text += both.sender.text
    assert not wrong, "\n".join(map(str, wrong))
    # The logs say who has come in, and why somebody has not.
    assert authenticated(text) == {
        'user="anyones" method=trust',
        'user="verified" method=trust',
        'identity="CN=certified" method=cert',
        'identity="CN=dn-user,OU=Testing,OU=Engineering,O=PGDG" method=cert',
        'identity="password" method=scram-sha-256',
    }
    assert authenticated(text) <= authenticated(theirs)
    for words in (
        "unable to get local issuer certificate (at depth 0, serial number",
        "unable to get local issuer certificate (at depth 1, serial number",
        f"certificate revoked (at depth 0, serial number {issued['gone'].x509.serial_number:X}",
    ):
        assert words in text


BINDINGS = ("require", "prefer", "disable")


@pytest_twisted.ensureDeferred
async def test_logins_bound_to_certificates(clusters: Clusters, tmp_path: Path) -> None:
    """002_scram: whatever the hash of a certificate's signature is, all take the same one."""
    root = Authority(tmp_path, "root")
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.DIGEST_LENGTH)
    signer = rsa.generate_private_key(65537, 2048)
    kinds: list[tuple[Any, Any, dict[str, Any]]] = [
        (root.key, hashes.SHA256(), {}),
        (root.key, hashes.SHA384(), {}),
        (signer, hashes.SHA256(), {}),
        (signer, hashes.SHA512(), {"rsa_padding": pss}),
    ]
    login = "sslmode=require user=bound password=sesame channel_binding"
    with pair(clusters, tmp_path, root) as both:
        wrong = []
        for number, (key, method, how) in enumerate(kinds):
            root.key = key
            both.show(root.issue("localhost", stem=f"kind-{number}", method=method, **how))
            wrong += await both.differences({f"{login}={binding}": "" for binding in BINDINGS})
        assert not wrong, "\n".join(map(str, wrong))
        # A signature without a hash: no login is bound to it. A server offers it all the same.
        root.key = ed25519.Ed25519PrivateKey.generate()
        both.show(root.issue("localhost", stem="kind-of-its-own", no_method=True))
        for binding in BINDINGS:
            conninfo = [
                f"host=127.0.0.1 port={port} dbname=postgres {NOTHING} {login}={binding}"
                for port in both.servers.values()
            ]
            theirs, ours = [[libpq(each), await walstream(each)] for each in conninfo]
            assert theirs == ["ssl", "ssl"] or "channel binding is not possible" in theirs[1]
            assert (theirs[0] == "ssl") is (binding == "disable")
            if binding == "require":
                assert all("channel binding" in each for each in ours), ours
            else:
                assert ours == ["ssl", "ssl"]


# 004_sni: options of a client, and which host it names to a server of several names.
NAMED: dict[str, str | None] = {
    "host=example.org": "example.org",
    "host=Example.ORG": "Example.ORG",
    "host=example": "example",
    "host=example.org sslsni=0": None,
    "host=example.org sslsni=1": "example.org",
    "host=127.0.0.1": None,
    "host=::1": None,
    "": None,
}


@contextmanager
def server_of_names(issued: Issued, wanted: list[str | None]) -> Iterator[int]:
    """A server that knows none of the hosts that are wanted of it, but remembers; its port."""

    def take(_: object, name: str | None, __: object) -> int:
        wanted.append(name)
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def serve() -> None:
        with suppress(OSError):
            while True:
                with listening.accept()[0] as connection, suppress(ssl.SSLError):
                    connection.recv(8)
                    connection.sendall(b"S")
                    context.wrap_socket(connection, server_side=True)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    context.sni_callback = take
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest_twisted.ensureDeferred
async def test_which_host_is_named(tmp_path: Path) -> None:
    """004_sni: names as they were given, and no addresses; what is said of a name nobody has."""
    wanted: list[str | None] = []
    with server_of_names(Authority(tmp_path, "root").issue("localhost"), wanted) as port:
        where = f"hostaddr=127.0.0.1 port={port} user=anybody sslmode=require {NOTHING}"
        for options, name in NAMED.items():
            for client, attempt in CLIENTS.items():
                told = await attempt(f"{where} {options}")
                assert "unrecognized name" in told, (client, options, told)
                assert (client, wanted.pop()) == (client, name), options
            assert not wanted
