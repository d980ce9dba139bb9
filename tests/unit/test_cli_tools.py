"""Tests for walstream.cli's ls, prune and restore-wal: what they print, and how they exit."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from typing import Any

from tests.unit.archives import IDENTITY, SIZE, DirectoryCase
from walstream.archive.end_mark import EndMark
from walstream.archive.identity import store_identity
from walstream.archive.slot_files import SlotFiles
from walstream.cli import main, restore_wal
from walstream.formats.lsn import LSN
from walstream.formats.segments import backup_history_name
from walstream.interfaces import Slot, WALPosition


class ToolCase(DirectoryCase):
    """An archive of segments 3 to 6, and the unfinished one behind."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(3, 7):
            os.utime(self.put_segment(number), (1_800_000_000.0, 1_800_000_000.0))
        self.put_segment(7, partial=True)
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def run_tool(self, *words: str) -> int | str | None:
        """Run it; how it exits."""
        self.out.truncate(self.out.seek(0))
        self.err.truncate(self.err.seek(0))
        try:
            return main(words)
        except SystemExit as stop:
            return stop.code


class ListTests(ToolCase):
    """walstream ls"""

    def listing(self, *options: str) -> dict[str, Any]:
        """What --json says."""
        self.status = self.run_tool("ls", "--json", *options, str(self.path))
        found: dict[str, Any] = json.loads(self.out.getvalue())
        return found

    def make_whole(self) -> None:
        """With all that may be in an archive."""
        self.paths_own()
        store_identity(self.files, self.paths, IDENTITY)
        mark = EndMark(self.files, self.paths)
        mark.write(WALPosition(1, LSN(SIZE.start(7) + 4096)))
        mark.close()
        restart = WALPosition(1, SIZE.start(5))
        slots = SlotFiles(self.files, self.paths.slots)
        slots.store(Slot("standby", temporary=False, restart=restart, active_pid=None))
        name = backup_history_name(1, LSN(SIZE.start(3) + 0x28), SIZE)
        (self.path / name).write_bytes(b"")
        self.put_history(2, (1, SIZE.start(9)))

    def paths_own(self) -> None:
        """Walstream's directory."""
        os.makedirs(self.paths.own)

    def test_json(self) -> None:
        """The whole of it, as the manual has it."""
        self.make_whole()
        listing = self.listing("--segments")
        self.assertEqual(self.status, 0)
        self.assertEqual(
            listing["timelines"],
            [
                {
                    "timeline": 1,
                    "ranges": [
                        {
                            "first": self.name(3),
                            "last": self.name(6),
                            "start": "0/300000",
                            "end": "0/700000",
                            "segments": 4,
                            "bytes": 4 * SIZE,
                            "bytes_on_disk": 4 * SIZE,
                            "forms": {"plain": 4},
                            "oldest": "2027-01-15T08:00:00+00:00",
                            "newest": "2027-01-15T08:00:00+00:00",
                        }
                    ],
                }
            ],
        )
        self.assertEqual(listing["schema"], 1)
        self.assertEqual(listing["system"]["segment_size"], SIZE)
        self.assertEqual(listing["durable"], {"timeline": 1, "lsn": "0/701000"})
        self.assertEqual(listing["partials"][0]["durable"], "0/701000")
        self.assertEqual(listing["gaps"], [])
        self.assertEqual(
            listing["slots"],
            [
                {
                    "name": "standby",
                    "timeline": 1,
                    "restart_lsn": "0/500000",
                    "temporary": False,
                    "wal_status": "reserved",
                    "invalidation_reason": None,
                }
            ],
        )
        self.assertEqual(listing["histories"][0]["switch_point"], "0/900000")
        self.assertEqual(listing["backups"][0]["start"], "0/300028")
        self.assertEqual([each["file"] for each in listing["segments"]], self.names()[:1] + [
            self.name(number) for number in (4, 5, 6)
        ])  # fmt: skip

    def test_for_people(self) -> None:
        """The same in lines."""
        self.make_whole()
        self.assertEqual(self.run_tool("ls", str(self.path)), 0)
        shown = self.out.getvalue()
        for part in (
            f"system {IDENTITY.system_identifier}, PostgreSQL 18.6, segments of 1 MiB",
            "durable up to 0/701000 on timeline 1",
            f"{self.name(3)}  {self.name(6)}  4 ",
            f"unfinished  {self.name(7)}.partial, from 0/700000, durable up to 0/701000",
            "slot  standby: needs WAL from 0/500000 on",
            "history  00000002.history: left timeline 1 at 0/900000",
            "backup  ",
        ):
            self.assertIn(part, shown)
        self.assertNotIn("GAP", shown)

    def test_a_gap(self) -> None:
        """Is shown, and is the exit status."""
        (self.path / self.name(5)).unlink()
        self.assertEqual(self.run_tool("ls", str(self.path)), 1)
        self.assertIn(f"GAP  {self.name(5)} to {self.name(5)}: 1 segment", self.out.getvalue())
        (gap,) = self.listing()["gaps"]
        self.assertEqual(self.status, 1)
        self.assertEqual(
            (gap["start"], gap["end"], gap["accepted"]), ("0/500000", "0/600000", None)
        )

    def test_nothing_is_written(self) -> None:
        """It works beside whatever fills the archive."""
        self.run_tool("ls", str(self.path))
        self.assertFalse(os.path.exists(self.paths.own))

    def test_an_empty_directory(self) -> None:
        """Holds no WAL."""
        for path in self.path.iterdir():
            path.unlink()
        self.assertEqual(self.run_tool("ls", str(self.path)), 0)
        self.assertIn("no WAL", self.out.getvalue())

    def test_no_directory(self) -> None:
        """Is an error."""
        self.assertEqual(self.run_tool("ls", str(self.path / "none")), 2)
        self.assertIn("No such file", self.err.getvalue())


class PruneTests(ToolCase):
    """walstream prune"""

    def test_it_removes(self) -> None:
        """And says what, and why not more."""
        self.assertEqual(self.run_tool("prune", "--keep-size", "2MB", str(self.path)), 0)
        self.assertEqual(len(self.names()), 3)
        self.assertEqual(
            self.out.getvalue(),
            f"removed 2 files, 2 MiB; {self.name(5)} stays: from here on it is within the size "
            "kept\n",
        )

    def test_dry_run(self) -> None:
        """Lists the files with their sizes, and removes none."""
        words = ("prune", "--dry-run", "--keep-from", self.name(5), str(self.path))
        self.assertEqual(self.run_tool(*words), 0)
        self.assertEqual(
            self.out.getvalue(),
            f"{self.name(3)}  {int(SIZE)}\n{self.name(4)}  {int(SIZE)}\n"
            f"would remove 2 files, 2 MiB; {self.name(5)} stays: it is kept from {self.name(5)} "
            "on\n",
        )
        self.assertEqual(len(self.names()), 5)

    def test_refused(self) -> None:
        """Is a status of its own."""
        (self.path / self.name(5)).unlink()
        self.assertEqual(self.run_tool("prune", "--keep-size", "2MB", str(self.path)), 1)
        self.assertIn("gap", self.err.getvalue())

    def test_wrong_usage(self) -> None:
        """No policy, or none that can be understood."""
        self.assertEqual(self.run_tool("prune", str(self.path)), 2)
        self.assertIn("--keep-age=30d", self.err.getvalue())
        self.assertEqual(self.run_tool("prune", "--keep-age", "30", str(self.path)), 2)
        self.assertIn("'30' is not a time such as 30d", self.err.getvalue())
        self.assertEqual(len(self.names()), 5)


class RestoreTests(ToolCase):
    """walstream restore-wal: how it exits is PostgreSQL's contract."""

    def restore(self, *words: str) -> int | str | None:
        """Ask for a file."""
        return self.run_tool("restore-wal", *words)

    def test_statuses(self) -> None:
        """Given, not there, stop."""
        archive, target = str(self.path), self.mktemp()
        self.assertEqual(self.restore(archive, self.name(4), target), 0)
        self.assertEqual(self.restore(archive, self.name(7), target), 1)
        self.assertEqual(self.restore("--partial", archive, self.name(7), target), 0)
        self.assertEqual(self.restore(archive, "00000002.history", target), 1)
        (self.path / self.name(4)).write_bytes(b"")
        self.assertEqual(self.restore(archive, self.name(4), target), 200)
        self.assertIn(f"restore-wal {self.name(4)}: ", self.err.getvalue())

    def test_wrong_usage(self) -> None:
        """Must not look like the end of WAL."""
        for words in ((), (str(self.path),), ("--unknown", "a", "b", "c")):
            self.assertEqual(self.restore(*words), 200)

    def test_what_nobody_expected(self) -> None:
        """Python would exit with 1, which means that there is no such file."""
        self.patch(restore_wal, "restore", lambda *_, **__: 1 // 0)
        self.assertEqual(self.restore(str(self.path), self.name(4), "x"), 200)
        self.assertIn("by zero", self.err.getvalue())

    def test_nobody_reads_the_words(self) -> None:
        """The status stays what it is."""
        self.err.close()
        self.patch(sys, "stderr", BrokenPipe())
        try:
            status = main(["restore-wal", str(self.path / "none"), self.name(4), "x"])
        finally:
            self.err = StringIO()
        self.assertEqual(status, 200)


class BrokenPipe(StringIO):
    """A terminal that has gone."""

    def write(self, text: str) -> int:
        """Nobody is there."""
        raise BrokenPipeError(32, "Broken pipe")
