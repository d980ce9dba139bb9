"""What is done upstream for a hub's standbys, as values for the control socket's document."""

from __future__ import annotations

from typing import Any

from walstream.formats.lsn import LSN
from walstream.protocols.downstream import Downstream
from walstream.protocols.standby_policy import StandbyPolicy
from walstream.protocols.standbys import Standby

__all__ = ["feedback_value", "policy_value", "sync_state"]


def policy_value(downstream: Downstream) -> list[dict[str, Any]] | None:
    """The rules by which positions are reported; None if they are our own, or nobody knows how."""
    policy = _standby_policy(downstream)
    if policy is None:
        return None
    return [
        {
            "position": each.position,
            "rule": each.rule,
            "is_met": each.is_met,
            "is_lifted": each.is_lifted,
            "reached_lsn": str(LSN(each.reached)) if each.reached else None,
            "missing": list(each.missing),
        }
        for each in policy.state()
    ]


def feedback_value(downstream: Downstream) -> dict[str, int | None] | None:
    """What the server is asked to keep, as transaction numbers with their epochs; None: nothing."""
    if downstream.feedback is None or not downstream.feedback.horizon:
        return None
    horizon = downstream.feedback.horizon
    return {"xmin": horizon.xmin or None, "catalog_xmin": horizon.catalog_xmin or None}


def sync_state(downstream: Downstream, standby: Standby) -> tuple[int, str]:
    """``sync_priority`` and ``sync_state``."""
    policy = _standby_policy(downstream)
    return (0, "async") if policy is None else policy.sync_state(standby)


def _standby_policy(downstream: Downstream) -> StandbyPolicy | None:
    policy: object = downstream.policy  # a library's user may have another one
    return policy if isinstance(policy, StandbyPolicy) else None
