"""Tests for `walstream.protocols.phases`: the tables, row by row and gap by gap."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import ProtocolViolation
from walstream.protocols.phases import (
    ENTRY_TRANSITIONS,
    RECEIVER_TRANSITIONS,
    SENDER_TRANSITIONS,
    EntryPhase,
    ReceiverPhase,
    SenderPhase,
    after,
)

_Phase = TypeVar("_Phase", bound=Enum)

# For each phase the messages that it allows, by the phase to which they lead. Written down here a
# second time on purpose: this is the protocol's law, and nobody should change it in passing.
RECEIVER: Mapping[str, Mapping[str, str]] = {
    "AUTHENTICATING": {"AUTHENTICATING": "RN", "CLOSED": "E"},
    "STARTING": {"STARTING": "SKN", "READY": "Z", "CLOSED": "E"},
    "READY": {"READY": "SN", "CLOSED": "E"},
    "QUERYING": {"QUERYING": "TDCESNd", "STREAMING": "WH", "READY": "Z"},
    "STREAMING": {"STREAMING": "dSN", "QUERYING": "cE", "CLOSED": "C"},
    "STOPPING": {"STOPPING": "dSN", "QUERYING": "cE", "CLOSED": "C"},
    "CLOSED": {},
}
ENTRY: Mapping[str, Mapping[str, str]] = {
    "STARTUP": {},
    "ENCRYPTING": {},
    "AUTHENTICATING": {"ADMITTING": "p"},
    "ADMITTING": {},
}
SENDER: Mapping[str, Mapping[str, str]] = {
    "ENTERING": {},
    "READY": {"ANSWERING": "Q", "CLOSED": "X", "READY": "dcfFHS", "SKIPPING": "PBDEC"},
    "ANSWERING": {},
    "STREAMING": {"STREAMING": "d", "ANSWERING": "c", "CLOSED": "X"},
    "STREAMING_2009": {"CLOSED": "X"},
    "DRAINING": {"DRAINING": "d", "ANSWERING": "c", "CLOSED": "X"},
    "SHUTTING_DOWN": {"SHUTTING_DOWN": "d", "ANSWERING": "c", "CLOSED": "X"},
    "SKIPPING": {"READY": "S", "CLOSED": "X", "SKIPPING": "QPBDECFHdcf"},
    "CLOSED": {},
}


class TableTests(SynchronousTestCase):
    """The tables and `after`, for all 256 types of messages in each phase."""

    def check(
        self,
        transitions: Mapping[_Phase, Mapping[str, _Phase]],
        phases: type[_Phase],
        expected: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.assertEqual([phase.name for phase in phases], list(expected))
        self.assertEqual(list(transitions), list(phases))
        for phase in phases:
            following = {
                kind: name for name, kinds in expected[phase.name].items() for kind in kinds
            }
            for kind in range(256):
                wanted = following.get(chr(kind), "violation")
                self.assertEqual(self.outcome(transitions, phase, kind), wanted, (phase, kind))

    def outcome(
        self, transitions: Mapping[_Phase, Mapping[str, _Phase]], phase: _Phase, kind: int
    ) -> str:
        try:
            return after(transitions, phase, kind).name
        except ProtocolViolation:
            return "violation"

    def test_receiver(self) -> None:
        """A receiver takes these messages of its server in these phases, and no others."""
        self.check(RECEIVER_TRANSITIONS, ReceiverPhase, RECEIVER)

    def test_sender(self) -> None:
        """A sender takes these messages of its client in these phases, and no others."""
        self.check(SENDER_TRANSITIONS, SenderPhase, SENDER)

    def test_entry(self) -> None:
        """And until its client is in, these."""
        self.check(ENTRY_TRANSITIONS, EntryPhase, ENTRY)

    def test_violation_names_message_and_phase(self) -> None:
        """The error says what came and when, and carries PostgreSQL's code."""
        with self.assertRaises(ProtocolViolation) as caught:
            after(RECEIVER_TRANSITIONS, ReceiverPhase.READY, ord("W"))
        self.assertEqual(
            str(caught.exception), "message of type 'W' while nothing is asked: not allowed here"
        )
        self.assertEqual(caught.exception.sqlstate, "08P01")

    def test_closed_is_the_end(self) -> None:
        """No message leads out of CLOSED."""
        self.assertEqual(SENDER_TRANSITIONS[SenderPhase.CLOSED], {})
        self.assertEqual(RECEIVER_TRANSITIONS[ReceiverPhase.CLOSED], {})
