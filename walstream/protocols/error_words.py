"""How a client is told what is wrong: errors as messages, in PostgreSQL's words."""

from __future__ import annotations

from walstream.errors import CommandError, ProtocolViolation, WALUnavailable
from walstream.protocols.phases import SenderPhase
from walstream.wire import messages

__all__ = ["as_command_error", "error_response", "not_allowed"]


def as_command_error(error: BaseException | None) -> CommandError | None:
    """The error as its client is to see it; None for a fault of ours, which is the log's."""
    if isinstance(error, WALUnavailable):
        return CommandError(
            "58P01",
            f"requested WAL segment {error.segment} has already been removed",
            detail=_why(error),
        )
    return error if isinstance(error, CommandError) else None


def error_response(severity: str, error: CommandError) -> bytes:
    """The message that tells it."""
    return messages.error_response(
        severity, error.sqlstate, error.message, detail=error.detail, hint=error.hint
    )


def not_allowed(phase: SenderPhase, kind: int) -> ProtocolViolation:
    """A message of type *kind* that does not belong into *phase*."""
    match phase:
        case SenderPhase.STREAMING_2009:
            return ProtocolViolation(f"invalid standby closing message type {kind}")
        case SenderPhase.STREAMING | SenderPhase.DRAINING | SenderPhase.SHUTTING_DOWN:
            return ProtocolViolation(f'invalid standby message type "{chr(kind)}"')
    return ProtocolViolation(f"invalid frontend message type {kind}")


def _why(error: WALUnavailable) -> str | None:
    if error.gap is not None:
        return f"The archive has a gap {error.gap}."
    if error.reason is not None:
        return f"The archive has a file of it, which cannot be served: {error.reason}."
    return None
