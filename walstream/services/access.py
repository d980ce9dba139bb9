"""Who comes in, as options say it, and the gate that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walstream.access.gate import AccessGate
from walstream.access.policy import AccessFiles, Policy
from walstream.access.role_places import Places
from walstream.access.throttle import Lateness, Throttle
from walstream.archive.lane import ThreadLane

__all__ = ["Access", "OpenDoor"]

# A name server may take its time, and so may several.
_NAME_THREADS = 8


@dataclass(frozen=True, slots=True)
class Access:
    """Who comes in. Can be pickled: workers have gates of their own.

    :ivar files: the rules, the maps, the roles.
    :ivar delay: seconds by which the answer to a wrong password is late, the first time.
    :ivar may_trust_strangers: whether a rule may let other machines in that prove nothing: they
        cannot reach us, or their network is trusted.
    :ivar has_tls: whether connections can be encrypted.
    :ivar has_authorities: whether clients are asked for certificates.
    """

    files: AccessFiles
    delay: float = 0.25
    may_trust_strangers: bool = True
    has_tls: bool = False
    has_authorities: bool = False

    def gate(
        self, reactor: Any, places: Places | None = None, throttle: Lateness | None = None
    ) -> AccessGate:
        """A gate, not open yet.

        :param places: counts the connections of roles; None: the gate does.
        :param throttle: counts wrong passwords; None: the gate does.
        """
        return AccessGate(
            self.files,
            reactor,
            ThreadLane(reactor, "walstream-access"),
            ThreadLane(reactor, "walstream-names", _NAME_THREADS),
            has_tls=self.has_tls,
            has_authorities=self.has_authorities,
            is_exposed=not self.may_trust_strangers,
            check=self.check,
            throttle=throttle or self.throttle(reactor),
            places=places,
        )

    def throttle(self, clock: IReactorTime) -> Throttle:
        """What counts wrong passwords."""
        return Throttle(clock.seconds, self.delay)

    def check(self, policy: Policy) -> None:
        """See whether the rules may take effect.

        :raises FormatError: if they let in who should not come in.
        """
        rule = policy.open_to_strangers()
        if rule is not None and not self.may_trust_strangers:
            raise rule.line.wrong(
                "trust lets other machines in that prove nothing, which is not to be without "
                "--trust-network"
            )


class OpenDoor:
    """Says in the log that nobody is asked anything: `Storage`, in the place of a gate."""

    _log = Logger()

    def open(self) -> Deferred[None]:
        """Say it."""
        self._log.warn("there is no --hba: everybody who can connect is let in, without a password")
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)
