"""Tests for walstream.protocols.status_line."""

from __future__ import annotations

from typing import ClassVar, Literal

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import NOW, messages, status
from walstream.interfaces import ReportLimits
from walstream.protocols.status_line import StatusLine
from walstream.testing.transport import FlowTransport


class LineCase(SynchronousTestCase):
    """A line over a connection in memory."""

    kind: ClassVar[Literal["tcp", "tls"]] = "tcp"
    direct: ClassVar[bool] = False

    def open(self, *, reports_flush: bool = True, reports_apply: bool = True) -> StatusLine:
        """Connect, and open a line."""
        self.transport = FlowTransport(self.kind, Clock())
        protocol = self.transport.connect(Protocol(), direct=self.direct)
        assert protocol.transport is not None
        self.line = StatusLine(
            protocol.transport,
            lambda: NOW,
            reports_flush=reports_flush,
            reports_apply=reports_apply,
        )
        self.addCleanup(self.line.close)
        return self.line

    def room(self, size: int) -> None:
        """From now on the peer has room for so many bytes more."""
        self.transport._wanted = size + len(self.transport._peer.plain)

    def taken(self) -> bytes:
        """What the peer reads until nothing more comes."""
        taken = b""
        while piece := self.transport.take():
            taken += piece
        return taken


class ReportTests(LineCase):
    """Reports of the reactor's thread."""

    def test_report(self) -> None:
        """What is durable counts as written, and as applied."""
        line = self.open()
        line.report(10, 0)
        line.report(20, 10, ask_for_reply=True)
        line.report(20, 30)
        self.assertEqual(
            self.taken(),
            status(10, 0, 0) + status(20, 10, 10, reply_requested=True) + status(30, 30, 30),
        )
        self.assertEqual(line.flushed, 30)

    def test_what_is_not_reported(self) -> None:
        """No flush position and no apply position, if they are not to be reported."""
        line = self.open(reports_flush=False)
        line.report(10, 10)
        self.assertEqual(line.flushed, 0)
        self.assertEqual(self.taken(), status(10, 0, 0))
        line = self.open(reports_apply=False)
        line.report(10, 10)
        self.assertEqual(self.taken(), status(10, 10, 0))

    def test_never_back(self) -> None:
        """A report with older positions, of a thread that was slower, has the newer ones."""
        line = self.open()
        line.report(20, 20)
        line.report(15, 10)
        self.assertEqual(self.taken(), 2 * status(20, 20, 20))

    def test_next_asks_for_a_reply(self) -> None:
        """The next report asks, whichever it is, and only that one."""
        line = self.open()
        line.asks_for_reply = True
        line.report(10, 10)
        line.report(10, 10)
        self.assertEqual(
            self.taken(), status(10, 10, 10, reply_requested=True) + status(10, 10, 10)
        )

    def test_at_once(self) -> None:
        """Without a socket to go to, nothing can be sent from another thread."""
        line = self.open()
        self.assertFalse(line.report_now(10, 10))
        self.assertFalse(line.has_unsent)
        self.assertEqual(self.taken(), b"")


class LimitTests(LineCase):
    """Positions that a policy holds back."""

    def test_the_least_of_both(self) -> None:
        """What is here, or what is allowed: whichever is less; applied only what is flushed."""
        for limits, expected in (
            (ReportLimits(), (30, 20, 20)),
            (ReportLimits(write=25), (25, 20, 20)),
            (ReportLimits(flush=15), (30, 15, 15)),
            (ReportLimits(apply=15), (30, 20, 15)),
            (ReportLimits(write=5, flush=90, apply=90), (5, 20, 20)),
            (ReportLimits(flush=0), (30, 0, 0)),
        ):
            line = self.open()
            line.limit(limits)
            line.report(30, 20)
            self.assertEqual(self.taken(), status(*expected))

    def test_what_was_reported_stays(self) -> None:
        """A limit that goes back takes nothing back."""
        line = self.open()
        line.report(30, 20)
        line.limit(ReportLimits(5, 5, 5))
        line.report(40, 40)
        self.assertEqual(self.taken(), status(30, 20, 20) * 2)

    def test_own_positions_are_remembered(self) -> None:
        """What another thread said while it was held back is told when it is not any more."""
        line = self.open()
        line.limit(ReportLimits(10, 10, 10))
        line.report_now(30, 30)
        line.limit(ReportLimits(30, 30, 30))
        line.report(20, 20)
        self.assertEqual(self.taken(), status(30, 30, 30))

    def test_news(self) -> None:
        """Whatever commits may wait for; what is only written, if others are waited for."""
        line = self.open()
        line.report(20, 10)
        self.assertFalse(line.has_news(30, 10))
        self.assertTrue(line.has_news(30, 20))
        line.limit(ReportLimits(25, 10, 10))
        self.assertTrue(line.has_news(30, 20))
        line.report(30, 20)
        self.assertFalse(line.has_news(40, 30))
        line.limit(ReportLimits(25, 11, 10))
        self.assertTrue(line.has_news(40, 30))
        line.report(40, 30)
        line.limit(ReportLimits(25, 11, 11))
        self.assertTrue(line.has_news(40, 30))

    def test_held_back(self) -> None:
        """Whether more than a disk has to be waited for."""
        line = self.open()
        line.report(30, 10)
        self.assertFalse(line.is_held_back)
        line.limit(ReportLimits(write=1, apply=1))
        self.assertFalse(line.is_held_back)
        line.limit(ReportLimits(flush=29))
        self.assertTrue(line.is_held_back)

    def test_something_else(self) -> None:
        """What is said besides comes between the reports."""
        line = self.open()
        line.report(10, 10)
        line.send(b"d\0\0\0\5x")
        line.report(20, 20)
        self.assertEqual(self.taken(), status(10, 10, 10) + b"d\0\0\0\5x" + status(20, 20, 20))


class TLSReportTests(ReportTests):
    """The same over TLS."""

    kind = "tls"


class DirectReportTests(LineCase):
    """Reports past the transport."""

    direct = True

    def test_at_once(self) -> None:
        """On a plain connection it is sent while the reactor does something else."""
        line = self.open()
        self.room(1000)
        self.assertTrue(line.report_now(10, 10))
        self.assertEqual(bytes(self.transport._peer.plain), status(10, 10, 10))
        line.report(20, 10)
        self.assertEqual(self.taken(), status(10, 10, 10) + status(20, 10, 10))

    def test_nothing_new(self) -> None:
        """A thread whose news may not be told yet says nothing, and that is enough."""
        line = self.open()
        self.room(1000)
        line.limit(ReportLimits(10, 10, 10))
        for position in (10, 20, 30):
            self.assertTrue(line.report_now(position, position))
        self.assertEqual(self.taken(), status(10, 10, 10))

    def test_something_else_finds_no_room(self) -> None:
        """It arrives whole, and before what is reported later."""
        for room in range(8):
            line = self.open()
            self.room(room)
            line.send(b"d\0\0\0\5x")
            line.report(10, 10)
            self.assertEqual(self.taken(), b"d\0\0\0\5x" + status(10, 10, 10))

    def test_every_amount_of_room(self) -> None:
        """Whatever the socket takes, the messages arrive whole and in order."""
        size = len(status(0))
        for room in range(2 * size):
            line = self.open()
            self.room(room)
            sent = line.report_now(10, 10), line.report_now(20, 20)
            self.assertEqual(sent, (room >= size, False))
            self.assertTrue(line.has_unsent)
            line.report(30, 20)
            self.assertFalse(line.has_unsent)
            self.assertFalse(line.report_now(40, 40))
            line.report(50, 50)
            positions = [message.body[8] for message in messages(self.taken())]
            self.assertEqual(positions, [10, 20, 30, 50] if room >= size else [10, 30, 50])

    def test_reactors_report_finds_no_room(self) -> None:
        """The rest of a report of the reactor's goes out by the transport."""
        for room in range(len(status(0))):
            line = self.open()
            self.room(room)
            line.report(10, 10)
            line.report(20, 20)
            self.assertEqual(self.taken(), status(10, 10, 10) + status(20, 20, 20))

    def test_connection_is_lost(self) -> None:
        """A lost connection is found out by the transport, as always."""
        line = self.open()
        self.transport._socket.reset = True
        self.assertFalse(line.report_now(10, 10))
        self.assertTrue(line.has_unsent)
        line.report(10, 10)

    def test_close(self) -> None:
        """A line that is closed is the reactor's alone; its descriptor is closed."""
        line = self.open()
        self.room(1000)
        descriptor = line._socket
        assert descriptor is not None
        line.close()
        line.close()
        self.assertTrue(descriptor.closed)  # type: ignore[attr-defined]
        self.assertFalse(line.report_now(10, 10))
        line.report(10, 10)
        self.assertEqual(self.taken(), status(10, 10, 10))
