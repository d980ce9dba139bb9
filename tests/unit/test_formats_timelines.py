"""What `walstream.formats.timelines` promises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory, TimelineSwitch

# As a server wrote it on its second promotion.
_CONTENT = b"1\t0/D001F88\tno recovery target specified\n\n2\t0/F000060\tbefore LSN 0/F000061\n"
_HISTORY = TimelineHistory(
    3,
    (
        TimelineSwitch(1, LSN(0xD001F88), "no recovery target specified"),
        TimelineSwitch(2, LSN(0xF000060), "before LSN 0/F000061"),
    ),
)


@st.composite
def _histories(draw: st.DrawFn) -> TimelineHistory:
    timelines = sorted(draw(st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=5)))
    positions = st.integers(1, 2**64 - 1)
    reasons = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20)
    ancestors = (
        TimelineSwitch(timeline, LSN(draw(positions)), draw(reasons)) for timeline in timelines[:-1]
    )
    return TimelineHistory(timelines[-1], tuple(ancestors))


class ParseTests(SynchronousTestCase):
    """`TimelineHistory.parse` and `format` are PostgreSQL's reader and writer."""

    def test_file_of_a_server(self) -> None:
        """The file of a real server is read, and written again byte by byte."""
        self.assertEqual(TimelineHistory.parse(3, _CONTENT), _HISTORY)
        self.assertEqual(_HISTORY.format(), _CONTENT)

    def test_first_timeline_has_no_ancestors(self) -> None:
        """Nothing is read as no ancestors, and written as nothing."""
        self.assertEqual(TimelineHistory.parse(1, b""), TimelineHistory(1, ()))
        self.assertEqual(TimelineHistory(1, ()).format(), b"")

    def test_comments_and_blanks_are_passed_over(self) -> None:
        """Only the first two fields count; any blanks may stand between and before them."""
        content = b"# by hand\n  \t\n   # more\n  1  0/d001f88\n2\t\t0/0F000060 x\ty\r\n"
        self.assertEqual(
            TimelineHistory.parse(7, content).ancestors,
            (TimelineSwitch(1, LSN(0xD001F88), ""), TimelineSwitch(2, LSN(0xF000060), "x\ty\r")),
        )

    def test_missing_last_line_break_does_not_matter(self) -> None:
        """The last line may end with the file."""
        self.assertEqual(TimelineHistory.parse(3, _CONTENT.rstrip()), _HISTORY)

    def test_reason_may_be_in_any_encoding(self) -> None:
        """A restore point's name in Latin-1 survives."""
        content = b'1\t0/D001F88\tat restore point "h\xf6he"\n'
        self.assertEqual(TimelineHistory.parse(2, content).format(), content)

    def test_errors_name_file_and_line(self) -> None:
        """What is wrong is said with the file's name and the number of the line."""
        good = b"1\t0/D001F88\tx\n\n"
        for line, words in (
            (b"junk", "expected a timeline, an LSN and a reason, not 'junk'"),
            (b"2", "expected a timeline"),
            (b"2\t000000020000000000000003\tx", "expected a timeline"),
            (b"2\t0/123456789\tx", "expected a timeline"),
            (b"-2\t0/1\tx", "expected a timeline"),
            (b"4294967296\t0/1\tx", "4294967296 is not a timeline"),
            (b"0\t0/1\tx", "0 is not a timeline"),
            (b"2\t0/0\tx", "timeline 2 cannot end at 0/0"),
            (b"1\t0/E000000\tx", "timelines must ascend, but 1 follows 1"),
            (b"3\t0/E000000\tx", "timeline 3 cannot descend from timeline 3"),
            (b"9\t0/E000000\tx", "timeline 3 cannot descend from timeline 9"),
        ):
            with self.assertRaisesRegex(FormatError, f"00000003.history, line 3: {words}"):
                TimelineHistory.parse(3, good + line + b"\n")

    @settings(deadline=None, database=None, max_examples=50)
    @given(_histories())
    def test_text_and_back(self, history: TimelineHistory) -> None:
        """Every history survives the way through its file."""
        self.assertEqual(TimelineHistory.parse(history.timeline, history.format()), history)


class TimelineHistoryTests(SynchronousTestCase):
    """`TimelineHistory` knows which timeline holds a position, and where each ends."""

    def test_contains_itself_and_its_ancestors(self) -> None:
        """A sibling that is not on the way is not in the history."""
        self.assertEqual([n for n in range(6) if n in _HISTORY], [1, 2, 3])
        skipping = TimelineHistory(5, (TimelineSwitch(1, LSN(8), "x"),))
        self.assertEqual([n for n in range(7) if n in skipping], [1, 5])

    def test_switch_points(self) -> None:
        """Each ancestor ends somewhere; the newest timeline goes on."""
        self.assertEqual(_HISTORY.switch_point(1), LSN(0xD001F88))
        self.assertEqual(_HISTORY.switch_point(2), LSN(0xF000060))
        self.assertIsNone(_HISTORY.switch_point(3))
        self.assertRaises(KeyError, _HISTORY.switch_point, 4)

    def test_successors(self) -> None:
        """The successor is the next in this history; the newest has none."""
        self.assertEqual(_HISTORY.successor(1), 2)
        self.assertEqual(_HISTORY.successor(2), 3)
        self.assertRaises(KeyError, _HISTORY.successor, 3)
        self.assertRaises(KeyError, _HISTORY.successor, 4)

    def test_switch_point_belongs_to_the_child(self) -> None:
        """WAL of a timeline is valid up to its switch point, and not at it."""
        for lsn, timeline in (
            (0, 1),
            (0xD001F87, 1),
            (0xD001F88, 2),
            (0xF00005F, 2),
            (0xF000060, 3),
            (2**64 - 1, 3),
        ):
            self.assertEqual(_HISTORY.timeline_at(lsn), timeline)
        self.assertEqual(TimelineHistory(1, ()).timeline_at(5), 1)

    def test_ancestor_that_was_left_before_it_began(self) -> None:
        """A recovery may stop before the timeline that it was to follow; none of it counts."""
        history = TimelineHistory(
            3, (TimelineSwitch(1, LSN(0x5000), "x"), TimelineSwitch(2, LSN(0x3000), "y"))
        )
        self.assertEqual([history.timeline_at(n) for n in (0x2FFF, 0x3000, 0x6000)], [1, 3, 3])
