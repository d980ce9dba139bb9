"""Tests for walstream.cli's status: what it makes of an archive and of what its processes say."""

from __future__ import annotations

import json
import os
from threading import Event, Thread
from typing import Any

from tests.unit.archives import IDENTITY, SIZE
from tests.unit.test_cli_tools import ToolCase
from walstream.archive.compression import WholenessCheck
from walstream.archive.end_mark import EndMark
from walstream.archive.identity import store_identity
from walstream.archive.process_names import new_name
from walstream.archive.slot_files import SlotFiles
from walstream.cli import status, status_report
from walstream.cli.status_report import make_report, verdicts
from walstream.errors import StatusUnknown
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.services import control_files
from walstream.services.control_files import SocketFile

_TIME = "2026-11-26T01:02:03.250000+00:00"
_END = SIZE.start(7) + 4096


def client(name: str, flush: int = _END, **values: Any) -> dict[str, Any]:
    """A client as a process tells of it."""
    lsn = str(LSN(flush)) if flush else None
    return {
        "pid": 1,
        "application_name": name,
        "state": "streaming",
        "sent_lsn": lsn,
        "write_lsn": lsn,
        "flush_lsn": lsn,
        "replay_lsn": lsn,
        "flush_lag": None,
        "sync_state": "async",
        "timeline": 1,
        "complete": None,
        "sent_bytes_behind": None,
        "write_bytes_behind": None,
        "flush_bytes_behind": None,
        "replay_bytes_behind": None,
        "behind_seconds": None,
        **values,
    }


def document(role: str, *clients: dict[str, Any], **values: Any) -> dict[str, Any]:
    """What a process says."""
    upstream = {
        "state": "streaming",
        "host": "db1:5432",
        "streaming_since": _TIME,
        "last_error": None,
        "last_message_time": "2026-11-26T01:02:02.250000+00:00",
        "bytes_behind": 2048,
        "reported_write_lsn": str(LSN(_END)),
        "reported_flush_lsn": str(LSN(_END)),
        "reported_replay_lsn": None,
        "policy": None,
    }
    return {
        "version": 1,
        "time": _TIME,
        "process": {"pid": 4711, "role": role, "started": _TIME, "walstream": "0.1"},
        "archive": {
            "timeline": 1,
            "written_lsn": str(LSN(_END)),
            "durable_lsn": str(LSN(_END)),
            "serving_lsn": None if role == "receive" else str(LSN(_END)),
        },
        "upstream": None if role == "send" else upstream,
        "slots": [],
        "limits": None if role == "receive" else {},
        "clients": list(clients),
        **values,
    }


class StatusCase(ToolCase):
    """An archive that is durable up to a page in its unfinished segment 7."""

    def setUp(self) -> None:
        super().setUp()
        os.makedirs(self.paths.control)
        store_identity(self.files, self.paths, IDENTITY)
        self.mark(_END)
        self.patch(status, "_INTERVAL", 0.01)
        self.patch(status_report, "_PAUSE", 0.001)

    def mark(self, end: int, timeline: int = 1) -> None:
        """The archive is durable up to there."""
        mark = EndMark(self.files, self.paths)
        mark.write(WALPosition(timeline, LSN(end)))
        mark.close()

    def process(self, *says: dict[str, Any] | bytes, path: str | None = None) -> SocketFile:
        """A process that says this, one thing after the other and the last again and again."""
        file = SocketFile.make(path or os.path.join(self.paths.control, new_name()))
        file.listener.setblocking(True)
        file.listener.settimeout(0.02)
        answers = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in says]
        over = Event()

        def run() -> None:
            while not over.is_set():
                try:
                    connection, _ = file.listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

        thread = Thread(target=run, daemon=True)
        thread.start()

        def end() -> None:
            over.set()
            thread.join(5)
            file.listener.close()

        self.addCleanup(end)
        return file

    def status(self, *options: str) -> int | str | None:
        """Run the command; how it exits."""
        return self.run_tool("status", str(self.path), *options)

    @property
    def printed(self) -> str:
        """What it printed."""
        return self.out.getvalue()


class ReportTests(StatusCase):
    """What is put together."""

    def test_no_process(self) -> None:
        """The files tell how far the archive goes, and of its slots."""
        SlotFiles(self.files, self.paths.slots).store(
            Slot("s", temporary=False, restart=WALPosition(1, SIZE.start(5)), active_pid=None)
        )
        report = make_report(str(self.path))
        self.assertEqual(
            report["archive"],
            {
                "system_identifier": str(IDENTITY.system_identifier),
                "segment_size": SIZE,
                "server_version": "18.6",
                "timeline": 1,
                "oldest_lsn": str(SIZE.start(3)),
                "durable_lsn": str(LSN(_END)),
                "written_lsn": str(LSN(_END)),
                "serving_lsn": None,
            },
        )
        self.assertEqual((report["processes"], report["clients"]), ([], []))
        self.assertIsNone(report["upstream"])
        (slot,) = report["slots"]
        self.assertEqual((slot["slot_name"], slot["restart_lsn"]), ("s", str(SIZE.start(5))))
        self.assertEqual(slot["wal_status"], "reserved")

    def test_a_hub(self) -> None:
        """All that it says, and who says it."""
        told = document("hub", client("s1"), client("s2", _END - 100))
        one = {"slot_name": "one", "restart_lsn": None, "restart_timeline": None}
        told["slots"] = [{**one, "invalidation_reason": "wal_removed"}]
        self.process(told)
        report = make_report(str(self.path))
        self.assertEqual(report["upstream"], {"process": 4711, **told["upstream"]})
        (slot,) = report["slots"]
        self.assertEqual(
            (slot["process"], slot["slot_name"], slot["wal_status"]), (4711, "one", "lost")
        )
        self.assertEqual(report["archive"]["serving_lsn"], str(LSN(_END)))
        found = [
            (each["process"], each["complete"], each["flush_bytes_behind"])
            for each in report["clients"]
        ]
        self.assertEqual(found, [(4711, True, 0), (4711, False, 100)])

    def test_two_processes(self) -> None:
        """What one sends is compared with what the other has received meanwhile."""
        self.process(document("send", client("s1")))
        receiver = document("receive")
        receiver["archive"]["durable_lsn"] = str(LSN(_END + 50))
        receiver["archive"]["written_lsn"] = str(LSN(_END + 70))
        self.process(receiver)
        report = make_report(str(self.path))
        self.assertEqual(report["archive"]["durable_lsn"], str(LSN(_END + 50)))
        self.assertEqual(report["archive"]["written_lsn"], str(LSN(_END + 70)))
        (s1,) = report["clients"]
        self.assertEqual((s1["complete"], s1["flush_bytes_behind"]), (False, 50))
        self.assertEqual([each["role"] for each in report["processes"]], ["receive", "send"])

    def test_a_mark_that_is_ahead(self) -> None:
        """The files may know of more than a sender that looks once a second."""
        self.mark(_END + 50)
        self.process(document("send", client("s1")))
        self.assertIs(make_report(str(self.path))["clients"][0]["complete"], False)

    def test_another_timeline(self) -> None:
        """After a promotion the newer timeline counts, even if it has not come so far."""
        told = document("hub", client("s1", _END), client("s2", _END - 100, timeline=2))
        told["archive"] |= {"timeline": 2, "durable_lsn": str(LSN(_END - 100))}
        self.process(told)
        report = make_report(str(self.path))
        self.assertEqual(report["archive"]["timeline"], 2)
        self.assertEqual([each["complete"] for each in report["clients"]], [False, True])

    def test_who_is_dead(self) -> None:
        """A stale socket is no process, unless it was asked for by its path."""
        file = SocketFile.make(os.path.join(self.paths.control, new_name()))
        file.listener.close()
        self.assertEqual(make_report(str(self.path))["processes"], [])
        self.assertRaises(StatusUnknown, make_report, str(self.path), [file.path + "2"])

    def test_elsewhere(self) -> None:
        """A socket that is not in the archive."""
        path = os.path.abspath(self.mktemp())
        self.process(document("send"), path=path)
        self.assertEqual(len(make_report(str(self.path), [path])["processes"]), 1)

    def test_who_turns_readers_away(self) -> None:
        """Is asked again, but not at once: the others take a while."""
        pauses: list[float] = []
        self.patch(status_report, "sleep", pauses.append)
        self.process(b"", b"", document("send"))
        self.assertEqual(len(make_report(str(self.path))["processes"]), 1)
        self.assertEqual(pauses, [0.001] * 2)

    def test_who_cannot_be_understood(self) -> None:
        """Another version, or half of an answer: that is no status."""
        for says in (b'{"version": 1, "cl', b"[]", document("send", version=2), b""):
            self.process(says)
            self.assertRaises(StatusUnknown, make_report, str(self.path))

    def test_who_does_not_answer(self) -> None:
        """A process that is stopped is an error, and not one that is not there."""
        self.patch(control_files, "_BACKLOG", 1)
        file = SocketFile.make(os.path.join(self.paths.control, new_name()))
        self.addCleanup(file.listener.close)
        self.patch(status_report, "_PATIENCE", 0.05)
        failure = self.assertRaises(StatusUnknown, make_report, str(self.path))
        self.assertIn("no answer within", str(failure))


class VerdictTests(StatusCase):
    """Whether a standby has everything."""

    def verdict(self, *clients: dict[str, Any]) -> str:
        """Of s1; empty if it has."""
        self.process(document("hub", *clients))
        (judged,) = verdicts(make_report(str(self.path)), ["s1"])
        self.assertIs(bool(judged), judged.reason == "")
        return judged.reason

    def test_everything(self) -> None:
        """All that is durable here, or more."""
        self.assertEqual(self.verdict(client("s1"), client("s2", 1)), "")

    def test_more(self) -> None:
        """A standby that is ahead has it too."""
        self.assertEqual(self.verdict(client("s1", _END + 9)), "")

    def test_less(self) -> None:
        """It is told by how much."""
        where = LSN(_END - 100)
        self.assertEqual(
            self.verdict(client("s1", _END - 100)), f"lacks 100 bytes: it has WAL up to {where}"
        )

    def test_not_there(self) -> None:
        """Nobody knows what it has."""
        self.assertEqual(self.verdict(client("s2")), "is not connected")

    def test_no_stream(self) -> None:
        """It is there, and says nothing."""
        self.assertEqual(
            self.verdict(client("s1", 0, state="startup", timeline=None)),
            "is connected, and does not stream",
        )

    def test_no_report(self) -> None:
        """It streams, and has not said what it has synced; pg_receivewal may never."""
        self.assertEqual(self.verdict(client("s1", 0)), "has not reported what it has")

    def test_a_timeline_of_before(self) -> None:
        """It is as far, on what the archive has left."""
        self.assertEqual(
            self.verdict(client("s1", timeline=2)), "is on timeline 2, the archive on 1"
        )

    def test_two_of_a_name(self) -> None:
        """Which of the two would be promoted? So both have to have it."""
        self.assertIn("lacks 1 bytes", self.verdict(client("s1"), client("s1", _END - 1)))

    def test_nothing_is_held(self) -> None:
        """Nobody has everything of nothing."""
        report = {"archive": {"durable_lsn": None}, "clients": [client("s1")]}
        (judged,) = verdicts(report, ["s1"])
        self.assertFalse(judged)


class CommandTests(StatusCase):
    """walstream status"""

    def test_no_process(self) -> None:
        """It says so, in words and by its status."""
        self.assertEqual(self.status(), 3)
        self.assertIn("no walstream process fills or serves this archive", self.printed)
        self.assertIn(f"to {LSN(_END)}, durably, timeline 1", self.printed)

    def test_an_empty_directory(self) -> None:
        """Holds nothing."""
        path = self.mktemp()
        os.mkdir(path)
        self.assertEqual(self.run_tool("status", path), 3)
        self.assertIn("no WAL", self.printed)

    def test_no_directory(self) -> None:
        """That is an error."""
        self.assertEqual(self.run_tool("status", str(self.path / "none")), 2)
        self.assertIn("none", self.err.getvalue())

    def test_who_cannot_be_understood(self) -> None:
        """So is this, with the socket that it is about."""
        file = self.process(b"[]")
        self.assertEqual(self.status("--require-complete=s1", "--wait=0.05"), 2)
        self.assertIn(file.path, self.err.getvalue())

    def test_the_screen(self) -> None:
        """What there is to see of a hub."""
        late = client("s2", _END - 3 << 20, behind_seconds=12.34, flush_lag=0.5)
        told = document("hub", client("s1"), late, client("", 0, state="startup"))
        told["archive"]["written_lsn"] = str(LSN(_END + 8))
        told["slots"] = [
            {
                "slot_name": "a",
                "restart_lsn": "0/300000",
                "restart_timeline": 1,
                "invalidation_reason": None,
                "active_pid": 1,
            },
            {
                "slot_name": "b",
                "restart_lsn": None,
                "restart_timeline": None,
                "invalidation_reason": "wal_removed",
                "active_pid": None,
            },
        ]
        late["flush_lsn"] = str(LSN(_END - (3 << 20)))
        self.process(told)
        self.assertEqual(self.status(), 0)
        end, far = LSN(_END), late["flush_lsn"]
        for line in (
            f"holds WAL from 0/300000 to {end}, durably, timeline 1; written up to {LSN(_END + 8)}",
            "hub  process 4711, since 2026-11-26 01:02:03",
            "upstream  db1:5432: streaming since 2026-11-26 01:02:03, 2 KiB behind it, "
            "last message 1.0 s ago",
            f"reported  written {end}, durable {end}, applied -",
            "slot  a: needs WAL from 0/300000 on, in use by 1",
            "slot  b: LOST (wal_removed), not in use",
        ):
            self.assertIn(line + "\n", self.printed)
        rows = [line.split() for line in self.printed.splitlines()]
        self.assertIn(["s1", "streaming", *[str(end)] * 4, "-", "async", "yes"], rows)
        (row,) = (row for row in rows if row[0] == "s2")
        self.assertEqual(row[4], far)
        self.assertEqual(
            row[6:], ["0.500", "s", "async", "NO,", "lacks", "3", "MiB,", "for", "12.3", "s"]
        )
        self.assertIn(["(pid", "1)", "startup", *"-----", "async", "not", "known"], rows)

    def test_the_rules(self) -> None:
        """By which positions are reported, and whether commits may be waiting."""
        rule = {"position": "flush", "rule": "ANY 1 (s1)", "is_met": True, "is_lifted": False}
        rule |= {"reached_lsn": "0/300000", "missing": []}
        unmet = {**rule, "is_met": False, "missing": ["s1"]}
        told = document("hub")
        told["upstream"]["policy"] = [rule, unmet, {**unmet, "is_lifted": True, "missing": []}]
        self.process(told)
        self.status()
        for line in (
            "reports flush by ANY 1 (s1): they have 0/300000",
            "reports flush by ANY 1 (s1): NOT MET, commits may wait; not there: s1",
            "reports flush by ANY 1 (s1): NOT MET, reported as it is here; not there: "
            "one more of them",
        ):
            self.assertIn(line + "\n", self.printed)

    def test_an_upstream_that_is_lost(self) -> None:
        """Is said loudly, with the reason."""
        told = document("hub", client("s1"))
        told["upstream"] |= {"state": "waiting", "last_error": "db1: connection refused"}
        self.process(told)
        self.assertEqual(self.status("--require-complete", "s1"), 0)
        self.assertIn("NOT STREAMING, waiting: db1: connection refused", self.printed)
        self.assertIn("s1 has all of it\n", self.printed)
        self.assertNotIn("more may come", self.printed)

    def test_required(self) -> None:
        """One that lacks something is enough for status 1; while the upstream is there, that is
        said.
        """
        self.process(document("hub", client("s1"), client("s2", _END - 1)))
        self.assertEqual(self.status("--require-complete=s1"), 0)
        self.assertTrue(self.printed.endswith("more may come\n"), self.printed)
        self.assertEqual(self.status("--require-complete=s1", "--require-complete=s2"), 1)
        self.assertIn("s2 lacks 1 bytes", self.printed)
        self.assertNotIn("more may come", self.printed)

    def test_required_of_nobody(self) -> None:
        """No process, no standby: the status says which."""
        self.assertEqual(self.status("--require-complete", "s1"), 3)

    def test_a_compressed_segment(self) -> None:
        """Is decoded once, however long it waits."""
        self.compress_segment(6)
        looks: list[str] = []
        self.patch(WholenessCheck, "_look", lambda check, files, path, size: looks.append(path))
        less, all_of_it = document("hub", client("s1", 1)), document("hub", client("s1"))
        self.process(less, less, less, all_of_it)
        self.assertEqual(self.status("--require-complete=s1", "--wait=30"), 0)
        self.assertEqual(looks, [self.paths.of(f"{self.name(6)}.gz")])

    def test_wait(self) -> None:
        """It waits until it is so, and no longer."""
        behind = document("hub", client("s1", _END - 1))
        self.process(behind, b"[]", behind, document("hub", client("s1")))
        self.assertEqual(self.status("--require-complete=s1", "--wait=20"), 0)

    def test_wait_in_vain(self) -> None:
        """Then it tells how it is."""
        self.process(document("hub", client("s1", _END - 1)))
        self.assertEqual(self.status("--require-complete=s1", "--wait=0.05"), 1)

    def test_json(self) -> None:
        """The report as it is, whatever is required."""
        self.process(document("hub", client("s1", _END - 1)))
        self.assertEqual(self.status("--json", "--require-complete=s1"), 1)
        self.assertEqual(json.loads(self.printed), make_report(str(self.path)))
