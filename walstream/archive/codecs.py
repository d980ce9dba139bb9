"""The three ways in which segments are compressed, each as pieces in and pieces out.

What is decoded is bounded at every step, whatever the input says of itself, and is good only when
the end is reached: the stream has to be over, its checksum right, and nothing may follow it. One
file is one stream: a crash of pg_receivewal leaves a new stream with the rest of an old one behind
it, which the format of gzip has no objection to.

The libraries for lz4 and zstd are looked for when they are needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from walstream.errors import ArchiveError, FormatError
from walstream.formats.compression import Compression, Method

__all__ = ["CODECS", "Codec", "codec_of", "require_library"]

#: Gives the next bytes of a file, at most so many; none at its end.
Read = Callable[[int], bytes]

# How much is read, and decoded, at once: long enough that threads seldom need the interpreter.
_PIECE = 1 << 20

# zstd's own bound, and the command's, for what a decoder may have to keep in memory.
_ZSTD_WINDOW = 1 << 27
_ZSTD_HEADER = 18
_ZSTD_RLE = 1


class Codec(Protocol):
    """A method of compression.

    :cvar suffix: what the names of its files end in.
    """

    suffix: str

    def encode(
        self, pieces: Iterable[bytes], compression: Compression, size: int
    ) -> Iterator[bytes]:
        """Compress *pieces*, which together have *size* bytes, to one stream with a checksum."""

    def decode(self, read: Read) -> Iterator[bytes]:
        """Decompress what *read* gives, up to its end, in pieces of bounded size.

        :raises FormatError: saying how it is damaged.
        """


class _Gzip:
    """By Python's own library. As with gzip -n, the file does not say when it was made."""

    suffix = "gz"

    def encode(
        self, pieces: Iterable[bytes], compression: Compression, size: int
    ) -> Iterator[bytes]:
        encoder = zlib.compressobj(compression.level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        for piece in pieces:
            yield encoder.compress(piece)
        yield encoder.flush()

    def decode(self, read: Read) -> Iterator[bytes]:
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        with _damage(zlib.error):
            while not decoder.eof:
                data = decoder.unconsumed_tail or read(_PIECE)
                piece = decoder.decompress(data, _PIECE)
                if not data and not piece and not decoder.eof:
                    raise FormatError(_TOO_SHORT)
                yield piece
        _check_end(decoder.unused_data, read)


class _LZ4:
    """Frames as the lz4 command makes them."""

    suffix = "lz4"

    def encode(
        self, pieces: Iterable[bytes], compression: Compression, size: int
    ) -> Iterator[bytes]:
        frame = _library(Method.LZ4)
        encoder = frame.LZ4FrameCompressor(
            compression_level=compression.level,
            block_size=frame.BLOCKSIZE_MAX256KB,
            content_checksum=True,
        )
        yield encoder.begin(size)
        for piece in pieces:
            yield encoder.compress(piece)
        yield encoder.flush()

    def decode(self, read: Read) -> Iterator[bytes]:
        decoder = _library(Method.LZ4).LZ4FrameDecompressor()
        with _damage(RuntimeError):
            while not decoder.eof:
                is_hungry = decoder.needs_input
                data = read(_PIECE) if is_hungry else b""
                piece = decoder.decompress(data, _PIECE)
                if is_hungry and not data and not piece and not decoder.eof:
                    raise FormatError(_TOO_SHORT)
                yield piece
        _check_end(decoder.unused_data or b"", read)


class _Zstd:
    """The library gives all that its input decodes to, so it is given a block at a time.

    A block has at most 128 KiB, as it is and compressed (RFC 8878).
    """

    suffix = "zst"

    def encode(
        self, pieces: Iterable[bytes], compression: Compression, size: int
    ) -> Iterator[bytes]:
        zstd = _library(Method.ZSTD)
        options: dict[str, int] = {}
        if compression.long_distance:
            # As far back as the segment goes, which the level alone would not allow.
            options = {"enable_ldm": 1, "window_log": min(size, _ZSTD_WINDOW).bit_length() - 1}
        parameters = zstd.ZstdCompressionParameters.from_level(
            compression.level, source_size=size, write_checksum=True, **options
        )
        encoder = zstd.ZstdCompressor(compression_params=parameters).compressobj(size=size)
        for piece in pieces:
            yield encoder.compress(piece)
        yield encoder.flush()

    def decode(self, read: Read) -> Iterator[bytes]:
        zstd = _library(Method.ZSTD)
        decoder = zstd.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        with _damage(zstd.ZstdError):
            for block in _zstd_blocks(zstd, _Buffered(read)):
                yield decoder.decompress(block)
        if not decoder.eof:
            raise FormatError(_TOO_SHORT)


#: The codec of each method.
CODECS: Mapping[Method, Codec] = {
    Method.GZIP: _Gzip(),
    Method.LZ4: _LZ4(),
    Method.ZSTD: _Zstd(),
}

_BY_SUFFIX = {codec.suffix: codec for codec in CODECS.values()}

_LIBRARIES = {Method.LZ4: ("lz4", "lz4.frame"), Method.ZSTD: ("zstandard", "zstandard")}

_TOO_SHORT = "it ends before its stream does"
_TOO_LONG = "something follows behind the end of its stream"


def codec_of(name: str) -> Codec | None:
    """The codec of a file by its name; None if that is not a compressed file's."""
    return _BY_SUFFIX.get(name.rpartition(".")[2])


def require_library(method: Method) -> None:
    """See whether a method can be used.

    :raises ArchiveError: saying what has to be installed.
    """
    if method in _LIBRARIES:
        _library(method)


def _library(method: Method) -> Any:
    package, module = _LIBRARIES[method]
    try:
        return import_module(module)
    except ImportError as error:
        raise ArchiveError(
            f"{method.value} needs the Python package {package}: install walstream[compression]"
        ) from error


@contextmanager
def _damage(error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error as damage:
        raise FormatError(str(damage)) from damage


def _check_end(unused: bytes, read: Read) -> None:
    if unused or read(1):
        raise FormatError(_TOO_LONG)


class _Buffered:
    """Reads in large pieces, and gives exactly what is asked for."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._data = memoryview(b"")

    def peek(self, size: int) -> memoryview:
        """The next *size* bytes, or what is left; they will come again."""
        while len(self._data) < size:
            more = self._read(_PIECE)
            if not more:
                break
            self._data = memoryview(b"".join((self._data, more)))
        return self._data[:size]

    def take(self, size: int) -> bytes:
        """The next *size* bytes.

        :raises FormatError: if there are less.
        """
        data = self.peek(size)
        if len(data) < size:
            raise FormatError(_TOO_SHORT)
        self._data = self._data[size:]
        return bytes(data)


def _zstd_blocks(zstd: Any, source: _Buffered) -> Iterator[bytes]:
    """The pieces of a frame that is a whole file: its header, each of its blocks, its checksum."""
    head = bytes(source.peek(_ZSTD_HEADER))
    frame = zstd.get_frame_parameters(head)
    yield source.take(zstd.frame_header_size(head))
    is_last = False
    while not is_last:
        head = source.take(3)
        description = int.from_bytes(head, "little")
        is_last = bool(description & 1)
        is_run = description >> 1 & 3 == _ZSTD_RLE
        yield head + source.take(1 if is_run else description >> 3)
    if frame.has_checksum:
        yield source.take(4)
    if source.peek(1):
        raise FormatError(_TOO_LONG)
