"""The gate that is open: everybody comes in, and may have everything."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from walstream.gates import Admission, Applicant, IGate, IPermit

__all__ = ["OpenGate"]


@implementer(IPermit)
class _Everything:
    """The permit of who may have everything."""

    identity: str | None = None

    def enter(self) -> Deferred[None]:
        return succeed(None)

    def leave(self) -> None:
        pass

    def check_stream(self, timeline: int, start: int) -> None:
        pass


@implementer(IGate)
class OpenGate:
    """Lets everybody in, and asks nobody. For a network, or a machine, that is trusted."""

    def admit(self, applicant: Applicant) -> Deferred[Admission]:
        """See `IGate.admit`."""
        permit: IPermit = _Everything()
        return succeed(permit)
