"""Tests for walstream.services.worker_values: what processes tell each other, as bytes."""

from __future__ import annotations

from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.protocols.lag import Lags
from walstream.protocols.standbys import Standby, StandbyState
from walstream.services.worker_values import (
    Position,
    Refused,
    SlotValue,
    in_pieces,
    pack_standby,
    standby_values,
)
from walstream.wire.copydata import HotStandbyFeedback

HERE = WALPosition(3, LSN(0x1_8000_0028))

# Every attribute has a value that it has not by itself.
STANDBY = Standby(
    7,
    "postgres",
    'name "with"\nanything \udc80',
    ("127.0.0.1", 40001),
    1_763_900_000.25,
    StandbyState.STREAMING,
    "slot",
    3,
    400,
    300,
    200,
    100,
    Lags(0.25, None, 1.5),
    1_763_900_001.5,
    1_763_900_002.5,
    HotStandbyFeedback(1, 2, 3, 4, 5),
)


class ValuesTests(SynchronousTestCase):
    """They are the same on the other side."""

    def test_standby(self) -> None:
        """All attributes arrive, and the test knows all of them."""
        plain = Standby(0, "", "", None, 0.0)
        names = [field.name for field in fields(Standby)]
        for name in names:
            self.assertNotEqual(getattr(STANDBY, name), getattr(plain, name), name)
        for standby in (STANDBY, plain):
            values = standby_values(pack_standby(standby))
            self.assertEqual(values, {name: getattr(standby, name) for name in names})

    def test_standby_is_a_line(self) -> None:
        """It has no newline, and fits however long its names are."""
        packed = pack_standby(Standby(1, "\n" * 5000, "\x01" * 5000, None, 0.0))
        self.assertNotIn(b"\n", packed)
        self.assertLess(len(packed), 1 << 16)

    def test_position(self) -> None:
        """A position."""
        self.assertEqual(Position().fromString(Position().toString(HERE)), HERE)

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
