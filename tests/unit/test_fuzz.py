"""A few bad inputs for everything that reads any; ``python -m tests.fuzz`` has millions."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.replay import inputs_of, lines_reached
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

# How many inputs for each target, besides its seeds; and for those that are whole sessions.
_MANY, _FEW = 60, 15
_SESSIONS = ("sender", "receiver", "login")

_Edit = Callable[[bytes], bytes]


def _edits() -> st.SearchStrategy[_Edit]:
    """One change of an input: bytes cut out, or put in, or both."""
    place, size = st.integers(0, 2047), st.integers(0, 8)
    return st.builds(
        lambda at, cut, put: (
            lambda data: data[: at % (len(data) + 1)] + put + data[at % (len(data) + 1) + cut :]
        ),
        place,
        size,
        st.binary(max_size=8),
    )


def _inputs(target: Target) -> st.SearchStrategy[bytes]:
    def edited(seed: bytes, edits: list[_Edit]) -> bytes:
        for edit in edits:
            seed = edit(seed)
        return seed

    return st.builds(edited, st.sampled_from(inputs_of(target)), st.lists(_edits(), max_size=4))


class FuzzTests(SynchronousTestCase):
    """Whatever comes, nothing is raised but what is documented."""

    def test_what_peers_and_files_may_say(self) -> None:
        """The seeds, among which are real conversations, and what is a few changes away."""
        for target in TARGETS.values():
            examples = _FEW if target.name in _SESSIONS else _MANY

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(_inputs(target))
            def feed(data: bytes) -> None:
                target.run(data)  # noqa: B023 - it is called before the next one's turn

            for seed in inputs_of(target):
                target.run(seed)
            feed()
            if target.logs_faults:
                self.flushLoggedErrors()

    def test_every_target_reaches_its_modules(self) -> None:
        """The seeds alone run a good part of what a target is for."""
        for target in TARGETS.values():
            if target.name not in _SESSIONS:
                reached, lines = lines_reached(target, inputs_of(target))
                self.assertGreater(reached, lines // 10, target.name)
                if target.logs_faults:
                    self.flushLoggedErrors()
