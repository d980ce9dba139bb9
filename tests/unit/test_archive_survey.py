"""What an archive directory is found to hold: names, identity, where a stream goes on, the end."""

from __future__ import annotations

import os
from zlib import crc32

from tests.unit.archives import IDENTITY, SIZE, DirectoryCase, compressed, history
from walstream.archive.compression import WholenessCheck
from walstream.archive.end_mark import EndMark, read_end_mark
from walstream.archive.identity import load_identity, store_identity
from walstream.archive.paths import foreign_names, rank_segments
from walstream.archive.survey import Survey, survey
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import SystemIdentity, WALPosition


def position(timeline: int, number: int, offset: int = 0) -> WALPosition:
    """A position in a segment."""
    return WALPosition(timeline, LSN(SIZE.start(number) + offset))


class NameTests(DirectoryCase):
    """`rank_segments` and `foreign_names` know what belongs into an archive."""

    def test_rank(self) -> None:
        """Number, timeline, completeness, form: newest first; nothing else counts."""
        newest_first = [
            "00000001000000010000000A",
            "00000001000000010000000A.gz",
            "000000030000000100000009.partial",
            "000000020000000100000009",
            "000000020000000100000009.gz.partial",
            "0000000200000000000000FF",
        ]
        others = ["00000002.history", "0000000200000000000000ff", "x", ".walstream", "0" * 25]
        self.assertEqual(rank_segments([*others, *reversed(newest_first)]), newest_first)

    def test_foreign(self) -> None:
        """What pg_receivewal and archive_command leave is not foreign; anything else is."""
        own = [
            "000000010000000000000001",
            "000000010000000000000001.partial",
            "000000010000000000000001.zst",
            "000000010000000000000001.00000028.backup",
            "00000002.history",
            "00000002.history.tmp",
            "lost+found",
            ".walstream",
        ]
        foreign = ["000000010000000000000001.bz2", "PG_VERSION", "base", "notes.txt"]
        self.assertEqual(foreign_names([*reversed(foreign), *own]), foreign)


class EndMarkTests(DirectoryCase):
    """The end mark is believed only if it is whole."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.paths.own)
        self.mark = EndMark(self.files, self.paths)
        self.addCleanup(self.mark.close)

    def test_round_trip(self) -> None:
        """What was written last is what is read, and its size never changes."""
        for end in (position(1, 1, 1), WALPosition(0xFFFFFFFF, LSN(2**64 - 1)), position(2, 0)):
            self.mark.write(end)
            self.assertEqual(read_end_mark(self.files, self.paths), end)
            self.assertEqual(os.stat(self.paths.end).st_size, 36)

    def test_damaged(self) -> None:
        """No byte of it may be another, and none be missing."""
        self.mark.write(position(1, 5, 100))
        with open(self.paths.end, "rb") as file:
            good = file.read()
        for index in range(len(good)):
            bad = bytearray(good)
            bad[index] = ord("1") if good[index] != ord("1") else ord("2")
            for content in (bytes(bad), good[:index]):
                with open(self.paths.end, "wb") as file:
                    file.write(content)
                self.assertIs(read_end_mark(self.files, self.paths), None)

    def test_missing(self) -> None:
        """Most archives have none."""
        os.unlink(self.paths.end)
        self.assertIs(read_end_mark(self.files, self.paths), None)

    def test_form(self) -> None:
        """The form is for people too, and for scripts."""
        self.mark.write(WALPosition(2, LSN.parse("16/B374D848")))
        text = b"00000002 00000016/B374D848 "
        with open(self.paths.end, "rb") as file:
            self.assertEqual(file.read(), b"%b%08X\n" % (text, crc32(text)))


class IdentityTests(DirectoryCase):
    """Whose WAL it is: what identity.json says, or else the segments; never both differently."""

    def store(self, identity: SystemIdentity = IDENTITY) -> None:
        """Put an identity there."""
        self.files.make_directory(self.paths.own)
        store_identity(self.files, self.paths, identity)

    def refusal(self) -> str:
        """Why the directory is no archive."""
        return str(self.assertRaises(ArchiveError, survey, self.files, self.paths))

    def test_round_trip(self) -> None:
        """What is stored is read again; the identifier may have 64 bits."""
        self.assertIs(load_identity(self.files, self.paths), None)
        identity = SystemIdentity(2**64 - 1, SegmentSize(1 << 30), "17.2 (Debian 17.2-1)")
        self.store(identity)
        self.assertEqual(load_identity(self.files, self.paths), identity)
        self.assertIn('"18446744073709551615"', self.files.read(self.paths.identity).decode())

    def test_damaged(self) -> None:
        """A damaged file is named, with the way out."""
        self.store()
        for content in (b"", b"[]", b"{}", b'{"system_identifier": "x"}', b"\xff"):
            with open(self.paths.identity, "wb") as file:
                file.write(content)
            self.assertIn("identity.json is damaged", self.refusal())
            self.assertIn("remove it", self.refusal())

    def test_adopted_from_segments(self) -> None:
        """The newest segment tells the system, the size and the major version."""
        self.put_segment(5)
        self.put_segment(6, partial=True, valid=0)
        found = survey(self.files, self.paths)
        expected = SystemIdentity(IDENTITY.system_identifier, SIZE, "18")
        self.assertEqual((found.identity, found.is_adopted), (expected, True))

    def test_adopted_from_a_partial(self) -> None:
        """If there is nothing else, it tells as well."""
        self.put_segment(5, partial=True, valid=100)
        found = survey(self.files, self.paths)
        assert found.identity is not None
        self.assertEqual(found.identity.system_identifier, IDENTITY.system_identifier)

    def test_nothing_to_adopt(self) -> None:
        """An empty directory, or a .partial without WAL, is of no system yet."""
        self.assertEqual(survey(self.files, self.paths), Survey())
        self.put_segment(5, partial=True, valid=0)
        self.assertEqual(survey(self.files, self.paths), Survey())
        self.put_segment(5, partial=True, valid=30)
        self.assertEqual(survey(self.files, self.paths), Survey())

    def test_two_systems(self) -> None:
        """Mixed WAL is refused, and both files are named. (L9)"""
        self.put_segment(5, system_identifier=42)
        self.put_segment(6)
        for text in (self.name(5), self.name(6), "42"):
            self.assertIn(text, self.refusal())

    def test_misplaced(self) -> None:
        """A segment that waits in pg_wal to be used again holds other WAL than its name says."""
        self.put_segment(5)
        os.rename(self.path / self.name(5), self.path / self.name(9))
        self.assertIn("does not hold what its name says", self.refusal())

    def test_no_wal(self) -> None:
        """A file with a segment's name and something else in it is refused, by name."""
        (self.path / self.name(5)).write_bytes(b"x" * SIZE)
        self.assertIn(f"{self.name(5)} is not a WAL segment", self.refusal())

    def test_only_compressed(self) -> None:
        """Compressed segments tell whose WAL it is as plain ones do, and have to agree."""
        for number, suffix in ((5, "gz"), (6, "lz4"), (7, "zst")):
            self.compress_segment(number, suffix)
        identity = survey(self.files, self.paths).identity
        self.assertEqual(identity, SystemIdentity(IDENTITY.system_identifier, SIZE, "18"))
        self.put_segment(4, system_identifier=42)
        self.assertIn("holds WAL of two clusters", self.refusal())

    def test_only_damaged(self) -> None:
        """Nothing tells whose WAL it is."""
        (self.path / f"{self.name(5)}.gz").write_bytes(b"x")
        self.assertIn(f"{self.name(5)}.gz, for one, is too short or damaged", self.refusal())

    def test_something_else_compressed(self) -> None:
        """A compressed file with a segment's name and something else in it is refused, by name."""
        (self.path / f"{self.name(5)}.gz").write_bytes(compressed(b"x" * SIZE))
        self.assertIn(f"{self.name(5)}.gz is not a WAL segment", self.refusal())

    def test_stored_and_newest_compressed_differ(self) -> None:
        """Somebody has copied another cluster's compressed segment into the archive."""
        self.store()
        self.put_segment(5)
        path = self.put_segment(6, system_identifier=42)
        path.with_suffix(".lz4").write_bytes(compressed(path.read_bytes(), "lz4"))
        path.unlink()
        self.assertIn(f"{self.name(6)}.lz4", self.refusal())

    def test_unknown_version(self) -> None:
        """WAL of a PostgreSQL that does not exist yet is not adopted."""
        path = self.put_segment(5)
        with open(path, "r+b") as file:
            file.write(b"\xff\xd1")
        self.assertIn("D1FF", self.refusal())

    def test_stored_and_newest_differ(self) -> None:
        """Somebody has copied another cluster's segment into the archive."""
        self.store()
        self.put_segment(5)
        self.put_segment(6, system_identifier=42)
        self.assertIn(self.name(6), self.refusal())
        self.assertIn("move it away", self.refusal())

    def test_servers_own_directory(self) -> None:
        """A server's pg_wal is no archive."""
        self.put_segment(5)
        os.mkdir(self.path / "archive_status")
        self.assertIn("pg_wal", self.refusal())

    def test_damaged_history(self) -> None:
        """A history file that cannot be read is named."""
        self.put_segment(5, 2)
        (self.path / "00000002.history").write_bytes(b"nonsense\n")
        self.assertIn("00000002.history is damaged", self.refusal())


class PositionTests(DirectoryCase):
    """Where a stream goes on, and up to where WAL is served."""

    def look(self) -> Survey:
        """The survey of an archive of the tests' system."""
        self.files.make_directory(self.paths.own)
        store_identity(self.files, self.paths, IDENTITY)
        return survey(self.files, self.paths)

    def mark(self, end: WALPosition) -> None:
        """Leave an end mark."""
        self.files.make_directory(self.paths.own)
        mark = EndMark(self.files, self.paths)
        mark.write(end)
        mark.close()

    def assert_ends(self, durable: WALPosition | None, end: WALPosition | None = None) -> None:
        """The stream goes on there, and WAL is served up to there."""
        found = self.look()
        self.assertEqual((found.durable, found.end), (durable, durable if end is None else end))

    def test_empty(self) -> None:
        """Nothing is held."""
        self.assert_ends(None)

    def test_complete(self) -> None:
        """Behind a complete segment comes the next."""
        self.put_segment(4)
        self.put_segment(5)
        self.assert_ends(position(1, 6))
        self.assertEqual(self.look().newest_finished, self.name(5))

    def test_partial(self) -> None:
        """A .partial does not tell how much of it is good, so it begins again."""
        self.put_segment(5)
        self.put_segment(6, partial=True, valid=5000)
        self.assert_ends(position(1, 6))

    def test_partial_alone(self) -> None:
        """Also where nothing else is held."""
        self.put_segment(6, partial=True, valid=5000)
        self.assert_ends(position(1, 6))

    def test_complete_beats_partial(self) -> None:
        """Both of one segment may be there, as after a restore."""
        self.put_segment(5)
        self.put_segment(5, partial=True)
        self.assert_ends(position(1, 6))

    def test_number_beats_timeline(self) -> None:
        """As with pg_receivewal, the higher number is the newer one."""
        self.put_segment(5, 2)
        self.put_segment(7, 1)
        self.assert_ends(position(1, 8))

    def test_timeline_beats_completeness(self) -> None:
        """Of one number, the higher timeline is, even if its segment is not complete."""
        self.put_segment(5, 1)
        self.put_segment(5, 2, partial=True)
        self.assert_ends(position(2, 5), position(1, 6))

    def test_clamped_to_the_switch_point(self) -> None:
        """What the old timeline has behind the point where the new one left it is not served."""
        self.put_segment(5, 1)
        self.put_segment(5, 2, partial=True)
        self.put_history(2, (1, SIZE.start(5) + 777))
        self.assert_ends(position(2, 5), position(1, 5, 777))

    def test_compressed(self) -> None:
        """A compressed segment is finished; a compressed .partial is not."""
        self.put_segment(5)
        self.compress_segment(6, "zst")
        self.assert_ends(position(1, 7))
        self.assertEqual(self.look().newest_finished, f"{self.name(6)}.zst")
        (self.path / f"{self.name(8)}.gz.partial").write_bytes(b"x")
        self.assert_ends(position(1, 8), position(1, 7))

    def test_both_forms(self) -> None:
        """A crash while compressing leaves both: the plain one counts, undecoded."""
        self.compress_segment(5).write_bytes(b"x")
        self.put_segment(5)
        self.assert_ends(position(1, 6))
        self.assertEqual(self.look().newest_finished, self.name(5))

    def test_damaged(self) -> None:
        """The newest finished one must decode to its end, and to a segment's size: L3."""
        good = self.compress_segment(6).read_bytes()
        self.put_segment(5)
        path = self.path / f"{self.name(6)}.gz"
        two = compressed(self.wal(SIZE.start(6), 2 * SIZE))
        for content in (good + b"x", good[:-1], b"", compressed(b""), two):
            path.write_bytes(content)
            self.assert_ends(position(1, 6))
            self.assertEqual(self.look().newest_finished, self.name(5))
            self.assertIn(path.name, "".join(self.look().damaged))

    def test_damaged_before_a_partial(self) -> None:
        """The stream goes on with the damaged one, though a later one was begun, and a mark is."""
        self.put_segment(4)
        for number in (5, 6):
            self.compress_segment(number, "lz4").write_bytes(b"x")
        self.put_segment(7, partial=True)
        self.mark(position(1, 7, 8192))
        self.assert_ends(position(1, 5))

    def test_only_the_newest_is_decoded(self) -> None:
        """Damage in an older one is noticed when it is read."""
        self.compress_segment(5).write_bytes(b"x")
        self.compress_segment(6)
        self.assert_ends(position(1, 7))
        self.assertEqual(self.look().damaged, ())
        self.put_segment(7, 2, partial=True)
        self.assertEqual(self.look().damaged, ())

    def test_it_is_decoded_once(self) -> None:
        """Whoever looks again and again knows an unchanged file, and notices a changed one."""
        self.put_segment(4)
        path = self.compress_segment(5)
        check = WholenessCheck()
        survey(self.files, self.paths, check)
        opened: list[str] = []
        real = self.files.open

        def note(path: str, flags: int) -> int:
            opened.append(path)
            return real(path, flags)

        self.files.open = note  # type: ignore[method-assign]
        self.assertEqual(survey(self.files, self.paths, check).damaged, ())
        self.assertEqual(opened.count(str(path.absolute())), 1, "not for its header only")
        path.write_bytes(b"x" * 100)
        self.assertNotEqual(survey(self.files, self.paths, check).damaged, ())

    def test_wrong_size(self) -> None:
        """A complete segment of another size is passed over, and told. (L4)"""
        self.put_segment(5)
        (self.path / self.name(6)).write_bytes(b"")
        self.assert_ends(position(1, 6))
        self.assertEqual(self.look().skipped, (self.name(6),))

    def test_name_of_another_size(self) -> None:
        """So is one whose name no cluster of this segment size uses."""
        self.put_segment(5)
        (self.path / "000000010000000900001000").write_bytes(self.wal(0, 100))
        self.assertEqual(self.look().skipped, ("000000010000000900001000",))

    def test_segment_zero(self) -> None:
        """No server has WAL there."""
        self.put_segment(0)
        self.assert_ends(None)

    def test_several_partials(self) -> None:
        """Killed while several were being synced: the first of them is where to go on."""
        self.put_segment(4)
        for number in (5, 6, 7):
            self.put_segment(number, partial=True)
        self.assert_ends(position(1, 5))

    def test_partials_that_do_not_belong_together(self) -> None:
        """Neither one far behind, nor another timeline's, nor one with a complete one between."""
        self.put_segment(2, partial=True)
        self.put_segment(5, partial=True)
        self.put_segment(6)
        self.put_segment(7, 1, partial=True)
        self.put_segment(7, 2, partial=True)
        self.put_segment(8, 2, partial=True)
        self.assert_ends(position(2, 7), position(1, 7))

    def test_mark_tells_the_end(self) -> None:
        """What it says of a .partial is believed."""
        self.put_segment(5)
        self.put_segment(6, partial=True)
        for offset in (0, 1, SIZE - 1):
            self.mark(position(1, 6, offset))
            self.assert_ends(position(1, 6, offset))

    def test_mark_that_lags_behind(self) -> None:
        """Killed before it was written: finished segments count all the same."""
        self.put_segment(5)
        self.put_segment(6)
        self.mark(position(1, 5, 100))
        self.assert_ends(position(1, 7))

    def test_mark_without_its_file(self) -> None:
        """A mark that no file bears out is not believed."""
        self.put_segment(5)
        self.put_segment(6, partial=True)
        for end in (position(1, 7, 100), position(2, 6, 100), position(1, 7)):
            self.mark(end)
            self.assert_ends(position(1, 6))

    def test_mark_of_a_short_file(self) -> None:
        """Nor one whose file has lost its tail."""
        self.put_segment(5)
        os.truncate(self.put_segment(6, partial=True), 5000)
        self.mark(position(1, 6, 4000))
        self.assert_ends(position(1, 6))

    def test_mark_in_another_segment(self) -> None:
        """A mark in an earlier segment says nothing of the one to go on with."""
        self.put_segment(5, partial=True)
        self.put_segment(7, partial=True)
        self.mark(position(1, 5, 100))
        self.assertEqual(self.look().durable, position(1, 7))

    def test_mark_behind_an_unfinished_segment(self) -> None:
        """What cannot be is not believed."""
        for number in (5, 6):
            self.put_segment(number, partial=True)
        self.mark(position(1, 6, 100))
        self.assertEqual(self.look().durable, position(1, 5))

    def test_mark_of_a_compressed_segment(self) -> None:
        """Somebody has compressed the last segment since."""
        self.put_segment(4)
        self.compress_segment(5)
        self.mark(position(1, 6))
        self.assert_ends(position(1, 6))

    def test_mark_of_the_old_timeline(self) -> None:
        """Stopped before the new timeline had reached the switch point: the old one is served."""
        self.put_segment(5, 1, partial=True)
        self.put_segment(5, 2, partial=True)
        self.put_history(2, (1, SIZE.start(5) + 5000))
        self.mark(position(1, 5, 5000))
        self.assert_ends(position(2, 5), position(1, 5, 5000))

    def test_mark_of_the_new_timeline(self) -> None:
        """It is newer than a finished segment of the old one, of the same number."""
        self.put_segment(5, 1)
        self.put_segment(5, 2, partial=True)
        self.put_history(2, (1, SIZE.start(5) + 5000))
        self.mark(position(2, 5, 6000))
        self.assert_ends(position(2, 5, 6000))
        self.assertEqual(self.look().history, history(2, (1, SIZE.start(5) + 5000)))
        self.assertEqual(self.look().histories, {2})

    def test_no_history(self) -> None:
        """Its absence is noted."""
        self.put_segment(5, 3)
        self.assertIs(self.look().history, None)
