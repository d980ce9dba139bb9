"""Takes guards away, one at a time, and sees that a test fails without each.

    python -m tools.mutations            # all of them
    python -m tools.mutations L1 L13     # those of these classes of loss
    python -m tools.mutations sender     # those against clients; receiver: against servers

The classes L1 to L18 are those of docs/reference/loss-catalogue.md. Each guard is taken away in a
copy of the checkout, where trial runs its test. It ends with status 1 if a test passes without its
guard, or a snippet is not in the source exactly once.

To add one: a `Guard` in `GUARDS`, whose test says the class in its docstring, or in
`tools.access_guards`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.access_guards import ACCESS_GUARDS
from tools.guard import Guard

__all__ = ["CHECKOUT", "GUARDS", "main"]

CHECKOUT = Path(__file__).resolve().parents[1]

_COPIED = ("walstream", "tests", "pyproject.toml", "setup.py", "docs", "tools")


GUARDS = (
    Guard(
        "L1",
        "data is synced before it is counted",
        "archive/segment.py",
        "            self._files.fdatasync(self._fd)\n",
        "            pass\n",
        "test_archive_writing.DurabilityTests.test_next_flush_of_a_segment",
    ),
    Guard(
        "L1",
        "a finished segment is synced before it is counted",
        "archive/segment.py",
        "        self._files.fsync(self._fd)\n        self._take_place()\n        self._prove()\n",
        "        self._take_place()\n        self._prove()\n",
        "test_archive_writing.DurabilityTests.test_segment_end",
    ),
    Guard(
        "L1",
        "the file that was synced is the one that has the name",
        "archive/segment.py",
        "        if self._files.find_identity(self.path) != self._identity:\n",
        "        if False:\n",
        "test_archive_faults.GoneTests.test_partial_removed",
    ),
    Guard(
        "L1",
        "the directory that was synced is the archive, and ours",
        "archive/tenure.py",
        '        raise ArchiveLost(f"the archive at {self._paths.root} is gone: {found}")\n',
        "        return\n",
        "test_archive_faults.GoneTests.test_lock_file_removed",
    ),
    Guard(
        "L1",
        "after a failed sync nothing more is counted",
        "archive/stream.py",
        "        if self._is_broken:\n            raise _AfterFailure\n",
        "",
        "test_archive_writing.FailureTests.test_no_finished_segment_behind_a_hole",
    ),
    Guard(
        "L1",
        "after a failed sync the segment is received again into another file",
        "archive/sink.py",
        "        self._maker.suspect(self._history.timeline)\n",
        "",
        "test_archive_writing.RecoveryTests.test_the_segment_is_received_again_into_a_fresh_file",
    ),
    Guard(
        "L1",
        "the end mark is written before anything is acknowledged",
        "archive/sink.py",
        "        self._public.synced(durable)\n"
        "        self._flushed, self._durable = lsn, durable\n",
        "        self._flushed, self._durable = lsn, durable\n"
        "        self._public.synced(durable)\n",
        "test_archive_faults.EachStepTests.test_mark_before_word",
    ),
    Guard(
        "L2",
        "a segment's final name is synced before it is counted",
        "archive/segment.py",
        "        self._files.fsync_directory(self._root)\n        self._assure()\n",
        "        self._assure()\n",
        "test_archive_writing.DurabilityTests.test_segment_end",
    ),
    Guard(
        "L2",
        "a new segment's directory entry is synced before it is counted",
        "archive/segment.py",
        "            self._files.fsync_directory(self._root)\n            self._entry_is_durable",
        "            self._entry_is_durable",
        "test_archive_writing.DurabilityTests.test_first_flush_of_a_segment",
    ),
    Guard(
        "L2",
        "a name that could not be synced is given again at the next start",
        "archive/possession.py",
        "                _name_again(files, paths, name)\n",
        "                pass\n",
        "test_archive_opening.RestartTests.test_killed_after_a_name_could_not_be_synced",
    ),
    Guard(
        "L2",
        "a small file's name is synced",
        "archive/filesystem.py",
        "        self.rename(temporary, path)\n"
        "        self.fsync_directory(os.path.dirname(path))\n",
        "        self.rename(temporary, path)\n",
        "test_archive_opening.DocumentTests.test_stored_durably",
    ),
    Guard(
        "L2",
        "a history file whose sync failed is stored again",
        "archive/documents.py",
        "                if not agrees(kept):\n                    return False\n",
        "                return agrees(kept)\n",
        "test_archive_opening.DocumentTests.test_there_but_not_durable",
    ),
    Guard(
        "L2",
        "the plain segment goes only when the compressed one's name is durable",
        "archive/compressing.py",
        "        self._files.fsync_directory(self._paths.root)\n        self._remove(",
        "        self._remove(",
        "test_archive_compressing.StepTests.test_order",
    ),
    Guard(
        "L3",
        "an unfinished segment of another size is put right",
        "archive/supply.py",
        "            if self._files.size_of(fd) != self._size:\n",
        "            if False:\n",
        "test_archive_writing.OverlapTests.test_wrong_size_is_put_right",
    ),
    Guard(
        "L3",
        "a compressed segment counts by what it decodes to, not by its trailer",
        "archive/compression.py",
        "    if done != size:\n",
        "    if False:\n",
        "test_archive_compression.ReadTests.test_wrong_sizes",
    ),
    Guard(
        "L4",
        "a finished segment of another size does not count",
        "archive/survey.py",
        "        return self._files.find_size(self._paths.of(name)) == self.size\n",
        "        return True\n",
        "test_archive_survey.PositionTests.test_wrong_size",
    ),
    Guard(
        "L5",
        "slots are made with WAL reserved",
        "services/slot.py",
        "reserve_wal=True",
        "reserve_wal=False",
        "test_services_slot.SlotTests.test_created",
    ),
    Guard(
        "L5",
        "the slot's own position decides where an empty archive begins",
        "protocols/start.py",
        "    resume = resume or reserved or system.end\n",
        "    resume = resume or system.end\n",
        "test_protocols_start.EmptySinkTests.test_slot",
    ),
    Guard(
        "L6",
        "a stream that begins elsewhere than the archive ends is refused",
        "archive/continuity.py",
        "    if start.lsn != resume:\n",
        "    if False:\n",
        "test_archive_writing.ContinuityTests.test_refuses_a_gap",
    ),
    Guard(
        "L6",
        "WAL that jumps within a stream is refused",
        "archive/stream.py",
        "        if start != self.written:\n",
        "        if False:\n",
        "test_archive_writing.ContinuityTests.test_a_jump_in_the_stream",
    ),
    Guard(
        "L6",
        "only the gap that was named is accepted",
        "archive/continuity.py",
        "    if held is None or held.lsn != start:\n",
        "    if held is None:\n",
        "test_archive_gaps.AcceptingTests.test_only_where_the_archive_ends",
    ),
    Guard(
        "L7",
        "the history files of all ancestors are fetched",
        "protocols/start.py",
        "            await _fetch_ancestor(questions, sink, copied)\n",
        "            pass\n",
        "test_protocols_start.EmptySinkTests.test_history_files_are_fetched",
    ),
    Guard(
        "L8",
        "a timeline that ends on a segment's boundary is left without a stream",
        "protocols/receiver.py",
        "        if not answer.streams:\n",
        "        if False:\n",
        "test_protocols_receiver.TimelineTests.test_nothing_more_on_the_old_timeline",
    ),
    Guard(
        "L9",
        "another cluster's WAL is refused",
        "archive/sink.py",
        "            check_same_system(self._paths, held, identity)\n",
        "            pass\n",
        "test_archive_writing.ContinuityTests.test_refuses_another_system",
    ),
    Guard(
        "L9",
        "a directory with segments of two clusters is refused",
        "archive/identity.py",
        "    if systems[0] != systems[1]:\n",
        "    if False:\n",
        "test_archive_survey.IdentityTests.test_two_systems",
    ),
    Guard(
        "L10",
        "a server whose timeline left ours before our end is refused",
        "protocols/start.py",
        "    if switch_point is not None and held.lsn > switch_point:\n",
        "    if False:\n",
        "test_protocols_start.CheckDescentTests.test_does_not_continue",
    ),
    Guard(
        "L10",
        "the archive itself refuses a timeline that forks before its end",
        "archive/continuity.py",
        "    if held.lsn > left:\n",
        "    if False:\n",
        "test_archive_writing.TimelineTests.test_refuses_a_fork_before_the_end",
    ),
    Guard(
        "L10",
        "a server that ends before the archive does is refused",
        "protocols/start.py",
        "    if switch_point is None and server.lsn < held.lsn:\n",
        "    if False:\n",
        "test_protocols_start.HeldTests.test_server_is_behind",
    ),
    Guard(
        "L11",
        "what is missing in the middle is found at the next start",
        "archive/holdings.py",
        "    return replace(ledger, holes=tuple(find_holes(ledger, holdings, end, when)))\n",
        "    return ledger\n",
        "test_archive_ledger.StocktakingTests.test_hole",
    ),
    Guard(
        "L12",
        "what is reported as flushed is what the sink has synced",
        "protocols/acknowledgement.py",
        "        self._line.report(sink.written, sink.flushed, ask",
        "        self._line.report(sink.written, sink.written, ask",
        "test_protocols_acknowledgement.ReportTests.test_written_is_not_flushed",
    ),
    Guard(
        "L12",
        "what standbys have is reported as flushed only if it is durable here",
        "protocols/status_line.py",
        "min(self._own_flushed, limits.flush)",
        "min(self._own_written, limits.flush)",
        "test_protocols_acknowledgement.PolicyTests.test_never_ahead_of_the_disk",
    ),
    Guard(
        "L13",
        "WAL that comes again is compared with what is durable",
        "archive/segment.py",
        "        if held is not None and held != received:\n",
        "        if False:\n",
        "test_archive_writing.OverlapTests.test_other_wal_is_refused",
    ),
    Guard(
        "L13",
        "a compressed segment that holds other WAL than the plain one stays",
        "archive/compressing.py",
        "        if not self._holds_the_same(pieces_of(self._files, path, plain.size), plain):\n",
        "        if False:\n",
        "test_archive_compressing.StepTests.test_other_wal_beside",
    ),
    Guard(
        "L14",
        "a file's size and entry are synced the first time, not its data alone",
        "archive/segment.py",
        "        if self._entry_is_durable:\n",
        "        if True:\n",
        "test_archive_writing.DurabilityTests.test_first_flush_of_a_segment",
    ),
    Guard(
        "L14",
        "the tail is looked at when the archive is taken into use",
        "archive/possession.py",
        "        found = survey(files, paths, checks_tail=True)\n",
        "        found = survey(files, paths)\n",
        "test_archive_gaps.TornTests.test_zeros",
    ),
    Guard(
        "L15",
        "what a reader still needs is not removed",
        "archive/holds.py",
        "        if reader.position is not None:\n",
        "        if False:\n",
        "test_archive_retention.HoldTests.test_readers",
    ),
    Guard(
        "L15",
        "what a slot still needs is not removed",
        "archive/holds.py",
        "        if restart is not None:\n",
        "        if False:\n",
        "test_archive_retention.HoldTests.test_slots",
    ),
    Guard(
        "L15",
        "what a client was sent a moment ago is not removed",
        "archive/holds.py",
        "        if lately and reader.lately is not None:\n",
        "        if False:\n",
        "test_archive_places.TrailTests.test_between_two_timelines",
    ),
    Guard(
        "L15",
        "WAL that a slot reserves is still there when the slot is known",
        "archive/slots.py",
        "            await self._check_held(slot)\n",
        "",
        "test_archive_slot_limits.ReservationTests.test_what_was_removed_meanwhile",
    ),
    Guard(
        "L15",
        "a slot is lost durably before what it needs is removed",
        "archive/retention.py",
        "        unlimited = replace(policy, max_slot_wal_keep_size=None)\n",
        "        unlimited = policy\n",
        "test_archive_slot_limits.LimitTests.test_nothing_goes_that_could_not_be_made_durable",
    ),
    Guard(
        "L15",
        "slots are written by one process only",
        "archive/lock.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        "test_archive_slot_limits.PossessionTests.test_the_second_process_has_none",
    ),
    Guard(
        "L16",
        "a standby is served up to a gap and no further",
        "archive/tail.py",
        "                end = gap.start\n",
        "                pass\n",
        "test_archive_gaps.ServingTests.test_up_to_it",
    ),
    Guard(
        "L16",
        "what followers are given from memory has no hole",
        "archive/recent.py",
        "        if self._starts and not start <= self.end < end:\n            return\n",
        "",
        "test_archive_recent.RecentTests.test_what_comes_again",
    ),
    Guard(
        "L16",
        "when a stream has failed nothing of it is kept for followers",
        "archive/provider.py",
        "        tail.fall_back()\n        if was_ahead:\n",
        "        if was_ahead:\n            tail.fall_back()\n",
        "test_archive_written.RecordsTests.test_damaged_records_are_not_kept_either",
    ),
    Guard(
        "L17",
        "a client that is a little ahead is not refused",
        "protocols/stream_request.py",
        "        if start - end.lsn > identity.segment_size:\n",
        "        if True:\n",
        "test_protocols_hold.HoldTests.test_waits",
    ),
    Guard(
        "L17",
        "it is told when its WAL does not come",
        "protocols/hold.py",
        "            if error is not None:\n",
        "            if False:\n",
        "test_protocols_hold.HoldTests.test_not_for_ever",
    ),
    Guard(
        "L18",
        "a disk that is slow or full holds the server back",
        "archive/backpressure.py",
        "                self._producer.pauseProducing()\n        elif",
        "                pass\n        elif",
        "test_archive_writing.BackpressureTests.test_pauses_and_resumes",
    ),
    Guard(
        "L18",
        "after a full disk it goes on alone",
        "services/retry.py",
        "    SinkFailed: Verdict.RETRY,\n",
        "    SinkFailed: Verdict.GIVE_UP,\n",
        "test_services_retry.VerdictTests.test_table",
    ),
    Guard(
        "L18",
        "nothing is written into an empty mount point",
        "archive/possession.py",
        "        _recognize(files, paths, expected, survey(files, paths))\n",
        "        pass\n",
        "test_archive_faults.GoneTests.test_an_empty_directory_in_its_place",
    ),
    Guard(
        "L18",
        "an archive that comes back with less than was acknowledged is refused",
        "archive/possession.py",
        "    if held is None or held.timeline < end.timeline or held.lsn < end.lsn:\n",
        "    if False:\n",
        "test_archive_faults.ReturnTests.test_with_less",
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Try the guards of the kinds that are named, or all; the exit status."""
    every = (*GUARDS, *ACCESS_GUARDS)
    chosen = [guard for guard in every if not arguments or guard.kind in arguments]
    useless = [guard for guard in chosen if not _is_needed(guard)]
    print(f"guards: {len(chosen)}; tests that pass without them: {len(useless)}")
    return 1 if useless else 0


def _is_needed(guard: Guard) -> bool:
    with tempfile.TemporaryDirectory(prefix="walstream-mutation-") as directory:
        copy = Path(directory)
        for name in _COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.pyc"))
            elif source.exists():
                shutil.copy(source, copy)
        module = copy / "walstream" / guard.file
        source_text = module.read_text("utf-8")
        if source_text.count(guard.snippet) != 1:
            print(f"{guard.kind}: {guard.what}: the snippet is not in {guard.file} exactly once")
            return False
        passes = _passes(copy, guard.test)
        module.write_text(guard.remove_from(source_text), "utf-8")
        fails = not _passes(copy, guard.test)
    verdict = "the test fails, as it must" if fails else "THE TEST PASSES"
    if not passes:
        verdict = "THE TEST FAILS ANYWAY"
    print(f"{guard.kind} guard removed: {guard.what}: {verdict} ({guard.test})", flush=True)
    return passes and fails


def _passes(copy: Path, test: str) -> bool:
    command = [
        sys.executable,
        "-m",
        "twisted.trial",
        "--temp-directory=trial",
        f"tests.unit.{test}",
    ]
    done = subprocess.run(
        command,
        cwd=copy,
        env={"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
