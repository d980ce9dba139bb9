"""A client's way into a session, past a gate of the test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.unit.conversation import (
    READY_FOR_QUERY,
    STARTUP,
    TERMINATE,
    SenderCase,
    error,
    kinds,
    messages,
)
from tests.unit.log_capture import capture_log
from walstream.errors import CommandError
from walstream.interfaces import Applicant, IExchange, IGate, IPermit, Step
from walstream.protocols.open_gate import OpenGate
from walstream.protocols.phases import EntryPhase, SenderPhase
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.testing.transport import FlowTransport
from walstream.wire.frames import frame
from walstream.wire.startup import startup_message

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
QUESTION = b"R\0\0\0\x08\0\0\0\x03"
LOGIN = startup_message(STARTUP)


@implementer(IPermit)
class Permit:
    """A permit that takes down what is done with it."""

    identity: str | None = 'identity="alice" method=test (hba:1)'

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.entered: Deferred[None] = succeed(None)
        self.denied: CommandError | None = None

    def enter(self) -> Deferred[None]:
        self.calls.append("enter")
        return self.entered

    def leave(self) -> None:
        self.calls.append("leave")

    def check_stream(self, timeline: int, start: int) -> None:
        self.calls.append(f"stream {timeline} {start:X}")
        if self.denied is not None:
            raise self.denied


@implementer(IExchange)
class Exchange:
    """Wants two messages: ``one`` is answered, with ``two`` the client comes in."""

    longest = 100
    expects = "SASL response"

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self.answer: Callable[[bytes], Deferred[Step]] = self.at_once

    def begin(self) -> bytes:
        return QUESTION

    def take(self, body: bytes) -> Deferred[Step]:
        return self.answer(body)

    def at_once(self, body: bytes) -> Deferred[Step]:
        if body == b"one":
            return succeed(Step(b"R\0\0\0\x08\0\0\0\x0b"))
        if body == b"two":
            return succeed(Step(b"R\0\0\0\x08\0\0\0\x0c", self.permit))
        wrong = CommandError("28P01", "wrong", detail="It is.", log_detail='say "one"')
        return fail(wrong)


@implementer(IGate)
class Gate:
    """Answers what the test says."""

    def __init__(self, answer: Deferred[IPermit | IExchange]) -> None:
        self.asked: list[Applicant] = []
        self.answer = answer

    def admit(self, applicant: Applicant) -> Deferred[IPermit | IExchange]:
        self.asked.append(applicant)
        return self.answer


def says(body: bytes) -> bytes:
    """A client's password message."""
    return frame(b"p", body)


class EntranceCase(SenderCase):
    """A client that has to prove something."""

    def setUp(self) -> None:
        super().setUp()
        self.permit = Permit()
        self.exchange = Exchange(self.permit)
        self.answers(succeed(self.exchange))

    def answers(self, answer: Deferred[IPermit | IExchange]) -> None:
        """Have the gate answer so."""
        self.asking = Gate(answer)
        self.gate = self.asking

    def check_phase(self, phase: EntryPhase) -> None:
        """The client is on its way in, and stands there."""
        self.assertIs(self.session.phase, SenderPhase.ENTERING)
        assert self.session.entering is not None
        self.assertIs(self.session.entering.phase, phase)


class GateTests(EntranceCase):
    """What a gate can say."""

    def test_interfaces(self) -> None:
        """The open gate is a gate, and lets everybody in."""
        gate = OpenGate()
        verifyObject(IGate, gate)
        permit = self.successResultOf(gate.admit(Applicant("anybody")))
        verifyObject(IPermit, permit)
        assert not IExchange.providedBy(permit)
        self.assertIsNone(self.successResultOf(permit.enter()))
        permit.check_stream(1, 0)
        permit.leave()

    def test_it_is_told_who_asks(self) -> None:
        """The user, the application, the address."""
        self.connect()
        self.say(LOGIN)
        self.assertEqual(
            self.asking.asked,
            [Applicant("postgres", "pg_receivewal", "127.0.0.1", is_encrypted=False)],
        )

    def test_a_name_that_is_too_long(self) -> None:
        """PostgreSQL's names have 63 bytes, and of longer ones the beginning counts."""
        self.log_in(user=62 * "a" + "äb")
        self.assertEqual(self.asking.asked[0].user, 62 * "a" + "\udcc3")

    def test_a_permit_at_once(self) -> None:
        """AuthenticationOk, the rest, and a session."""
        texts = capture_log(self)
        self.answers(succeed(self.permit))
        answer = self.log_in()
        self.assertTrue(answer.startswith(AUTHENTICATION_OK))
        self.assertTrue(answer.endswith(READY_FOR_QUERY))
        self.assertEqual(self.permit.calls, ["enter"])
        self.assertIn(
            "replication connection 7: connection authenticated: "
            'identity="alice" method=test (hba:1)',
            texts,
        )
        self.transport.peer_closed()
        self.assertEqual(self.permit.calls, ["enter", "leave"])

    def test_a_permit_later(self) -> None:
        """Nothing is answered meanwhile, and what the client sends waits."""
        later: Deferred[IPermit | IExchange] = Deferred()
        self.answers(later)
        self.assertEqual(self.log_in(), b"")
        self.check_phase(EntryPhase.ADMITTING)
        self.assertEqual(self.say(frame(b"Q", b"IDENTIFY_SYSTEM\0")), b"")
        later.callback(self.permit)
        self.assertEqual(kinds(self.hear()), "R" + 13 * "S" + "KZ" + "TDCZ")

    def test_a_refusal(self) -> None:
        """The client is told the message; the log, and who it was, and why."""
        texts = capture_log(self)
        self.answers(fail(CommandError("28000", "no entry", log_detail="line\n1")))
        self.assertEqual(self.log_in(), error("FATAL", "28000", "no entry"))
        self.assertEqual(self.transport.peer_saw, "end")
        self.assertEqual(
            texts,
            [
                "replication connection 7 refused: user=postgres application_name=pg_receivewal "
                "host=127.0.0.1 port=40001: no entry: line\\n1"
            ],
        )

    def test_a_fault(self) -> None:
        """It is the log's; the client hears a bland word."""
        self.answers(fail(RuntimeError("a fault")))
        answer = self.log_in()
        self.assertEqual(
            answer, error("FATAL", "XX000", "internal error; see the log of walstream")
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_client_goes_meanwhile(self) -> None:
        """What is done for it is cancelled."""
        for end in (self.go, self.run_out):
            with self.subTest(end):
                cancelled: list[object] = []
                self.answers(Deferred(cancelled.append))
                self.gone.clear()
                self.log_in()
                end()
                self.assertEqual(len(cancelled), 1)
                self.check_nothing_is_left()

    def test_a_gate_that_answers_all_the_same(self) -> None:
        """The permit of a client that is gone is given back, and nothing is said to it."""
        self.permit.entered = Deferred(lambda entered: entered.callback(None))
        self.answers(succeed(self.permit))
        self.assertEqual(self.log_in(), AUTHENTICATION_OK)
        self.session.abort("gone")
        self.clock.advance(0)
        self.assertEqual(self.permit.calls, ["enter", "leave"])
        self.assertIsNone(self.session.client)

    def go(self) -> None:
        self.transport.peer_closed()
        self.session.abort("gone")
        self.clock.advance(0)

    def run_out(self) -> None:
        self.clock.advance(self.settings.startup_timeout)
        self.assertEqual(self.session.close_reason, "authentication timeout")


class ExchangeTests(EntranceCase):
    """What is asked, and answered."""

    def test_two_messages(self) -> None:
        """It is asked, proves, and is in: the last answer and AuthenticationOk come together."""
        self.assertEqual(self.log_in(), QUESTION)
        self.check_phase(EntryPhase.AUTHENTICATING)
        self.assertIsNone(self.session.client)
        self.assertEqual(list(self.standbys), [])
        self.assertEqual(self.say(says(b"one")), b"R\0\0\0\x08\0\0\0\x0b")
        answer = self.say(says(b"two"))
        self.assertEqual(
            messages(answer)[:2],
            messages(b"R\0\0\0\x08\0\0\0\x0c" + AUTHENTICATION_OK),
        )
        self.assertTrue(answer.endswith(READY_FOR_QUERY))
        self.assertIs(self.session.phase, SenderPhase.READY)

    def test_any_cut(self) -> None:
        """However what it sends is cut, and all at once, the answers are the same."""
        sent = LOGIN + says(b"one") + says(b"two") + frame(b"Q", b"IDENTIFY_SYSTEM\0")
        expected = "RRRR" + 13 * "S" + "KZTDCZ"
        for index in range(len(sent)):
            self.gone.clear()
            self.connect()
            answer = self.say(sent[:index]) + self.say(sent[index:])
            self.assertEqual(kinds(answer), expected, index)
            self.check_nothing_is_left()

    def test_wrong(self) -> None:
        """The refusal, and the end."""
        texts = capture_log(self)
        self.log_in()
        self.assertEqual(
            self.say(says(b"three") + says(b"two")), error("FATAL", "28P01", "wrong", "It is.")
        )
        self.assertEqual(self.transport.peer_saw, "end")
        self.assertTrue(texts[-1].endswith('port=40001: wrong: say "one"'), texts)

    def test_another_message(self) -> None:
        """Nothing but a password message is taken, not even Terminate; PostgreSQL's words."""
        for sent in (TERMINATE, frame(b"Q", b"SELECT 1\0"), b"d\x7f\xff\xff\xff"):
            self.gone.clear()
            self.log_in()
            words = f"expected SASL response, got message type {sent[0]}"
            self.assertEqual(self.say(sent), error("FATAL", "08P01", words))
            self.check_nothing_is_left()

    def test_a_message_that_is_too_long(self) -> None:
        """It is no answer, and nothing of it is kept or looked at; PostgreSQL's words."""
        for length in (3, 105, 0x7FFFFFFF):
            self.gone.clear()
            self.log_in()
            answer = self.say(b"p" + length.to_bytes(4, "big"))
            words = 'password authentication failed for user "postgres"'
            self.assertEqual(answer, error("FATAL", "28P01", words))
            self.assertEqual(self.transport.peer_saw, "end")
            self.check_nothing_is_left()

    def test_a_user_whose_name_is_too_long(self) -> None:
        """It is called as it is known: by the beginning, as everywhere."""
        self.log_in(user=70 * "u")
        words = f'password authentication failed for user "{63 * "u"}"'
        self.assertEqual(self.say(b"p\0\0\0\3"), error("FATAL", "28P01", words))

    def test_the_longest(self) -> None:
        """As much as the exchange takes."""
        self.log_in()
        self.assertEqual(kinds(self.say(says(100 * b"x"))), "E")

    def test_nothing_is_read_meanwhile(self) -> None:
        """While a message is looked at, the client has to wait with the next."""
        later: Deferred[Step] = Deferred()
        self.exchange.answer = lambda body: later
        self.log_in()
        self.say(says(b"one"))
        self.check_phase(EntryPhase.ADMITTING)
        for _ in range(100):
            self.transport.deliver(bytes(1 << 16))
        assert self.session.entering is not None
        self.assertLess(len(self.session.entering._unread), 1 << 18)
        self.session.abort("enough")

    def test_one_after_the_other(self) -> None:
        """What has come with a message that is looked at waits for its turn."""
        later: Deferred[Step] = Deferred()
        self.exchange.answer = lambda body: later
        self.log_in()
        self.assertEqual(self.say(says(b"one") + says(b"two")), b"")
        self.check_phase(EntryPhase.ADMITTING)
        self.exchange.answer = self.exchange.at_once
        later.callback(Step(b""))
        self.assertEqual(kinds(self.hear())[:3], "RRS")

    def test_the_time_is_for_all_of_it(self) -> None:
        """A client that goes on in small steps is out when its time is over."""
        self.log_in()
        for _ in range(6):
            self.clock.advance(self.settings.startup_timeout / 6 - 0.1)
            self.say(says(b"one"))
        self.check_phase(EntryPhase.AUTHENTICATING)
        self.clock.advance(1)
        self.assertIs(self.session.phase, SenderPhase.CLOSED)

    def test_a_client_that_leaves(self) -> None:
        """As libpq's do that have no password to give: a line in the log, and nothing left."""
        texts = capture_log(self)
        self.log_in()
        self.transport.peer_closed()
        self.assertEqual(
            texts,
            [
                "replication connection 7 did not come in: user=postgres "
                "application_name=pg_receivewal host=127.0.0.1 port=40001: "
                "the client closed the connection"
            ],
        )
        self.assertEqual(self.permit.calls, [])

    def test_the_service_stops(self) -> None:
        """Nobody is kept for whom nothing is begun."""
        self.log_in()
        self.session.shut_down()
        words = "terminating connection due to administrator command"
        self.assertEqual(self.hear(), error("FATAL", "57P01", words))


class PermitTests(EntranceCase):
    """What a permit says."""

    def test_no_place(self) -> None:
        """One connection too many of a role hears so behind AuthenticationOk, as of PostgreSQL."""
        self.permit.entered = fail(CommandError("53300", "too many"))
        self.answers(succeed(self.permit))
        answer = self.log_in()
        self.assertEqual(answer, AUTHENTICATION_OK + error("FATAL", "53300", "too many"))
        self.assertEqual(self.permit.calls[:2], ["enter", "leave"])
        self.assertEqual(list(self.standbys), [])

    def test_a_place_that_comes_late(self) -> None:
        """A client that is gone by then leaves it."""
        cancelled: list[object] = []
        self.permit.entered = Deferred(cancelled.append)
        self.answers(succeed(self.permit))
        self.assertEqual(self.log_in(), AUTHENTICATION_OK)
        self.session.abort("gone")
        self.clock.advance(0)
        self.assertEqual(len(cancelled), 1)
        self.assertIn("leave", self.permit.calls)

    def test_streams(self) -> None:
        """It is asked about each, and its word is what the client is told."""
        self.answers(succeed(self.permit))
        self.log_in()
        self.permit.denied = CommandError("42501", "permission denied", detail="Not that.")
        answer = self.say(frame(b"Q", b"START_REPLICATION 0/300000 TIMELINE 1\0"))
        refusal = error("ERROR", "42501", "permission denied", "Not that.")
        self.assertEqual(answer, refusal + READY_FOR_QUERY)
        self.say(frame(b"Q", b"START_REPLICATION 0/300000\0"))
        self.assertEqual(self.permit.calls, ["enter", "stream 1 300000", "stream 1 300000"])
        self.permit.denied = None
        answer = self.say(frame(b"Q", b"START_REPLICATION 0/300000\0"))
        self.assertEqual(answer[:1], b"W")

    def test_who_proves_nothing_takes_nobodys_place(self) -> None:
        """Clients are counted when they have come in; one more is told before AuthenticationOk."""
        settings = replace(self.settings, max_clients=1)
        factory = WALSenderFactory(
            self.provider, self.slots, settings, self.clock, gate=self.asking
        )
        transports = []
        for _ in range(3):
            transports.append(FlowTransport(clock=self.clock))
            session = factory.session(len(transports))
            transports[-1].connect(session)
            transports[-1].deliver(LOGIN)
            self.assertEqual(transports[-1].take(), QUESTION)
        transports[2].deliver(says(b"two"))
        self.assertEqual(kinds(transports[2].take())[:2], "RR")
        transports[1].deliver(says(b"two"))
        self.assertEqual(kinds(transports[1].take()), "E")
        for transport in transports:
            transport.peer_closed()
