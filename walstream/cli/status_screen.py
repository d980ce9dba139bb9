"""What ``walstream status`` shows to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from walstream.cli.status_report import Report, Verdict
from walstream.cli.tables import table
from walstream.formats.amounts import in_bytes

__all__ = ["screen"]


def screen(report: Report, judged: Sequence[Verdict]) -> Iterator[str]:
    """The lines of it."""
    yield from _archive(report)
    if not report["processes"]:
        yield "no walstream process fills or serves this archive"
    yield from _upstream(report)
    yield from _clients(report)
    yield from _slots(report)
    for verdict in judged:
        yield f"{verdict.name} has all of it" if verdict else f"{verdict.name} {verdict.reason}"
    upstream = report["upstream"]
    if judged and all(judged) and upstream is not None and upstream["state"] == "streaming":
        yield "the upstream is there, so more may come"


def _archive(report: Report) -> Iterator[str]:
    archive = report["archive"]
    if archive["system_identifier"] is None:
        yield f"{report['directory']}: no WAL"
        return
    yield (
        f"{report['directory']}: system {archive['system_identifier']}, "
        f"PostgreSQL {archive['server_version']}"
    )
    if archive["durable_lsn"] is not None:
        written = archive["written_lsn"]
        also = "" if written == archive["durable_lsn"] else f"; written up to {written}"
        yield (
            f"holds WAL from {archive['oldest_lsn']} to {archive['durable_lsn']}, durably, "
            f"timeline {archive['timeline']}{also}"
        )
    for process in report["processes"]:
        yield f"{process['role']}  process {process['pid']}, since {_time(process['started'])}"


def _upstream(report: Report) -> Iterator[str]:
    upstream = report["upstream"]
    if upstream is None:
        return
    host = upstream["host"] or "no server yet"
    if upstream["state"] == "streaming":
        now = next(p["time"] for p in report["processes"] if p["pid"] == upstream["process"])
        behind = upstream["bytes_behind"]
        distance = "" if behind is None else f", {in_bytes(behind)} behind it"
        yield (
            f"upstream  {host}: streaming since {_time(upstream['streaming_since'])}{distance}"
            f"{_age(', last message', upstream['last_message_time'], now)}"
        )
        yield (
            f"reported  written {_or_none(upstream['reported_write_lsn'])}, "
            f"durable {_or_none(upstream['reported_flush_lsn'])}, "
            f"applied {_or_none(upstream['reported_replay_lsn'])}"
        )
        for rule in upstream["policy"] or []:
            yield f"reports {rule['position']} by {rule['rule']}: {_rule(rule)}"
    else:
        why = f": {upstream['last_error']}" if upstream["last_error"] else ""
        yield f"upstream  {host}: NOT STREAMING, {upstream['state']}{why}"


def _rule(rule: Report) -> str:
    if rule["is_met"]:
        return f"they have {_or_none(rule['reached_lsn'])}"
    lifted = ", reported as it is here" if rule["is_lifted"] else ", commits may wait"
    return f"NOT MET{lifted}; not there: {', '.join(rule['missing']) or 'one more of them'}"


def _clients(report: Report) -> Iterator[str]:
    yield from table(
        ["standby", "state", "sent", "written", "durable", "applied", "late by", "sync", "has all"],
        [
            [
                each["application_name"] or f"(pid {each['pid']})",
                each["state"],
                *(_or_none(each[f"{name}_lsn"]) for name in ("sent", "write", "flush", "replay")),
                _late(each),
                each["sync_state"],
                _has_all(each),
            ]
            for each in report["clients"]
        ],
    )


def _late(client: Report) -> str:
    lag = client["flush_lag"]
    return "-" if lag is None else f"{lag:.3f} s"


def _has_all(client: Report) -> str:
    if client["complete"]:
        return "yes"
    behind, seconds = client["flush_bytes_behind"], client["behind_seconds"]
    if behind is None:
        return "not known"
    since = "" if seconds is None else f", for {seconds:.1f} s"
    return f"NO, lacks {in_bytes(behind)}{since}"


def _slots(report: Report) -> Iterator[str]:
    for slot in report["slots"]:
        held, reason = slot["restart_lsn"], slot["invalidation_reason"]
        what = f"needs WAL from {held} on" if held else "holds nothing"
        if slot["wal_status"] == "lost":
            what = f"LOST ({reason})" if reason else f"LOST, {what}"
        user = f", in use by {slot['active_pid']}" if slot["active_pid"] else ", not in use"
        yield f"slot  {slot['slot_name']}: {what}{user}"


def _or_none(lsn: str | None) -> str:
    return lsn or "-"


def _time(text: str | None) -> str:
    return "-" if text is None else text.partition(".")[0].removesuffix("+00:00").replace("T", " ")


def _age(words: str, time: str | None, now: str) -> str:
    if time is None:
        return ""
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(time)).total_seconds()
    return f"{words} {max(0.0, seconds):.1f} s ago"
