"""What is counted of those who come in: the main process does that, and is asked.

How many connections each role has, and how often each address was wrong.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from walstream.services.worker_channel import Channel, EnterRole, LeaveRole, SettlePassword
from walstream.services.worker_values import Refused

__all__ = ["RemotePlaces", "RemoteThrottle"]


class RemotePlaces:
    """Asks over a channel; the main process has the `RolePlaces` of all workers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def enter(self, number: int, role: str, limit: int | None) -> Deferred[None]:
        """See `Places.enter`."""
        return Deferred.fromCoroutine(self._enter(number, role, limit))

    async def _enter(self, number: int, role: str, limit: int | None) -> None:
        try:
            await self._channel.ask(EnterRole, number=number, role=role, limit=limit)
        except Refused as refused:
            raise refused.error() from refused

    def leave(self, number: int) -> None:
        """See `Places.leave`."""
        self._channel.tell(LeaveRole, number=number)


class RemoteThrottle:
    """Asks over a channel; the main process has the `Throttle` of all workers.

    With one for each, whoever tries passwords would have as many tries as there are workers.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def settle(self, address: str, *, is_wrong: bool) -> Deferred[float]:
        """See `Lateness.settle`."""
        asked = self._channel.ask(SettlePassword, address=address, is_wrong=is_wrong)
        return asked.addCallback(lambda answer: answer["seconds"])
