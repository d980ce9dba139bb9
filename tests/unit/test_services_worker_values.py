"""Tests for walstream.services.worker_values: what processes tell each other, as bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.services.worker_values import (
    Position,
    Refused,
    SlotValue,
    in_pieces,
)

HERE = WALPosition(3, LSN(0x1_8000_0028))


class ValuesTests(SynchronousTestCase):
    """They are the same on the other side."""

    def test_position(self) -> None:
        """A position."""
        self.assertEqual(Position().fromString(Position().toString(HERE)), HERE)

    def test_no_position(self) -> None:
        """Numbers that no position has."""
        for data in (b"", b"1", b"-1 5", b"1 -5", b"1 18446744073709551616", b"a b", b"1 2 3"):
            self.assertRaises(ValueError, Position().fromString, data)

    def test_slot(self) -> None:
        """A slot, with everything and with nothing."""
        for slot in (Slot("a", True, HERE, 7, "wal_removed"), Slot("b", False, None, None)):
            self.assertEqual(SlotValue().fromString(SlotValue().toString(slot)), slot)

    def test_refusal(self) -> None:
        """An error that a client is shown."""
        for error in (CommandError("55006", "in use", detail="d", hint="h"), CommandError("1", "")):
            sent = Refused(str(Refused.of(error))).error()
            self.assertEqual(vars(sent), vars(error))

    def test_pieces(self) -> None:
        """Lines are put together up to what AMP can carry, in order."""
        lines = [b"%d" % number * 5000 for number in range(10, 40)]
        pieces = list(in_pieces(lines))
        self.assertEqual(b"\n".join(pieces).split(b"\n"), lines)
        self.assertEqual([len(piece) < 1 << 16 for piece in pieces], [True] * 5)
        self.assertEqual(list(in_pieces([])), [])
