"""Targets: what reads an archive's own files, and what processes say of themselves."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache

from tests.fuzz.target import Target
from walstream.archive.backup_starts import read_backup_start
from walstream.archive.end_mark import parse_position, read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import load_identity
from walstream.archive.ledger import load_ledger
from walstream.archive.paths import ArchivePaths, foreign_names, rank_segments
from walstream.archive.slot_files import SlotFiles, check_slot_name
from walstream.errors import ArchiveError, CommandError, FormatError
from walstream.upstream.conninfo import parse_conninfo


class _OneFile(FileSystem):
    """A file system on which every file has the same contents."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, path: str, limit: int = -1) -> bytes:
        return self._content if limit < 0 else self._content[:limit]

    def names(self, path: str) -> list[str]:
        return ["a.json", "b_1.json", "incoming", ".json", "A.json"]


_PATHS = ArchivePaths("/archive")


def _files(data: bytes) -> None:
    files = _OneFile(data)
    for load in (
        lambda: list(SlotFiles(files, _PATHS.slots).load()),
        lambda: load_ledger(files, _PATHS),
        lambda: load_identity(files, _PATHS),
        lambda: read_end_mark(files, _PATHS),
    ):
        with suppress(ArchiveError):
            load()
    parse_position(data)


def _names(data: bytes) -> None:
    name = data.decode("utf-8", "surrogateescape")
    try:
        check_slot_name(name)
    except CommandError:
        pass
    else:
        assert "/" not in name and "." not in name and "\0" not in name
    rank_segments([name])
    foreign_names([name])


@cache
def _memory_file() -> tuple[int, str]:
    fd = os.memfd_create("backup")
    return fd, f"/proc/self/fd/{fd}"


def _backups(data: bytes) -> None:
    fd, path = _memory_file()
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    with suppress(FormatError):
        read_backup_start(path)


def _conninfo(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(FormatError):
        upstream = parse_conninfo(text, {"HOME": "/nonexistent"})
        for host in upstream.hosts:
            login = upstream.login(host)
            assert login.startup_parameters()["replication"] == "on"


_SLOT = b"""{
 "name": "a",
 "restart_lsn": "0/3000000",
 "restart_tli": 1,
 "temporary": true,
 "invalidation_reason": "wal_removed"
}
"""
_LEDGER = b"""{
 "format": 1,
 "system_identifier": "7423190665107412305",
 "segment_size": 1048576,
 "removed_before": "0/0",
 "ranges": [
  {"timeline": 1, "start": "0/300000", "end": "0/400000"},
  {"timeline": 2, "start": "0/500000", "end": null}
 ],
 "gaps": [
  {"timeline": 1, "start": "0/400000", "end_timeline": 2, "end": "0/500000",
   "accepted": "2026-05-20T12:00:00+00:00"}
 ],
 "holes": [{"timeline": 1, "start": "0/300000", "end": "0/400000", "found": "now"}]
}
"""
_IDENTITY = b"""{
 "system_identifier": "7423190665107412305",
 "segment_size": 1048576,
 "server_version": "18.6"
}
"""
_MANIFEST = b"""{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7423190665107412305,
"Files": [],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120" }
],
"Manifest-Checksum": "00"}
"""
_LABEL = b"""START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-05-20 12:00:00 UTC
LABEL: x
START TIMELINE: 1
"""
_CONNINFO = (
    b"host=a,b port=5432 user=u password='x y' dbname=replication connect_timeout=10",
    b"postgresql://u:p@[::1]:5433,/tmp/?target_session_attrs=any&keepalives_idle=3",
    b"host=/tmp user=u sslmode=disable options='-c x=1' tcp_user_timeout=1000",
    b"hostaddr=10.0.0.1 host=x load_balance_hosts=random require_auth=none",
)
_A = "walstream.archive."

TARGETS = (
    Target(
        "archive-files",
        _files,
        (_A + "slot_files", _A + "ledger", _A + "identity", _A + "end_mark"),
        lambda: (_SLOT, _LEDGER, _IDENTITY, b"00000001 00000000/00000000 00000000\n"),
        (b'"restart_lsn"', b'"ranges"', b"null", b"Infinity", b"1e999", b"true"),
    ),
    Target(
        "names",
        _names,
        (_A + "paths", _A + "slot_files"),
        lambda: (b"slot_1", b"00000001000000000000000A.partial", b"../x", b"a\n"),
    ),
    Target("backups", _backups, (_A + "backup_starts",), lambda: (_MANIFEST, _LABEL), longest=1024),
    Target(
        "conninfo",
        _conninfo,
        tuple("walstream.upstream." + name for name in ("conninfo", "settings", "hosts", "policy")),
        lambda: _CONNINFO,
        (b"host=", b"port=", b"sslmode=", b"require_auth=", b"postgresql://", b"options="),
        512,
    ),
)
