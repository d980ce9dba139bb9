"""Tests for walstream.protocols.standbys: the clients of a sender as others see them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import COPY_DONE, NOW, PID, START, SenderCase, status, wal
from walstream.protocols.standbys import Standby, Standbys, StandbyState
from walstream.wire.copydata import HotStandbyFeedback
from walstream.wire.messages import copy_data


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def standby_changed(self, standby: Standby) -> None:
        self.heard.append(standby.state)

    def standby_left(self, standby: Standby) -> None:
        self.heard.append("left")


class StandbysTests(SynchronousTestCase):
    """The collection."""

    def test_collection(self) -> None:
        """They are there from their first change until they leave, in that order."""
        standbys = Standbys()
        standbys.watch(watcher := Watcher())
        one, two = (Standby(pid, "u", f"s{pid}", None, NOW) for pid in (2, 1))
        standbys.changed(one)
        standbys.changed(two)
        standbys.changed(one)
        self.assertEqual((list(standbys), len(standbys)), ([one, two], 2))
        standbys.left(one)
        standbys.left(one)
        self.assertEqual(list(standbys), [two])
        self.assertEqual(watcher.heard, [StandbyState.STARTUP] * 3 + ["left"])


class SessionTests(SenderCase):
    """What a session shows of its client."""

    def setUp(self) -> None:
        super().setUp()
        self.standbys.watch(watcher := Watcher())
        self.heard = watcher.heard

    def test_who_was_not_let_in(self) -> None:
        """Nobody sees a client before it has said who it is."""
        self.connect()
        self.transport.peer_closed()
        self.assertEqual((list(self.standbys), self.heard), ([], []))

    def test_who_it_is(self) -> None:
        """What is known from its login."""
        self.log_in(application_name="s1")
        standby = self.standby()
        peer = self.transport.getPeer()
        self.assertEqual(
            (standby.pid, standby.user, standby.application_name, standby.connected),
            (PID, "postgres", "s1", NOW),
        )
        self.assertEqual(standby.address, (peer.host, peer.port))
        self.transport.peer_closed()
        self.assertEqual(self.heard, [StandbyState.STARTUP, "left"])

    def test_a_stream(self) -> None:
        """It catches up, streams, and after the stream nothing that it said counts any more."""
        self.stream()
        standby = self.standby()
        self.assertEqual(
            self.heard, [StandbyState.STARTUP, StandbyState.CATCHUP, StandbyState.STREAMING]
        )
        self.assertEqual((standby.timeline, standby.sent, standby.replied), (1, self.end, None))
        self.say(status(START + 3, START + 2, START + 1))
        self.say(copy_data(HotStandbyFeedback(9, 756, 0, 757, 1).pack()))
        self.assertEqual((standby.replied, standby.reply_time), (NOW, NOW))
        self.assertEqual(self.heard[3:], [StandbyState.STREAMING] * 2)
        self.say(COPY_DONE)
        self.assertEqual(self.heard[5:], [StandbyState.STARTUP])
        self.assertEqual((standby.flush, standby.feedback, standby.replied), (0, None, None))
        self.assertEqual((standby.timeline, standby.sent), (0, 0))

    def test_lags(self) -> None:
        """From when our end was there to its report of it, until its stream is over."""
        self.stream()
        self.clock.advance(2)
        end = self.provider.append(wal(self.end, 100))
        self.hear()
        self.clock.advance(1)
        self.say(status(end, end, self.end))
        self.assertEqual(self.standby().lags, (1, 1, 3))
        self.assertEqual(self.standbys.ends.passed(self.end), self.clock.seconds() - 1)
        self.say(COPY_DONE)
        self.assertEqual(self.standby().lags, (None, None, None))

    def test_look(self) -> None:
        """How far WAL was sent to a client that says nothing is known when it is looked at."""
        self.stream()
        end = self.provider.append(wal(self.end, 100))
        self.session.look()
        self.assertEqual(self.standby().sent, end)
        self.say(COPY_DONE)
        self.session.look()
        self.assertEqual(self.standby().sent, 0)

    def test_shut_down(self) -> None:
        """A stream that is being ended shows it."""
        self.stream()
        self.session.shut_down()
        self.assertEqual(self.standby().state, StandbyState.STOPPING)
