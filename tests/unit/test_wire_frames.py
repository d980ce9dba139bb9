"""Tests for `walstream.wire.frames`."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import ProtocolViolation
from walstream.wire.frames import (
    Backend,
    Frame,
    FrameReader,
    Frontend,
    StartupPacket,
    StartupReader,
    authentication_limit,
    backend_limit,
    frame,
    frontend_limit,
    greeting_limit,
)

COPY_BOTH = bytes.fromhex("57 00000007 00 0000")
COMPLETE = b"C\x00\x00\x00\x14START_STREAMING\x00"
SSL_REQUEST = bytes.fromhex("00000008 04D2162F")
STARTUP = b"\x00\x00\x00\x28\x00\x03\x00\x00user\x00postgres\x00replication\x00true\x00\x00"


def drain(reader: FrameReader) -> Iterator[Frame]:
    """All frames that are there."""
    while (found := reader.next()) is not None:
        yield found


class FrameTests(SynchronousTestCase):
    """`frame`."""

    def test_length_counts_itself_and_not_the_type(self) -> None:
        """CopyBothResponse is the eight bytes that servers send."""
        self.assertEqual(frame(b"W", b"\x00\x00\x00"), COPY_BOTH)

    def test_body_may_be_empty(self) -> None:
        """CopyDone is a type and a length."""
        self.assertEqual(frame(b"c"), b"c\x00\x00\x00\x04")


class FrameReaderTests(SynchronousTestCase):
    """`FrameReader`."""

    def test_reads_messages_of_one_chunk(self) -> None:
        """Several messages in one chunk come out one by one."""
        reader = FrameReader(backend_limit)
        reader.feed(COPY_BOTH + COMPLETE)
        self.assertEqual(
            list(drain(reader)),
            [
                Frame(Backend.COPY_BOTH_RESPONSE, b"\x00\x00\x00"),
                Frame(Backend.COMMAND_COMPLETE, b"START_STREAMING\x00"),
            ],
        )

    def test_any_cut_gives_the_same_messages(self) -> None:
        """A stream cut in two at any index holds the same messages."""
        stream = COPY_BOTH + COMPLETE + frame(b"c")
        expected = [Frame(ord("W"), bytes(3)), Frame(ord("C"), COMPLETE[5:]), Frame(ord("c"), b"")]
        for index in range(len(stream) + 1):
            reader = FrameReader(backend_limit)
            reader.feed(stream[:index])
            frames = list(drain(reader))
            reader.feed(memoryview(stream)[index:])
            frames.extend(drain(reader))
            self.assertEqual(frames, expected, f"cut at {index}")

    def test_single_bytes_give_the_same_messages(self) -> None:
        """A stream that comes byte by byte holds the same messages."""
        reader = FrameReader(backend_limit)
        frames: list[Frame] = []
        for byte in COPY_BOTH + COMPLETE:
            reader.feed(bytes([byte]))
            frames.extend(drain(reader))
        self.assertEqual([found.kind for found in frames], [ord("W"), ord("C")])

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(b"TDCZdcW"), st.binary(max_size=40)), max_size=5),
        st.lists(st.integers(1, 50), max_size=30),
    )
    def test_any_segmentation_round_trips(
        self, messages: list[tuple[int, bytes]], sizes: list[int]
    ) -> None:
        """What `frame` makes, the reader finds, however it is cut."""
        stream = b"".join(frame(bytes([kind]), body) for kind, body in messages)
        reader = FrameReader(backend_limit)
        found: list[Frame] = []
        for size in [*sizes, len(stream)]:
            reader.feed(stream[:size])
            stream = stream[size:]
            found.extend(drain(reader))
        self.assertEqual(found, messages)
        self.assertEqual(reader.take_rest(), b"")

    def test_large_message_in_small_chunks_is_linear(self) -> None:
        """A message of the longest size arrives in pieces, and its body is bytes."""
        body = bytes(range(256)) * 4096
        stream = memoryview(frame(b"d", body))
        reader = FrameReader(backend_limit)
        for offset in range(0, len(stream), 1024):
            self.assertIsNone(reader.next())
            reader.feed(stream[offset : offset + 1024])
        self.assertEqual(reader.next(), Frame(ord("d"), body))

    def test_rest_is_what_was_not_read(self) -> None:
        """On a mode switch the bytes behind the last message are handed over, once."""
        reader = FrameReader(backend_limit)
        reader.feed(COPY_BOTH + b"d\x00\x00")
        self.assertIsNotNone(reader.next())
        self.assertEqual(reader.take_rest(), b"d\x00\x00")
        self.assertEqual(reader.take_rest(), b"")

    def test_length_below_four_is_a_violation(self) -> None:
        """The length counts itself, so less than four cannot be; the error names both."""
        reader = FrameReader(frontend_limit)
        reader.feed(b"Q\x00\x00\x00\x03")
        error = self.assertRaises(ProtocolViolation, reader.next)
        self.assertEqual(str(error), 'message of type "Q" has length 3, which is less than 4')
        self.assertEqual(error.sqlstate, "08P01")

    def test_length_over_the_limit_is_a_violation_before_the_body(self) -> None:
        """The header alone is enough to refuse a message; nothing of it is waited for."""
        reader = FrameReader(frontend_limit)
        reader.feed(struct.pack("!BI", ord("c"), 20_000))
        error = self.assertRaises(ProtocolViolation, reader.next)
        self.assertEqual(
            str(error),
            'message of type "c" has length 20000, which is more than the 10000 allowed',
        )

    def test_longest_length_is_taken(self) -> None:
        """A message just at its limit is read."""
        reader = FrameReader(frontend_limit)
        reader.feed(frame(b"c", bytes(9_996)))
        self.assertEqual(reader.next(), Frame(ord("c"), bytes(9_996)))

    def test_one_byte_over_the_limit_is_a_violation(self) -> None:
        """The limit is where PostgreSQL has it, to the byte."""
        reader = FrameReader(frontend_limit)
        reader.feed(struct.pack("!BI", ord("c"), 10_001))
        self.assertRaises(ProtocolViolation, reader.next)

    def test_negative_length_is_a_violation(self) -> None:
        """A length with its highest bit set is a very long one."""
        reader = FrameReader(backend_limit)
        reader.feed(b"D\xff\xff\xff\xff")
        self.assertRaises(ProtocolViolation, reader.next)

    def test_unprintable_type_is_named_by_its_number(self) -> None:
        """A TLS record in place of a message is named in hexadecimal."""
        reader = FrameReader(frontend_limit)
        reader.feed(b"\x16\x03\x01\x02\x00")
        error = self.assertRaises(ProtocolViolation, reader.next)
        self.assertIn("type 0x16 has length 50397696", str(error))

    def test_violation_stays(self) -> None:
        """A stream that is broken stays broken."""
        reader = FrameReader(backend_limit)
        reader.feed(b"Z\x00\x00\x00\x00")
        for _ in range(2):
            self.assertRaises(ProtocolViolation, reader.next)

    def test_limit_can_be_replaced_between_messages(self) -> None:
        """A client that has authenticated may send longer messages on the same reader."""
        reader = FrameReader(authentication_limit)
        reader.feed(frame(b"p", b"secret\x00") + frame(b"Q", bytes(20_000)))
        self.assertIsNotNone(reader.next())
        self.assertRaises(ProtocolViolation, reader.next)
        reader.limit = frontend_limit
        self.assertEqual(reader.next(), Frame(Frontend.QUERY, bytes(20_000)))


class LimitTests(SynchronousTestCase):
    """The limits of each direction and phase, given without the four bytes of the length."""

    def test_client_after_authentication(self) -> None:
        """Small types have PostgreSQL's 10000; commands and CopyData have 128 KiB."""
        for kind in b"XSHcfCDE":
            self.assertEqual(frontend_limit(kind), 9_996)
        for kind in b"QdPBF":
            self.assertEqual(frontend_limit(kind), 1 << 17)

    def test_client_while_authenticating(self) -> None:
        """Only a password message may be long."""
        self.assertEqual(authentication_limit(Frontend.PASSWORD), 65_531)
        self.assertEqual(authentication_limit(Frontend.QUERY), 9_996)

    def test_server_after_authentication(self) -> None:
        """Types that libpq does not believe to be long have its 30000; the others less than its."""
        self.assertEqual(backend_limit(Backend.COPY_DATA), 1 << 24)
        for kind in b"TDVA":
            self.assertEqual(backend_limit(kind), 1 << 20)
        for kind in b"EN":
            self.assertEqual(backend_limit(kind), 1 << 16)
        for kind in b"SKZCRWHGv":
            self.assertEqual(backend_limit(kind), 29_996)

    def test_server_before_authentication(self) -> None:
        """Authentication and version negotiation are short, errors may be longer."""
        self.assertEqual(greeting_limit(Backend.AUTHENTICATION), 1_996)
        self.assertEqual(greeting_limit(Backend.NEGOTIATE_PROTOCOL_VERSION), 1_996)
        self.assertEqual(greeting_limit(Backend.ERROR_RESPONSE), 29_996)

    def test_every_type_has_one(self) -> None:
        """At its limit a message is read; with one byte more its header alone is refused."""
        for limit in (frontend_limit, authentication_limit, backend_limit, greeting_limit):
            for kind in range(256):
                longest = limit(kind)
                reader = FrameReader(limit)
                reader.feed(frame(bytes([kind]), bytes(longest)))
                self.assertEqual(reader.next(), Frame(kind, bytes(longest)))
                reader.feed(struct.pack("!BI", kind, longest + 5))
                self.assertRaises(ProtocolViolation, reader.next)


class StartupReaderTests(SynchronousTestCase):
    """`StartupReader`."""

    def test_any_cut_gives_the_same_packets(self) -> None:
        """An SSLRequest and a startup packet cut at any index come out whole."""
        stream = SSL_REQUEST + STARTUP
        expected = [StartupPacket(80877103, b""), StartupPacket(196608, STARTUP[8:])]
        for index in range(len(stream) + 1):
            reader = StartupReader()
            packets = []
            for piece in (stream[:index], stream[index:]):
                reader.feed(piece)
                while (packet := reader.next()) is not None:
                    packets.append(packet)
            self.assertEqual(packets, expected, f"cut at {index}")

    def test_rest_is_what_was_not_read(self) -> None:
        """Bytes behind a packet, which may be an attack, are not swallowed."""
        reader = StartupReader()
        reader.feed(SSL_REQUEST + b"injected")
        self.assertIsNotNone(reader.next())
        self.assertEqual(reader.take_rest(), b"injected")

    def test_length_outside_the_limits_is_a_violation(self) -> None:
        """Body lengths below 4 and above 10000 are refused before the body is there."""
        for length in (0, 7, 10_005, 0xFFFFFFFF):
            reader = StartupReader()
            reader.feed(struct.pack("!I", length))
            error = self.assertRaises(ProtocolViolation, reader.next)
            self.assertEqual(
                str(error), f"startup packet has length {length}, allowed are 8 to 10004"
            )

    def test_longest_packet_is_taken(self) -> None:
        """A body of 10000 bytes, code included, is read."""
        reader = StartupReader()
        reader.feed(struct.pack("!II", 10_004, 196608) + bytes(9_996))
        self.assertEqual(reader.next(), StartupPacket(196608, bytes(9_996)))

    def test_another_protocol_is_refused_by_its_first_bytes(self) -> None:
        """The first letters of an HTTP request are an impossible length."""
        reader = StartupReader()
        reader.feed(b"GET / HTTP/1.1\r\n")
        self.assertRaises(ProtocolViolation, reader.next)
