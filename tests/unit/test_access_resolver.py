"""Tests for walstream.access.resolver: names of hosts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.access.resolver import HostNames, host_names

ADDRESS = ip_address("192.0.2.7")


class SlowLane:
    """Takes jobs, and does them when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, job: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((job, done))
        return done

    def work(self) -> None:
        """Do what there is."""
        while self.jobs:
            job, done = self.jobs.pop(0)
            try:
                result = job()
            except Exception as error:
                done.errback(error)
            else:
                done.callback(result)


class HostNamesTests(SynchronousTestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lane = SlowLane()
        self.asked: list[str] = []
        self.answer: tuple[str, ...] | Exception = ("db.example.org",)
        self.names = HostNames(self.lane, self.clock, ask=self.ask)

    def ask(self, address: str) -> Sequence[str]:
        self.asked.append(address)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def test_answer(self) -> None:
        """It is remembered for a while."""
        found = self.names.of(ADDRESS)
        self.assertNoResult(found)
        self.lane.work()
        self.assertEqual(self.successResultOf(found), ("db.example.org",))
        self.clock.advance(29)
        self.assertEqual(self.successResultOf(self.names.of(ADDRESS)), ("db.example.org",))
        self.clock.advance(2)
        self.assertNoResult(self.names.of(ADDRESS))
        self.lane.work()
        self.assertEqual(self.asked, ["192.0.2.7"] * 2)
        self.clock.advance(5)

    def test_one_question_for_many(self) -> None:
        """Who asks the same meanwhile waits for the same answer."""
        found = [self.names.of(ADDRESS) for _ in range(3)]
        self.assertEqual(len(self.lane.jobs), 1)
        self.lane.work()
        for each in found:
            self.assertEqual(self.successResultOf(each), ("db.example.org",))

    def test_no_answer_in_time(self) -> None:
        """No name; the late answer is for those who ask later."""
        found = self.names.of(ADDRESS)
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(found), ())
        later = self.names.of(ADDRESS)
        self.assertEqual(len(self.lane.jobs), 1)
        self.lane.work()
        self.assertEqual(self.successResultOf(later), ("db.example.org",))

    def test_who_is_gone(self) -> None:
        """Is told nothing."""
        found = self.names.of(ADDRESS)
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.lane.work()

    def test_a_fault(self) -> None:
        """Is no name."""
        self.answer = RuntimeError("a fault")
        found = self.names.of(ADDRESS)
        self.lane.work()
        self.assertEqual(self.successResultOf(found), ())

    def test_bounded(self) -> None:
        """So many answers are kept, and so many questions asked at a time."""
        for number in range(1200):
            self.names.of(ip_address(number))
            self.lane.work()
        self.assertEqual(len(self.names._known), 1000)
        found = [self.names.of(ip_address(10_000 + number)) for number in range(250)]
        self.assertEqual(len(self.lane.jobs), 200)
        self.assertEqual(self.successResultOf(found[-1]), ())
        self.lane.work()
        self.assertEqual(len(self.asked), 1400)


class LookUpTests(SynchronousTestCase):
    """`host_names`, with a system of the test's."""

    def look_up(self, name: object, addresses: Sequence[str]) -> Sequence[str]:
        def forward(wanted: str, *_: object, **__: object) -> list[tuple[object, ...]]:
            if wanted != name:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return [(0, 0, 0, "", (address, 0)) for address in addresses]

        def reverse(place: tuple[str, int], flags: int) -> tuple[str, str]:
            self.assertEqual(flags, socket.NI_NAMEREQD)
            if not isinstance(name, str):
                raise socket.gaierror(socket.EAI_NONAME, "no name")
            return name, "0"

        self.patch(socket, "getaddrinfo", forward)
        self.patch(socket, "getnameinfo", reverse)
        return host_names("192.0.2.7")

    def test_both_ways(self) -> None:
        """A name counts if it leads back."""
        self.assertEqual(self.look_up("db", ["192.0.2.9", "192.0.2.7"]), ("db",))
        self.assertEqual(self.look_up("db", ["192.0.2.9"]), ())
        self.assertEqual(self.look_up("db", []), ())
        self.assertEqual(self.look_up(None, []), ())

    def test_a_way_back_that_is_none(self) -> None:
        """A name that does not exist is nobody's."""

        def nothing(*_: object, **__: object) -> list[object]:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")

        self.look_up("db", [])
        self.patch(socket, "getaddrinfo", nothing)
        self.assertEqual(host_names("192.0.2.7"), ())
