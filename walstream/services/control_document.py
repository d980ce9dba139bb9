"""How a process is, as the document that its control socket gives: docs/reference/status.md.

Keys may be added to it; while `VERSION` is the same none goes or changes its meaning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime

from walstream import __version__
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALProvider, IWALSink, Slot, WALPosition
from walstream.protocols.progress import ReceiverProgress
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby, Standbys
from walstream.services.control_files import VERSION
from walstream.services.control_slots import slot_value
from walstream.services.upstream_record import UpstreamRecord

__all__ = ["Document", "HasSlots", "ReceivingSide", "SendingSide", "iso_time"]

# Clients in one piece of the document: a thousand of them take 30 ms, in which a commit may wait.
_CLIENTS_IN_A_PIECE: Final = 50

_Section = dict[str, Any]


class HasSlots(Protocol):
    """A store of slots that knows them all."""

    def slots(self) -> Collection[Slot]:
        """All of them."""


@dataclass(frozen=True, slots=True)
class ReceivingSide:
    """What is known of the upstream.

    :ivar progress: of the stream, if there is one at this moment.
    :ivar policy: what is waited for before something is reported: a value for JSON.
    :ivar feedback: the hot standby feedback that was sent: a value for JSON.
    """

    record: UpstreamRecord
    progress: Callable[[], ReceiverProgress | None]
    slot: str | None = None
    policy: Callable[[], Any] = lambda: None
    feedback: Callable[[], Any] = lambda: None


@dataclass(frozen=True, slots=True)
class SendingSide:
    """What is known of the clients.

    :ivar look: brings the standbys up to date.
    :ivar sync_state: ``sync_priority`` and ``sync_state`` of one.
    """

    standbys: Standbys
    settings: SenderSettings
    slots: HasSlots
    look: Callable[[], None] = lambda: None
    sync_state: Callable[[Standby], tuple[int, str]] = lambda standby: (0, "async")


@dataclass(slots=True)
class Document:
    """Makes the document of one process.

    :ivar role: ``receive``, ``send`` or ``hub``.
    :ivar directory: the archive's path.
    :ivar clock: what `Standbys.ends` goes by.
    :ivar wall_clock: the time of day in Unix seconds.
    :ivar sink: what is received into, if this process receives.
    """

    role: str
    directory: str
    provider: IWALProvider
    clock: IReactorTime
    wall_clock: Callable[[], float]
    sink: IWALSink | None = None
    receiving: ReceivingSide | None = None
    sending: SendingSide | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.wall_clock()

    def look(self) -> None:
        """Note where our end is, so that it is known since when a client is behind."""
        if self.sending is not None:
            self.sending.standbys.ends.note(self.provider.end().lsn, self.clock.seconds())

    def pieces(self) -> Iterator[bytes]:
        """The document as JSON; each piece is made when it is asked for, and in little time.

        The clients' positions are looked at after the archive's end: who has all of it has it.
        """
        end = self._end()
        head = {
            "version": VERSION,
            "time": iso_time(self.wall_clock()),
            "process": self._process(),
            "archive": self._archive(end),
            "upstream": self._upstream(),
            "slots": self._slots(),
            "limits": self._limits(),
        }
        yield json.dumps(head)[:-1].encode() + b', "clients": ['
        separator = ""
        for client in self._clients(end):
            yield f"{separator}{client}".encode()
            separator = ", "
        yield b"]}\n"

    def _end(self) -> WALPosition | None:
        """How far the archive is durable."""
        end = self.provider.end() if self.sink is None else self.sink.durable_position()
        return end if end is not None and end.lsn else None

    def _process(self) -> _Section:
        return {
            "pid": os.getpid(),
            "role": self.role,
            "started": iso_time(self.started),
            "walstream": __version__,
        }

    def _archive(self, end: WALPosition | None) -> _Section:
        identity, sink, serving = self.provider.identity, self.sink, None
        if self.sending is not None:
            serving = self.provider.end()
        written = 0 if sink is None else sink.written
        return {
            "directory": self.directory,
            # A text: JSON's numbers have 53 bits.
            "system_identifier": identity and str(identity.system_identifier),
            "segment_size": identity and int(identity.segment_size),
            "server_version": identity and identity.server_version,
            "timeline": end and end.timeline,
            "written_lsn": _lsn(max(written, end.lsn if end else 0)),
            "durable_lsn": _lsn(end.lsn if end else 0),
            "serving_timeline": (serving and serving.lsn and serving.timeline) or None,
            "serving_lsn": _lsn(serving.lsn if serving else 0),
        }

    def _upstream(self) -> _Section | None:
        side = self.receiving
        if side is None:
            return None
        record, progress, now = side.record, side.progress(), self.wall_clock()
        written = 0 if self.sink is None else self.sink.written
        server_end = 0 if progress is None else progress.server_end
        return {
            "state": record.state.value,
            "host": record.host,
            "slot_name": side.slot,
            "connected_since": iso_time(record.connected),
            "streaming_since": iso_time(record.streaming),
            "last_error": record.error,
            "last_error_time": iso_time(record.failed),
            "retry_time": iso_time(record.retry),
            "last_message_time": iso_time(None if progress is None else now - progress.silence),
            "server_lsn": _lsn(server_end),
            "bytes_behind": max(0, server_end - written) if server_end else None,
            "reported_write_lsn": _lsn(0 if progress is None else progress.write),
            "reported_flush_lsn": _lsn(0 if progress is None else progress.flush),
            "reported_replay_lsn": _lsn(0 if progress is None else progress.apply),
            "policy": side.policy(),
            "feedback": side.feedback(),
        }

    def _slots(self) -> list[_Section]:
        if self.sending is None:
            return []
        slots = sorted(self.sending.slots.slots(), key=attrgetter("name"))
        return [slot_value(each) for each in slots]

    def _limits(self) -> _Section | None:
        if self.sending is None:
            return None
        settings = self.sending.settings
        return {
            "wal_sender_timeout": settings.sender_timeout,
            "max_clients": settings.max_clients,
            "max_rate": settings.max_rate,
            "max_total_rate": settings.max_total_rate,
            "lag_warning": settings.lag_warning,
            "delays": dict(settings.delays),
        }

    def _clients(self, end: WALPosition | None) -> Iterator[str]:
        """The clients as JSON, some at a time."""
        if self.sending is None:
            return
        self.sending.look()
        self.look()
        standbys = iter(self.sending.standbys)
        while some := [self._client(each, end) for each in islice(standbys, _CLIENTS_IN_A_PIECE)]:
            yield json.dumps(some)[1:-1]

    def _client(self, standby: Standby, end: WALPosition | None) -> _Section:
        assert self.sending is not None
        priority, state = self.sending.sync_state(standby)
        address, feedback = standby.address, standby.feedback
        return {
            # The columns of pg_stat_replication, in their order.
            "pid": standby.pid,
            "usesysid": None,
            "usename": standby.user,
            "application_name": standby.application_name,
            "client_addr": address and address[0],
            "client_hostname": None,
            "client_port": address[1] if address else -1,
            "backend_start": iso_time(standby.connected),
            "backend_xmin": (feedback and feedback.xmin) or None,
            "state": standby.state.value,
            "sent_lsn": _lsn(standby.sent),
            "write_lsn": _lsn(standby.write),
            "flush_lsn": _lsn(standby.flush),
            "replay_lsn": _lsn(standby.apply),
            "write_lag": _seconds(standby.lags.write),
            "flush_lag": _seconds(standby.lags.flush),
            "replay_lag": _seconds(standby.lags.apply),
            "sync_priority": priority,
            "sync_state": state,
            "reply_time": iso_time(standby.reply_time),
            # Our own.
            "timeline": standby.timeline or None,
            "slot_name": standby.slot,
            **self._distances(standby, end),
            "last_message_time": iso_time(standby.replied),
            "delay": self.sending.settings.delay_of(standby.application_name),
        }

    def _distances(self, standby: Standby, end: WALPosition | None) -> _Section:
        """How far it is behind our durable end, and for how long."""
        found: _Section = {
            f"{name}_bytes_behind": max(0, end.lsn - position) if end and position else None
            for name, position in (
                ("sent", standby.sent),
                ("write", standby.write),
                ("flush", standby.flush),
                ("replay", standby.apply),
            )
        }
        assert self.sending is not None
        is_complete = end is not None and standby.timeline == end.timeline
        is_complete = is_complete and standby.flush >= (end.lsn if end else 0)
        since = self.sending.standbys.ends.passed(standby.flush) if standby.flush else None
        behind = None if is_complete or since is None else self.clock.seconds() - since
        return {"complete": is_complete, **found, "behind_seconds": _seconds(behind)}


def iso_time(seconds: float | None) -> str | None:
    """A time of day, in ISO 8601; None for none, and for what is none that there could be."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None  # a client's clock may say anything


def _lsn(position: int) -> str | None:
    return str(LSN(position)) if position else None


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
