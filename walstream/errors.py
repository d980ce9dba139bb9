"""Everything that walstream raises on purpose.

The tree, by whose fault it is and what follows:

``WalstreamError``
    ``FormatError``          a text or a file without its format (an LSN, a history file, …)
    ``ProtocolViolation``    the peer broke the protocol: the connection is closed
    ``CommandError``         an error that the walsender shows to its client; the session goes on
    ``ServerError``          an ErrorResponse that the upstream server sent us
    ``ServerNotTrusted``     the upstream asks for what it must not have, or can't prove who it is
        ``HandshakeFailed``      there is no TLS with it that would do
    ``Disconnected``         the connection to the upstream ended, or was given up
    ``UpstreamRefused``      the upstream's WAL must not enter the archive
        ``WrongSystem``          another system identifier or segment size
        ``UpstreamBehind``       the upstream ends before the archive does
        ``TimelineMismatch``     the upstream's timeline is not a continuation of the archive's
        ``WALRemoved``           the upstream no longer has the WAL that the archive needs next
    ``NotSynchronous``       commits wait for us, and we are not to be their synchronous standby
    ``Discontinuity``        WAL that does not continue exactly where the sink ends
    ``DamagedWAL``           what should be WAL cannot be WAL: a page or a record is not right
    ``WALUnavailable``       a provider does not hold the WAL that was asked for
    ``EndOfTimeline``        not a fault: a historic timeline ends here, and which comes next
    ``SinkFailed``           a sink could not make WAL durable
        ``ArchiveLost``          the archive is not where it was, or holds less than it did
    ``ArchiveError``         an archive directory cannot be used as it is
    ``WorkerLost``           a process that is to serve clients for us has ended
    ``RetentionRefused``     nothing was removed from an archive, since it is not sure what may be
    ``StatusUnknown``        a process that has to do with an archive does not say how it is

Each class keeps its data in attributes and composes its sentence for the operator itself.
"""

from __future__ import annotations

__all__ = [
    "ArchiveError",
    "ArchiveLost",
    "CommandError",
    "DamagedWAL",
    "Disconnected",
    "Discontinuity",
    "EndOfTimeline",
    "FormatError",
    "HandshakeFailed",
    "NotSynchronous",
    "ProtocolViolation",
    "RetentionRefused",
    "ServerError",
    "ServerNotTrusted",
    "SinkFailed",
    "StatusUnknown",
    "TimelineMismatch",
    "UpstreamBehind",
    "UpstreamRefused",
    "WALRemoved",
    "WALUnavailable",
    "WalstreamError",
    "WorkerLost",
    "WrongSystem",
]


class WalstreamError(Exception):
    """The root of all errors that walstream raises on purpose."""


class FormatError(WalstreamError, ValueError):
    """A text, a file or a header does not have the format that it should have."""


class ProtocolViolation(WalstreamError):
    """The peer sent something that the protocol does not allow at this point.

    :ivar sqlstate: what an ErrorResponse about it carries; ``08P01`` unless told otherwise.
    """

    def __init__(self, message: str, *, sqlstate: str = "08P01") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class CommandError(WalstreamError):
    """An error that a walsender's client is shown as an ErrorResponse of severity ERROR.

    :ivar log_detail: what the log has of it besides, and the client is not told.
    """

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        log_detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.log_detail = log_detail


class ServerError(WalstreamError):
    """The upstream answered with an ErrorResponse.

    :ivar severity: ``ERROR``, ``FATAL`` or ``PANIC``; after the last two the connection is gone.
    """

    def __init__(
        self,
        severity: str,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.severity = severity
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.severity}: {self.message} (SQLSTATE {self.sqlstate})"
        if self.detail:
            text += f"; detail: {self.detail}"
        if self.hint:
            text += f"; hint: {self.hint}"
        return text


class ServerNotTrusted(WalstreamError):
    """The upstream asks for a secret that it must not have, or does not prove who it is.

    It is told nothing more. The words are libpq's where libpq has any.
    """


class HandshakeFailed(ServerNotTrusted):
    """There is no TLS with the upstream that would do; the text says why."""


class Disconnected(WalstreamError):
    """The connection to the upstream ended, or was given up; the text says why."""


class UpstreamRefused(WalstreamError):
    """The upstream's WAL must not enter this archive; nothing of it was written."""


class WrongSystem(UpstreamRefused):
    """The upstream is another cluster, or has another segment size, than the archive's."""


class UpstreamBehind(UpstreamRefused):
    """The upstream's WAL ends before the archive's does."""


class TimelineMismatch(UpstreamRefused):
    """The upstream's timeline does not continue the archive's."""


class NotSynchronous(WalstreamError):
    """The server's commits wait for us, and we were told not to be its synchronous standby.

    :ivar names: the server's ``synchronous_standby_names``.
    :ivar application_name: ours, as the server knows it.
    """

    def __init__(self, names: str, application_name: str) -> None:
        super().__init__(
            f"the server's synchronous_standby_names is {names!r}, which names this receiver "
            f"(application_name {application_name!r}), but it runs without --synchronous and with "
            "--on-synchronous=refuse: start it with --synchronous, or take its name out of "
            "synchronous_standby_names; commits may be waiting for it until then"
        )
        self.names = names
        self.application_name = application_name


class WALRemoved(UpstreamRefused):
    """The upstream no longer has the WAL with which the archive would have to go on.

    :ivar segment: the name of the segment that is missing.
    :ivar end: the byte position at which the archive ends.
    """

    def __init__(self, segment: str, end: int, timeline: int, said: str) -> None:
        super().__init__(
            f"the server no longer has segment {segment}, with which the archive must go on: it "
            f"ends at {_lsn(end)} on timeline {timeline}. Copy that segment and those that follow "
            "into the archive from elsewhere and start again; or accept the gap with "
            f"--accept-gap={_lsn(end)}, and take a new base backup. The server said: {said}"
        )
        self.segment = segment
        self.end = end


class Discontinuity(WalstreamError):
    """WAL arrived that does not continue exactly where the sink ends.

    :ivar expected: the byte position that should have come next.
    :ivar received: the byte position that came.
    """

    def __init__(self, expected: int, received: int) -> None:
        super().__init__(
            f"WAL does not continue: expected position {_lsn(expected)}, received {_lsn(received)}"
        )
        self.expected = expected
        self.received = received


class DamagedWAL(WalstreamError):
    """What should be WAL cannot be WAL, by what a page header, a record or a checksum says.

    :ivar position: where: of the page, or of the record.
    :ivar what: what is wrong there.
    :ivar expected: what PostgreSQL would have written, for people.
    :ivar found: what is there instead, for people.
    """

    def __init__(self, position: int, what: str, expected: object, found: object) -> None:
        super().__init__(
            f"damaged WAL at {_lsn(position)}: {what} should be {expected}, but is {found}"
        )
        self.position = position
        self.what = what
        self.expected = str(expected)
        self.found = str(found)


class WALUnavailable(WalstreamError):
    """A provider does not hold the WAL that was asked for.

    :ivar segment: the name of the segment file that is missing.
    :ivar gap: the gap in which it lies, if the operator accepted one.
    :ivar reason: why it cannot be served, if there is a file of it.
    """

    def __init__(self, segment: str, *, gap: str | None = None, reason: str | None = None) -> None:
        text = f"requested WAL segment {segment} is not in the archive"
        super().__init__(text if gap is None else f"{text}, which has a gap {gap}")
        self.segment = segment
        self.gap = gap
        self.reason = reason


class EndOfTimeline(WalstreamError):
    """A historic timeline ends here.

    :ivar next_timeline: the timeline that continues it in the provider's history.
    :ivar switch_point: the first byte position that is no longer on the old timeline.
    """

    def __init__(self, next_timeline: int, switch_point: int) -> None:
        super().__init__(f"timeline {next_timeline} continues at {_lsn(switch_point)}")
        self.next_timeline = next_timeline
        self.switch_point = switch_point


class SinkFailed(WalstreamError):
    """A sink could not take WAL or make it durable; what it had reported as durable stays so."""


class ArchiveLost(SinkFailed):
    """An archive that was being written is not where it was, or holds less than it did.

    It was removed or unmounted, or another directory is in its place. Nothing is written there.
    """


class ArchiveError(WalstreamError):
    """An archive directory cannot be used as it is; the text says why, and the way out."""


class WorkerLost(WalstreamError):
    """A worker process has ended, or could not be started; the text says how."""


class RetentionRefused(WalstreamError):
    """It cannot be told what may be removed from an archive, so nothing was; the text says why."""


class StatusUnknown(WalstreamError):
    """A process's control socket gives no answer that could be understood; the text says which."""


def _lsn(position: int) -> str:
    # The text form of an LSN, spelled out here because errors are below the formats layer.
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
