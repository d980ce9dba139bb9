"""The law of both roles: in which phase which message may arrive, and where it leads.

All phases and all transitions caused by the peer's messages are in the tables of this file, and
nowhere else: one for a receiver, one for a sender, and one for what comes before a sender's client
is let in. A message that has no row is a protocol violation. A message of a peer that
leads to work which takes time (a query, say) leads to the phase in which that work is done; the
steps that a role takes of its own accord (it sends a query, it ends a stream) are listed under
each table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from walstream.errors import ProtocolViolation

__all__ = [
    "ENTRY_TRANSITIONS",
    "RECEIVER_TRANSITIONS",
    "SENDER_TRANSITIONS",
    "EntryPhase",
    "ReceiverPhase",
    "SenderPhase",
    "after",
]


class ReceiverPhase(Enum):
    """Where a walreceiver's conversation with its upstream stands."""

    AUTHENTICATING = "the startup packet is out, the server has not let us in"
    STARTING = "we are let in, ReadyForQuery has not come"
    READY = "nothing is asked"
    QUERYING = "a query is out, its ReadyForQuery has not come"
    STREAMING = "WAL comes"
    STOPPING = "our CopyDone is out, the server's has not come"
    CLOSED = "the connection is gone, or is being closed"


_R = ReceiverPhase

RECEIVER_TRANSITIONS: Mapping[ReceiverPhase, Mapping[str, ReceiverPhase]] = {
    _R.AUTHENTICATING: {
        "R": _R.AUTHENTICATING,  # Authentication…
        "N": _R.AUTHENTICATING,  # NoticeResponse
        "E": _R.CLOSED,  # ErrorResponse
    },
    _R.STARTING: {
        "S": _R.STARTING,  # ParameterStatus
        "K": _R.STARTING,  # BackendKeyData
        "N": _R.STARTING,
        "E": _R.CLOSED,
        "Z": _R.READY,  # ReadyForQuery
    },
    _R.READY: {"S": _R.READY, "N": _R.READY, "E": _R.CLOSED},
    _R.QUERYING: {
        "T": _R.QUERYING,  # RowDescription
        "D": _R.QUERYING,  # DataRow
        "C": _R.QUERYING,  # CommandComplete
        "E": _R.QUERYING,
        "S": _R.QUERYING,
        "N": _R.QUERYING,
        "d": _R.QUERYING,  # a keepalive behind CopyDone, which libpq ignores as well
        "W": _R.STREAMING,  # CopyBothResponse
        "H": _R.STREAMING,  # CopyOutResponse: the stream of the 2009 design
        "Z": _R.READY,
    },
    _R.STREAMING: {
        "d": _R.STREAMING,  # CopyData
        "S": _R.STREAMING,
        "N": _R.STREAMING,
        "c": _R.QUERYING,  # CopyDone: the timeline ended; a result set follows our CopyDone
        "E": _R.QUERYING,  # the stream was broken off
        "C": _R.CLOSED,  # the server shuts down
    },
    _R.STOPPING: {
        "d": _R.STOPPING,
        "S": _R.STOPPING,
        "N": _R.STOPPING,
        "c": _R.QUERYING,
        "E": _R.QUERYING,
        "C": _R.CLOSED,
    },
    _R.CLOSED: {},
}
# Of its own accord a receiver goes from AUTHENTICATING to STARTING (AuthenticationOk, and what came
# before it was in order), from READY to QUERYING (it sends a query), from STREAMING to STOPPING (it
# sends CopyDone first), and from anywhere to CLOSED.


class EntryPhase(Enum):
    """Where a client of a walsender stands that was not let in."""

    STARTUP = "the client has not said who it is"
    ENCRYPTING = "a TLS handshake was begun, and is not over"
    AUTHENTICATING = "the client has to prove who it is"
    ADMITTING = "it is found out whether the client comes in"


_E = EntryPhase

ENTRY_TRANSITIONS: Mapping[EntryPhase, Mapping[str, EntryPhase]] = {
    _E.STARTUP: {},  # what comes has no type byte: see `walstream.protocols.welcome`
    _E.ENCRYPTING: {},  # what comes is TLS's
    _E.AUTHENTICATING: {"p": _E.ADMITTING},  # a password, SASLInitialResponse, SASLResponse
    _E.ADMITTING: {},  # nothing is read meanwhile
}
# Of its own accord it goes from STARTUP to ENCRYPTING (the client wants TLS) and back (it has it),
# from STARTUP to ADMITTING (the client has said who it is), from there to AUTHENTICATING (it has to
# prove it), and from ADMITTING to its end: the client is in. Turned away it may be from anywhere.


class SenderPhase(Enum):
    """Where a walsender's conversation with its client stands."""

    ENTERING = "the client was not let in"
    READY = "a command may come"
    ANSWERING = "a command is being answered"
    STREAMING = "WAL goes out"
    STREAMING_2009 = "WAL goes out in the dialect of 2009, in which the client has no say"
    DRAINING = "our CopyDone is out, the client's has not come"
    SHUTTING_DOWN = "everything was sent; the client's acknowledgement is awaited"
    SKIPPING = "an extended query was refused; everything is ignored until Sync"
    CLOSED = "the connection is gone, or is being closed"


_S = SenderPhase

SENDER_TRANSITIONS: Mapping[SenderPhase, Mapping[str, SenderPhase]] = {
    _S.ENTERING: {},  # it has phases of its own: `ENTRY_TRANSITIONS`
    _S.READY: {
        "Q": _S.ANSWERING,  # Query
        "X": _S.CLOSED,  # Terminate
        # What a client may still be sending to a stream that was broken off is ignored.
        "d": _S.READY,
        "c": _S.READY,
        "f": _S.READY,
        "F": _S.READY,  # FunctionCall: refused
        "H": _S.READY,  # Flush
        "S": _S.READY,  # Sync: answered by ReadyForQuery
        # Extended queries: refused, then skipped until Sync.
        **dict.fromkeys("PBDEC", _S.SKIPPING),
    },
    _S.ANSWERING: {},  # nothing is read while a command is answered
    _S.STREAMING: {
        "d": _S.STREAMING,
        "c": _S.ANSWERING,  # the client ends the stream
        "X": _S.CLOSED,
    },
    _S.STREAMING_2009: {"X": _S.CLOSED},
    _S.DRAINING: {"d": _S.DRAINING, "c": _S.ANSWERING, "X": _S.CLOSED},
    _S.SHUTTING_DOWN: {"d": _S.SHUTTING_DOWN, "c": _S.ANSWERING, "X": _S.CLOSED},
    _S.SKIPPING: {
        "S": _S.READY,
        "X": _S.CLOSED,
        **dict.fromkeys("QPBDECFHdcf", _S.SKIPPING),
    },
    _S.CLOSED: {},
}
# Of its own accord a sender goes from ENTERING to READY (the client was let in), from ANSWERING to
# READY (the answer is complete), STREAMING or STREAMING_2009 (it is a stream), from STREAMING to
# SHUTTING_DOWN (the service stops), from both to DRAINING (the timeline ended), from a stream to
# READY (it broke off with an error), and from anywhere to CLOSED.

_Phase = TypeVar("_Phase", bound=Enum)


def after(transitions: Mapping[_Phase, Mapping[str, _Phase]], phase: _Phase, kind: int) -> _Phase:
    """The phase to which a message of type *kind* leads.

    :raises ProtocolViolation: if the table has no row for it.
    """
    following = transitions[phase].get(chr(kind))
    if following is None:
        raise ProtocolViolation(
            f"message of type {chr(kind)!r} while {phase.value}: not allowed here"
        )
    return following
