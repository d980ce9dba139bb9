"""The work on one unit: reads its segments from beginning to end, and says what it found.

Runs in a process of its own, beside others, so all that goes in and out are plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from os import O_RDONLY

from crc32c import crc32c

from walstream.archive.codecs import codec_of
from walstream.archive.compression import pieces_of
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths, forms_of
from walstream.archive.verification_plan import Piece, Unit
from walstream.errors import ArchiveError, DamagedWAL, FormatError
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.record_walk import FoundRecord, RecordWalk, walk_through

__all__ = ["Finding", "UnitResult", "verify_unit"]

_PIECE = 1 << 19


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, or is worth to be known.

    :ivar kind: ``damage``, ``size``, ``gap``, ``history``, ``unreadable`` or ``note``.
    :ivar subject: the file that it is about, or what else it is.
    :ivar what: what is the matter.
    :ivar remedy: what to do about it.
    :ivar position: where in the WAL, if that can be said.
    """

    kind: str
    subject: str
    what: str
    remedy: str = ""
    position: LSN | None = None

    @property
    def is_fault(self) -> bool:
        """Whether the archive is not good because of it."""
        return self.kind != "note"


@dataclass(slots=True)
class UnitResult:
    """What was found in a unit.

    :ivar first: where its first record is, and where that says the one before is; None if there
        is none, or damage came before it.
    :ivar last: where its last record is, or the last one before it; None if that is not known.
    """

    findings: list[Finding] = field(default_factory=list)
    segments: int = 0
    records: int = 0
    bytes: int = 0
    first: tuple[int, int] | None = None
    last: int | None = None
    is_whole: bool = True


def verify_unit(root: str, unit: Unit) -> UnitResult:
    """Verify a unit of the archive at *root*."""
    return _Work(FileSystem(), ArchivePaths(root), unit).run()


class _Work:
    def __init__(self, files: FileSystem, paths: ArchivePaths, unit: Unit) -> None:
        self._files = files
        self._paths = paths
        self._unit = unit
        self._size = unit.identity.segment_size
        self._result = UnitResult()
        self._walk: RecordWalk | None = None

    def run(self) -> UnitResult:
        """Do all of it."""
        result, unit = self._result, self._unit
        if unit.before is not None:
            self._walk = self._walk_from(unit.before)
            try:
                walk_through(self._walk, self._walk.end, self._read_any(unit.before))
            except (OSError, FormatError, ArchiveError, DamagedWAL):
                self._walk = None  # it is another unit's to report
        for piece in unit.pieces:
            self._verify(piece)
        if self._walk is not None and self._walk.unfinished is not None:
            self._finish_last_record(self._walk, self._walk.unfinished)
        return result

    def _walk_from(self, piece: Piece) -> RecordWalk:
        rules = PageRules.of(self._unit.identity, self._unit.history)
        return RecordWalk(self._size.start(piece.number), rules, crc32c)

    def _verify(self, piece: Piece) -> None:
        result, start = self._result, self._size.start(piece.number)
        if piece.is_partial and codec_of(piece.name.removesuffix(".partial")) is not None:
            return  # how much of it can be decoded says nothing
        if self._walk is None or self._walk.needs < start:
            # Where the WAL of a .partial ends, the walk ends too, and others may be behind it.
            self._walk = self._walk_from(piece)
        walk, known = self._walk, self._walk.records
        try:
            if piece.is_partial:
                self._verify_partial(walk, piece)
            else:
                walk_through(walk, start, self._read(piece))
                result.bytes += self._size
        except FileNotFoundError:
            self._note(piece, "went away while the archive was verified", "")
            self._walk = None
        except DamagedWAL as error:
            self._report("damage", piece, str(error), LSN(error.position))
        except (FormatError, ArchiveError) as error:
            self._report("damage", piece, str(error).removeprefix(f"{piece.name} "), start)
        except OSError as error:
            self._report("unreadable", piece, f"cannot be read: {error.strerror}", start)
        result.segments += 1
        result.records += walk.records - known
        if result.first is None and result.is_whole:
            result.first = walk.first
        result.last = walk.last
        is_open = piece.is_partial and walk.needs < start + self._size
        if self._walk is None or is_open:
            # Of what is behind the end that is vouched for nothing is known, not even the chain.
            result.is_whole, result.last = False, None

    def _verify_partial(self, walk: RecordWalk, piece: Piece) -> None:
        start, durable = self._size.start(piece.number), piece.durable
        try:
            walk_through(walk, start, self._read_partial(piece))
        except DamagedWAL as error:
            if durable is not None:
                raise
            # Nobody has said how far it is WAL; it is as far as it is.
            end = LSN(walk.end)
            self._note(piece, f"is unfinished, and holds WAL up to {end}", str(error), end)
        self._result.bytes += max(min(durable or walk.end, start + self._size) - start, 0)

    def _read(self, piece: Piece) -> Iterator[bytes]:
        """The segment in whatever form it is at this moment."""
        for name in [piece.name, *forms_of(piece.name.partition(".")[0])]:
            pieces = pieces_of(self._files, self._paths.of(name), self._size)
            with suppress(FileNotFoundError):
                first = next(pieces)
                yield first
                yield from pieces
                return
        raise FileNotFoundError

    def _read_partial(self, piece: Piece) -> Iterator[bytes]:
        try:
            fd = self._files.open(self._paths.of(piece.name), O_RDONLY)
        except FileNotFoundError:
            # It has been finished meanwhile.
            yield from self._read(piece)
            return
        try:
            offset, length = 0, int(self._size)
            if piece.durable is not None:
                length = piece.durable - self._size.start(piece.number)
            while offset < length:
                data = self._files.pread(fd, min(_PIECE, length - offset), offset)
                if not data:
                    return
                yield data
                offset += len(data)
        finally:
            self._files.close(fd)

    def _finish_last_record(self, walk: RecordWalk, begun: int) -> None:
        """Follow the last record into what is behind the unit; all else there is others' work."""
        found: list[FoundRecord] = []
        for piece in self._unit.behind:
            if walk.needs < self._size.start(piece.number):
                break  # the .partial before it has no more
            try:
                self._feed_while_unfinished(walk, begun, piece, found)
            except DamagedWAL as error:
                self._judge_damage_behind(error, piece, walk, begun)
                break
            except (OSError, FormatError, ArchiveError):
                return  # others will report it
            if walk.unfinished != begun:
                break
        if found and found[0][0] == begun:
            self._result.records += 1
            self._result.last = begun

    def _feed_while_unfinished(
        self, walk: RecordWalk, begun: int, piece: Piece, found: list[FoundRecord]
    ) -> None:
        position = int(self._size.start(piece.number))
        for page in _pages(self._read_any(piece)):
            walk.feed(position, page, found)
            position += PAGE_SIZE
            if walk.unfinished != begun:
                return

    def _judge_damage_behind(
        self, error: DamagedWAL, piece: Piece, walk: RecordWalk, begun: int
    ) -> None:
        if piece.is_partial and piece.durable is None:
            return  # nobody has said that the record is whole
        if error.position == begun or walk.unfinished == begun:
            culprit = self._unit.pieces[-1] if error.position == begun else piece
            self._report("damage", culprit, str(error), LSN(error.position))
            self._result.last, self._result.is_whole = None, False

    def _read_any(self, piece: Piece) -> Iterator[bytes]:
        return self._read_partial(piece) if piece.is_partial else self._read(piece)

    def _report(self, kind: str, piece: Piece, what: str, position: LSN) -> None:
        remedy = "recovery ends here; put a good copy of this segment in its place"
        self._result.findings.append(Finding(kind, piece.name, what, remedy, position))
        self._walk = None

    def _note(self, piece: Piece, what: str, remedy: str, position: LSN | None = None) -> None:
        self._result.findings.append(Finding("note", piece.name, what, remedy, position))


def _pages(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) - len(data) % PAGE_SIZE
        for offset in range(0, whole, PAGE_SIZE):
            yield data[offset : offset + PAGE_SIZE]
        rest = data[whole:]
    if rest:
        yield rest
