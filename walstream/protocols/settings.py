"""What a walsender is told about itself: its settings, and what SHOW answers about them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from walstream.formats.pages import PAGE_SIZE
from walstream.interfaces import SystemIdentity
from walstream.protocols.names import clean_ascii

__all__ = [
    "SenderSettings",
    "client_sender_timeout",
    "duration",
    "major_version",
    "parameter_status",
    "parameters",
    "show",
    "version_number",
]


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """How to serve. In brackets, the options of ``twistd walstream send``.

    :ivar sender_timeout: ``wal_sender_timeout`` in seconds; 0: never (``--sender-timeout``). A
        client may set its own by ``options=-c wal_sender_timeout=…``, as with PostgreSQL.
    :ivar startup_timeout: ``authentication_timeout`` in seconds: until then a client must be in.
    :ivar message_timeout: seconds that a client may take over a message that it has begun, and over
        making room for an answer; 0: any number. A stream's room is `sender_timeout`'s.
    :ivar close_timeout: seconds that a closing connection has to take its last bytes.
    :ivar send_buffer: the size of a client's socket send buffer in bytes. Measured: a quarter of
        a MiB keeps what is sent in the processor's cache, and hundreds of clients in memory.
    :ivar hold_ahead: for how many seconds a client waits that asks for WAL a little ahead of what
        there is, at most a segment; 0: it is refused at once, as by PostgreSQL (``--hold-ahead``).
    :ivar max_clients: how many clients may be there at a time; 0: any number (``--max-clients``).
    :ivar max_strangers: how many connections there may be that have not said yet who they are;
        the oldest of them are closed when there are more.
    :ivar max_rate: how fast WAL goes to each client, in bytes per second; 0: as fast as it takes
        it (``--max-rate``).
    :ivar max_total_rate: how fast it goes to all of them together (``--max-total-rate``).
    :ivar delays: by ``application_name``, or ``*`` for all that are not named: for how many
        seconds WAL has to have been here before the client gets it (``--delay``).
    :ivar lag_warning: how many bytes a client may be behind before the log says so; 0: never
        (``--lag-warning``).
    :ivar wall_clock: the time of day in Unix seconds, for the messages' time stamps.
    :ivar monotonic: seconds by a clock that nobody sets, for delays.
    """

    sender_timeout: float = 60.0
    startup_timeout: float = 60.0
    message_timeout: float = 60.0
    close_timeout: float = 5.0
    send_buffer: int = 256 * 1024
    hold_ahead: float = 60.0
    max_clients: int = 1000
    max_strangers: int = 100
    max_rate: int = 0
    max_total_rate: int = 0
    delays: Mapping[str, float] = field(default_factory=dict)
    lag_warning: int = 1 << 30
    wall_clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def delay_of(self, name: str) -> float:
        """For how long WAL has to have been here for the client of that ``application_name``.

        Without regard to case, as ``synchronous_standby_names`` compares names.
        """
        named = {key.lower(): delay for key, delay in self.delays.items()}
        return named.get(name.lower(), named.get("*", 0.0))


def parameters(identity: SystemIdentity, settings: SenderSettings) -> dict[str, str]:
    """The configuration parameters that SHOW knows, by their names, as SHOW words them."""
    return {
        "data_directory_mode": "0700",
        "default_transaction_read_only": "off",
        "hot_standby": "on",
        "in_hot_standby": "on",
        "integer_datetimes": "on",
        "max_wal_senders": str(settings.max_clients or _MAX_BACKENDS),
        "server_encoding": "SQL_ASCII",
        "server_version": identity.server_version,
        "server_version_num": str(version_number(identity.server_version)),
        # As a standby has it: no commit is made here, so none waits for a client of ours.
        "synchronous_commit": "on",
        "synchronous_standby_names": "",
        "transaction_read_only": "on",
        "wal_block_size": str(PAGE_SIZE),
        "wal_level": "replica",
        "wal_segment_size": identity.segment_size.setting(),
        "wal_sender_timeout": _duration(settings.sender_timeout),
    }


def show(name: str, identity: SystemIdentity, settings: SenderSettings) -> str | None:
    """The value of a configuration parameter as SHOW words it; None if there is no such one."""
    return parameters(identity, settings).get(name.lower())


def parameter_status(identity: SystemIdentity, client: Mapping[str, str]) -> dict[str, str]:
    """The parameters reported after AuthenticationOk, as a hot standby of that version does.

    libpq's tools need ``server_version`` and ``integer_datetimes``.
    """
    reported = {
        "application_name": clean_ascii(client.get("application_name", "")),
        "client_encoding": client.get("client_encoding", "SQL_ASCII"),
        "DateStyle": "ISO, MDY",
        "default_transaction_read_only": "off",
        "in_hot_standby": "on",
        "integer_datetimes": "on",
        "IntervalStyle": "postgres",
        "is_superuser": "off",
        "server_encoding": "SQL_ASCII",
        "server_version": identity.server_version,
        "session_authorization": client["user"],
        "standard_conforming_strings": "on",
        "TimeZone": "Etc/UTC",
    }
    if major_version(identity.server_version) < 14:
        del reported["in_hot_standby"], reported["default_transaction_read_only"]
    return reported


def client_sender_timeout(client: Mapping[str, str]) -> float | None:
    """The ``wal_sender_timeout`` that a client's startup packet asks for, in seconds."""
    setting = client.get("wal_sender_timeout")
    match = re.search(r"(?:-c\s*|--)wal_sender_timeout=(\S+)", client.get("options", ""))
    if match is not None:
        setting = match[1]
    return duration(setting) if setting is not None else None


def duration(setting: str) -> float | None:
    """A duration as SHOW prints it and users write it, in seconds; None if it is none.

    Without a unit it is in milliseconds, as all of PostgreSQL's timeouts are.
    """
    # Ten digits are more than PostgreSQL takes, and less than what a float can't hold.
    number = re.fullmatch(r"(\d{1,10})\s*(ms|s|min|h|d)?", setting, re.ASCII)
    return int(number[1]) * _SECONDS[number[2] or "ms"] if number else None


def version_number(server_version: str) -> int:
    """``server_version_num`` of a version as a server words it: 180006 for ``18.6``.

    As libpq's PQserverVersion: ``18beta1`` is 180000, ``9.6.24`` is 90624.
    """
    # The text is a server's: no number may be longer than Python converts.
    match = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?", server_version, re.ASCII)
    if match is None:
        return 0
    major, minor, patch = (int(number or 0) for number in match.groups())
    return major * 10_000 + minor if major >= 10 else (major * 100 + minor) * 100 + patch


def major_version(server_version: str) -> int:
    """18 for ``18.6``; 9 for all of 9.x."""
    return version_number(server_version) // 10_000


# More than that `max_wal_senders` cannot be in PostgreSQL (MAX_BACKENDS in postmaster.h).
_MAX_BACKENDS = 0x3FFFF
# PostgreSQL documentation, "Parameter Names and Values".
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(seconds: float) -> str:
    """As SHOW prints a duration: in the largest unit that divides it."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0"
    for unit, size in reversed(_SECONDS.items()):
        whole, rest = divmod(milliseconds, round(size * 1000))
        if rest == 0:
            return f"{whole}{unit}"
    return f"{milliseconds}ms"
