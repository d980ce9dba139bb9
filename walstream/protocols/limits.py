"""What the sessions of a sender share, and what each of them may have of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from walstream.interfaces import IWALProvider
from walstream.protocols.admission import Admission, ClientLimit, Strangers
from walstream.protocols.arrivals import Arrivals
from walstream.protocols.rate import Pace, SharedRate
from walstream.protocols.settings import SenderSettings
from walstream.protocols.turns import Turns

__all__ = ["Limits"]

# Steps of handshakes in one turn of the reactor: some five milliseconds with a key of RSA.
_HANDSHAKES = 4


@dataclass(slots=True)
class Limits:
    """What all sessions of a sender share.

    Each part may be replaced by one that asks somebody else: whoever serves with several processes
    counts clients in one of them, and divides the common rate.

    :ivar admission: how many clients there may be.
    :ivar strangers: the connections that have not said yet who they are.
    :ivar handshakes: when those of TLS go on.
    :ivar shared_rate: how fast all of them are served together; None for as fast as they take it.
    :ivar arrivals: when the provider's WAL came here, by the delays that there are.
    """

    admission: Admission
    strangers: Strangers
    handshakes: Turns
    shared_rate: SharedRate | None = None
    arrivals: Mapping[float, Arrivals] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: SenderSettings, provider: IWALProvider, clock: IReactorTime) -> Limits:
        """The limits that the settings name, for sessions of this process alone."""
        return cls(
            ClientLimit(settings.max_clients),
            Strangers(settings.max_strangers, clock),
            Turns(_HANDSHAKES, clock),
            SharedRate(settings.max_total_rate, clock) if settings.max_total_rate else None,
            {
                delay: Arrivals(provider, delay, clock, settings.monotonic, settings.wall_clock)
                for delay in settings.delays.values()
                if delay
            },
        )

    def start(self) -> None:
        """Clients may come from now on; may be called more than once."""
        for arrivals in self.arrivals.values():
            arrivals.start()

    def stop(self) -> None:
        """No more clients come, and the last ones are leaving."""
        for arrivals in self.arrivals.values():
            arrivals.stop()

    def pace(self, settings: SenderSettings, clock: IReactorTime) -> Pace | None:
        """How fast a client is served; None for as fast as it takes it."""
        if not settings.max_rate and self.shared_rate is None:
            return None
        return Pace(settings.max_rate, self.shared_rate, clock)

    def arrivals_for(self, settings: SenderSettings, name: str) -> Arrivals | None:
        """What holds back the client of that ``application_name``; None if nothing does."""
        return self.arrivals.get(settings.delay_of(name))
