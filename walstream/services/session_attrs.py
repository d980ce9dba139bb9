"""Whether a server is of the kind that ``target_session_attrs`` asks for."""

from __future__ import annotations

from collections.abc import Mapping

from walstream.upstream import TargetSessionAttrs

__all__ = ["unsuitable"]

_T = TargetSessionAttrs


def unsuitable(parameters: Mapping[str, str], wanted: TargetSessionAttrs) -> str | None:
    """Why the server with these parameters (ParameterStatus) will not do; None if it will.

    Servers before PostgreSQL 14 do not tell, and a physical walsender cannot be asked with SQL,
    so they will do for ``any`` only.
    """
    if wanted is _T.ANY:
        return None
    if not {"in_hot_standby", "default_transaction_read_only"} <= parameters.keys():
        return (
            f"it is PostgreSQL {parameters.get('server_version', '(unknown)')}, which does not "
            f"tell whether it is {wanted.value}: leave target_session_attrs out before 14"
        )
    standby = parameters["in_hot_standby"] == "on"
    read_only = standby or parameters["default_transaction_read_only"] == "on"
    match wanted:
        case _T.PRIMARY if standby:
            return "server is in hot standby mode"
        case _T.STANDBY if not standby:
            return "server is not in hot standby mode"
        case _T.READ_WRITE if read_only:
            return "session is read-only"
        case _T.READ_ONLY if not read_only:
            return "session is not read-only"
    return None
