"""What becomes of a worker's clients, as it is told to the main process: lines of JSON.

The main process goes by them when it reports upstream, and when it tells its status. So it takes
nothing that a `Standby` could not have: one broken line would be a fault again and again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, fields
from typing import Any, Final

from walstream.protocols.lag import Lags
from walstream.protocols.standbys import Standby, StandbyState
from walstream.services.worker_values import is_number
from walstream.wire.copydata import HotStandbyFeedback

__all__ = ["pack_sent", "pack_standby", "sent_values", "standby_values"]

_STANDBY_FIELDS = tuple(field.name for field in fields(Standby))
# Seconds from 1970 that no clock of a client's can tell: it counts microseconds, in 64 bits.
_LATEST: Final = 1e14


def pack_standby(standby: Standby) -> bytes:
    """A client as it is at this moment. No line of it is longer than a startup packet allows."""
    values: dict[str, Any] = {name: getattr(standby, name) for name in _STANDBY_FIELDS}
    values["state"] = standby.state.value
    if standby.feedback is not None:
        values["feedback"] = astuple(standby.feedback)
    return json.dumps(values).encode()


def standby_values(data: bytes) -> dict[str, Any]:
    """The attributes of what `pack_standby` packed.

    :raises ValueError: if it is not that.
    """
    values = json.loads(data)
    if not isinstance(values, dict) or values.keys() != _IS_RIGHT.keys():
        raise ValueError("these are not a standby's attributes")
    for name, is_right in _IS_RIGHT.items():
        if not is_right(values[name]):
            raise ValueError(f"a standby has no {name} {values[name]!r}")
    values["state"] = StandbyState(values["state"])
    values["lags"] = Lags(*values["lags"])
    if values["address"] is not None:
        values["address"] = tuple(values["address"])
    if values["feedback"] is not None:
        values["feedback"] = HotStandbyFeedback(*values["feedback"])
    return values


def pack_sent(standby: Standby) -> bytes:
    """How far WAL was given to a client's connection."""
    return b"%d %d" % (standby.pid, standby.sent)


def sent_values(data: bytes) -> tuple[int, int]:
    """The pid and the position that `pack_sent` packed.

    :raises ValueError: if it is not that.
    """
    pid, position = map(int, data.split())
    if not (is_number(pid) and is_number(position)):
        raise ValueError(f"these are no session and no position: {data!r}")
    return pid, position


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_state(value: object) -> bool:
    return isinstance(value, str) and value in _STATES


def _is_time(value: Any) -> bool:
    # What is no number is not below it either.
    return type(value) in (int, float) and abs(value) < _LATEST


def _is_time_or_none(value: object) -> bool:
    return value is None or _is_time(value)


def _is_address(value: object) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) == 2 and _is_text(value[0]) and is_number(value[1])
    )


def _are_lags(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_time_or_none, value))


def _is_feedback(value: object) -> bool:
    # Its first number is a time, which may be before PostgreSQL's epoch.
    return value is None or (
        isinstance(value, list)
        and len(value) == 5
        and type(value[0]) is int
        and all(map(is_number, value[1:]))
    )


_STATES: Final = frozenset(state.value for state in StandbyState)

_IS_RIGHT: Final[Mapping[str, Callable[[object], bool]]] = {
    "pid": is_number,
    "user": _is_text,
    "application_name": _is_text,
    "address": _is_address,
    "connected": _is_time,
    "state": _is_state,
    "slot": _is_text_or_none,
    "timeline": is_number,
    "sent": is_number,
    "write": is_number,
    "flush": is_number,
    "apply": is_number,
    "lags": _are_lags,
    "replied": _is_time_or_none,
    "reply_time": _is_time_or_none,
    "feedback": _is_feedback,
}
