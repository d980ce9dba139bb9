"""What each worker may have of what is limited for all of them together."""

from __future__ import annotations

from collections.abc import Sequence

from walstream.protocols.admission import ClientLimit

__all__ = ["ClientShare", "share_of_clients", "shares_of_rate"]


class ClientShare(ClientLimit):
    """A worker's share of the clients that there may be.

    :ivar limit: how many there may be in all: clients are told this.
    :param share: how many may be here.
    """

    def __init__(self, limit: int, share: int) -> None:
        super().__init__(limit)
        self._share = share

    def enter(self, pid: int) -> bool:
        """See `Admission.enter`."""
        return len(self._inside) < self._share and super().enter(pid)


def share_of_clients(limit: int, number: int, count: int) -> int | None:
    """How many of at most *limit* clients worker *number* of *count* may have; None: any number.

    Connections go to the worker that has the fewest, so equal shares are used up at the same time.
    """
    if not limit:
        return None
    return limit // count + (number <= limit % count)


def shares_of_rate(rate: float, clients: Sequence[int]) -> list[float]:
    """The rates of workers with so many *clients* each.

    One that has none gets what it needs to begin with its first.
    """
    weights = [max(1, number) for number in clients]
    return [rate * weight / sum(weights) for weight in weights]
