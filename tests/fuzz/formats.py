"""Targets: what reads files and texts that somebody else may have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_interface

from crc32c import crc32c

from tests.fuzz.recordings import server_frames
from tests.fuzz.target import Target
from walstream.errors import DamagedWAL, FormatError
from walstream.formats.arriving_pages import ArrivingPages
from walstream.formats.backup_history import BackupHistory, parse_backup_start
from walstream.formats.compression import Compression
from walstream.formats.hba import IncomingConnection, first_match, read_hba
from walstream.formats.ident_map import may_be, read_ident
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE, PageHeader, SegmentHeader
from walstream.formats.quantities import parse_count, parse_duration, parse_size
from walstream.formats.record_walk import RecordWalk
from walstream.formats.records import end_of_wal
from walstream.formats.role_file import parse_roles, role_line, with_role, without_role
from walstream.formats.segments import (
    SegmentSize,
    parse_history_file_name,
    parse_segment_file,
)
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.formats.timelines import TimelineHistory
from walstream.protocols.settings import client_sender_timeout, duration, version_number
from walstream.testing.wal import WALBuilder
from walstream.wire.scram_verifier import ScramVerifier

_SIZE = SegmentSize(1 << 20)
_START = _SIZE.start(3)


# WAL


def _builder() -> WALBuilder:
    builder = WALBuilder(segment_size=_SIZE, start=_START)
    for size in (100, 9000, 0, 17, 3000, 9000, 9000):
        builder.noop(size)
    return builder


def _wal() -> Iterator[bytes]:
    builder = _builder()
    yield builder.bytes(_START, _START + 3 * PAGE_SIZE)
    builder.switch()
    yield builder.bytes(_START, _START + 4 * PAGE_SIZE)


def _walk_records(data: bytes) -> None:
    """WAL of which only the pages' beginnings and a few records are the input's."""
    image = _over(data)
    for checksum in (crc32c, None):
        end = end_of_wal(image, _START, _SIZE, crc32c=checksum)
        assert _START <= end.lsn <= _START + max(len(image), _SIZE)
        pieces = _end_in_pieces(image, checksum)
        assert pieces == end.lsn, "it depends on the windows"


_GOOD = _builder().bytes(_START, _START + 3 * PAGE_SIZE)


def _over(data: bytes) -> bytes:
    """Good WAL with *data* written over it: where, its first bytes say, each patch by four."""
    image = bytearray(_GOOD)
    while len(data) > 4:
        place, size = int.from_bytes(data[:2], "big"), data[2] % 64
        at = place % len(image)
        image[at : at + size] = data[3 : 3 + size]
        data = data[3 + size :]
    return bytes(image)


def _end_in_pieces(image: bytes, checksum: Callable[..., int] | None) -> int:
    walk = RecordWalk(_START, PageRules(_SIZE), checksum)
    with suppress(DamagedWAL):
        for end in range(PAGE_SIZE, len(image) + PAGE_SIZE, PAGE_SIZE):
            begin = walk.needs - _START
            walk.feed(_START + begin, image[begin:end])
    return walk.end


def _arrive(data: bytes) -> None:
    for rules in (
        PageRules(_SIZE),
        PageRules(_SIZE, history=TimelineHistory(1, ()), system_identifier=1),
    ):
        pages, image = ArrivingPages(_START, rules), memoryview(_over(data))
        at = 0
        with suppress(DamagedWAL):
            for step in (7, 30, 8192, 100, 16000, 40000):
                pages.check(_START + at, image[at : at + step])
                at += step


def _headers(data: bytes) -> None:
    for kind in (PageHeader, SegmentHeader):
        try:
            header = kind.parse(data)
        except FormatError:
            continue
        assert kind.parse(header.pack()) == header


# Small files


def _history(data: bytes) -> None:
    timeline = 1 + int.from_bytes(data[:1], "big") * 0x0101_0101 % 0xFFFF_FFFF
    try:
        history = TimelineHistory.parse(timeline, data[1:])
    except FormatError:
        return
    again = TimelineHistory.parse(timeline, history.format())
    assert [(one.timeline, one.switch_point) for one in again.ancestors] == [
        (one.timeline, one.switch_point) for one in history.ancestors
    ]
    for ancestor in history.ancestors:
        history.successor(ancestor.timeline)
        history.timeline_at(ancestor.switch_point)


def _backup(data: bytes) -> None:
    for parse in (BackupHistory.parse, parse_backup_start):
        with suppress(FormatError):
            parse(data)


_NEAR = [ip_interface("192.168.1.1/24")]


class _Files:
    """The files that another file may include: all have the same contents."""

    def __init__(self, content: str) -> None:
        self._content = content
        self._read = 0

    def read(self, path: str) -> str:
        self._read += 1
        if self._read > 20 or "missing" in path:
            raise FileNotFoundError(2, "No such file or directory")
        return self._content

    def names(self, path: str) -> Sequence[str]:
        return ["a.conf", "b.conf"]


def _rules(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(FormatError):
        rules = read_hba("pg_hba.conf", _Files(text))
        for connection in _connections():
            first_match(rules, connection, _NEAR)


def _connections() -> Iterator[IncomingConnection]:
    for user, address in (("postgres", None), ("rep", "10.1.2.3"), ("r\udcff", "::1")):
        ip = None if address is None else ip_address(address)
        yield IncomingConnection(user, ip, address == "::1", ("a.example.com",))


def _ident(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(FormatError):
        lines = read_ident("pg_ident.conf", _Files(text))
        for name in ("cn=joe", "joe@REALM"):
            may_be(lines, "m", name, "joe")


def _roles(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        roles = parse_roles(text, "roles")
    except FormatError as error:
        assert "SCRAM-SHA-256$4096:" not in str(error), "a secret is shown"
        return
    for name, role in roles.items():
        try:
            line = role_line(role)
        except FormatError:
            continue  # it was written by hand
        assert parse_roles(line, "roles")[name] == role
        assert parse_roles(with_role(text, role, "roles"), "roles") == roles
        others = {other: kept for other, kept in roles.items() if other != name}
        assert parse_roles(without_role(text, name, "roles"), "roles") == others


# Texts


def _texts(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (
        LSN.parse,
        SegmentSize.from_setting,
        SynchronousStandbyNames.parse,
        Compression.parse,
        parse_count,
        parse_duration,
        parse_size,
        ScramVerifier.parse,
    ):
        with suppress(FormatError):
            parse(text)
    for told in (
        duration,
        version_number,
        parse_history_file_name,
        partial(parse_segment_file, size=_SIZE),
        lambda text: client_sender_timeout({"options": text, "wal_sender_timeout": text}),
    ):
        told(text)
    with suppress(FormatError):
        names = SynchronousStandbyNames.parse(text)
        names.priority(text)


def _error(error: type[Exception], parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with suppress(error):
            parse(data)

    return run


_HBA = b"""# TYPE DATABASE USER ADDRESS METHOD
local replication all peer map=m
host replication "rep" 10.0.0.0/8 scram-sha-256
hostssl all,replication /^r.*$,+x samehost cert clientcert=verify-full map="m"
hostnossl replication @users ::1 255.255.255.255 reject
host replication all .example.com trust # no
include_dir "conf.d"
include_if_exists missing
host replication a,\\
 b all md5
"""
_IDENT = b"m /^(.*)@REALM$ \\1\nm cn=joe joe\ninclude x\n"
_ROLES = (
    b"alice SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"
    + b"A" * 43
    + b"=:"
    + b"A" * 43
    + b"= connections=3 timelines=1,2-4 from=0/3000000\n"
)
_HISTORY = b"\x00" + b"1\t0/3000000\tno recovery target specified\n\n2\t0/5000028\tbefore x\n"
_BACKUP = b"""START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
STOP WAL LOCATION: 0/2000120 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-05-20 12:00:00 UTC
LABEL: pg_basebackup base backup
START TIMELINE: 1
STOP TIME: 2026-05-20 12:00:01 UTC
STOP TIMELINE: 1
"""
_TEXTS = (
    b"16/B374D848",
    b"64MB",
    b"1GB",
    b'FIRST 2 (a, "b c", *)',
    b"ANY 1 (a,b)",
    b"zstd:level=3,long,workers=2",
    b"client-gzip:9",
    b"18.6 (Debian 18.6-1)",
    b"9.6.24",
    b"00000001000000000000000A.gz.partial",
    b"00000003.history",
    b"-c wal_sender_timeout=3s",
    b"60000",
)
_F = "walstream.formats."

TARGETS = (
    Target(
        "records",
        _walk_records,
        (_F + "records", _F + "record_walk", _F + "record_skim", _F + "page_rules", _F + "pages"),
        lambda: (b"\0\0\0\0", b"\0\x10\x04abcd", b"\x20\0\x14" + _GOOD[8192:8212]),
        longest=512,
    ),
    Target(
        "arriving-pages",
        _arrive,
        (_F + "arriving_pages", _F + "page_rules"),
        lambda: (b"\0\0\0\0", b"\x20\0\x14" + _GOOD[8192:8212]),
        longest=512,
    ),
    Target("page-headers", _headers, (_F + "pages",), lambda: (_GOOD[:40], _GOOD[8192:8232])),
    Target("timeline-history", _history, (_F + "timelines",), lambda: (_HISTORY,)),
    Target("backup-history", _backup, (_F + "backup_history",), lambda: (_BACKUP,)),
    Target(
        "hba",
        _rules,
        (_F + "hba", _F + "hba_address", _F + "auth_file"),
        lambda: (_HBA,),
        tuple(_HBA.replace(b"\n", b" ").split(b" ")),
    ),
    Target("ident", _ident, (_F + "ident_map", _F + "auth_file"), lambda: (_IDENT,)),
    Target(
        "roles",
        _roles,
        (_F + "role_file", "walstream.wire.scram_verifier"),
        lambda: (_ROLES, b"bob\n"),
        (b"connections=", b"timelines=", b"from=", b"SCRAM-SHA-256$4096:"),
    ),
    Target(
        "texts",
        _texts,
        (
            _F + "lsn",
            _F + "quantities",
            _F + "compression",
            _F + "synchronous_standby_names",
            _F + "segments",
        ),
        lambda: (*_TEXTS, *(frame.body[:200] for frame in server_frames() if frame.kind == 68)),
        (b"FIRST ", b"ANY ", b"MB", b"min", b"level=", b"workers="),
        8192,
    ),
)
