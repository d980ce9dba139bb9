"""What the sessions of a sender have in common: what they serve, to whom, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from walstream.interfaces import IGate, ISlotStore, IWALProvider
from walstream.protocols.encrypting import TLSServer
from walstream.protocols.limits import Limits
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standbys

__all__ = ["Serving"]


@dataclass(frozen=True, slots=True)
class Serving:
    """What every session is made with.

    :ivar provider: whose WAL is served.
    :ivar slots: the slots that clients may use.
    :ivar limits: what the sessions share, and what each may have of it.
    :ivar standbys: where others see the clients that were let in.
    :ivar gate: decides who comes in.
    :ivar cancel: called with a pid and a key that a CancelRequest names.
    :ivar tls: how connections are encrypted; None if they are not.
    """

    provider: IWALProvider
    slots: ISlotStore
    settings: SenderSettings
    clock: IReactorTime
    limits: Limits
    standbys: Standbys
    gate: IGate
    cancel: Callable[[int, bytes], None]
    tls: TLSServer | None = None
