"""Segment files of every form are read alike, and only what decodes to its end is believed."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sys
import zlib
from collections.abc import Generator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.archives import SIZE, DirectoryCase, compressed
from walstream.archive.codecs import CODECS, codec_of, require_library
from walstream.archive.compression import pieces_of, read_head, read_segment
from walstream.errors import ArchiveError, FormatError
from walstream.formats.compression import Compression, Method

SUFFIXES = [codec.suffix for codec in CODECS.values()]
_NAME = "000000010000000000000005"


class CompressionCase(DirectoryCase):
    """Has a segment's content, and puts it into files."""

    def setUp(self) -> None:
        super().setUp()
        self.content = self.wal(SIZE.start(5), SIZE)

    def put(self, suffix: str, content: bytes) -> str:
        """A segment's file with that in it; its path."""
        path = self.path / f"{_NAME}.{suffix}"
        path.write_bytes(content)
        return str(path)

    def damage(self, path: str) -> str:
        """What is said of a file that is not whole."""
        error = self.assertRaises(FormatError, read_segment, self.files, path, SIZE)
        self.assertIn(os.path.basename(path), str(error))
        self.assertEqual(self.files.open_files, [])
        return str(error)


class ReadTests(CompressionCase):
    """`read_segment`, `pieces_of` and `read_head`"""

    def test_plain(self) -> None:
        """A plain segment is read as it is, and must have its size."""
        path = str(self.put_segment(5))
        self.assertEqual(read_segment(self.files, path, SIZE), self.content)
        self.assertEqual(read_head(self.files, path, 40), self.content[:40])
        os.truncate(path, SIZE - 1)
        self.assertIn(f"has {SIZE - 1} bytes and not {SIZE}", self.damage(path))

    def test_levels(self) -> None:
        """What was compressed in any way comes back."""
        for text in ("gzip", "gzip:1", "lz4", "lz4:12", "zstd", "zstd:-5", "zstd:19,", "zstd:long"):
            compression = Compression.parse(text.rstrip(","))
            assert compression is not None
            codec = CODECS[compression.method]
            pieces = [self.content[start : start + 99_999] for start in range(0, SIZE, 99_999)]
            path = self.put(codec.suffix, b"".join(codec.encode(pieces, compression, SIZE)))
            self.assertEqual(read_segment(self.files, path, SIZE), self.content)
            self.assertEqual(read_head(self.files, path, 40), self.content[:40])

    def test_incompressible(self) -> None:
        """Random bytes, runs, and both: pieces end anywhere."""
        noise = random.Random(1).randbytes(SIZE // 2)
        for content in (noise + bytes(SIZE // 2), bytes(SIZE // 2) + noise, bytes(SIZE)):
            for suffix in SUFFIXES:
                path = self.put(suffix, compressed(content, suffix))
                self.assertEqual(read_segment(self.files, path, SIZE), content)

    def test_long_distance(self) -> None:
        """zstd finds what repeats itself further back than the level alone would look."""
        noise = random.Random(1).randbytes(SIZE // 4)
        content = noise + bytes(SIZE // 2) + noise
        sizes = []
        for text in ("zstd:1", "zstd:level=1,long"):
            compression = Compression.parse(text)
            assert compression is not None
            encoded = b"".join(CODECS[Method.ZSTD].encode([content], compression, SIZE))
            self.assertEqual(read_segment(self.files, self.put("zst", encoded), SIZE), content)
            sizes.append(len(encoded))
        self.assertLess(sizes[1], sizes[0] * 0.6)

    def test_trailing_bytes(self) -> None:
        """What pg_receivewal leaves behind a crash: the rest of an older, longer stream."""
        for suffix in SUFFIXES:
            good = compressed(self.content, suffix)
            for garbage in (b"\0", b"garbage" * 1000, good):
                path = self.put(suffix, good + garbage)
                self.assertIn("something follows behind the end", self.damage(path))

    def test_cut_off(self) -> None:
        """A stream without its end is damaged, if only its checksum is missing."""
        for suffix in SUFFIXES:
            good = compressed(self.content, suffix)
            for size in (0, 1, 3, 4, 10, 18, 30, len(good) // 2, len(good) - 4, len(good) - 1):
                self.assertIn("is damaged", self.damage(self.put(suffix, good[:size])))

    def test_wrong_sizes(self) -> None:
        """One byte too many or too few, whatever trailers say. (L3)"""
        for suffix in SUFFIXES:
            path = self.put(suffix, compressed(self.content + b"x", suffix))
            self.assertIn(f"more than {SIZE} bytes", self.damage(path))
            path = self.put(suffix, compressed(self.content[:-1], suffix))
            self.assertIn(f"holds {SIZE - 1} bytes and not {SIZE}", self.damage(path))
            self.damage(self.put(suffix, compressed(b"", suffix)))

    def test_bombs(self) -> None:
        """Of a file that decodes to a gigabyte no more is decoded than shows that it is wrong."""
        for method, codec in CODECS.items():
            compression = Compression.parse(method.value)
            assert compression is not None
            zeros = (bytes(1 << 20) for _ in range(64))
            path = self.put(codec.suffix, b"".join(codec.encode(zeros, compression, 64 << 20)))
            done = []
            with self.assertRaises(FormatError):
                for piece in pieces_of(self.files, path, SIZE):
                    done.append(len(piece))
            self.assertLessEqual(sum(done), SIZE)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(SUFFIXES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
    def test_flipped_bits(self, suffix: str, where: float, mask: int) -> None:
        """Damage is found, or the content is the same in spite of it."""
        damaged = bytearray(compressed(self.content, suffix))
        damaged[int(where * len(damaged))] ^= mask
        path = self.put(suffix, bytes(damaged))
        with contextlib.suppress(FormatError):
            self.assertEqual(read_segment(self.files, path, SIZE), self.content)

    def test_noise(self) -> None:
        """A compressed file in which there is something else."""
        for suffix in SUFFIXES:
            self.damage(self.put(suffix, self.content))

    def test_read_error(self) -> None:
        """The disk's errors stay what they are."""
        path = self.put("gz", compressed(self.content))
        self.files.fail(f"read {_NAME}.gz", errno.EIO)
        self.assertRaises(OSError, read_segment, self.files, path, SIZE)
        self.assertEqual(self.files.open_files, [])

    def test_head_of_a_short_file(self) -> None:
        """Less than was asked for comes back as it is."""
        path = self.put("gz", compressed(b"short"))
        self.assertEqual(read_head(self.files, path, 40), b"short")

    def test_given_up(self) -> None:
        """Who does not read to the end leaves no file open."""
        pieces = pieces_of(self.files, str(self.put_segment(5)), SIZE)
        next(pieces)
        assert isinstance(pieces, Generator)
        pieces.close()
        self.assertEqual(self.files.open_files, [])

    def test_as_pg_receivewal_wrote_it(self) -> None:
        """It flushes its gzip streams as it receives, and its lz4 frames say no size."""
        encoder = zlib.compressobj(6, zlib.DEFLATED, 31)
        content = b"".join(
            encoder.compress(self.content[start : start + 8192]) + encoder.flush(zlib.Z_SYNC_FLUSH)
            for start in range(0, SIZE, 8192)
        )
        path = self.put("gz", content + encoder.flush())
        self.assertEqual(read_segment(self.files, path, SIZE), self.content)


class LibraryTests(CompressionCase):
    """lz4 and zstandard are the extra walstream[compression]."""

    def test_missing(self) -> None:
        """What needs a package that is not installed says which."""
        self.patch(sys, "modules", {**sys.modules, "lz4.frame": None, "zstandard": None})
        for method, package in ((Method.LZ4, "lz4"), (Method.ZSTD, "zstandard")):
            error = self.assertRaises(ArchiveError, require_library, method)
            self.assertIn(f"package {package}: install walstream[compression]", str(error))
        path = self.put("zst", b"")
        self.assertRaises(ArchiveError, read_segment, self.files, path, SIZE)
        require_library(Method.GZIP)

    def test_names(self) -> None:
        """The suffix says the form."""
        self.assertIs(codec_of(f"{_NAME}.zst"), CODECS[Method.ZSTD])
        for name in (_NAME, f"{_NAME}.partial", f"{_NAME}.gz.partial", f"{_NAME}.bz2"):
            self.assertIsNone(codec_of(name))
