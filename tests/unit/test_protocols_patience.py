"""A peer that owes something is waited for, but not for ever."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import START, STARTUP, SenderCase, kinds, status
from walstream.formats.lsn import LSN
from walstream.protocols.patience import Patience
from walstream.wire.messages import query
from walstream.wire.startup import startup_message


class PatienceTests(SynchronousTestCase):
    """One thing at a time is waited for."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.given_up: list[str] = []
        self.patience = Patience(self.clock, 10, self.given_up.append)

    def test_what_is_owed_for_too_long(self) -> None:
        """The time is not that of the last byte, but of the first."""
        self.patience.wait_for("a message")
        self.clock.advance(9)
        self.patience.wait_for("a message")
        self.assertEqual(self.given_up, [])
        self.clock.advance(1)
        self.assertEqual(self.given_up, ["a message took longer than 10 s"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_came(self) -> None:
        """Whatever comes whole begins the time of the next."""
        self.patience.wait_for("a message")
        self.clock.advance(9)
        self.patience.wait_for("a message", anew=True)
        self.clock.advance(9)
        self.patience.wait_for(None)
        self.clock.advance(100)
        self.assertEqual(self.given_up, [])

    def test_another_thing(self) -> None:
        """It has a time of its own."""
        self.patience.wait_for("a message")
        self.clock.advance(9)
        self.patience.wait_for("reading an answer")
        self.clock.advance(9)
        self.assertEqual(self.given_up, [])
        self.patience.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_for_ever(self) -> None:
        """No timeout, no timer."""
        Patience(self.clock, 0, self.given_up.append).wait_for("a message")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SlowClientTests(SenderCase):
    """Clients that begin and do not end, or ask and do not read."""

    def drip(self, data: bytes, seconds: float = 1.0) -> int:
        """A client sends a byte each second; how many it got rid of before it was cut off."""
        for sent in range(len(data)):
            if not self.transport.connected:
                return sent
            self.transport.deliver(data[sent : sent + 1])
            self.clock.advance(seconds)
        return len(data)

    def test_a_byte_a_second_of_a_startup_packet(self) -> None:
        """It has to be in within a minute, however it hurries."""
        self.connect()
        packet = startup_message({**STARTUP, "options": "-c x=" + "y" * 100})
        self.assertLess(self.drip(packet), 61)

    def test_a_byte_a_second_of_a_query(self) -> None:
        """The whole of it has to come within a minute."""
        self.log_in()
        self.assertEqual(self.drip(query("SHOW " + "x" * 100)), 60)
        self.assertIn("a message took longer than 60 s", self.session.close_reason)

    def test_a_byte_a_second_of_copy_data(self) -> None:
        """In a stream as well, whatever the client's timeout."""
        self.log_in(options="-c wal_sender_timeout=0")
        self.ask(f"START_REPLICATION {LSN(START)}")
        self.assertEqual(self.drip(status(START), 2), 30)
        self.assertIn("a message took longer than 60 s", self.session.close_reason)

    def test_slow_but_whole(self) -> None:
        """Who takes half a minute for each message may go on."""
        self.log_in()
        self.assertEqual(self.drip(query("SHOW wal_level") * 10), 200)
        self.assertEqual(kinds(self.hear()), "TDCZ" * 10)

    def test_one_that_never_reads(self) -> None:
        """Answers wait for it in a bounded buffer, and not for ever."""
        self.log_in()
        self.transport.deliver(query("SHOW ALL") * 1000)
        self.assertLess(len(self.transport.unread), 70_000)
        self.clock.advance(59)
        self.assertTrue(self.transport.connected)
        self.clock.advance(1)
        self.assertEqual(self.transport.peer_saw, "reset")
        self.assertIn("reading an answer took longer", self.session.close_reason)

    def test_one_that_reads_in_time(self) -> None:
        """It gets all."""
        self.log_in()
        self.transport.deliver(query("SHOW ALL") * 100)
        heard = b""
        while piece := self.transport.take(20_000):
            self.clock.advance(12)
            heard += piece
        heard += self.hear()
        self.assertEqual(kinds(heard).count("Z"), 100)

    def test_idle(self) -> None:
        """Who owes nothing may stay: PostgreSQL's idle_session_timeout is off as well."""
        self.log_in()
        self.clock.advance(100_000)
        self.assertTrue(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])
