"""Who comes in: real clients and hand-made ones, at a server and at us, by the same rules."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import psycopg2
import pytest
from cryptography.x509.oid import NameOID
from psycopg.conninfo import make_conninfo
from psycopg2.extras import PhysicalReplicationConnection

from tests.certificates import Authority
from tests.certificates import name as subject_name
from tests.integration.test_send import archive_of
from tests.integration.tls import SSL_REQUEST, give_tls, said
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving, Walstream, wait_until
from tests.unit.archives import BUILT, SIZE, record_wal
from tests.unit.scram_messages import BINDINGS, FINAL_MESSAGES, FIRST_MESSAGES, NOT_UTF8
from walstream.access.policy import DiskFiles
from walstream.access.role_store import RoleStore
from walstream.embedded import Cluster
from walstream.errors import FormatError
from walstream.formats.hba import read_hba
from walstream.formats.role_file import Role, parse_limits, with_role
from walstream.wire.frames import FrameReader, backend_limit, frame
from walstream.wire.messages import parse_error, query
from walstream.wire.scram_verifier import ScramVerifier
from walstream.wire.startup import startup_message

HBA = """
host  all         postgres  127.0.0.1/32  trust
host  replication postgres  127.0.0.1/32  trust
local all         postgres                trust
host  replication standby1  127.0.0.1/32  scram-sha-256
host  replication standby2  127.0.0.1/32  md5
host  replication trusted   127.0.0.1/32  trust
host  replication rejected  127.0.0.1/32  reject
host  replication ghost     127.0.0.1/32  scram-sha-256
host  replication empty     127.0.0.1/32  scram-sha-256
"""

PASSWORDS = {"standby1": "Geheim 1", "standby2": "päßwort\u00a02"}


def with_roles(primary: Cluster, store: RoleStore) -> None:
    """Make roles on a server, and copy their verifiers."""
    for user in ("standby1", "standby2", "trusted", "rejected", "empty"):
        primary.query(f"CREATE ROLE {user} LOGIN REPLICATION")
    for user, password in PASSWORDS.items():
        primary.query(f"ALTER ROLE {user} PASSWORD '{password}'")
    rows = primary.query(
        "SELECT rolname, rolpassword FROM pg_authid WHERE rolreplication AND rolname <> 'postgres'"
    )
    for name, verifier in rows:
        store.change(partial(with_role, role=Role(name, verifier), path=store.path))


@contextmanager
def both(clusters: Clusters, tmp_path: Path, *options: str) -> Iterator[tuple[Cluster, Serving]]:
    """A server, and us with an archive of its WAL, with the same rules and roles."""
    primary = clusters.primary(hba=HBA.splitlines())
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    (tmp_path / "hba").write_text(HBA)
    store = RoleStore(str(tmp_path / "roles"))
    with_roles(primary, store)
    rules = ("--hba", tmp_path / "hba", "--roles", store.path)
    with Serving("send", "-D", archive, *rules, *options, log=tmp_path / "log") as sender:
        yield primary, sender


LOGINS = [
    ("standby1", "Geheim 1"),
    ("standby1", "geheim 1"),
    ("standby1", None),
    ("standby2", "päßwort\u00a02"),
    ("standby2", "päßwort 2"),  # what SASLprep makes of it
    ("standby2", "passwort 2"),
    ("trusted", None),
    ("rejected", None),
    ("ghost", "x"),
    ("empty", "x"),
    ("nobody", "x"),
    ("no\"bo'dy", "x"),
]


def login(port: int, user: str, password: str | None) -> str:
    """What libpq says of a login; nothing if it succeeds."""
    try:
        psycopg.connect(
            host="127.0.0.1",
            port=port,
            user=user,
            password=password,
            replication="true",
            autocommit=True,
        ).close()
    except psycopg.OperationalError as error:
        return str(error).replace(str(port), "PORT")
    return ""


def received(primary: Cluster, port: int, user: str, password: str, tmp_path: Path) -> str:
    """What pg_receivewal says when it cannot log in."""
    tool = primary.installation.tool("pg_receivewal")
    done = subprocess.run(
        [tool, "-D", tmp_path, "-n", "-d", f"host=127.0.0.1 port={port} user={user}"],
        env={"PGPASSWORD": password, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.replace(str(port), "PORT")


@every_version
def test_logins_are_answered_as_by_postgresql(clusters: Clusters, tmp_path: Path) -> None:
    """By the same rules, with verifiers copied from the server: libpq says the same of both."""
    with both(clusters, tmp_path, "--auth-delay=0") as (primary, sender):
        theirs = {each: login(primary.port, *each) for each in LOGINS}
        ours = {each: login(sender.port, *each) for each in LOGINS}
        assert ours == theirs
        assert [each for each in LOGINS if not ours[each]] == [
            LOGINS[0],
            LOGINS[3],
            LOGINS[4],
            LOGINS[6],
        ]
        for user in ("standby1", "nobody", "rejected"):
            said = [
                received(primary, port, user, "wrong", tmp_path)
                for port in (primary.port, sender.port)
            ]
            assert said[0] == said[1]
        wrong = not_alike(CONVERSATIONS, primary.port, sender.port)
        assert not wrong, "\n".join(map(str, wrong))
        wrong = not_alike(OURS_ALONE, primary.port, sender.port)
        assert [ours[1] for *_, ours in wrong] == 2 * [("FATAL", "08P01", MALFORMED)]


def initial(data: bytes | None, mechanism: str = "SCRAM-SHA-256") -> bytes:
    """SASLInitialResponse."""
    length = b"\xff\xff\xff\xff" if data is None else len(data).to_bytes(4, "big")
    return frame(b"p", mechanism.encode() + b"\0" + length + (data or b""))


FIRST = initial(b"n,,n=,r=abcdefgh")
# What a client sends: messages, and what is in them, with the exchange's nonce for {nonce}.
Sent = bytes | str
# By what they are about: who asks, and what it sends, message by message.
CONVERSATIONS: dict[str, tuple[str, *tuple[Sent, ...]]] = {
    "another mechanism": ("standby1", initial(b"n,,n=,r=abc", "SCRAM-SHA-1")),
    "plus without TLS": ("standby1", initial(b"n,,n=,r=abc", "SCRAM-SHA-256-PLUS")),
    "a query": ("standby1", query("IDENTIFY_SYSTEM")),
    "terminate": ("standby1", frame(b"X")),
    "a password in clear": ("standby1", frame(b"p", b"Geheim 1\0")),
    "too long": ("standby1", frame(b"p", 1021 * b"x")),
    "much too long": ("standby1", b"p\x7f\xff\xff\xff"),
    "too short": ("standby1", b"p\0\0\0\3"),
    "no data": ("standby1", initial(None), frame(b"p", b"n,,n=,r=abcdefgh")),
    "empty": ("standby1", initial(b"")),
    "more than it says": ("standby1", frame(b"p", b"SCRAM-SHA-256\0\0\0\0\x01xy")),
    "less than it says": ("standby1", frame(b"p", b"SCRAM-SHA-256\0\0\0\0\x02x")),
    "no SCRAM": ("standby1", initial(b"hello")),
    "a nonce that is none": ("standby1", initial(b"n,,n=,r=a\x7f")),
    "channel binding": ("standby1", initial(b"p=tls-server-end-point,,n=,r=abc")),
    "could bind": ("standby1", initial(b"y,,n=,r=abc"), frame(b"p", b"c=eSws,r=abc,p=AAAA")),
    "another identity": ("standby1", initial(b"n,a=x,n=,r=abc")),
    "an extension": ("standby1", initial(b"n,,m=x,n=,r=abc")),
    "a final message that is none": ("standby1", FIRST, frame(b"p", b"x")),
    "another nonce": ("standby1", FIRST, frame(b"p", b"c=biws,r=xyz,p=AAAA")),
    "the same of nobody": ("ghost", FIRST, frame(b"p", b"c=biws,r=xyz,p=AAAA")),
    "three messages at once": ("standby1", FIRST + frame(b"p", b"x") + frame(b"X")),
    **{f"first {said!r}": ("standby1", initial(said)) for said, _ in FIRST_MESSAGES},
    **{f"final {said!r}": ("standby1", FIRST, said) for said, *_ in FINAL_MESSAGES},
    "no nonce": ("standby1", initial(b"n,,n=,r="), "c=biws,r={nonce},p=" + 43 * "A" + "="),
}
MALFORMED = "malformed SCRAM message"
OURS_ALONE = {repr(said): ("standby1", initial(said)) for said in NOT_UTF8}
BOUND = {
    f"{said!r} by {mechanism}": ("standby1", initial(said.encode(), mechanism))
    for said, mechanism, *_ in BINDINGS
}


def converse(port: int, user: str, *sent: Sent, encrypted: bool = False) -> list[object]:
    """What is answered to a startup packet, and to each message behind it, to the end."""
    answers: list[object] = []
    reader = FrameReader(backend_limit)
    nonce = ""
    with opened(port, encrypted) as connection:
        for each in (startup_message({"user": user, "replication": "true"}), *sent):
            before = len(answers)
            said = each.format(nonce=nonce) if isinstance(each, str) else ""
            connection.sendall(frame(b"p", said.encode()) if isinstance(each, str) else each)
            while len(answers) == before:
                received = connection.recv(4096)
                if not received:
                    return [*answers, "end"]
                if found := re.search(rb"r=([^,]*),s=", received):
                    nonce = found[1].decode()
                reader.feed(received)
                answers += iter(lambda: answer(reader), None)
        with suppress(ConnectionResetError):
            if not encrypted:
                connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(4096):
                reader.feed(received)
                answers += iter(lambda: answer(reader), None)
    return [*answers, "end"]


@contextmanager
def opened(port: int, encrypted: bool) -> Iterator[socket.socket]:
    """A connection, with TLS or without."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        if not encrypted:
            yield connection
            return
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        with ssl._create_unverified_context().wrap_socket(connection) as over_tls:
            yield over_tls


def not_alike(
    conversations: Mapping[str, tuple[str, *tuple[Sent, ...]]],
    *ports: int,
    encrypted: bool = False,
) -> list[tuple[str, list[object], list[object]]]:
    """Those that do not end alike at both, and how they end."""
    found = []
    for about, (user, *sent) in conversations.items():
        theirs, ours = (converse(port, user, *sent, encrypted=encrypted) for port in ports)
        if theirs != ours:
            found.append((about, theirs, ours))
    return found


def answer(reader: FrameReader) -> object:
    """A message: the code of an authentication request, and what of it is always the same."""
    message = reader.next()
    if message is None:
        return None
    if message.kind == ord("E"):
        error = parse_error(message.body)
        return error.severity, error.sqlstate, error.message
    code = int.from_bytes(message.body[:4], "big")
    nonce = re.search(rb"r=([^,]*),s=([^,]*),i=(\d+)", message.body)
    return chr(message.kind), code, nonce and (len(nonce[2]), nonce[3])


TEXTS = [
    "host replication standby1 192.0.2.0/24 scram-sha-256",
    "host replication standby1 192.0.2.0 255.255.255.0 md5  # why",
    "hostssl replication,all standby1,standby2 2001:db8::/32 cert map=m clientname=DN",
    "hostssl replication all all scram-sha-256 clientcert=verify-full",
    'local "x",replication "all",all peer map="a b"',
    'host replication "a ""b""" .example.org reject',
    "host replication all samenet trust\nhost replication all samehost trust",
    "local replication \\\n  all \\\n trust",
    "",
    "# nothing",
    "# not now:\rhost replication all all trust",
    "local replication all peer map=",
    # What is wrong.
    "host replication",
    "host replication all",
    "host replication all 192.0.2.0",
    "host replication all 192.0.2.0/33 trust",
    "host replication all 192.0.2.0/24",
    "host replication all 192.0.2.0 2001:db8:: trust",
    "host replication all example.org/24 trust",
    "host replication all all nonsense",
    "host replication all all peer",
    "host replication all all cert",
    "hosts replication all all trust",
    "host,local replication all all trust",
    "include two words",
    "host replication all all,all trust",
    "host replication all all trust,reject",
    "host replication all all trust map",
    "host replication all all trust map=x",
    "host all +admins 192.0.2.0/24 ident map=m",
    "local all,replication all trust",
    "host replication all all trust nonsense=x",
    "hostssl replication all all cert clientcert=verify-ca",
    "hostssl replication all all trust clientcert=nonsense",
    "host replication all all trust clientcert=verify-ca",
    "hostssl replication all all cert clientname=XX",
    "hostssl replication all all trust clientcert=1",
    "local replication all /24 trust",
]
# From 16 on.
EXPRESSIONS = [
    "host replication /[ all trust",
    "host replication /^standby[0-9]+$ all trust",
    "host replication /^[[:alpha:]]+$ all trust",
    "host replication /^[[:letters:]]+$ all trust",
]


# Where the rest is ours: what there is, what to do, what is wrong with an expression.
BEGINNINGS = [
    "end-of-line before netmask specification",
    'authentication option "map" is only valid for authentication methods',
    'invalid regular expression "["',
    'invalid regular expression "^[[:letters:]]+$"',
]
# What a server has other words for in its log and in the view, of which we have those of the log.
IN_THE_VIEW = {
    'clientcert can only be set to "verify-full" when using "cert" authentication': (
        'clientcert only accepts "verify-full" when using "cert" authentication'
    )
}


def their_reading(primary: Cluster, text: str) -> list[object]:
    """The lines about replication in a server's pg_hba.conf, and what is wrong with others."""
    primary.allow(text)
    rows = primary.query(
        "SELECT line_number, type, user_name, auth_method, error, database "
        "FROM pg_hba_file_rules ORDER BY line_number"
    )
    if any(row[1] is row[4] is None for row in rows):
        return ["?"]  # it is wrong, and only the log says why
    return [
        wrong(error) if error else (number, kind, users, method(word))
        for number, kind, users, word, error, databases in rows
        if error or "replication" in databases
    ]


def our_reading(path: Path, text: str) -> list[object]:
    """The same of us, who stop at the first error."""
    path.write_text(f"{text}\n")
    try:
        rules = read_hba(str(path), DiskFiles())
    except FormatError as error:
        return [wrong(str(error).partition(": line 1 of configuration file")[0])]
    return [
        (
            rule.line.number,
            rule.kind.value,
            [token.text for token in rule.users],
            rule.method.value,
        )
        for rule in rules
    ]


def wrong(error: str) -> str:
    """What there is to compare of an error."""
    error = IN_THE_VIEW.get(error, error)
    return next((words for words in BEGINNINGS if error.startswith(words)), error)


def method(name: str) -> str:
    """What a method comes to where there are only verifiers of SCRAM."""
    return "scram-sha-256" if name == "md5" else name


@every_version
def test_the_rules_are_read_as_by_postgresql(clusters: Clusters, tmp_path: Path) -> None:
    """Lines that are right, and the words for those that are not."""
    primary = clusters.primary()
    authority = Authority(tmp_path, "authority")
    give_tls(primary, authority.issue("localhost"), authority)
    primary.restart()
    texts = list(TEXTS)
    if primary.query("SELECT current_setting('server_version_num')::int >= 160000") == [(True,)]:
        texts += EXPRESSIONS
    theirs = {text: their_reading(primary, text) for text in texts}
    ours = {text: our_reading(tmp_path / "hba", text) for text in texts}
    for text in texts:
        if theirs[text] == ["?"]:
            assert isinstance(ours[text][0], str), text
            ours[text] = ["?"]
    different = {text for text in texts if theirs[text] != ours[text]}
    assert {text: (theirs[text], ours[text]) for text in different} == {}


# What it is for: a standby, and tools, by password.


def secrets(store: RoleStore) -> list[bytes]:
    """All that must not be in any log."""
    found = [password.encode() for password in (*PASSWORDS.values(), "wr0ng-secret", "n3w-secret")]
    for role in store.read().roles.values():
        found += (part.encode() for part in re.split(r"[$:]", role.verifier or "")[2:])
    return found


def test_a_standby_and_tools_by_password(clusters: Clusters, tmp_path: Path) -> None:
    """A real standby, pg_receivewal and psycopg2 come in by a hub's rules, past a reload.

    And nothing of it, seen at debug level, tells a secret.
    """
    primary = clusters.primary(hba=HBA.splitlines())
    store = RoleStore(str(tmp_path / "roles"))
    with_roles(primary, store)
    hba = tmp_path / "hba"
    hba.write_text("host replication standby1,standby2 127.0.0.1/32 scram-sha-256\n")
    options = ("--hba", hba, "--roles", store.path, "--auth-delay", "0.05")
    upstream = primary.conninfo()
    archive = tmp_path / "archive"
    with (
        Serving("hub", "-D", archive, "-d", upstream, *options, log=tmp_path / "log") as hub,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("PGPASSWORD", PASSWORDS["standby1"])
        # A standby's own process has its password in its conninfo.
        conninfo = hub.conninfo(user="standby1", password=PASSWORDS["standby1"])
        standby = clusters.standby(primary, conninfo + " application_name=standby1")
        primary.query("CREATE TABLE here AS SELECT 1 AS one")
        wait_until(lambda: has_table(standby), "replayed")
        connection = psycopg2.connect(
            hub.conninfo(user="standby2", password=PASSWORDS["standby2"]),
            connection_factory=PhysicalReplicationConnection,
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("IDENTIFY_SYSTEM")
            assert cursor.fetchone()[1] == 1
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(
                hub.conninfo(user="standby2", password="wr0ng-secret"),
                connection_factory=PhysicalReplicationConnection,
            )
        # New rules, which are wrong at first, and another password.
        hba.write_text("host replication standby1 127.0.0.1/32 nonsense\n")
        hub.process.send_signal(signal.SIGHUP)
        hub.await_text("was not reloaded, what was read before stays in force")
        assert login(hub.port, "standby2", PASSWORDS["standby2"]) == ""
        hba.write_text("host replication standby1 127.0.0.1/32 scram-sha-256\n")
        hub.process.send_signal(signal.SIGHUP)
        hub.await_text(f"{hba} was reloaded")
        assert "no pg_hba.conf entry" in login(hub.port, "standby2", PASSWORDS["standby2"])
        tool = [sys.executable, "-m", "walstream", "role", "add", "standby1"]
        subprocess.run(
            [*tool, "--roles", store.path, "--password-stdin", "--connections=1"],
            input="n3w-secret\n",
            text=True,
            check=True,
        )
        assert "password authentication failed" in login(
            hub.port, "standby1", PASSWORDS["standby1"]
        )
        assert "too many connections for role" in login(hub.port, "standby1", "n3w-secret")
        # All the while the standby has not noticed.
        primary.query("INSERT INTO here VALUES (2)")
        wait_until(lambda: standby.query("SELECT count(*) FROM here") == [(2,)], "replayed")
        assert hub.sessions("standby1") == 1
        assert hub.stop() == 0
        text = hub.text
    assert text.count('connection authenticated: identity="standby1" method=scram-sha-256') == 2
    assert 'Role "' not in text
    assert "ended: user=standby1 application_name=standby1" in text
    logged = hub.log.read_bytes()
    assert [secret for secret in secrets(store) if secret in logged] == []


def has_table(standby: Cluster) -> bool:
    """Whether it has come that far."""
    return standby.query("SELECT count(*) FROM pg_class WHERE relname = 'here'") == [(1,)]


def test_workers(tmp_path: Path) -> None:
    """Several processes go by the same rules; a role's connections count in all of them."""
    archive = built_archive(tmp_path)
    store = RoleStore(str(tmp_path / "roles"))
    for name, limit in (("limited", "connections=2"), ("other", "")):
        role = Role(name, str(ScramVerifier.of("Geheim")), parse_limits(limit.split()))
        store.change(partial(with_role, role=role, path=store.path))
    hba = tmp_path / "hba"
    hba.write_text("host replication all 127.0.0.1/32 scram-sha-256\n")
    options = ("-D", archive, "--processes=2", "--hba", hba, "--roles", store.path)
    with Serving("send", *options, log=tmp_path / "log") as sender, ExitStack() as clients:

        def connect(user: str) -> psycopg.Connection[object]:
            return clients.enter_context(
                psycopg.connect(
                    sender.conninfo(user=user, password="Geheim"),
                    replication="true",
                    autocommit=True,
                )
            )

        first, _ = connect("limited"), connect("limited")
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
                connect("limited")
        connect("other")
        first.close()
        wait_until(lambda: login(sender.port, "limited", "Geheim") == "", "let in")
        hba.write_text("host replication limited 127.0.0.1/32 scram-sha-256\n")
        sender.process.send_signal(signal.SIGHUP)
        wait_until(lambda: sender.text.count("was reloaded") == 2, "reloaded")
        for _ in range(2):
            assert "no pg_hba.conf entry" in login(sender.port, "other", "Geheim")


def test_a_unix_socket(tmp_path: Path) -> None:
    """It is its owner's; with peer, the account decides."""
    archive = built_archive(tmp_path)
    socket_path = tmp_path / ".s.PGSQL.5433"
    (tmp_path / "hba").write_text("local replication all peer map=m\n")
    account = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "ident").write_text(f"m {account} standby1\n")
    rules = ("--hba", tmp_path / "hba", "--ident", tmp_path / "ident")
    options = ("send", "-D", archive, "--listen", f"unix:{socket_path}", *rules)
    with Walstream(*options, log=tmp_path / "log") as sender:
        sender.await_text("listening on")
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        where = f"host={tmp_path} port=5433"
        with psycopg.connect(f"{where} user=standby1", replication="true", autocommit=True):
            pass
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed for"):
            psycopg.connect(f"{where} user=other", replication="true", autocommit=True)
        sender.await_text(f'identity="{account}" method=peer ({tmp_path}/hba:1)')
        assert "Traceback" not in sender.text


def built_archive(tmp_path: Path) -> Path:
    """An archive of one segment that no server has written."""
    archive = tmp_path / "archive"
    archive.mkdir()
    number = SIZE.number(BUILT.start)
    (archive / SIZE.name(1, number)).write_bytes(record_wal(SIZE.start(number), SIZE))
    return archive


# Over TLS.

TLS_HBA = """
local     all         postgres                trust
host      all         postgres  127.0.0.1/32  trust
hostssl   replication standby1  127.0.0.1/32  scram-sha-256
hostssl   replication certified 127.0.0.1/32  cert
hostssl   replication mapped    127.0.0.1/32  cert map=m clientname=DN
hostssl   replication standby2  127.0.0.1/32  scram-sha-256 clientcert=verify-full
hostssl   replication trusted   127.0.0.1/32  trust clientcert=verify-ca
hostnossl replication rejected  127.0.0.1/32  reject
"""
IDENT = r"""
m  "/^CN=(certified),O=us$"  mapped
"""
PASSWORD_1, PASSWORD_2 = ({"password": password} for password in PASSWORDS.values())
# Who comes how; whether it shows a certificate; what libpq is told besides.
ENCRYPTED: list[tuple[str, bool, dict[str, str]]] = [
    ("standby1", False, PASSWORD_1),
    ("standby1", False, {**PASSWORD_1, "channel_binding": "require"}),
    ("standby1", False, {**PASSWORD_1, "channel_binding": "disable"}),
    ("standby1", False, {**PASSWORD_1, "sslmode": "disable"}),
    ("standby1", False, {**PASSWORD_1, "sslmode": "disable", "channel_binding": "require"}),
    ("standby1", False, {"password": "wrong", "channel_binding": "require"}),
    ("ghost", False, {"password": "wrong"}),
    ("certified", True, {}),
    ("certified", True, {"require_auth": "none"}),
    ("certified", False, {}),
    ("mapped", True, {}),
    ("standby2", True, PASSWORD_2),
    ("standby2", False, PASSWORD_2),
    ("trusted", True, {}),
    ("trusted", False, {}),
    ("rejected", False, {}),
    ("rejected", False, {"sslmode": "disable"}),
]


def test_over_tls(clusters: Clusters, tmp_path: Path) -> None:
    """Passwords with channel binding, and certificates: libpq says the same of a server and us."""
    authority = Authority(tmp_path, "authority")
    issued = authority.issue("localhost", "localhost", "127.0.0.1")
    us = subject_name("certified", (NameOID.ORGANIZATION_NAME, "us"))
    shown = authority.issue("certified", subject=us)
    primary = clusters.primary(hba=TLS_HBA.splitlines())
    give_tls(primary, issued, authority)
    (primary.data / "pg_ident.conf").write_text(IDENT)
    primary.restart()
    store = RoleStore(str(tmp_path / "roles"))
    for role in ("certified", "mapped", "ghost"):
        primary.query(f"CREATE ROLE {role} LOGIN REPLICATION")
    with_roles(primary, store)
    for file, text in (("hba", TLS_HBA), ("ident", IDENT)):
        (tmp_path / file).write_text(text)
    options = ("--hba", tmp_path / "hba", "--ident", tmp_path / "ident", "--roles", store.path)
    tls = ("--tls-certificate", issued.certificate, "--tls-key", issued.key)
    authorities = ("--tls-ca", authority.certificate, "--auth-delay=0")
    archive = built_archive(tmp_path)
    with Serving(
        "send", "-D", archive, *options, *tls, *authorities, log=tmp_path / "log"
    ) as sender:

        def attempt(port: int, user: str, has_certificate: bool, more: dict[str, str]) -> str:
            facts = {"host": "127.0.0.1", "port": str(port), "user": user, "sslmode": "verify-full"}
            facts["sslrootcert"] = str(authority.certificate)
            if has_certificate:
                facts |= {"sslcert": str(shown.certificate), "sslkey": str(shown.key)}
            return said(make_conninfo("", **{**facts, **more})).replace(str(port), "PORT")

        theirs = [attempt(primary.port, *each) for each in ENCRYPTED]
        ours = [attempt(sender.port, *each) for each in ENCRYPTED]
        assert ours == theirs
        come_in = [each for each, text in zip(ENCRYPTED, ours, strict=True) if not text]
        assert come_in == [ENCRYPTED[number] for number in (0, 1, 2, 7, 8, 10, 13)]
        wrong = not_alike(BOUND, primary.port, sender.port, encrypted=True)
        assert not wrong, "\n".join(map(str, wrong))
        sender.await_text('identity="CN=certified,O=us" method=cert')
        sender.await_text('user="trusted" method=trust')
