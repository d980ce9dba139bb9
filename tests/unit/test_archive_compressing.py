"""How finished segments are replaced by compressed ones, and what a kill or a bad disk leaves."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from pathlib import Path

from tests.unit.archives import SIZE, ArchiveCase, DirectoryCase, compressed
from tests.unit.test_archive_crashes import Killed, MortalFiles
from walstream.archive.compressing import (
    Abandoned,
    SegmentCompressor,
    find_plain,
    remove_leftovers,
)
from walstream.archive.compression import read_segment
from walstream.archive.compressor import Compressor
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths, forms_of
from walstream.errors import ArchiveError, ArchiveLost, FormatError
from walstream.formats.compression import Compression, Method
from walstream.testing.disk import ManualLane, ScriptedFiles

_GZIP = Compression(Method.GZIP, 1)
_ZSTD = Compression(Method.ZSTD, 3)


def nothing() -> None:
    """The archive is ours."""


class CompressingCase(DirectoryCase):
    """Has a finished segment, and one behind it."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.paths.own)
        for number in (5, 6):
            self.put_segment(number)

    def compressor(self, compression: Compression = _GZIP) -> SegmentCompressor:
        """What compresses."""
        return SegmentCompressor(self.files, self.paths, compression, nothing, lambda: False)

    def compress(self, number: int = 5) -> None:
        """Compress a segment."""
        self.compressor().compress(self.name(number), SIZE)

    def assert_held(self, *forms: str, number: int = 5) -> None:
        """The segment is there in these forms, each of them whole; nothing is left of others."""
        found = [name for name in self.names() if name.startswith(self.name(number))]
        self.assertEqual([name[24:] for name in found], list(forms))
        wal = self.wal(SIZE.start(number), SIZE)
        for name in found:
            self.assertEqual(read_segment(self.files, self.paths.of(name), SIZE), wal)
        self.assertEqual(self.files.open_files, [])
        with contextlib.suppress(FileNotFoundError):
            self.assertEqual(os.listdir(self.paths.compressing), [])


class StepTests(CompressingCase):
    """One segment."""

    def test_order(self) -> None:
        """Written, synced, named, the name synced; then only the plain one goes. (L2)"""
        self.compress()
        new = f".walstream/compressing/{self.name(5)}.gz"
        self.assertEqual(
            self.files.calls,
            [
                f"create {new}",
                f"fsync {new}",
                f"rename {new}",
                "fsync .",
                f"unlink {self.name(5)}",
                "fsync .",
            ],
        )
        self.assert_held(".gz")

    def test_each_method(self) -> None:
        """With the plain segment's times, for its owner only."""
        methods = [_GZIP, _ZSTD, Compression(Method.LZ4, 0)]
        for compression, suffix in zip(methods, (".gz", ".zst", ".lz4"), strict=True):
            path = self.put_segment(5)
            os.utime(path, (1_000_000, 1_000_000))
            self.compressor(compression).compress(self.name(5), SIZE)
            self.assert_held(suffix)
            status = path.with_suffix(suffix).stat()
            self.assertEqual((status.st_mtime, status.st_mode & 0o777), (1_000_000, 0o600))
            path.with_suffix(suffix).unlink()

    def test_every_failure(self) -> None:
        """Whatever fails, the segment stays whole and nothing is left over; then it is done."""
        self.compress()
        steps = [*self.files.calls, f"write {self.files.calls[0][7:]}", f"read {self.name(5)}"]
        for step in steps:
            self.path.joinpath(f"{self.name(5)}.gz").unlink(missing_ok=True)
            self.put_segment(5)
            self.files.fail(step, errno.ENOSPC)
            self.assertRaises(OSError, self.compress)
            self.files.heal()
            is_named = step.startswith(("fsync .", "unlink")) and "compressing" not in step
            self.assert_held(*(("", ".gz") if is_named else ("",)))
            self.compress()
            self.assert_held(".gz")

    def test_last_sync(self) -> None:
        """The name is not durable yet, so the plain one stays."""
        self.files.fail("fsync .", errno.EIO)
        self.assertRaises(OSError, self.compress)
        self.assert_held("", ".gz")

    def test_decoded_and_compared(self) -> None:
        """What does not decode to the same does not get the name."""
        compressor = self.compressor()
        for wrong in (b"x", compressed(bytes(SIZE)), compressed(b"short")):
            self.patch(compressor, "_codec", _Wrong(wrong))
            self.assertRaises(FormatError, compressor.compress, self.name(5), SIZE)
            self.assert_held("")

    def test_given_up(self) -> None:
        """While the segment is read, and while it is compared."""
        for patience in range(4):
            answers = iter([False] * patience + [True] * 9)
            ask = partial(next, answers)
            compressor = SegmentCompressor(self.files, self.paths, _GZIP, nothing, ask)
            with contextlib.suppress(Abandoned):
                compressor.compress(self.name(5), SIZE)
                self.assertGreater(patience, 1, "it was not asked")
                self.assert_held(".gz")
                return
            self.assert_held("")

    def test_not_ours_any_more(self) -> None:
        """Another directory is mounted in its place: nothing is changed there."""

        def lost() -> None:
            raise ArchiveLost("gone")

        compressor = SegmentCompressor(self.files, self.paths, _GZIP, lost, lambda: False)
        self.assertRaises(ArchiveLost, compressor.compress, self.name(5), SIZE)
        self.assert_held("")
        self.compress_segment(5)
        self.put_segment(5)
        self.assertRaises(ArchiveLost, compressor.compress, self.name(5), SIZE)
        self.assert_held("", ".gz")

    def test_removed_while_it_is_compressed(self) -> None:
        """By retention, or by hand: it does not come back in another form."""

        def remove() -> None:
            (self.path / self.name(5)).unlink(missing_ok=True)

        compressor = SegmentCompressor(self.files, self.paths, _GZIP, remove, lambda: False)
        compressor.compress(self.name(5), SIZE)
        self.assert_held()
        self.assertEqual(os.listdir(self.paths.compressing), [])

    def test_both_forms(self) -> None:
        """A kill has left both, or an operator: the compressed one is compared, and synced."""
        for suffix in ("zst", "lz4", "gz"):
            self.compress_segment(5, suffix)
            self.put_segment(5)
            del self.files.calls[:]
            self.compress()
            self.assertEqual(
                self.files.calls,
                [f"fsync {self.name(5)}.{suffix}", "fsync .", f"unlink {self.name(5)}", "fsync ."],
            )
            self.assert_held(f".{suffix}")
            os.unlink(self.path / f"{self.name(5)}.{suffix}")

    def test_damaged_one_beside(self) -> None:
        """It is replaced or removed, but not before there is a good one."""
        for suffix in ("gz", "lz4"):
            (self.path / f"{self.name(5)}.{suffix}").write_bytes(b"x")
            self.put_segment(5)
            del self.files.calls[:]
            self.compress()
            self.assert_held(".gz")
            removed = [call for call in self.files.calls if call.startswith(("rename", "unlink"))]
            self.assertTrue(removed[0].startswith("rename"))
            os.unlink(self.path / f"{self.name(5)}.gz")

    def test_other_wal_beside(self) -> None:
        """Neither is touched: a person has to decide. (L13)"""
        (self.path / f"{self.name(5)}.gz").write_bytes(compressed(self.wal(SIZE.start(9), SIZE)))
        error = self.assertRaises(ArchiveError, self.compress)
        self.assertIn(f"{self.name(5)}.gz holds other WAL", str(error))
        self.assertIn(self.name(5), self.names())
        self.assertIn(f"{self.name(5)}.gz", self.names())


class _Wrong:
    """A codec that makes something else."""

    suffix = "gz"

    def __init__(self, content: bytes) -> None:
        self._content = content

    def encode(self, pieces: object, compression: object, size: int) -> list[bytes]:
        return [self._content]


class FindTests(CompressingCase):
    """`find_plain` and `remove_leftovers`"""

    def test_what_waits(self) -> None:
        """Finished, plain, whole and not the newest; the oldest first."""
        self.compress_segment(3)
        self.put_segment(4, timeline=2)
        self.put_segment(7)
        self.put_segment(2).write_bytes(b"short")
        self.put_segment(8, partial=True)
        (self.path / f"{self.name(8)}.gz.partial").write_bytes(b"x")
        (self.path / ("0" * 24)).write_bytes(b"x")
        names = [self.name(4, 2), self.name(5), self.name(6)]
        self.assertEqual(find_plain(self.files, self.paths, SIZE), names)
        self.assertEqual(find_plain(self.files, self.paths, SIZE, names[:1]), names[1:])

    def test_nothing_waits(self) -> None:
        """The last one stays as it is."""
        os.unlink(self.path / self.name(5))
        self.assertEqual(find_plain(self.files, self.paths, SIZE), [])
        os.unlink(self.path / self.name(6))
        self.assertEqual(find_plain(self.files, self.paths, SIZE), [])

    def test_leftovers(self) -> None:
        """Are removed, if there are any."""
        remove_leftovers(self.files, self.paths)
        os.mkdir(self.paths.compressing)
        (Path(self.paths.compressing) / f"{self.name(5)}.gz").write_bytes(b"x")
        remove_leftovers(self.files, self.paths)
        self.assertEqual(os.listdir(self.paths.compressing), [])


class CrashTests(DirectoryCase):
    """Killed before each of its calls, with and without a power failure."""

    def test_one_form_is_always_there(self) -> None:
        """And the next run makes it the compressed one alone."""
        kills = 0
        while self.is_killed_at(kills):
            kills += 1
        self.assertGreater(kills, 8)

    def is_killed_at(self, calls: int) -> bool:
        """Compress until so many calls were made; False if that was all."""
        self.path = Path(self.mktemp())
        (self.path / ".walstream").mkdir(parents=True)
        self.paths = ArchivePaths(os.path.abspath(self.path))
        files = MortalFiles(str(self.path))
        for number in (5, 6):
            self.put_segment(number)
        files.settle()
        files.lives = calls
        try:
            self.compress(files)
        except Killed:
            is_killed = True
        else:
            is_killed = False
        files.lives = 1 << 30
        self.check(self.path)
        restored = Path(self.mktemp())
        (restored / ".walstream").mkdir(parents=True)
        for name, content in files.after_power_failure().items():
            (restored / name).write_bytes(content)
        self.check(restored)
        return is_killed

    def compress(self, files: FileSystem) -> None:
        """One run."""
        remove_leftovers(files, self.paths)
        compressor = SegmentCompressor(files, self.paths, _ZSTD, nothing, lambda: False)
        for name in find_plain(files, self.paths, SIZE):
            compressor.compress(name, SIZE)

    def check(self, path: Path) -> None:
        """What the kill has left is whole, and can be gone on with."""
        wal = self.wal(SIZE.start(5), SIZE)
        files = ScriptedFiles(str(path))
        found = [name for name in forms_of(self.name(5))[:-1] if (path / name).exists()]
        self.assertTrue(found, "the segment is gone")
        for name in found:
            self.assertEqual(read_segment(files, str(path / name), SIZE), wal)
        self.paths = ArchivePaths(os.path.abspath(path))
        self.compress(files)
        self.assertEqual(sorted(os.listdir(path))[1:], [f"{self.name(5)}.zst", self.name(6)])
        self.assertEqual(read_segment(files, str(path / f"{self.name(5)}.zst"), SIZE), wal)


class CompressorTests(ArchiveCase):
    """The service beside an archive that is being filled."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.lane = ManualLane()
        self.compressor = self.make_compressor()

    def make_compressor(self, jobs: int = 1) -> Compressor:
        """A compressor of the archive, open, on a lane of its own."""
        compressor = Compressor(
            self.files,
            self.paths,
            self.archive,
            self.archive.assure,
            _ZSTD,
            self.lane,
            self.reactor,
            jobs,
        )
        self.successResultOf(compressor.open())
        self.addCleanup(self.stop, compressor, self.lane)
        return compressor

    def stop(self, compressor: Compressor, lane: ManualLane) -> None:
        """Close it, if it is not closed."""
        if not lane.is_closed:
            lane.release()
            self.successResultOf(compressor.close())

    def receive(self, segments: int) -> None:
        """So many segments come, and some of the next."""
        self.write(self.archive, SIZE * segments)
        self.flush(self.archive)

    def wait(self, seconds: int = 1) -> None:
        """Time passes."""
        self.reactor.pump([1.0] * seconds)

    def suffixes(self) -> list[str]:
        """What the names end in, the oldest segment first."""
        return [name[24:] for name in self.names()]

    def test_all_but_the_newest(self) -> None:
        """Within a second, for ever on; what is unfinished is left alone."""
        self.receive(4)
        self.write(self.archive, 100)
        self.wait()
        self.assertEqual(self.suffixes(), [".zst", ".zst", ".zst", "", ".partial"])
        self.receive(3)
        self.wait()
        self.assertEqual(self.suffixes(), [".zst"] * 6 + ["", ".partial"])

    def test_it_looks_only_after_news(self) -> None:
        """No new segment, no work for the disk."""
        self.receive(2)
        self.wait()
        self.lane.is_held = True
        self.write(self.archive, 100)
        self.flush(self.archive)
        self.wait(5)
        self.assertEqual(self.lane.waiting, 0)
        self.write(self.archive, SIZE)
        self.flush(self.archive)
        self.wait()
        self.assertEqual(self.lane.waiting, 1)

    def test_what_a_run_before_has_left(self) -> None:
        """Is found when it begins."""
        self.stop(self.compressor, self.lane)
        self.receive(3)
        self.assertEqual(self.suffixes(), ["", "", ""])
        self.lane = ManualLane()
        self.make_compressor()
        self.assertEqual(self.suffixes(), [".zst", ".zst", ""])

    def test_receiving_does_not_wait(self) -> None:
        """However slow it is, WAL becomes durable, and nothing piles up but files."""
        self.lane.is_held = True
        for _ in range(5):
            self.receive(3)
            self.wait()
        self.assert_durable(self.archive, SIZE.start(5 + 15))
        self.assertEqual(self.lane.waiting, 1)

    def test_several_at_a_time(self) -> None:
        """As many as there are threads for."""
        self.stop(self.compressor, self.lane)
        self.lane = ManualLane()
        self.make_compressor(jobs=3)
        self.receive(6)
        self.lane.is_held = True
        self.wait()
        self.lane.work(1)
        self.assertEqual(self.lane.waiting, 3)
        self.lane.release()
        self.assertEqual(self.suffixes(), [".zst"] * 5 + [""])

    def test_full_disk(self) -> None:
        """It tries again, less and less often, and receiving goes on."""
        first = f".walstream/compressing/{self.name(5)}.zst"
        for number in range(5, 10):
            new = f".walstream/compressing/{self.name(number)}.zst"
            self.files.fail(f"write {new}", errno.ENOSPC)
        self.receive(4)
        tries = []
        for second in range(200):
            before = self.files.calls.count(f"create {first}")
            self.wait()
            if self.files.calls.count(f"create {first}") > before:
                tries.append(second)
        self.assertTrue(3 <= len(tries) <= 8, tries)
        self.assertEqual(self.suffixes(), [""] * 4)
        self.receive(1)
        self.assert_durable(self.archive, SIZE.start(10))
        self.files.heal()
        self.wait(61)
        self.assertEqual(self.suffixes(), [".zst"] * 4 + [""])
        self.files.fail(f"read {self.name(9)}", errno.EIO)
        self.receive(1)
        self.wait()
        self.files.heal()
        self.wait(3)
        self.assertEqual(self.suffixes(), [".zst"] * 5 + [""], "the pause is still long")

    def test_one_that_fails(self) -> None:
        """The others do not wait for it, but for a while."""
        self.files.fail(f"read {self.name(5)}", errno.EIO)
        self.receive(3)
        self.wait(3)
        self.assertEqual(self.suffixes(), ["", ".zst", ""])
        self.files.heal()
        self.wait(61)
        self.assertEqual(self.suffixes(), [".zst", ".zst", ""])

    def test_directory_that_cannot_be_read(self) -> None:
        """Is looked into again later."""
        self.receive(3)
        real = self.files.names

        def fail(path: str) -> list[str]:
            raise OSError(errno.EIO, "Input/output error", path)

        self.files.names = fail  # type: ignore[method-assign]
        self.wait()
        self.files.names = real  # type: ignore[method-assign]
        self.wait()
        self.assertEqual(self.suffixes(), ["", "", ""])
        self.wait()
        self.assertEqual(self.suffixes(), [".zst", ".zst", ""])

    def test_removed_meanwhile(self) -> None:
        """Retention was faster."""
        self.receive(3)
        self.lane.is_held = True
        self.wait()
        self.lane.work(1)
        os.unlink(self.path / self.name(5))
        self.lane.release()
        self.assertEqual(self.suffixes(), [".zst", ""])

    def test_directory_of_ours_that_is_gone(self) -> None:
        """What is missing and does not come back is asked for now and then, not all the time."""
        self.receive(3)
        new = f".walstream/compressing/{self.name(5)}.zst"
        self.files.fail(f"create {new}", errno.ENOENT)
        self.wait()
        self.assertEqual(self.suffixes(), ["", "", ""])
        self.files.heal()
        self.wait(3)
        self.assertEqual(self.suffixes(), [".zst", ".zst", ""])

    def test_closing(self) -> None:
        """What is being compressed is given up, and stays as it was."""
        self.receive(3)
        self.lane.is_held = True
        self.wait()
        self.lane.work(1)
        closing = self.compressor.close()
        self.assertNoResult(closing)
        self.lane.release()
        self.successResultOf(closing)
        self.assertEqual(self.suffixes(), ["", "", ""])
        self.assertEqual(os.listdir(self.paths.compressing), [])
        self.reactor.advance(10)

    def test_archive_that_is_lost(self) -> None:
        """Nothing is touched in a directory that another one may have taken the place of."""
        self.receive(3)
        os.rename(self.paths.lock, self.paths.own + "/away")
        del self.files.calls[:]
        self.wait()
        self.assertEqual(self.suffixes(), ["", "", ""])
        self.assertEqual(self.files.calls, [])
        os.rename(self.paths.own + "/away", self.paths.lock)
        self.wait(3)
        self.assertEqual(self.suffixes(), [".zst", ".zst", ""])

    def test_nothing_yet(self) -> None:
        """An archive of nobody's WAL has nothing to compress."""
        self.path = self.path / "empty"
        self.archive = self.open()
        self.lane = ManualLane(is_held=True)
        self.make_compressor()
        self.wait(3)
        self.assertEqual(self.lane.waiting, 0)
