"""``--compress``: what it means, and PostgreSQL's sentences for what is wrong with it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.compression import Compression, Method


class ParseTests(SynchronousTestCase):
    """`Compression.parse`"""

    def test_methods(self) -> None:
        """Each has its default level; "none" is none."""
        self.assertEqual(Compression.parse("gzip"), Compression(Method.GZIP, -1))
        self.assertEqual(Compression.parse("lz4"), Compression(Method.LZ4, 0))
        self.assertEqual(Compression.parse("zstd"), Compression(Method.ZSTD, 3))
        for text in ("none", "0", "none:0", "none:level=0"):
            self.assertIsNone(Compression.parse(text))

    def test_levels(self) -> None:
        """As a number, or by name; the last one counts."""
        self.assertEqual(Compression.parse("gzip:9"), Compression(Method.GZIP, 9))
        self.assertEqual(Compression.parse("lz4:level=12"), Compression(Method.LZ4, 12))
        self.assertEqual(Compression.parse("zstd:-7"), Compression(Method.ZSTD, -7))
        self.assertEqual(Compression.parse("zstd:level=1,level=19"), Compression(Method.ZSTD, 19))

    def test_number(self) -> None:
        """The form of old: a level of gzip."""
        self.assertEqual(Compression.parse("6"), Compression(Method.GZIP, 6))

    def test_long(self) -> None:
        """zstd's long-distance mode, with a value or without."""
        for text in ("zstd:long", "zstd:long=on", "zstd:level=3,long=true"):
            self.assertEqual(Compression.parse(text), Compression(Method.ZSTD, 3, True))
        self.assertEqual(Compression.parse("zstd:long=0"), Compression(Method.ZSTD, 3))

    def test_refusals(self) -> None:
        """In the words of pg_receivewal 18."""
        wrong_detail = {
            "none:1": 'compression algorithm "none" does not accept a compression level',
            "none:workers=2": 'compression algorithm "none" does not accept a worker count',
            "lz4:x": 'unrecognized compression option: "x"',
            "gzip:level": 'compression option "level" requires a value',
            "gzip:level=": 'value for compression option "level" must be an integer',
            "gzip:level=high": 'value for compression option "level" must be an integer',
            "gzip:": "found empty string where a compression option was expected",
            "gzip:level=1,": "found empty string where a compression option was expected",
            "gzip:long": 'compression algorithm "gzip" does not support long-distance mode',
            "lz4:1,level=2": 'unrecognized compression option: "1"',
            "lz4:level=13": 'compression algorithm "lz4" expects a compression level between '
            "1 and 12 (default at 0)",
            "10": 'compression algorithm "gzip" expects a compression level between '
            "1 and 9 (default at -1)",
            "gzip:0": 'compression algorithm "gzip" expects a compression level between '
            "1 and 9 (default at -1)",
            "zstd:23": 'compression algorithm "zstd" expects a compression level between '
            "-131072 and 22 (default at 3)",
            "gzip:workers=2": 'compression algorithm "gzip" does not accept a worker count',
            "zstd:long=maybe": 'value for compression option "long" must be a Boolean value',
        }
        for text, reason in wrong_detail.items():
            error = self.assertRaises(FormatError, Compression.parse, text)
            self.assertEqual(str(error), f"invalid compression specification: {reason}")
        for text, name in {"x:1": "x", "": "", "GZIP": "GZIP", "zst": "zst"}.items():
            error = self.assertRaises(FormatError, Compression.parse, text)
            self.assertEqual(str(error), f'unrecognized compression algorithm: "{name}"')

    def test_workers(self) -> None:
        """zstd's workers are not taken: the error says what to use instead."""
        error = self.assertRaises(FormatError, Compression.parse, "zstd:workers=2")
        self.assertIn("--compress-jobs", str(error))
