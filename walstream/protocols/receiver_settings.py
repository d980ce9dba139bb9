"""How to receive: what a walreceiver is told about itself. Values; it knows no sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize

__all__ = ["Dialect", "OnSynchronous", "ReceiverSettings", "ReportApply", "StreamEnd"]


class Dialect(Enum):
    """Which protocol the receiver speaks; a sender understands both."""

    MODERN = "modern"
    """PostgreSQL's streaming replication protocol, 9.3 and later."""

    DESIGN_2009 = "2009"
    """The design of December 2009: `walstream.wire.dialect2009`."""


class OnSynchronous(Enum):
    """What to do when commits wait for us, and we were not told to be a synchronous standby."""

    SWITCH = "switch"
    """Be one, and say so."""

    REFUSE = "refuse"
    """End with `NotSynchronous`."""


class ReportApply(Enum):
    """Which apply position to report, for a receiver that applies nothing."""

    FLUSH = "flush"
    """The flush position: for an archive, durable is as applied as WAL gets."""

    NONE = "none"
    """None: a commit with ``synchronous_commit = remote_apply`` that waits for us waits on."""


class StreamEnd(Enum):
    """Why a receiver ended without an error."""

    STOPPED = "it was told to stop"
    END_POSITION = "the end position was reached"


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """How to receive. In brackets, the options of ``twistd walstream receive``.

    :ivar slot: the replication slot to stream from (``--slot``).
    :ivar synchronous: make WAL durable, and report it, as it comes (``--synchronous``).
    :ivar status_interval: seconds between status updates; 0: when asked (``--status-interval``).
    :ivar end_position: stop once WAL beyond this position was received (``--endpos``).
    :ivar start_position: where to start if the sink holds nothing (``--startpos``).
    :ivar accept_gap: where the sink may be left with a gap, if the server has no longer what comes
        next (``--accept-gap``).
    :ivar dialect: the protocol to speak (``--dialect``).
    :ivar segment_size: what the 2009 dialect, which can't ask, assumes (``--wal-segsize``).
    :ivar receive_timeout: seconds of silence until the server is given up; 0: never.
    :ivar on_synchronous: what to do without *synchronous* where ``synchronous_standby_names``
        names us (``--on-synchronous``).
    :ivar report_apply: which apply position to report (``--report-apply``).
    :ivar synchronous_check: seconds between two looks, over a second connection, whether that has
        changed meanwhile (``--synchronous-check``); 0: never. A service makes them.
    :ivar wall_clock: the time of day for status updates; the reactor's unless told otherwise.
    """

    slot: str | None = None
    synchronous: bool = False
    status_interval: float = 10.0
    end_position: LSN | None = None
    start_position: LSN | None = None
    accept_gap: LSN | None = None
    dialect: Dialect = Dialect.MODERN
    segment_size: SegmentSize = DEFAULT_SEGMENT_SIZE
    receive_timeout: float = 60.0
    on_synchronous: OnSynchronous = OnSynchronous.SWITCH
    report_apply: ReportApply = ReportApply.FLUSH
    synchronous_check: float = 5.0
    wall_clock: Callable[[], float] | None = None
