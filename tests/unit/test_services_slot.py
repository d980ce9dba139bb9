"""Tests for `walstream.services.slot`: the command that is sent; the rest needs a server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from walstream.services.slot import SlotAction, SlotService


class _Server:
    """An endpoint, and the client that it leads to; both record what they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connect(self, factory: object) -> Deferred[Any]:
        return succeed(self)

    async def query(self, text: str) -> Any:
        self.asked.append(text)
        raise AssertionError("that is all there is to see")

    def close(self, reason: object) -> None:
        pass


class SlotServiceTests(SynchronousTestCase):
    """`SlotService`."""

    def test_wal_is_reserved(self) -> None:
        """From the moment on at which the slot is made, not from its first use on. (L5)"""
        server: Any = _Server()
        service = SlotService(server, "archive", SlotAction.CREATE)
        service.startService()
        service.finished().addErrback(lambda _: None)
        self.flushLoggedErrors(AssertionError)
        self.assertEqual(len(server.asked), 1)
        self.assertIn("RESERVE_WAL", server.asked[0])
