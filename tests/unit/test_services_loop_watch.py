"""Tests for walstream.services.loop_watch."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream.protocols.standbys import Standby, Standbys, StandbyState
from walstream.services.loop_watch import LoopWatch

STANDBY = {"in_hot_standby": "on"}
PRIMARY = {"in_hot_standby": "off"}


class LoopWatchTests(SynchronousTestCase):
    """An upstream that may be one of those who stream from us."""

    def setUp(self) -> None:
        self.log = capture_log(self)
        self.standbys = Standbys()
        self.watch = LoopWatch(self.standbys)

    def stream_to(
        self, address: str | None, state: StandbyState = StandbyState.STREAMING
    ) -> Standby:
        """A client is there."""
        where = None if address is None else (address, 40000)
        standby = Standby(1, "postgres", "standby1", where, 0.0, state)
        self.standbys.changed(standby)
        return standby

    def test_one_that_is_there(self) -> None:
        """A standby on the machine of an upstream that is in recovery is told of."""
        self.stream_to("192.0.2.7")
        self.watch.connected("db2:5432", "192.0.2.7", STANDBY)
        (line,) = self.log
        self.assertIn("the upstream db2:5432 is a standby, and standby1", line)
        self.assertIn("target_session_attrs=read-write", line)

    def test_one_that_comes_later(self) -> None:
        """So is one that begins to stream later; and it is said once for each connection."""
        self.watch.connected("db2:5432", "192.0.2.7", STANDBY)
        standby = self.stream_to("192.0.2.7", StandbyState.STARTUP)
        self.assertEqual(self.log, [])
        standby.state = StandbyState.CATCHUP
        self.standbys.changed(standby)
        self.standbys.changed(standby)
        self.assertEqual(len(self.log), 1)
        self.watch.connected("db2:5432", "192.0.2.7", STANDBY)
        self.assertEqual(len(self.log), 2)

    def test_one_machine(self) -> None:
        """Loopback addresses and UNIX sockets are one machine; so are the two forms of IPv4."""
        for ours, theirs in (
            ("127.0.0.1", "::1"),
            (None, "127.0.0.2"),
            ("::1", None),
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ):
            self.stream_to(ours)
            self.watch.connected("db2:5432", theirs, STANDBY)
            self.assertEqual(len(self.log), 1, (ours, theirs))
            self.log.clear()

    def test_nothing_to_say(self) -> None:
        """A primary, another machine, no upstream: all is well."""
        self.stream_to("192.0.2.7")
        self.watch.connected("db1:5432", "192.0.2.7", PRIMARY)
        self.watch.connected("db1:5432", "192.0.2.7", {})
        self.watch.connected("db3:5432", "192.0.2.9", STANDBY)
        self.watch.disconnected()
        self.stream_to("192.0.2.9")
        self.assertEqual(self.log, [])

    def test_promoted_meanwhile(self) -> None:
        """An upstream that has become a primary makes no circle any more."""
        parameters = dict(STANDBY)
        self.watch.connected("db2:5432", "192.0.2.7", parameters)
        parameters.update(PRIMARY)
        self.stream_to("192.0.2.7")
        self.assertEqual(self.log, [])
