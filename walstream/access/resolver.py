"""The names of the hosts that connect, for rules that go by names.

As PostgreSQL: a name is an address's if the address leads to the name, and the name back to the
address (``check_hostname`` in ``hba.c``). Whoever has an address chooses what it leads to; it is
the way back that proves anything.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from walstream.formats.client_address import IPAddress

__all__ = ["HostNames", "host_names"]

# So many answers are remembered, and so many questions are asked at a time.
_MOST: Final = 1000
_MOST_ASKED: Final = 200


class _Runner(Protocol):
    """What runs a job in a thread."""

    def run(self, job: Callable[[], Any]) -> Deferred[Any]: ...


class HostNames:
    """Asks for names, in threads, and remembers the answers for a while.

    :param lane: the threads that wait for answers.
    :param limit: seconds that a connection waits for an answer; then it has no name.
    :param fresh: seconds for which an answer is good.
    """

    def __init__(
        self,
        lane: _Runner,
        clock: IReactorTime,
        *,
        limit: float = 5.0,
        fresh: float = 30.0,
        ask: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        self._lane = lane
        self._clock = clock
        self._limit = limit
        self._fresh = fresh
        self._ask = ask or host_names
        self._known: OrderedDict[str, tuple[float, Sequence[str]]] = OrderedDict()
        self._asked: dict[str, list[Deferred[Sequence[str]]]] = {}

    def of(self, address: IPAddress) -> Deferred[Sequence[str]]:
        """The names of a host; none if there are none, or the answer does not come in time."""
        return Deferred.fromCoroutine(self._of(str(address)))

    async def _of(self, address: str) -> Sequence[str]:
        known = self._known.get(address)
        if known is not None and self._clock.seconds() - known[0] < self._fresh:
            return known[1]
        waiter: Deferred[Sequence[str]] = Deferred()
        # One question at a time for an address, however many connections come from there.
        is_asked = address in self._asked
        if not is_asked and len(self._asked) >= _MOST_ASKED:
            return ()
        waiters = self._asked.setdefault(address, [])
        waiters.append(waiter)
        if not is_asked:
            self._lane.run(lambda: self._ask(address)).addBoth(self._answered, address)
        try:
            return await waiter.addTimeout(self._limit, self._clock)
        except TimeoutError:
            return ()
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def _answered(self, answer: object, address: str) -> None:
        names = answer if isinstance(answer, tuple) else ()
        self._known[address] = self._clock.seconds(), names
        self._known.move_to_end(address)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        waiters = self._asked.pop(address)
        while waiters:
            waiters.pop(0).callback(names)


def host_names(address: str) -> Sequence[str]:
    """The name that an address leads to, if it leads back; waits for the network.

    What cannot be found out is no name.
    """
    try:
        name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    places = {ip_address(place[0]) for *_, place in found}
    return (name,) if ip_address(address) in places else ()
