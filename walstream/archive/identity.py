"""Whose WAL an archive holds: what ``identity.json`` says, and what the segments' headers say.

The two must agree, and all headers among themselves. Everything here reads or writes files, so it
belongs into a lane.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from walstream.archive.compression import read_head
from walstream.archive.filesystem import FileSystem
from walstream.archive.json_text import MISREAD
from walstream.archive.paths import ArchivePaths
from walstream.errors import ArchiveError, FormatError, WrongSystem
from walstream.formats.pages import LONG_HEADER_SIZE, SegmentHeader, major_version
from walstream.formats.positions import SystemIdentity
from walstream.formats.segments import SegmentSize, parse_segment_file

__all__ = [
    "adopt_segments",
    "check_newest",
    "check_same_system",
    "find_identity",
    "is_same_system",
    "load_identity",
    "store_identity",
]


def is_same_system(one: SystemIdentity, other: SystemIdentity) -> bool:
    """Whether two identities are of the same cluster; its version may change."""
    return (one.system_identifier, one.segment_size) == (
        other.system_identifier,
        other.segment_size,
    )


def check_same_system(paths: ArchivePaths, held: SystemIdentity, other: SystemIdentity) -> None:
    """Check that a server is of the cluster whose WAL is held.

    :raises WrongSystem: if it is not.
    """
    if not is_same_system(held, other):
        raise WrongSystem(
            f"archive {paths.root} is of {_describe(held)}, but the server is of "
            f"{_describe(other)}: use another directory, or connect to the right server"
        )


def load_identity(files: FileSystem, paths: ArchivePaths) -> SystemIdentity | None:
    """Read ``identity.json``; None if there is none.

    :raises ArchiveError: if it is not what `store_identity` writes.
    """
    try:
        content = files.read(paths.identity)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(content)
        return SystemIdentity(
            system_identifier=int(fields["system_identifier"]),
            segment_size=SegmentSize(int(fields["segment_size"])),
            server_version=str(fields["server_version"]),
        )
    except MISREAD as error:
        raise ArchiveError(
            f"{paths.identity} is damaged ({error}): remove it, and it is made again from the "
            "archive's segments"
        ) from error


def store_identity(files: FileSystem, paths: ArchivePaths, identity: SystemIdentity) -> None:
    """Write ``identity.json``, durably. The identifier is text: JSON's numbers have 53 bits."""
    fields = {
        "system_identifier": str(identity.system_identifier),
        "segment_size": int(identity.segment_size),
        "server_version": identity.server_version,
    }
    content = json.dumps(fields, indent=1) + "\n"
    files.store(paths.incoming, paths.identity, content.encode())


def adopt_segments(
    files: FileSystem, paths: ArchivePaths, ranked: Sequence[str]
) -> SystemIdentity | None:
    """Whose WAL the segments hold that another program put there, from the newest on.

    None if there is no segment, or none with WAL in it.

    :raises ArchiveError: naming files that do not belong together, or are no WAL at all.
    """
    newest: tuple[str, SegmentHeader] | None = None
    for name in ranked:
        header = _read_header(files, paths, name)
        if header is None:
            continue
        if newest is None:
            newest = name, header
        _check_same_cluster(paths, newest, (name, header))
        _check_place(paths, name, header)
    if newest is None:
        if any(not name.endswith(".partial") for name in ranked):
            raise ArchiveError(
                f"archive {paths.root} holds no segment that tells whose WAL this is: "
                f"{ranked[0]}, for one, is too short or damaged; move such files away"
            )
        return None
    return _identity(paths, *newest)


def find_identity(
    files: FileSystem,
    paths: ArchivePaths,
    ranked: Sequence[str],
    pass_over: Callable[[ArchiveError], None] | None = None,
) -> SystemIdentity | None:
    """Whose WAL it is, for those who only look: ``identity.json``, or the newest segment's header.

    None if there is neither.

    :param pass_over: told if ``identity.json`` is damaged. A segment that is no WAL is passed over
        then, too.
    :raises ArchiveError: without *pass_over*, if what is found there is damaged.
    """
    try:
        identity = load_identity(files, paths)
    except ArchiveError as error:
        if pass_over is None:
            raise
        pass_over(error)
        identity = None
    if identity is not None:
        return identity
    for name in ranked:
        try:
            header = _read_header(files, paths, name)
            if header is not None:
                return _identity(paths, name, header)
        except ArchiveError:
            if pass_over is None:
                raise
    return None


def check_newest(
    files: FileSystem, paths: ArchivePaths, ranked: Sequence[str], identity: SystemIdentity
) -> None:
    """Check that the newest segment with WAL in it is of the cluster that *identity* says.

    :raises ArchiveError: if it is not.
    """
    for name in ranked:
        header = _read_header(files, paths, name)
        if header is None:
            continue
        found = (header.system_identifier, header.segment_size)
        if found != (identity.system_identifier, identity.segment_size):
            raise ArchiveError(
                f"archive {paths.root} is of system {identity.system_identifier} with segments of "
                f"{identity.segment_size} bytes, but {name} is of system {found[0]} with segments "
                f"of {found[1]} bytes: move it away"
            )
        return


def _read_header(files: FileSystem, paths: ArchivePaths, name: str) -> SegmentHeader | None:
    """The header of a segment file; None where none can be: damaged, too short, or not begun."""
    is_partial = name.endswith(".partial")
    if is_partial and "." in name.removesuffix(".partial"):
        return None  # nobody goes on with what pg_receivewal left compressed and unfinished
    try:
        content = read_head(files, paths.of(name), LONG_HEADER_SIZE)
    except FormatError:
        return None
    if len(content) < LONG_HEADER_SIZE:
        return None
    try:
        return SegmentHeader.parse(content)
    except FormatError as error:
        if is_partial:
            return None  # all zeros yet, or as much as has come of the header
        raise ArchiveError(f"{paths.of(name)} is not a WAL segment: {error}") from error


def _check_same_cluster(
    paths: ArchivePaths, one: tuple[str, SegmentHeader], other: tuple[str, SegmentHeader]
) -> None:
    systems = [(header.system_identifier, header.segment_size) for _, header in (one, other)]
    if systems[0] != systems[1]:
        raise ArchiveError(
            f"archive {paths.root} holds WAL of two clusters: {one[0]} is of system "
            f"{systems[0][0]} with segments of {systems[0][1]} bytes, {other[0]} of system "
            f"{systems[1][0]} with segments of {systems[1][1]} bytes; give each its own directory"
        )


def _check_place(paths: ArchivePaths, name: str, header: SegmentHeader) -> None:
    size = header.segment_size
    segment = parse_segment_file(name, size)
    if segment is None or size.start(segment.number) != header.address:
        raise ArchiveError(
            f"{paths.of(name)} does not hold what its name says, but the WAL from "
            f"{header.address} on; such files are in a server's own pg_wal, where they wait to "
            "be used again: choose another directory"
        )


def _identity(paths: ArchivePaths, name: str, header: SegmentHeader) -> SystemIdentity:
    try:
        major = major_version(header.magic)
    except FormatError as error:
        raise ArchiveError(f"{paths.of(name)}: {error}") from error
    return SystemIdentity(
        system_identifier=header.system_identifier,
        segment_size=header.segment_size,
        server_version="9.6" if major == 9 else str(major),
    )


def _describe(identity: SystemIdentity) -> str:
    size = identity.segment_size.setting()
    return f"system {identity.system_identifier} with segments of {size}"
