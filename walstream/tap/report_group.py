"""Options about what a hub reports, and passes on, for its standbys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walstream.errors import FormatError
from walstream.tap.peer_groups import UpstreamOptions
from walstream.tap.values import own_apply_position, seconds

if TYPE_CHECKING:
    from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
    from walstream.protocols.downstream import DownstreamSettings
    from walstream.protocols.receiver_settings import ReportApply

__all__ = ["ReportOptions"]

_OWN = ("local", "flush", "none")


class ReportOptions(UpstreamOptions):
    """Where the WAL comes from, and what is said there for those whom it is served to."""

    optParameters = [
        [
            "report-write",
            None,
            "local",
            "What to report as written: local, what is here, or what the standbys have that a "
            "value of synchronous_standby_names names, such as 'ANY 1 (s1, s2)'.",
        ],
        [
            "report-flush",
            None,
            "local",
            "What to report as durable, likewise; never more than is durable here. --report-apply "
            "takes the same.",
        ],
        [
            "report-timeout",
            None,
            "0",
            "Seconds after which local is reported instead, while too few of the standbys are "
            "there; 0: never, commits that wait for them wait.",
        ],
        [
            "feedback",
            None,
            "on",
            "Whether to pass the standbys' hot standby feedback on: on or off.",
        ],
    ]

    def postOptions(self) -> None:
        """Make settings of them."""
        super().postOptions()
        self.downstream = self._downstream()

    def report_apply(self) -> ReportApply:
        """What to report as applied, if that is not up to standbys."""
        from walstream.protocols.receiver_settings import ReportApply

        if self["report-apply"] in _OWN:
            return own_apply_position(self["report-apply"])
        return ReportApply.FLUSH

    def _downstream(self) -> DownstreamSettings:
        from walstream.protocols.downstream import DownstreamSettings
        from walstream.protocols.policy import ReportRules

        return DownstreamSettings(
            rules=ReportRules(
                write=self.checked("report-write", _rule),
                flush=self.checked("report-flush", _rule),
                apply=self.checked("report-apply", _apply_rule),
            ),
            timeout=self.checked("report-timeout", seconds) or 0.0,
            feedback=bool(self.checked("feedback", _on_or_off)),
        )


def _rule(text: str) -> SynchronousStandbyNames | None:
    from walstream.protocols.policy import parse_rule

    return parse_rule(text)


def _apply_rule(text: str) -> SynchronousStandbyNames | None:
    return None if text in _OWN else _rule(text)


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise FormatError(f"{text!r} is neither on nor off")
    return text == "on"
