"""How a receiver reports to its server what it has, whatever stream it is on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.python.failure import Failure

from walstream.interfaces import IWALSink
from walstream.protocols.acknowledgement import Acknowledgement, AcknowledgementSettings
from walstream.protocols.downstream import Downstream
from walstream.protocols.receiver_settings import ReceiverSettings
from walstream.protocols.status_line import StatusLine
from walstream.protocols.synchronous import SynchronousDuty

__all__ = ["Reporting"]


@dataclass(frozen=True, slots=True)
class Reporting:
    """By what a receiver goes when it reports.

    :ivar duty: what it owes to the server's commits.
    :ivar downstream: for whom the WAL is received besides.
    """

    settings: ReceiverSettings
    clock: IReactorTime
    duty: SynchronousDuty
    downstream: Downstream

    def of_stream(
        self,
        sink: IWALSink,
        transport: ITransport,
        timeline: int,
        sender_timeout: float,
        give_up: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> Acknowledgement:
        """Reports on one stream.

        :param sender_timeout: the server's ``wal_sender_timeout`` in seconds; 0: off.
        :param give_up: called when the server has been silent for too long.
        :param failed: called with the failure when a flush fails.
        """
        now = self.settings.wall_clock or self.clock.seconds
        return Acknowledgement(
            sink,
            AcknowledgementSettings.of(self.settings, self.duty, sender_timeout),
            self.clock,
            StatusLine.of(transport, now, self.duty),
            give_up,
            failed,
            synchronous=self.duty.is_synchronous,
            timeline=timeline,
            policy=self.downstream.policy,
            feedback=self.downstream.reporter(self.clock, self.settings.status_interval, now),
        )
