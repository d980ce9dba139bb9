"""Clients that ask for WAL a little ahead of what there is."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.conversation import (
    COPY_BOTH,
    COPY_DONE,
    READY_FOR_QUERY,
    SIZE,
    SenderCase,
    error,
    keepalive,
    kinds,
    status,
    wal,
    wal_message,
)
from walstream.formats.lsn import LSN
from walstream.protocols.phases import SenderPhase
from walstream.wire.messages import query


def refused(start: int, end: int) -> bytes:
    """PostgreSQL's error."""
    text = f"requested starting point {LSN(start)} is ahead of the WAL flush position"
    return error("ERROR", "XX000", f"{text} of this server {LSN(end)}") + READY_FOR_QUERY


class HoldTests(SenderCase):
    """What becomes of them."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = replace(self.settings, sender_timeout=0.0)
        self.start = LSN(self.end + 1000)

    def advance(self, seconds: float) -> bytes:
        """Time passes; what the client hears."""
        self.clock.advance(seconds)
        return self.hear()

    def test_waits(self) -> None:
        """For the very byte, and is in a stream like any other meanwhile.

        Of the loss catalogue: L17.
        """
        self.assertEqual(self.stream(self.start, 1), COPY_BOTH)
        self.assertIs(self.session.phase, SenderPhase.STREAMING)
        self.provider.append(wal(self.end, 1000))
        self.assertEqual(self.advance(59), b"")
        end = self.provider.append(wal(self.start, 10))
        self.assertEqual(self.hear(), wal_message(self.start, wal(self.start, 10), end))
        self.assertEqual(self.advance(10), b"")

    def test_not_for_ever(self) -> None:
        """Then PostgreSQL's error follows, with the end as it is; and the session goes on.

        Of the loss catalogue: L17.
        """
        self.stream(self.start, 1)
        end = self.provider.append(wal(self.end, 999))
        self.assertEqual(self.advance(59.9), b"")
        self.assertEqual(self.advance(0.1), refused(self.start, end))
        self.provider.append(wal(end, 1))
        self.assertEqual(self.ask(f"START_REPLICATION {self.start} TIMELINE 1"), COPY_BOTH)

    def test_as_long_as_it_was_told(self) -> None:
        """Or not at all."""
        self.settings = replace(self.settings, hold_ahead=3.0)
        self.stream(self.start)
        self.assertEqual(self.advance(2.9), b"")
        self.assertEqual(self.advance(0.1), refused(self.start, self.end))
        self.settings = replace(self.settings, hold_ahead=0.0)
        self.check_nothing_is_left()
        self.gone.clear()
        heard = self.stream(self.start)
        self.assertEqual(heard, COPY_BOTH + refused(self.start, self.end))

    def test_too_far_ahead(self) -> None:
        """A segment at most."""
        self.log_in()
        start = LSN(self.end + SIZE + 1)
        heard = self.ask(f"START_REPLICATION {start} TIMELINE 1")
        self.assertEqual(heard, COPY_BOTH + refused(start, self.end))

    def test_it_is_heard(self) -> None:
        """Its replies, and its silence, are those of any client."""
        self.settings = replace(self.settings, sender_timeout=10.0)
        self.stream(self.start)
        asking = keepalive(self.start, reply_requested=True)
        self.assertEqual(self.advance(5)[:10], asking[:10])
        self.assertEqual(kinds(self.say(status(self.start, reply_requested=True))), "d")
        self.advance(5)
        self.advance(5)
        self.assertFalse(self.transport.connected)

    def test_its_own_end(self) -> None:
        """It may leave the stream."""
        self.stream(self.start)
        self.assertEqual(kinds(self.say(COPY_DONE)), "cCCZ")
        self.assertEqual(self.advance(60), b"")

    def test_cancelled(self) -> None:
        """As any stream."""
        self.stream(self.start)
        self.session.cancel_stream()
        self.assertEqual(kinds(self.hear()), "EZ")
        self.assertEqual(self.advance(60), b"")

    def test_the_timeline_ends_before_it(self) -> None:
        """Its WAL will never come: PostgreSQL's error, as if it asked now."""
        self.stream(self.start, 1)
        self.provider.end_timeline()
        self.assertEqual(
            self.hear(),
            error(
                "ERROR",
                "XX000",
                f"requested starting point {self.start} on timeline 1 "
                "is not in this server's history",
                f"This server's history forked from timeline 1 at {self.end}.",
            )
            + READY_FOR_QUERY,
        )

    def test_the_timeline_ends_there(self) -> None:
        """It is led over to the next one."""
        self.stream(self.start, 1)
        self.provider.append(wal(self.end, 1000))
        self.provider.end_timeline()
        self.assertEqual(self.hear(), COPY_DONE)
        self.assertEqual(kinds(self.say(COPY_DONE)), "TDCCZ")

    def test_shut_down(self) -> None:
        """Nothing will come any more: it is told at once, and not waited for."""
        self.stream(self.start)
        self.session.shut_down()
        heard = self.hear()
        self.assertEqual(kinds(heard), "EZE")
        self.assertTrue(heard.startswith(refused(self.start, self.end)))
        self.assertEqual(self.transport.peer_saw, "end")

    def test_shut_down_after_its_wal_has_come(self) -> None:
        """It is a stream like any other."""
        self.stream(self.start)
        end = self.provider.append(wal(self.end, 1000 + 8))
        self.hear()
        self.session.shut_down()
        self.assertEqual(kinds(self.hear()), "d")
        self.assertEqual(kinds(self.say(status(end, end))), "C")

    def test_the_first_design(self) -> None:
        """Knows no waiting, and no keepalives."""
        self.log_in()
        heard = self.say(query(f"START REPLICATION: {self.start}"))
        self.assertEqual(kinds(heard), "HEZ")
