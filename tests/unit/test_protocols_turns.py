"""Tests for `walstream.protocols.turns`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.turns import Turns


class Reactor:
    """Has turns, as a `Clock` has not: what is to be done in the next one waits for it."""

    def __init__(self) -> None:
        self.next: list[Callable[[], object]] = []

    def callLater(self, delay: float, what: Callable[[], object]) -> None:
        assert delay == 0
        self.next.append(what)

    def turn(self) -> None:
        due, self.next = self.next, []
        for what in due:
            what()


class TurnsTests(SynchronousTestCase):
    """Three in a turn."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        clock: Any = self.reactor
        self.turns = Turns(3, clock)
        self.done: list[int] = []

    def ask(self, *numbers: int) -> None:
        for number in numbers:
            self.turns.ask(partial(self.done.append, number))

    def test_few(self) -> None:
        """They go on at once, each time."""
        for _ in range(3):
            self.ask(1, 2, 3)
            self.reactor.turn()
        self.assertEqual(self.done, [1, 2, 3] * 3)
        self.assertEqual(self.reactor.next, [])

    def test_many(self) -> None:
        """They wait for the next turn, in their order, also behind those that come later."""
        self.ask(*range(8))
        self.assertEqual(self.done, [0, 1, 2])
        self.assertEqual(len(self.turns), 5)
        self.reactor.turn()
        self.ask(8)
        self.assertEqual(self.done, list(range(6)))
        self.reactor.turn()
        self.assertEqual(self.done, list(range(9)))
        self.reactor.turn()
        self.assertEqual(self.reactor.next, [])

    def test_one_asks_again(self) -> None:
        """It is behind those who wait."""
        self.turns.ask(lambda: self.ask(1))
        self.ask(2, 3, 4, 5)
        self.assertEqual(self.done, [1, 2])
        self.reactor.turn()
        self.assertEqual(self.done, [1, 2, 3, 4, 5])

    def test_one_is_gone(self) -> None:
        """Its turn is the next one's; whoever had it already, or never wanted it, has none."""
        fifth = partial(self.done.append, 5)
        self.ask(1, 2, 3, 4)
        self.turns.ask(fifth)
        self.ask(6, 7)
        for _ in range(2):
            self.turns.forget(fifth)
        self.reactor.turn()
        self.assertEqual(self.done, [1, 2, 3, 4, 6, 7])

    def test_one_fails(self) -> None:
        """The others go on."""

        def fail() -> None:
            raise RuntimeError("for the test")

        self.ask(1, 2, 3, 4)
        self.turns.ask(fail)
        self.ask(5, 6)
        self.assertRaises(RuntimeError, self.reactor.turn)
        self.reactor.turn()
        self.assertEqual(self.done, [1, 2, 3, 4, 5, 6])
