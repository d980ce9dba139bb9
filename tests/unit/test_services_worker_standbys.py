"""Tests for walstream.services.worker_standbys: what becomes of clients, as lines."""

from __future__ import annotations

import json
from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.lag import Lags
from walstream.protocols.standbys import Standby, StandbyState
from walstream.services.worker_standbys import (
    pack_sent,
    pack_standby,
    sent_values,
    standby_values,
)
from walstream.wire.copydata import HotStandbyFeedback

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


class StandbyLinesTests(SynchronousTestCase):
    """They are the same on the other side, or nothing."""

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

    def test_what_no_standby_has(self) -> None:
        """Is refused, attribute by attribute: the main process reports by them."""
        good = json.loads(pack_standby(STANDBY))
        wrong: dict[str, list[object]] = {
            "pid": [None, -1, 1.5, "7", True],
            "user": [None, 7],
            "application_name": [None, []],
            "address": ["127.0.0.1", [], ["127.0.0.1"], [1, 2], ["a", "b"], {}],
            "connected": [None, "now", float("nan")],
            "state": ["flying", None, []],
            "slot": [1, {}],
            "timeline": [-1, None],
            "sent": [1 << 64, None],
            "write": [0.5],
            "flush": ["0/0", -1],
            "apply": [None],
            "lags": [None, [], [0, 0], [0, 0, "x"], [0, 0, float("inf")]],
            "replied": ["x", []],
            "reply_time": ["x", float("-inf")],
            "feedback": [[], [1, 2, 3, 4], [1, -2, 3, 4, 5], [None, 2, 3, 4, 5], "12345"],
        }
        self.assertEqual(wrong.keys(), good.keys())
        for name, values in wrong.items():
            for value in values:
                data = json.dumps({**good, name: value}).encode()
                self.assertRaises(ValueError, standby_values, data)
            rest = {each: good[each] for each in good if each != name}
            self.assertRaises(ValueError, standby_values, json.dumps(rest).encode())
        for data in (b"", b"[]", b"7", json.dumps({**good, "more": 1}).encode(), b"\xff"):
            self.assertRaises(ValueError, standby_values, data)

    def test_sent(self) -> None:
        """How far, and for whom."""
        self.assertEqual(sent_values(pack_sent(STANDBY)), (7, 400))
        for data in (b"", b"7", b"7 -1", b"-7 1", b"7 1 1", b"7 x", b"7 18446744073709551616"):
            self.assertRaises(ValueError, sent_values, data)
