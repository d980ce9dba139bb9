"""Tests for `walstream.wire.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import ProtocolViolation
from walstream.formats.pages import PAGE_SIZE
from walstream.wire.copydata import Keepalive, wal_data_header
from walstream.wire.dialect2009 import wal_payload_header
from walstream.wire.frames import Frame, frame
from walstream.wire.messages import (
    command_complete,
    copy_data,
    copy_done,
    parameter_status,
)
from walstream.wire.stream import StreamReader, WALPayload, wal_message_head

MODERN, DESIGN_2009 = WALPayload.MODERN, WALPayload.DESIGN_2009
START = 0x16_B374D848
KEEPALIVE = copy_data(Keepalive(START, 77, True).pack())
STATUS = parameter_status("in_hot_standby", "off")


def message(payload: WALPayload, start: int, wal: bytes, end: int = 0, time: int = 0) -> bytes:
    """A WAL message, put together by the other modules of the wire layer."""
    if payload is DESIGN_2009:
        return copy_data(wal_payload_header(start) + wal)
    return copy_data(wal_data_header(start, end, time) + wal)


def read(reader: StreamReader, pieces: Sequence[bytes]) -> tuple[bytes, list[Frame]]:
    """What *pieces* hold: the WAL, whose positions are checked to follow each other, and the rest.

    Each piece is overwritten once it was read, as a buffer that is used again is.
    """
    wal, frames = bytearray(), []
    for piece in pieces:
        buffer = bytearray(piece)
        for event in reader.events(memoryview(buffer)):
            if isinstance(event, Frame):
                frames.append(event)
            else:
                position, data = event
                assert position == START + len(wal), f"{position:X} does not follow"
                wal += data
        buffer[:] = b"\xee" * len(buffer)
    return bytes(wal), frames


def violation(payload: WALPayload, data: bytes) -> str:
    """What a reader complains of when it reads *data*; it must not matter how it is cut."""
    complaints = set()
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        try:
            read(StreamReader(payload), pieces)
        except ProtocolViolation as error:
            complaints.add(str(error))
        else:
            complaints.add("nothing")
    (complaint,) = complaints
    return complaint


class StreamReaderTests(SynchronousTestCase):
    """`StreamReader`, in whatever segmentation a stream arrives."""

    wal = bytes(range(200))
    streams = (
        (
            MODERN,
            message(MODERN, START, wal[:60], START + 500, 1)
            + KEEPALIVE
            + message(MODERN, START + 60, wal[60:61], START + 500, 2)
            + STATUS
            + message(MODERN, START + 61, b"", START + 500, 3)
            + message(MODERN, START + 61, wal[61:], START + 600, 4),
        ),
        (
            DESIGN_2009,
            message(DESIGN_2009, START, wal[:60])
            + message(DESIGN_2009, START + 60, wal[60:61])
            + STATUS
            + message(DESIGN_2009, START + 61, b"")
            + message(DESIGN_2009, START + 61, wal[61:]),
        ),
    )
    others = {
        MODERN: [Frame(ord("d"), KEEPALIVE[5:]), Frame(ord("S"), STATUS[5:])],
        DESIGN_2009: [Frame(ord("S"), STATUS[5:])],
    }

    def test_one_read(self) -> None:
        """A stream that comes in one read gives its WAL and its other messages."""
        for payload, stream in self.streams:
            result = read(StreamReader(payload), [stream])
            self.assertEqual(result, (self.wal, self.others[payload]), payload)

    def test_any_cut(self) -> None:
        """A stream cut in two at any index gives the same."""
        for payload, stream in self.streams:
            for index in range(len(stream) + 1):
                result = read(StreamReader(payload), [stream[:index], stream[index:]])
                self.assertEqual(result, (self.wal, self.others[payload]), (payload, index))

    def test_single_bytes(self) -> None:
        """A stream that comes byte by byte gives the same."""
        for payload, stream in self.streams:
            pieces = [stream[index : index + 1] for index in range(len(stream))]
            result = read(StreamReader(payload), pieces)
            self.assertEqual(result, (self.wal, self.others[payload]), payload)

    @settings(max_examples=100, deadline=None)
    @given(cuts=st.lists(st.integers(0, 600), max_size=12), modern=st.booleans())
    def test_many_cuts(self, cuts: list[int], modern: bool) -> None:
        """A stream cut into any pieces, empty ones included, gives the same."""
        payload, stream = self.streams[0 if modern else 1]
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        pieces = [stream[start:end] for start, end in pairwise(edges)]
        result = read(StreamReader(payload), pieces)
        self.assertEqual(result, (self.wal, self.others[payload]))

    def test_wal_is_a_view_of_what_was_read(self) -> None:
        """WAL of a large message leaves piece by piece as it arrives, uncopied but for the page
        that the end of a read has cut in two.
        """
        start = START - START % PAGE_SIZE + 100
        stream = message(MODERN, start, bytes(100_000))
        buffer = memoryview(stream)
        reader = StreamReader(MODERN)
        pieces = []
        for begin in range(0, len(stream), 40_000):
            for event in reader.events(buffer[begin : begin + 40_000]):
                assert not isinstance(event, Frame)
                pieces.append((len(event[1]), event[1].obj is stream))
        first = 4 * PAGE_SIZE - 100
        page, pages = (PAGE_SIZE, False), (4 * PAGE_SIZE, True)
        rest = 100_000 - first - 6 * PAGE_SIZE
        self.assertEqual(pieces, [(first, True), page, pages, page, (rest, True)])

    def test_ends_no_piece_within_a_page(self) -> None:
        """Wherever a read is cut, a piece ends with its message or with a page."""
        start = START - START % PAGE_SIZE + 8000
        one, two = bytes(3 * PAGE_SIZE - 50), bytes(300)
        for payload in (MODERN, DESIGN_2009):
            middle = start + len(one)
            stream = message(payload, start, one) + message(payload, middle, two)
            messages = {middle, middle + len(two)}
            for index in (*range(0, 500), *range(8000, 9000), *range(24_000, len(stream))):
                reader, ends = StreamReader(payload), []
                for data in (stream[:index], stream[index:]):
                    for event in reader.events(memoryview(data)):
                        assert not isinstance(event, Frame)
                        ends.append(event[0] + len(event[1]))
                within = [end for end in ends if end % PAGE_SIZE and end not in messages]
                self.assertEqual((within, ends[-1]), ([], middle + len(two)), f"cut at {index}")

    def test_keeps_less_than_a_page(self) -> None:
        """Of WAL no more is held between reads than what a page has less than its end."""
        start = START - START % PAGE_SIZE
        reader = StreamReader(MODERN)
        events = list(reader.events(memoryview(message(MODERN, start, bytes(100_000))[:-1])))
        sizes = [len(event[1]) for event in events if not isinstance(event, Frame)]
        self.assertEqual(sizes, [12 * PAGE_SIZE])
        self.assertEqual(reader.take_rest(), b"")

    def test_tells_the_servers_end_and_time(self) -> None:
        """The last WAL message's `walEnd` and time are known as soon as its head is there."""
        reader = StreamReader(MODERN)
        self.assertEqual((reader.server_end, reader.send_time), (0, 0))
        read(reader, [message(MODERN, START, b"abc", START + 9, -5)[:30]])
        self.assertEqual((reader.server_end, reader.send_time), (START + 9, -5))

    def test_2009_tells_no_end(self) -> None:
        """The design of 2009 has neither, and the reader says 0."""
        reader = StreamReader(DESIGN_2009)
        read(reader, [message(DESIGN_2009, START, b"abc")])
        self.assertEqual((reader.server_end, reader.send_time), (0, 0))

    def test_2009_payload_has_no_types(self) -> None:
        """A position whose first byte is that of a keepalive is a position in 2009."""
        start = ord("k") << 56
        reader = StreamReader(DESIGN_2009)
        (event,) = reader.events(memoryview(message(DESIGN_2009, start, b"abc")))
        self.assertEqual(event, (start, b"abc"))

    def test_positions_reach_the_last_one(self) -> None:
        """Positions are unsigned 64-bit numbers."""
        for payload in (MODERN, DESIGN_2009):
            reader = StreamReader(payload)
            (event,) = reader.events(memoryview(message(payload, 2**64 - 1, b"a", 2**64 - 1)))
            self.assertEqual(event, (2**64 - 1, b"a"))


class ModeSwitchTests(SynchronousTestCase):
    """`StreamReader.take_rest`, when a stream is over."""

    def test_gives_what_follows_the_last_event(self) -> None:
        """Whoever stops at CopyDone gets everything behind it, wherever the read was cut."""
        before = message(MODERN, START, b"abcdef")
        behind = command_complete("START_REPLICATION") + b"Z"
        stream = before + copy_done() + behind
        for index in range(len(stream) + 1):
            reader = StreamReader(MODERN)
            rest = self._rest_behind_copy_done(reader, stream[:index], stream[index:])
            self.assertEqual(rest, behind, f"cut at {index}")

    def _rest_behind_copy_done(self, reader: StreamReader, first: bytes, second: bytes) -> bytes:
        for event in reader.events(memoryview(first)):
            if isinstance(event, Frame):
                return reader.take_rest() + second
        for event in reader.events(memoryview(second)):
            if isinstance(event, Frame):
                return reader.take_rest()
        return b"no CopyDone"

    def test_gives_a_head_that_was_cut_off(self) -> None:
        """The beginning of a message is given back as it came."""
        for index in range(1, 30):
            reader = StreamReader(MODERN)
            begun = message(MODERN, START, b"abc")[:index]
            read(reader, [begun])
            self.assertEqual(reader.take_rest(), begun)

    def test_gives_it_once(self) -> None:
        """What was taken is not there a second time."""
        reader = StreamReader(MODERN)
        read(reader, [b"d\0\0"])
        reader.take_rest()
        self.assertEqual(reader.take_rest(), b"")

    def test_rest_survives_the_buffer(self) -> None:
        """The rest is a copy: the buffer that it came in is used again."""
        buffer = bytearray(copy_done() + b"Z")
        reader = StreamReader(MODERN)
        next(reader.events(memoryview(buffer)))
        rest = reader.take_rest()
        buffer[:] = bytes(len(buffer))
        self.assertEqual(rest, b"Z")


class ImpossibleLengthTests(SynchronousTestCase):
    """Lengths that no message can have are found before anything is waited for."""

    def test_length_without_itself(self) -> None:
        """A length of less than 4, of any type, breaks the protocol."""
        for kind in b"dcEZ":
            for length in range(4):
                header = bytes([kind]) + length.to_bytes(4, "big")
                for payload in (MODERN, DESIGN_2009):
                    self.assertEqual(
                        violation(payload, header),
                        f"message of type {chr(kind)!r} with impossible length {length}",
                    )

    def test_empty_copy_data(self) -> None:
        """CopyData without a type byte breaks the protocol; in 2009 it lacks its position."""
        self.assertEqual(
            violation(MODERN, copy_data(b"")), "empty CopyData message in a replication stream"
        )
        self.assertEqual(
            violation(DESIGN_2009, copy_data(b"")),
            "WAL message of 4 bytes is too short for its header",
        )

    def test_wal_message_without_its_header(self) -> None:
        """A WAL message must hold its header, but need not hold WAL."""
        for size in range(25):
            data = copy_data((b"w" + bytes(24))[: max(size, 1)])
            self.assertIn("too short for its header", violation(MODERN, data), size)
        for size in range(8):
            self.assertIn(
                "too short for its header", violation(DESIGN_2009, copy_data(bytes(size)))
            )
        self.assertEqual(violation(MODERN, copy_data(b"w" + bytes(24))), "nothing")
        self.assertEqual(violation(DESIGN_2009, copy_data(bytes(8))), "nothing")

    def test_huge_wal_message(self) -> None:
        """WAL messages may be as long as PostgreSQL's clients take, which costs no memory here."""
        longest = (1 << 30) + 3
        for payload, head in ((MODERN, b"w"), (DESIGN_2009, b"")):
            possible = b"d" + longest.to_bytes(4, "big") + head
            impossible = b"d" + (longest + 1).to_bytes(4, "big") + head
            self.assertEqual(violation(payload, possible), "nothing")
            self.assertIn("impossible length", violation(payload, impossible))

    def test_huge_keepalive(self) -> None:
        """CopyData that is not WAL is held whole, so it must be short."""
        self.assertIn(
            "impossible length", violation(MODERN, b"d" + (30_001).to_bytes(4, "big") + b"k")
        )
        self.assertEqual(violation(MODERN, b"d" + (30_000).to_bytes(4, "big") + b"k"), "nothing")

    def test_other_messages_have_the_limits_of_their_types(self) -> None:
        """An ErrorResponse may be long, a CommandComplete may not."""
        header = (60_000).to_bytes(4, "big")
        self.assertEqual(violation(MODERN, b"E" + header), "nothing")
        self.assertIn("impossible length 60000", violation(MODERN, b"C" + header))

    def test_frames_before_the_violation_are_given(self) -> None:
        """What is before the impossible length was good, and is given."""
        events = StreamReader(MODERN).events(
            memoryview(message(MODERN, START, b"abc") + b"d" + bytes(4))
        )
        self.assertEqual(next(events), (START, b"abc"))
        self.assertRaises(ProtocolViolation, next, events)


class WALMessageHeadTests(SynchronousTestCase):
    """`wal_message_head`."""

    def test_modern(self) -> None:
        """Before the WAL stand type, length, ``w``, position, end and time."""
        head = wal_message_head(MODERN, 0x0123456789ABCDEF, 131072, 0x1123456789ABCDEF, -2)
        self.assertEqual(
            head,
            bytes.fromhex("64 0002001D 77 0123456789ABCDEF 1123456789ABCDEF FFFFFFFFFFFFFFFE"),
        )

    def test_2009(self) -> None:
        """Before the WAL stand type, length and position."""
        head = wal_message_head(DESIGN_2009, 0x0123456789ABCDEF, 131072, 5, 6)
        self.assertEqual(head, bytes.fromhex("64 0002000C 0123456789ABCDEF"))

    def test_is_what_the_other_modules_build(self) -> None:
        """Head and WAL are the CopyData message that the wire layer builds as a whole."""
        for payload in (MODERN, DESIGN_2009):
            for wal in (b"", b"a", bytes(300)):
                self.assertEqual(
                    wal_message_head(payload, START, len(wal), 7, 8) + wal,
                    message(payload, START, wal, 7, 8),
                )

    def test_reader_reads_it(self) -> None:
        """What is written by the one is read by the other."""
        for payload in (MODERN, DESIGN_2009):
            stream = wal_message_head(payload, START, 3, 7, 8) + b"abc" + frame(b"c")
            self.assertEqual(
                read(StreamReader(payload), [stream]), (b"abc", [Frame(ord("c"), b"")])
            )
