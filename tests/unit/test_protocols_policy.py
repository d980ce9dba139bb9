"""Tests for walstream.protocols.policy: for which standbys a report waits."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.synchronous_standby_names import StandbyMethod, SynchronousStandbyNames
from walstream.protocols.policy import LOCAL, Election, ReportedPosition, ReportRules, parse_rule
from walstream.protocols.standbys import Standby, Standbys, StandbyState

TIMELINE = 3


def standby(
    pid: int,
    name: str,
    flush: int = 0,
    *,
    write: int | None = None,
    apply: int | None = None,
    state: StandbyState = StandbyState.STREAMING,
    timeline: int = TIMELINE,
) -> Standby:
    """A client that has reported this; written and applied what is durable, unless told."""
    return Standby(
        pid,
        "u",
        name,
        None,
        0.0,
        state=state,
        timeline=timeline,
        flush=flush,
        write=flush if write is None else write,
        apply=flush if apply is None else apply,
    )


def elect(
    rule: str, *standbys: Standby, position: ReportedPosition = ReportedPosition.FLUSH
) -> Election:
    """An election among these."""
    election = Election(SynchronousStandbyNames.parse(rule), position)
    election.restart(TIMELINE, standbys)
    return election


def by_the_book(
    rule: SynchronousStandbyNames, position: ReportedPosition, standbys: list[Standby]
) -> int:
    """SyncRepGetSyncRecPtr, as it is written in syncrep.c."""
    candidates = []
    for each in standbys:
        if each.state not in (StandbyState.STREAMING, StandbyState.STOPPING):
            continue
        if each.timeline != TIMELINE or not rule.priority(each.application_name):
            continue
        if each.flush:
            candidates.append((rule.priority(each.application_name), each.pid, each))
    candidates.sort()
    if len(candidates) < rule.number:
        return 0
    if rule.method is StandbyMethod.FIRST:
        return min(position.of(each) for *_, each in candidates[: rule.number])
    return sorted((position.of(each) for *_, each in candidates), reverse=True)[rule.number - 1]


class RuleTests(SynchronousTestCase):
    """What an option's value means."""

    def test_local(self) -> None:
        """No standby is waited for."""
        self.assertEqual([parse_rule(text) for text in ("local", " LOCAL ")], [None, None])
        self.assertFalse(LOCAL)

    def test_names(self) -> None:
        """Everything that synchronous_standby_names may be, as PostgreSQL means it."""
        for text, meaning in (
            ("ANY 2 (a, b, c)", "ANY 2 (a, b, c)"),
            ("a, b", "FIRST 1 (a, b)"),
            ("2 (a, b)", "FIRST 2 (a, b)"),
            ("*", "FIRST 1 (*)"),
            ('"local"', "FIRST 1 (local)"),
        ):
            self.assertEqual(str(parse_rule(text)), meaning)
        self.assertTrue(ReportRules(apply=parse_rule("a")))

    def test_no_names(self) -> None:
        """An empty list is no way to say local, and what PostgreSQL refuses is refused."""
        for text in ("", "ANY (a)", "FIRST 0 (a)"):
            self.assertRaises(FormatError, parse_rule, text)


class FirstTests(SynchronousTestCase):
    """By priority."""

    def test_the_first_that_is_there(self) -> None:
        """Its position counts, whatever the others have."""
        a, b = standby(1, "a", 10), standby(2, "b", 20)
        election = elect("FIRST 1 (a, b)", b, a)
        self.assertEqual(election.value, 10)
        self.assertEqual([election.state_of(each) for each in (a, b)], ["sync", "potential"])
        self.assertEqual([election.priority_of(each) for each in (a, b)], [1, 2])

    def test_the_next_takes_over(self) -> None:
        """At once when the first goes, and back when it is there again, even if it has less."""
        a, b = standby(1, "a", 10), standby(2, "b", 20)
        election = elect("a, b", a, b)
        self.assertTrue(election.left(a))
        self.assertEqual((election.value, election.state_of(b)), (20, "sync"))
        again = standby(3, "A", 15, state=StandbyState.CATCHUP)
        self.assertFalse(election.changed(again))
        self.assertEqual(election.state_of(again), "potential")
        again.state = StandbyState.STREAMING
        self.assertTrue(election.changed(again))
        self.assertEqual(election.value, 15)

    def test_the_least_of_them(self) -> None:
        """Of all that are wanted."""
        election = elect("FIRST 2 (a, b, c)", standby(1, "c", 1), standby(2, "b", 30))
        self.assertEqual(election.value, 1)
        election.changed(standby(3, "a", 20))
        self.assertEqual(election.value, 20)

    def test_clients_of_one_name(self) -> None:
        """Each counts; the one that came first before the other."""
        one, two = standby(1, "a", 10), standby(2, "a", 20)
        self.assertEqual(elect("FIRST 2 (a)", one, two).value, 10)
        election = elect("FIRST 1 (a)", two, one)
        self.assertEqual(election.value, 10)
        election.left(one)
        self.assertEqual(election.value, 20)


class AnyTests(SynchronousTestCase):
    """By quorum."""

    def test_the_latest_but_so_many(self) -> None:
        """As many as are wanted have it."""
        several = [standby(1, "a", 10), standby(2, "b", 30), standby(3, "c", 20)]
        for number, value in ((1, 30), (2, 20), (3, 10), (4, 0)):
            election = elect(f"ANY {number} (a, b, c)", *several)
            self.assertEqual((election.value, election.is_met), (value, value > 0))
        self.assertEqual([election.state_of(each) for each in several], ["quorum"] * 3)
        self.assertEqual([election.priority_of(each) for each in several], [1] * 3)

    def test_everybody(self) -> None:
        """An asterisk means every client, of whatever name."""
        self.assertEqual(elect("ANY 2 (*)", standby(1, "", 10), standby(2, "x", 20)).value, 10)


class CountingTests(SynchronousTestCase):
    """Whose word counts at all."""

    def test_who_counts(self) -> None:
        """Only who is named, streams our timeline, and reports what is durable."""
        for each in (
            standby(1, "b", 10),
            standby(1, "a", 10, state=StandbyState.STARTUP),
            standby(1, "a", 10, state=StandbyState.CATCHUP),
            standby(1, "a", 10, timeline=TIMELINE - 1),
            standby(1, "a", 0, write=10, apply=10),
        ):
            for position in ReportedPosition:
                self.assertFalse(elect("a", each, position=position).is_met, each)
        leaving = standby(1, "a", 10, state=StandbyState.STOPPING)
        self.assertTrue(elect("a", leaving).is_met)

    def test_which_position(self) -> None:
        """Each rule is about one of the three."""
        each = standby(1, "a", 20, write=30, apply=10)
        values = [elect("a", each, position=position).value for position in ReportedPosition]
        self.assertEqual(values, [30, 20, 10])

    def test_a_position_that_is_not_reported(self) -> None:
        """Who applies nothing is waited for in vain, as by PostgreSQL, and is named."""
        each = standby(1, "a", 20, apply=0)
        election = elect("a", each, position=ReportedPosition.APPLY)
        self.assertFalse(election.is_met)
        self.assertEqual(election.missing([each]), ["a (reports no apply position)"])

    def test_who_is_missing(self) -> None:
        """By name, and why, if it is there."""
        several = [
            standby(1, "b", 10, state=StandbyState.CATCHUP),
            standby(2, "c", 0),
            standby(3, "d", 10, timeline=2),
            standby(4, "e", 10),
            standby(5, "e", 10, state=StandbyState.CATCHUP),
        ]
        self.assertEqual(
            elect("a, b, c, d, e", *several).missing(several),
            ["a", "b (catchup)", "c (reports no flush position)", "d (on timeline 2)"],
        )

    def test_another_timeline(self) -> None:
        """After a promotion nobody counts who has not followed."""
        each = standby(1, "a", 10)
        election = elect("a", each)
        election.restart(TIMELINE + 1, [each])
        self.assertFalse(election.is_met)
        each.timeline = TIMELINE + 1
        election.changed(each)
        self.assertTrue(election.is_met)

    def test_a_stream_that_is_over(self) -> None:
        """What was reported in it does not count any more."""
        each = standby(1, "a", 10)
        election = elect("a", each)
        each.no_longer_streams()
        self.assertTrue(election.changed(each))
        self.assertFalse(election.is_met)


class BookTests(SynchronousTestCase):
    """Against PostgreSQL's algorithm, through any course of events."""

    def test_any_course(self) -> None:
        """The value is what PostgreSQL would compute, after every event."""
        for seed in range(60):
            self.play(random.Random(seed))

    def play(self, chance: random.Random) -> None:
        method, number = chance.choice(["FIRST", "ANY"]), chance.randint(1, 4)
        names = chance.sample(["a", "b", "c", "*"], chance.randint(1, 4))
        rule = SynchronousStandbyNames.parse(f"{method} {number} ({', '.join(names)})")
        position = chance.choice(list(ReportedPosition))
        standbys, there = Standbys(), dict[int, Standby]()
        election = Election(rule, position)
        election.restart(TIMELINE, standbys)
        for pid in range(150):
            if chance.random() < 0.1 and there:
                gone = there.pop(chance.choice(list(there)))
                before = election.value
                moved = election.left(gone)
            else:
                if chance.random() < 0.2 or not there:
                    there[pid] = standby(pid, chance.choice(["A", "b", "c", "d"]))
                each = there[chance.choice(list(there))]
                self.change(each, chance)
                before = election.value
                moved = election.changed(each)
            expected = by_the_book(rule, position, list(there.values()))
            self.assertEqual(election.value, expected, rule)
            self.assertEqual(moved, before != expected)

    def change(self, each: Standby, chance: random.Random) -> None:
        if chance.random() < 0.2:
            each.state = chance.choice(list(StandbyState))
            each.timeline = chance.choice([TIMELINE, TIMELINE, TIMELINE - 1])
            each.flush = chance.choice([0, each.flush])
            return
        each.write += chance.randint(0, 5)
        each.flush, each.apply = chance.randint(0, each.write), chance.randint(0, each.write)
