"""Tests for walstream.services.control_document: what a process says of itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, NOW, SIZE, START, wal
from walstream import __version__
from walstream.formats.lsn import LSN
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.interfaces import Slot, WALPosition
from walstream.protocols.downstream import NOBODY, DownstreamSettings
from walstream.protocols.lag import Lags
from walstream.protocols.policy import ReportRules
from walstream.protocols.progress import ReceiverProgress
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby, Standbys, StandbyState
from walstream.services.control_document import (
    Document,
    ReceivingSide,
    SendingSide,
    iso_time,
)
from walstream.services.control_values import feedback_value, policy_value, sync_state
from walstream.services.upstream_record import UpstreamRecord, UpstreamState
from walstream.testing.memory import MemoryProvider
from walstream.testing.memory_sink import MemorySink
from walstream.wire.copydata import HotStandbyFeedback

_TIME = "2025-11-23T12:13:20.250000+00:00"
_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "status.md"


class Slots:
    """A store of slots."""

    def __init__(self, *slots: Slot) -> None:
        self._slots = slots

    def slots(self) -> Collection[Slot]:
        return self._slots


class DocumentCase(SynchronousTestCase):
    """A hub that holds a page of segment 3; all times are `NOW`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        self.end = self.provider.append(wal(START, 0x2000))
        self.sink = MemorySink(IDENTITY, auto_flush=False)
        self.standbys = Standbys()
        self.record = UpstreamRecord(self.clock.seconds)
        self.progress: ReceiverProgress | None = None
        self.slots = Slots()
        self.looked = 0

    def receive(self, size: int) -> None:
        """WAL comes, and is not durable yet."""
        self.successResultOf(self.sink.begin(1, START))
        self.sink.write(START, memoryview(wal(START, size)))

    def hub(self) -> Document:
        """The document of a hub."""
        document = Document(
            "hub", "/srv/wal", self.provider, self.clock, self.clock.seconds, self.sink
        )
        document.receiving = ReceivingSide(
            self.record,
            lambda: self.progress,
            "archive",
            policy=lambda: [{"position": "flush"}],
            feedback=lambda: {"xmin": 756},
        )
        document.sending = self.sending()
        return document

    def sending(self) -> SendingSide:
        """What it serves."""

        def look() -> None:
            self.looked += 1

        return SendingSide(
            self.standbys,
            SenderSettings(sender_timeout=30.0, delays={"late": 60.0}),
            self.slots,
            look,
            lambda standby: (1, "sync") if standby.application_name == "s1" else (0, "async"),
        )

    def told(self, document: Document | None = None) -> dict[str, Any]:
        """What the document says."""
        pieces = list((document or self.hub()).pieces())
        found: dict[str, Any] = json.loads(b"".join(pieces))
        return found

    def standby(self, name: str = "s1", **values: Any) -> Standby:
        """A standby that streams."""
        standby = Standby(
            len(self.standbys) + 7,
            "postgres",
            name,
            ("127.0.0.1", 5000),
            NOW,
            **{"state": StandbyState.STREAMING, "timeline": 1, **values},
        )
        self.standbys.changed(standby)
        return standby


class DocumentTests(DocumentCase):
    """What it says of a hub."""

    def test_the_process(self) -> None:
        """Who it is, and since when."""
        document = self.hub()
        self.clock.advance(2.5)
        told = self.told(document)
        self.assertEqual((told["version"], told["time"]), (1, _TIME.replace("20.25", "22.75")))
        self.assertEqual(
            told["process"],
            {"pid": os.getpid(), "role": "hub", "started": _TIME, "walstream": __version__},
        )
        self.assertEqual(told["limits"]["wal_sender_timeout"], 30)

    def test_what_is_held(self) -> None:
        """Durable is what the sink says; more may have been written."""
        self.receive(0x1000)
        flush = self.sink.flush()
        self.sink.complete_flush()
        self.successResultOf(flush)
        self.sink.write(START + 0x1000, memoryview(wal(START + 0x1000, 0x800)))
        self.assertEqual(
            self.told()["archive"],
            {
                "directory": "/srv/wal",
                "system_identifier": str(IDENTITY.system_identifier),
                "segment_size": SIZE,
                "server_version": "18.6",
                "timeline": 1,
                "written_lsn": str(LSN(START + 0x1800)),
                "durable_lsn": str(LSN(START + 0x1000)),
                "serving_timeline": 1,
                "serving_lsn": str(LSN(self.end)),
            },
        )

    def test_nothing_is_held(self) -> None:
        """Of an archive that is empty yet."""
        self.provider = MemoryProvider(None, WALPosition(1, LSN(0)))
        archive = self.told()["archive"]
        self.assertEqual(set(archive.values()), {"/srv/wal", None})

    def test_who_only_receives(self) -> None:
        """There are no clients, and nobody asks the provider how far it may be served."""
        document = self.hub()
        document.sending = None
        self.receive(0x1000)
        told = self.told(document)
        self.assertEqual((told["clients"], told["slots"], told["limits"]), ([], [], None))
        self.assertIsNone(told["archive"]["serving_lsn"])
        document.look()

    def test_who_only_sends(self) -> None:
        """Durable is what the provider may serve."""
        document = Document("send", "/srv/wal", self.provider, self.clock, self.clock.seconds)
        document.sending = self.sending()
        told = self.told(document)
        self.assertIsNone(told["upstream"])
        self.assertEqual(told["archive"]["durable_lsn"], str(LSN(self.end)))

    def test_slots(self) -> None:
        """By their names."""
        restart = WALPosition(2, LSN(START))
        self.slots = Slots(Slot("two", False, restart, 7), Slot("one", True, None, None))
        one, two = self.told()["slots"]
        self.assertEqual(list(two.values()), ["two", False, 7, str(LSN(START)), 2, None])
        self.assertEqual((one["slot_name"], one["restart_lsn"]), ("one", None))


class UpstreamTests(DocumentCase):
    """What it says of the upstream, from the first attempt on."""

    def test_states(self) -> None:
        """One after the other."""
        upstream = self.told()["upstream"]
        self.assertEqual((upstream["state"], upstream["host"]), ("stopped", None))
        self.record.connecting()
        self.assertEqual(self.told()["upstream"]["state"], "connecting")
        self.record.connects("db1:5432")
        upstream = self.told()["upstream"]
        self.assertEqual(
            (upstream["state"], upstream["host"], upstream["connected_since"]),
            ("starting", "db1:5432", _TIME),
        )
        self.record.streams()
        self.progress = ReceiverProgress(START + 0x1800, START + 3, START + 2, START + 1, 0.25)
        self.receive(0x1000)
        upstream = self.told()["upstream"]
        self.assertEqual((upstream["state"], upstream["streaming_since"]), ("streaming", _TIME))
        self.assertEqual(upstream["last_message_time"], "2025-11-23T12:13:20+00:00")
        self.assertEqual(upstream["server_lsn"], str(LSN(START + 0x1800)))
        self.assertEqual((upstream["bytes_behind"], upstream["slot_name"]), (0x800, "archive"))
        reported = [upstream[f"reported_{name}_lsn"] for name in ("write", "flush", "replay")]
        self.assertEqual(reported, [str(LSN(START + each)) for each in (3, 2, 1)])
        self.assertEqual(upstream["policy"], [{"position": "flush"}])
        self.assertEqual(upstream["feedback"], {"xmin": 756})

    def test_an_end(self) -> None:
        """The last error stays until there is another one."""
        self.record.connects("db1:5432")
        self.record.streams()
        self.record.waits("it is gone", 5)
        upstream = self.told()["upstream"]
        self.assertEqual(
            [upstream[key] for key in ("state", "host", "connected_since", "streaming_since")],
            ["waiting", "db1:5432", None, None],
        )
        self.assertEqual(
            (upstream["last_error"], upstream["last_error_time"], upstream["retry_time"]),
            ("it is gone", _TIME, _TIME.replace("20.25", "25.25")),
        )
        self.record.connecting()
        upstream = self.told()["upstream"]
        self.assertEqual((upstream["last_error"], upstream["retry_time"]), ("it is gone", None))
        self.record.stops(None)
        self.assertEqual(self.told()["upstream"]["last_error"], "it is gone")
        self.record.stops("it is another system's")
        upstream = self.told()["upstream"]
        self.assertEqual(
            (upstream["state"], upstream["last_error"]), ("stopped", "it is another system's")
        )


class ClientTests(DocumentCase):
    """What it says of the clients."""

    def setUp(self) -> None:
        super().setUp()
        self.receive(0x1000)
        flush = self.sink.flush()
        self.sink.complete_flush()
        self.successResultOf(flush)
        self.durable = START + 0x1000

    def client(self) -> dict[str, Any]:
        """The only one."""
        (client,) = self.told()["clients"]
        return client  # type: ignore[no-any-return]

    def test_columns(self) -> None:
        """Each column has what pg_stat_replication would have in it."""
        self.standby(
            slot="slot",
            sent=START + 0x1800,
            write=START + 0x1000,
            flush=START + 0x800,
            apply=START + 0x400,
            lags=Lags(0.5, 1.25, None),
            replied=NOW,
            reply_time=NOW - 0.25,
            feedback=HotStandbyFeedback(0, 756, 0, 0, 0),
        )
        self.assertEqual(
            self.client(),
            {
                "pid": 7,
                "usesysid": None,
                "usename": "postgres",
                "application_name": "s1",
                "client_addr": "127.0.0.1",
                "client_hostname": None,
                "client_port": 5000,
                "backend_start": _TIME,
                "backend_xmin": 756,
                "state": "streaming",
                "sent_lsn": str(LSN(START + 0x1800)),
                "write_lsn": str(LSN(START + 0x1000)),
                "flush_lsn": str(LSN(START + 0x800)),
                "replay_lsn": str(LSN(START + 0x400)),
                "write_lag": 0.5,
                "flush_lag": 1.25,
                "replay_lag": None,
                "sync_priority": 1,
                "sync_state": "sync",
                "reply_time": "2025-11-23T12:13:20+00:00",
                "timeline": 1,
                "slot_name": "slot",
                "complete": False,
                "sent_bytes_behind": 0,
                "write_bytes_behind": 0,
                "flush_bytes_behind": 0x800,
                "replay_bytes_behind": 0xC00,
                "behind_seconds": 0,
                "last_message_time": _TIME,
                "delay": 0,
            },
        )
        self.assertEqual(self.looked, 1)

    def test_who_has_said_nothing(self) -> None:
        """What is not known is null; a client on a UNIX socket has port -1, as in PostgreSQL."""
        standby = self.standby("late", state=StandbyState.STARTUP, timeline=0)
        standby.address = None
        client = self.client()
        self.assertEqual((client["client_addr"], client["client_port"]), (None, -1))
        self.assertEqual((client["delay"], client["sync_state"]), (60, "async"))
        nothing = [
            "sent_lsn", "flush_lsn", "write_lag", "reply_time", "backend_xmin", "timeline",
            "flush_bytes_behind", "behind_seconds", "last_message_time",
        ]  # fmt: skip
        self.assertEqual([client[each] for each in nothing], [None] * len(nothing))
        self.assertIs(client["complete"], False)

    def test_complete(self) -> None:
        """All that is durable, synced there, on our timeline; nothing less."""
        standby = self.standby(flush=self.durable)
        self.assertIs(self.client()["complete"], True)
        standby.flush = self.durable - 1
        self.assertIs(self.client()["complete"], False)
        standby.flush, standby.timeline = self.durable + 9, 2
        self.assertIs(self.client()["complete"], False)

    def test_for_how_long(self) -> None:
        """From when our end passed what it has, whoever looked."""
        standby = self.standby(flush=self.durable)
        document = self.hub()
        document.look()
        self.clock.advance(2)
        self.provider.append(wal(START + 0x2000, 0x100))
        document.look()
        standby.flush = self.end  # as far as we were two seconds ago, and more than is durable
        self.clock.advance(3)
        self.assertIsNone(self.client()["behind_seconds"])
        self.sink.write(START + 0x1000, memoryview(wal(START + 0x1000, 0x1080)))
        flush = self.sink.flush()
        self.sink.complete_flush()
        self.successResultOf(flush)
        client = self.client()
        self.assertEqual((client["behind_seconds"], client["flush_bytes_behind"]), (3, 0x80))

    def test_a_clock_that_says_anything(self) -> None:
        """A client's time stamp is no reason to fail."""
        self.standby(reply_time=9.3e12)
        self.assertIsNone(self.client()["reply_time"])
        self.assertIsNone(iso_time(-1e30))

    def test_a_thousand(self) -> None:
        """They are told in pieces, each of which is made when it is asked for."""
        for number in range(1000):
            self.standby(f"s{number}")
        pieces = self.hub().pieces()
        next(pieces)
        self.assertEqual(self.looked, 0)
        first = json.loads(b"[" + next(pieces) + b"]")
        self.assertLessEqual(len(first), 50)
        rest = json.loads(b"[null" + b"".join(pieces).removesuffix(b"}\n"))
        self.assertEqual(len(first) + len(rest) - 1, 1000)


class DownstreamTests(DocumentCase):
    """What is done upstream for the standbys."""

    def setUp(self) -> None:
        super().setUp()
        names = SynchronousStandbyNames.parse("FIRST 1 (s1, s2)")
        settings = DownstreamSettings(ReportRules(flush=names))
        self.made = settings.made_for(self.standbys, self.clock, 60.0)

    def test_rules(self) -> None:
        """Each with what it waits for."""
        assert self.made.policy is not None
        self.made.policy.begin(1, lambda: None)
        self.assertEqual(
            policy_value(self.made),
            [
                {
                    "position": "flush",
                    "rule": "FIRST 1 (s1, s2)",
                    "is_met": False,
                    "is_lifted": False,
                    "reached_lsn": None,
                    "missing": ["s1", "s2"],
                }
            ],
        )
        standby = self.standby("s2", flush=START)
        (rule,) = policy_value(self.made) or []
        self.assertEqual((rule["is_met"], rule["reached_lsn"]), (True, str(LSN(START))))
        self.assertEqual(sync_state(self.made, standby), (2, "sync"))
        self.assertEqual(sync_state(self.made, self.standby("s9")), (0, "async"))
        self.made.policy.end()

    def test_feedback(self) -> None:
        """The oldest that anybody needs, with its epoch."""
        self.assertIsNone(feedback_value(self.made))
        assert self.made.feedback is not None
        self.standby(feedback=HotStandbyFeedback(0, 756, 2, 0, 0))
        self.made.feedback.watch(lambda: None)
        self.assertEqual(feedback_value(self.made), {"xmin": 2 << 32 | 756, "catalog_xmin": None})
        self.made.feedback.unwatch()

    def test_nothing(self) -> None:
        """Of who has no standbys, or a policy of their own."""
        standby = self.standby()
        for nothing in (NOBODY, DownstreamSettings().made_for(self.standbys, self.clock, 0.0)):
            self.assertIsNone(policy_value(nothing))
            self.assertIsNone(feedback_value(nothing))
            self.assertEqual(sync_state(nothing, standby), (0, "async"))


class ManualTests(DocumentCase):
    """docs/reference/status.md against the document."""

    def documented(self, heading: str) -> list[str]:
        """The keys of a section's tables, in their order."""
        part = _PAGE.read_text("utf-8").partition(f"\n{heading}\n")[2].partition("\n## ")[0]
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        return [key for row in rows for key in re.findall(r"`([a-z_]+)`", row)]

    def test_every_key(self) -> None:
        """Is documented, and no other; what `walstream status` adds is in the same tables."""
        self.slots = Slots(Slot("one", True, None, None))
        self.standby()
        told = self.told()
        processes = {*told["process"], "time", "limits"}
        self.assertEqual(set(self.documented("## processes")) - set(told["limits"]), processes)
        self.assertLessEqual(set(told["limits"]), set(re.findall(r"`(\w+)`", _PAGE.read_text())))
        archive = {*told["archive"], "oldest_lsn"} - {"directory", "serving_timeline"}
        self.assertEqual(set(self.documented("## archive")), archive)
        rule = {"position", "rule", "is_met", "is_lifted", "reached_lsn", "missing"}
        inner = {*rule, "xmin", "catalog_xmin", "write", "flush", "apply"}
        upstream = {*told["upstream"], "process"}
        states = {each.value for each in UpstreamState}
        self.assertEqual(set(self.documented("## upstream")) - inner - states, upstream)
        self.assertEqual(self.documented("## clients"), [*told["clients"][0], "process"])
        self.assertEqual(
            set(self.documented("## slots")),
            {*told["slots"][0], "process", "wal_status"},
        )
