"""PostgreSQL's own tests of authentication, with walstream at either end.

They are those of ``src/test/authentication`` and what concerns it of ``src/test/postmaster``;
docs/reference/scenarios.md has the table of all.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest_twisted
from psycopg.conninfo import make_conninfo

from tests.integration.attempts import authenticated, core, libpq, walstream
from tests.integration.tls import SSL_REQUEST, small_archive
from tests.servers import Clusters, on_versions
from tests.servers.clusters import reload
from tests.servers.daemon import Serving, Walstream
from walstream.access.policy import DiskFiles
from walstream.access.role_store import RoleStore
from walstream.embedded import Account, Cluster
from walstream.errors import FormatError
from walstream.formats.auth_file import AuthLine
from walstream.formats.hba import read_hba
from walstream.formats.ident_map import read_ident
from walstream.formats.role_file import Role, with_role
from walstream.wire.scram_verifier import ScramVerifier

FOR_US = """
local all         postgres                trust
host  all         postgres  127.0.0.1/32  trust
"""


@contextmanager
def sending(tmp_path: Path, hba: str, roles: dict[str, str]) -> Iterator[Serving]:
    """A sender of ours by rules, with the verifiers of roles."""
    (tmp_path / "hba").write_text(hba)
    store = RoleStore(str(tmp_path / "roles"))
    for name, verifier in roles.items():
        store.change(partial(with_role, role=Role(name, verifier), path=store.path))
    options = ("--hba", tmp_path / "hba", "--roles", store.path, "--auth-delay=0")
    archive = small_archive(tmp_path / "archive")
    with Serving("send", "-D", archive, *options, log=tmp_path / "log") as sender:
        yield sender


def verifiers(primary: Cluster) -> dict[str, str]:
    """Those of a server's roles."""
    return dict(
        primary.query("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
    )


def place(port: int, **parameters: str) -> str:
    """Where to connect, and how."""
    where = f"host=127.0.0.1 port={port} dbname=replication sslmode=disable gssencmode=disable"
    return make_conninfo(where, **parameters)


# 001_password: rules, and who comes in by them with the right password.

RULES = r"""
host replication /^.*nomatch.*$,baduser,/^scr.*_role$ \
     127.0.0.1/32 scram-sha-256
host replication "/^.*m,.*e$"              127.0.0.1/32  scram-sha-256
host replication md5_role,unmatched        127.0.0.2/32  trust
host replication md5_role                  127.0.0.1/32  md5
host replication trusted,"all"             127.0.0.1/32  trust
host all,/^replication$,"replication" by_database 127.0.0.1/32  trust
"""
RIGHT = {"password": "pass"}
ATTEMPTS: list[tuple[str, dict[str, str], bool]] = [
    ("scram_role", RIGHT, True),
    ("scram,role", RIGHT, True),
    ("md5_role", RIGHT, True),
    ("trusted", {}, True),
    ("all", {}, True),
    ("scram_role", {"password": "badpass"}, False),
    ("scram,role", {"password": "badpass"}, False),
    ("scram_role", {}, False),
    ("scram_role", {**RIGHT, "channel_binding": "require"}, False),
    ("unmatched", RIGHT, False),
    ("by_database", RIGHT, False),
    ("nobody", RIGHT, False),
]


@pytest_twisted.ensureDeferred
async def test_rules_about_users(clusters: Clusters, tmp_path: Path) -> None:
    """001_password: methods, expressions for names, and that databases are another matter.

    Each attempt ends alike at both, for libpq and for walstream, and the logs say the same.
    """
    hba = FOR_US + RULES
    primary = clusters.primary(hba=hba.splitlines(), settings={"log_connections": "on"})
    for user in {user for user, *_ in ATTEMPTS} - {"nobody"}:
        primary.query(f"CREATE ROLE \"{user}\" LOGIN REPLICATION PASSWORD 'pass'")
    with sending(tmp_path, hba, verifiers(primary)) as sender:
        for user, parameters, comes_in in ATTEMPTS:
            said = []
            for port in (primary.port, sender.port):
                where = place(port, user=user, **parameters)
                said += [libpq(where), await walstream(where)]
            assert core(said[0]) == core(said[2]), user
            assert [each == "plain" for each in said] == [comes_in] * 4, said
        theirs = authenticated(primary.log.read_text()) - {'user="postgres" method=trust'}
        # A verifier of SCRAM is asked for by SCRAM, and so we call it.
        assert {each.replace("=md5", "=scram-sha-256") for each in theirs} == authenticated(
            sender.text
        )


# 001_password: what libpq's password file may look like, and who comes in by it.

LONG = "# This is here for the length of its line, with which nobody has any trouble at all. " * 9
FILES = {
    f"\n{LONG}\n*:*:replication:scram_role:pass:this is not part of the password.\n": [
        "scram_role"
    ],
    "*:*:*:scram_role:p\\ass\n*:*:*:scram,role:p\\ass\n": ["scram_role", "scram,role"],
    "*:*:postgres:scram_role:pass\n*:*:replication:scram,role:pass": ["scram,role"],
    "*:1:*:*:pass\nlocalhost:*:*:*:wrong\n127.0.0.1:*:*:scram_role:pass\n": ["scram_role"],
    "*:*:*:scram_role:wrong\n*:*:*:scram_role:pass\n": [],
}


@pytest_twisted.ensureDeferred
async def test_passwords_of_files(clusters: Clusters, tmp_path: Path) -> None:
    """001_password: comments, escapes, colons, wildcards; a file that others may read is none."""
    users = ("scram_role", "scram,role")
    hba = [*FOR_US.splitlines(), "host replication all 127.0.0.1/32 scram-sha-256"]
    primary = clusters.primary(hba=hba)
    for user in users:
        primary.query(f"CREATE ROLE \"{user}\" LOGIN REPLICATION PASSWORD 'pass'")
    passfile = tmp_path / "pgpass"
    for content, expected in FILES.items():
        for mode in (0o600, 0o640):
            passfile.write_text(content)
            passfile.chmod(mode)
            said = [
                (user, libpq(where), await walstream(where))
                for user in users
                for where in (place(primary.port, user=user, passfile=str(passfile)),)
            ]
            come_in = expected if mode == 0o600 else []
            for number, name in ((1, "libpq"), (2, "walstream")):
                found = [each[0] for each in said if each[number] == "plain"]
                assert found == come_in, (name, content, said)


# 002_saslprep: passwords as they were set, and as they are given; whether it is the same one.

SET = {
    "one": "IX",
    "four_a": "a",
    "four_b": "\u00aa",
    "six": "foo\abar",
    "seven": "foo\u06271bar",
    "nothing": "\u00ad",
}
GIVEN = [
    ("one", "I\u00adX", True),
    ("one", "\u2168", True),
    ("one", "IX", True),
    ("one", "ix", False),
    ("four_a", "a", True),
    ("four_a", "\u00aa", True),
    ("four_b", "a", True),
    ("four_b", "\u00aa", True),
    # What is prohibited is taken as it is.
    ("six", "foo\abar", True),
    ("six", "foobar", False),
    ("seven", "foo\u06271bar", True),
    ("seven", "foo1\u0627bar", False),
    ("seven", "foobar", False),
    # Not PostgreSQL's: so is what nothing is left of.
    ("nothing", "\u00ad", True),
    ("nothing", "\u00ad\u00ad", False),
]


@pytest_twisted.ensureDeferred
async def test_passwords_in_other_forms(clusters: Clusters, tmp_path: Path) -> None:
    """002_saslprep: with a server's verifiers and with ours; and with few iterations."""
    hba = f"{FOR_US}\nhost replication all 127.0.0.1/32 scram-sha-256\n"
    primary = clusters.primary(hba=hba.splitlines())
    for role, password in SET.items():
        primary.query(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{password}'")
    few = ("42", "1024")
    for iterations in few:
        primary.query(
            f"SET scram_iterations = {iterations};"
            f"CREATE ROLE few_{iterations} LOGIN REPLICATION PASSWORD 'pass'"
        )
    theirs = verifiers(primary)
    ours = {f"{role}_ours": str(ScramVerifier.of(password)) for role, password in SET.items()}
    with sending(tmp_path, hba, theirs | ours) as sender:
        wrong = []
        for role, password, expected in GIVEN:
            for port, user in (
                (primary.port, role),
                (sender.port, role),
                (sender.port, f"{role}_ours"),
            ):
                where = place(port, user=user, password=password)
                for said in (libpq(where), await walstream(where)):
                    if (said == "plain") is not expected:
                        wrong.append((user, password, said))
        assert not wrong
        # 001_password: a server may have fewer iterations than we accept of one.
        for iterations in few:
            for port in (primary.port, sender.port):
                where = place(port, user=f"few_{iterations}", password="pass")
                assert libpq(where) == "plain"
                asked = f"the server asks for {iterations} SCRAM iterations; 4096 to"
                assert asked in await walstream(where)


# 003_peer: lines of a map, with {n} for the line's number; the user; whether it comes in.

ACCOUNT = pwd.getpwuid(os.geteuid()).pw_name
END = ACCOUNT[-3:]
USER = "test{n}mapuser"
MAPS: list[tuple[str, str, bool]] = [
    (f"{ACCOUNT} {USER}", USER, True),
    (f"{ACCOUNT} all", USER, True),
    (f'{ACCOUNT} "all"', USER, False),
    (rf"{ACCOUNT} /^test{{n}}m.*$", USER, True),
    (rf"{ACCOUNT} /^doesnotmatch.*$", USER, False),
    (rf"/^.*{END}$ {USER}", USER, True),
    (rf"/^.*{END}$ /^test{{n}}m.*$", USER, True),
    (rf"/^.*{END}$ all", USER, True),
    (rf"/^{ACCOUNT}(.*)$ test{{n}}\1mapuser", USER, True),
    (rf'/^{ACCOUNT}(.*)$ "test{{n}}\1mapuser"', USER, True),
    (rf"/^{ACCOUNT}(.*)$ \1", USER, False),
    (rf"/^.*{ACCOUNT}{ACCOUNT}$ {USER}", USER, False),
    (f'{ACCOUNT} "+{USER}"', USER, False),
    # An expression for the user is taken as it is.
    (rf'/^.*{END}(.*)$ "/^test{{n}}literal\\1$"', r"test{n}literal\1", True),
    (rf"/^.*{END}(.*)$ /^test{{n}}literal\\1$", r"test{n}literal\1", True),
    (rf"{ACCOUNT} /^test{{n}}\\1mapuser$", r"test{n}\1mapuser", True),
    # What was put into a name makes no keyword of it.
    (rf"/^{ACCOUNT}(.*)$ al\1l", USER, False),
    (f"nobody-of-that-name {USER}\n{{map}} {ACCOUNT} {USER}", USER, True),
]


@on_versions(18)
@pytest_twisted.ensureDeferred
async def test_accounts_and_maps(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """003_peer: names, expressions and what they have found, quoted and not."""
    hba, ident = ["local all postgres trust", "host all postgres 127.0.0.1/32 trust"], []
    users = ["testmapuser"]
    for n, (line, user, _) in enumerate(MAPS, start=1):
        users.append(user.format(n=n))
        hba.append(f'local replication "{users[-1]}" peer map=m{n}')
        ident.append(f"m{n} " + line.format(n=n, map=f"m{n}"))
    hba.append("local replication all peer")
    sockets = directory / "sockets"
    Account.for_servers().make_directory(sockets)
    primary = clusters.primary(
        hba=hba, settings={"unix_socket_directories": str(sockets), "log_connections": "on"}
    )
    (primary.data / "pg_ident.conf").write_text("\n".join(ident) + "\n")
    reload(primary)
    primary.query(";".join(f'CREATE ROLE "{user}" LOGIN REPLICATION' for user in users))
    for name, lines in (("hba", hba), ("ident", ident)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    archive = small_archive(tmp_path / "archive")
    command = ("send", "-D", archive, "--listen", f"unix:{sockets}/.s.PGSQL.5433")
    files = ("--hba", tmp_path / "hba", "--ident", tmp_path / "ident")
    with Walstream(*command, *files, log=tmp_path / "log") as sender:
        sender.await_text("listening on")
        wrong = []
        for user, expected in zip(users, [False, *(each[2] for each in MAPS)], strict=True):
            said = []
            for port in (primary.port, 5433):
                where = make_conninfo(f"host={sockets} port={port} dbname=replication", user=user)
                said += [libpq(where), await walstream(where)]
            if core(said[0]) != core(said[2]) or [each == "plain" for each in said] != (
                [expected] * 4
            ):
                wrong.append((user, *said))
        assert not wrong, "\n".join(map(str, wrong))
        theirs = primary.log.read_text()
        for log in (sender.text, theirs):
            for n in (number for number, each in enumerate(MAPS, start=1) if not each[2]):
                words = f'no match in usermap "m{n}" for user "test{n}mapuser" authenticated as'
                assert f'{words} "{ACCOUNT}"' in log
            words = r'provided user name \("?testmapuser"?\) and authenticated user name'
            assert re.search(words, log)
        assert authenticated(sender.text) == {f'identity="{ACCOUNT}" method=peer'}
        assert f'identity="{ACCOUNT}" method=peer' in authenticated(theirs)


# 004_file_inclusion: files, below one directory.

HBA_FILES = {
    "subdir1/hba.conf": (
        "local replication first trust\n"
        "include ../pre.conf\n"
        "local replication second reject\n"
        "include ../pos/pos.conf\n"
        "include_if_exists ../if/none\n"
        "include_if_exists ../if/some\n"
        "include_dir ../inc\n"
        "local @../databases.conf all reject\n"
        "local replication @../users.conf,more reject\n"
    ),
    "pre.conf": "local replication pre reject\n",
    "pos/pos.conf": "local replication pos reject\ninclude pos2.conf\n",
    "pos/pos2.conf": "local replication pos2 reject\nlocal replication pos3 reject\n",
    "if/some": "local replication if_some reject\n",
    "inc/01_z.conf": "local replication dir_z reject\n",
    "inc/02_a.conf": "local replication dir_a reject\n",
    "inc/garbageconf": "should not be included\n",
    "inc/.hidden.conf": "should not be included\n",
    "databases.conf": "replication\ndb3\n",
    "users.conf": "u1\n@more/users.conf\n",
    "more/users.conf": 'u2, "u 3"\n',
}
IDENT_FILES = {
    "subdir2/ident.conf": (
        "include ../ident_pre.conf\n"
        "test a b\n"
        "include ../ident_pos/pos.conf\n"
        "include_if_exists ../ident_if/none\n"
        "include_if_exists ../ident_if/some\n"
        "include_dir ../ident_inc\n"
    ),
    "ident_pre.conf": "pre foo bar\n",
    "ident_pos/pos.conf": "pos foo bar\ninclude pos2.conf\n",
    "ident_pos/pos2.conf": "pos2 foo bar\npos3 foo bar\n",
    "ident_if/some": "if_some foo bar\n",
    "ident_inc/01_z.conf": "dir_z foo bar\n",
    "ident_inc/02_a.conf": "dir_a foo bar\n",
    "ident_inc/garbageconf": "should not be included\n",
}
# What can't be read, in {}.
UNREADABLE = [
    "include {}/none.conf",
    "include_dir {}/none",
    "include_if_exists {}/itself.conf",
    "include {}/itself.conf",
    "local replication @{}/none.conf trust",
    "local replication @{}/words-of-itself.conf trust",
    "include {}/with-a-fault.conf",
]


@on_versions(18)
def test_files_within_files(clusters: Clusters, directory: Path) -> None:
    """004_file_inclusion: the same lines are read as by a server, and the same faults found."""
    primary = clusters.primary()
    for name, text in {**HBA_FILES, **IDENT_FILES, **faulty(directory)}.items():
        path = directory / name
        primary.account.make_directory(path.parent)
        path.write_text(text)
    hba, ident = primary.data / "pg_hba.conf", primary.data / "pg_ident.conf"
    hba.write_text(f"{FOR_US}include {directory}/subdir1/hba.conf\n")
    ident.write_text(f"include {directory}/subdir2/ident.conf\n")
    theirs = primary.query(
        "SELECT file_name, line_number, type, user_name, auth_method, error"
        " FROM pg_hba_file_rules WHERE 'replication' = ANY (database) OR error IS NOT NULL"
        " ORDER BY rule_number"
    )
    assert len(theirs) == 11
    assert theirs == [
        (
            *where(rule.line),
            rule.kind.value,
            [token.text for token in rule.users],
            rule.method.value,
            None,
        )
        for rule in read_hba(str(hba), DiskFiles())
        if replication(rule.line)
    ]
    theirs = primary.query(
        "SELECT file_name, line_number, map_name, sys_name, pg_username, error"
        " FROM pg_ident_file_mappings ORDER BY map_number"
    )
    assert len(theirs) == 8
    assert theirs == [
        (*where(line.line), line.map_name, line.system_user.text, line.user.text, None)
        for line in read_ident(str(ident), DiskFiles())
    ]
    for text in UNREADABLE:
        hba.write_text(f"{FOR_US}{text.format(directory)}\n")
        rows = primary.query(
            "SELECT error, file_name, line_number FROM pg_hba_file_rules WHERE error IS NOT NULL"
        )
        error, _, number = rows[0]
        said = fault(hba)
        # A file of words that is not there is told of with the line that names it.
        assert said.startswith(error) or error in said, (text, said, rows)
        if "with-a-fault" in text:
            assert f'line {number} of configuration file "{directory}/with-a-fault.conf"' in said


def faulty(directory: Path) -> dict[str, str]:
    """Files that can't be read."""
    return {
        "itself.conf": f"include {directory}/itself.conf\n",
        "words-of-itself.conf": f"@{directory}/words-of-itself.conf\n",
        "with-a-fault.conf": "# one\nlocal replication all magic\n",
    }


def where(line: AuthLine) -> tuple[str, int]:
    """As the views have it."""
    return os.path.normpath(line.file), line.number


def replication(line: AuthLine) -> bool:
    """Whether it is about replication."""
    return any(token.is_keyword("replication") for token in line.fields[1])


def fault(path: Path) -> str:
    """What we say of a file."""
    try:
        read_hba(str(path), DiskFiles())
    except FormatError as error:
        return str(error)
    return ""


def test_who_has_not_said_who_it_is(tmp_path: Path) -> None:
    """002_connection_limits, 003_start_stop: it takes nobody's place, and holds up no stop."""
    hba = f"{FOR_US}host replication postgres 127.0.0.1/32 trust\n"
    (tmp_path / "hba").write_text(hba)
    archive = small_archive(tmp_path / "archive")
    options = ("--hba", tmp_path / "hba", "--max-clients=1")
    with (
        Serving("send", "-D", archive, *options, log=tmp_path / "log") as sender,
        ExitStack() as waiting,
    ):
        for answer in asked(waiting, sender.port, 21):
            assert answer == b"N"
        with psycopg.connect(sender.conninfo(), replication="true", autocommit=True):
            assert 'exceeds "max_wal_senders"' in libpq(sender.conninfo())
            for answer in asked(waiting, sender.port, 21):
                assert answer == b"N"
        waiting.enter_context(socket.create_connection(("127.0.0.1", sender.port)))
        assert sender.stop(timeout=30) == 0  # less than the minute that a login may take


def asked(waiting: ExitStack, port: int, number: int) -> Sequence[bytes]:
    """What so many connections are answered that ask for TLS, and wait then."""
    answers = []
    for _ in range(number):
        connection = waiting.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        connection.sendall(SSL_REQUEST)
        answers.append(connection.recv(1))
    return answers
