"""Who comes in, by files of the test's."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from scramp import ScramClient
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.unit.log_capture import capture_log
from walstream.access.gate import AccessGate
from walstream.access.policy import AccessFiles, Policy
from walstream.access.role_store import RoleStore
from walstream.access.throttle import Throttle
from walstream.errors import CommandError, FormatError
from walstream.formats.hba_address import Near
from walstream.formats.role_file import Role, parse_limits, with_role
from walstream.gates import Admission, Applicant, IExchange, IGate, IPermit, Step
from walstream.wire.encryption import Subject
from walstream.wire.messages import sasl_initial_response, sasl_response
from walstream.wire.scram_verifier import ScramVerifier

T = TypeVar("T")

SECRET = "Geheim 1"
VERIFIER = ScramVerifier.of(SECRET, iterations=4096)


class Lane:
    """Runs a job at once, or, while `held` is a list, later."""

    def __init__(self) -> None:
        self.is_closed = False

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        return maybeDeferred(job)

    def close(self) -> Deferred[None]:
        self.is_closed = True
        return maybeDeferred(lambda: None)


class GateCase(SynchronousTestCase):
    """A gate with files in a directory of its own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.clock = Clock()
        self.names: dict[str, tuple[str, ...]] = {}
        self.near: Near = ()
        self.hba, self.ident = self.directory / "hba", self.directory / "ident"
        self.ident.write_text("")
        self.store = RoleStore(str(self.directory / "roles"))
        self.check: Callable[[Policy], None] = lambda policy: None

    def add(self, name: str, verifier: str | None = str(VERIFIER), *limits: str) -> None:
        """A role of the file."""
        role = Role(name, verifier, parse_limits(limits))
        self.store.change(lambda text: with_role(text, role, self.store.path))

    def open(
        self,
        *lines: str,
        has_tls: bool = True,
        has_authorities: bool = True,
        throttle: Throttle | None = None,
    ) -> AccessGate:
        """A gate with these rules."""
        self.hba.write_text("".join(f"{line}\n" for line in lines))
        files = AccessFiles(str(self.hba), str(self.ident), self.store.path)
        self.lanes = Lane(), Lane()
        self.gate = AccessGate(
            files,
            self.clock,
            *self.lanes,
            has_tls=has_tls,
            has_authorities=has_authorities,
            throttle=throttle,
            check=lambda policy: self.check(policy),
            near=lambda: self.near,
            ask_name=lambda address: self.names.get(address, ()),
        )
        self.assertIsNone(self.successResultOf(self.gate.open()))
        return self.gate

    def ask(self, user: str = "standby1", **facts: object) -> Admission:
        """What the gate says."""
        facts.setdefault("address", "192.0.2.7")
        applicant = Applicant(user, **facts)  # type: ignore[arg-type]
        return self.successResultOf(self.gate.admit(applicant))

    def refusal(self, user: str = "standby1", **facts: Any) -> CommandError:
        """Why it does not let somebody in."""
        facts.setdefault("address", "192.0.2.7")
        applicant = Applicant(user, **facts)
        failure = self.failureResultOf(self.gate.admit(applicant), CommandError)
        return cast(CommandError, failure.value)

    def permit(self, user: str = "standby1", **facts: object) -> IPermit:
        """The permit that it gives at once."""
        permit = self.ask(user, **facts)
        verifyObject(IPermit, permit)
        return cast(IPermit, permit)

    def proof(self, user: str, password: str, **facts: object) -> Deferred[Step]:
        """The last step of an exchange with that password."""
        exchange = cast(IExchange, self.ask(user, **facts))
        verifyObject(IExchange, exchange)
        client = ScramClient(["SCRAM-SHA-256"], user, password)
        first = client.get_client_first().encode()
        body = sasl_initial_response("SCRAM-SHA-256", first)[5:]
        step = self.successResultOf(exchange.take(body))
        self.assertIsNone(step.permit)
        client.set_server_first(step.answer[9:].decode())
        return exchange.take(sasl_response(client.get_client_final().encode())[5:])

    def log_in(self, user: str = "standby1", password: str = SECRET, **facts: object) -> IPermit:
        """The permit that a password gives."""
        step = self.successResultOf(self.proof(user, password, **facts))
        assert step.permit is not None
        return step.permit

    def wrong(self, user: str = "standby1", password: str = "x", **facts: object) -> CommandError:
        """Why a password will not do, when the answer is out."""
        proof = self.proof(user, password, **facts)
        self.clock.advance(10)
        return cast(CommandError, self.failureResultOf(proof, CommandError).value)


class RuleTests(GateCase):
    """Which rule, and what follows."""

    def test_interface(self) -> None:
        verifyObject(IGate, self.open())

    def test_no_entry(self) -> None:
        """PostgreSQL's words, whatever the way it comes."""
        self.open("host replication other all trust")
        words = "no pg_hba.conf entry for replication connection from host"
        cases: Sequence[tuple[dict[str, Any], str]] = [
            ({}, '"192.0.2.7", user "standby1", no encryption'),
            ({"is_encrypted": True}, '"192.0.2.7", user "standby1", SSL encryption'),
            ({"address": None}, '"[local]", user "standby1", no encryption'),
        ]
        for facts, place in cases:
            error = self.refusal(**facts)
            self.assertEqual((error.sqlstate, error.message), ("28000", f"{words} {place}"))

    def test_reject(self) -> None:
        self.open("host replication standby1 all reject", "host replication all all trust")
        error = self.refusal()
        self.assertEqual(error.sqlstate, "28000")
        self.assertEqual(
            error.message,
            'pg_hba.conf rejects replication connection for host "192.0.2.7", user "standby1", '
            "no encryption",
        )
        matched = f'Connection matched file "{self.hba}" line 1: "host replication standby1 all'
        self.assertEqual(error.log_detail, f'{matched} reject"')

    def test_trust(self) -> None:
        """Nothing to prove; the log has who, how, and by which line."""
        self.open("# first", 'host replication "a b" all trust')
        permit = self.permit("a b")
        self.assertEqual(permit.identity, f'user="a b" method=trust ({self.hba}:2)')
        permit.check_stream(7, 0)

    def test_addresses(self) -> None:
        """IPv4 within IPv6 is IPv4; an interface's name is nothing of an address."""
        self.open(
            "host replication all 192.0.2.0/24 trust",
            "host replication all fe80::/10 trust",
        )
        for address in ("192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0"):
            self.permit(address=address)
        for address in ("192.0.3.1", "::ffff:192.0.3.1", "2001:db8::1"):
            self.assertEqual(self.refusal(address=address).sqlstate, "28000")
        self.assertEqual(self.refusal(address=None).sqlstate, "28000")

    def test_near(self) -> None:
        """Our own addresses, and their networks."""
        from ipaddress import ip_interface

        self.near = (ip_interface("192.0.2.1/24"),)
        self.open("host replication a samehost trust", "host replication b samenet trust")
        self.permit("a", address="192.0.2.1")
        self.permit("b")
        self.refusal("a")
        self.refusal("b", address="192.0.3.7")

    def test_names(self) -> None:
        """A name is asked for where it matters, and nowhere else."""
        self.open(
            "host replication early all trust",
            "host replication standby1 standby1.example.org trust",
            "host replication all .example.org reject",
        )
        asked: list[str] = []
        names = {"192.0.2.7": ("Standby1.example.ORG",), "192.0.2.8": ("db.example.org",)}

        def ask(address: str) -> Sequence[str]:
            asked.append(address)
            return names.get(address, ())

        self.gate._names._ask = ask
        self.permit("early")
        self.assertEqual(asked, [])
        self.permit()
        self.assertEqual(asked, ["192.0.2.7"])
        self.assertIn("rejects", self.refusal(address="192.0.2.8").message)
        self.assertIn("no pg_hba.conf entry", self.refusal(address="192.0.2.9").message)
        self.assertEqual(asked, ["192.0.2.7", "192.0.2.8", "192.0.2.9"])


class AccountTests(GateCase):
    """``peer``: the account at the other end of a UNIX socket."""

    def test_account(self) -> None:
        """Its name is the user's, or is mapped to it."""
        import pwd

        me = pwd.getpwuid(os.getuid()).pw_name
        self.ident.write_text(f"m {me} standby1\n")
        self.open(f"local replication {me} peer", "local replication all peer map=m")
        permit = self.permit(me, address=None, account=os.getuid())
        self.assertEqual(permit.identity, f'identity="{me}" method=peer ({self.hba}:1)')
        self.permit(address=None, account=os.getuid())
        error = self.refusal("standby2", address=None, account=os.getuid())
        self.assertEqual(error.sqlstate, "28000")
        self.assertEqual(error.message, 'Peer authentication failed for user "standby2"')
        self.assertIn('no match in usermap "m" for user "standby2"', error.log_detail or "")

    def test_nobody(self) -> None:
        """Who is not known is nobody."""
        self.open("local replication all peer")
        for account in (None, 2**31 - 9):
            error = self.refusal(address=None, account=account)
            self.assertEqual(error.message, 'Peer authentication failed for user "standby1"')

    def test_a_directory_service_that_hangs(self) -> None:
        """Who comes in by a password, for which a disk is read, does not notice."""
        self.add("standby2")
        self.open("local replication standby1 peer", "local replication all scram-sha-256")
        self.lanes[1].run = lambda job: Deferred()  # type: ignore[method-assign]
        waiting = self.gate.admit(Applicant("standby1", account=os.getuid()))
        self.ask("standby2", address=None, account=os.getuid())
        self.assertNoResult(waiting)


class CertificateTests(GateCase):
    """What a certificate says."""

    NAME = Subject("standby1", "CN=standby1,O=us")

    def test_cert(self) -> None:
        """Its common name is the user's; the log has all of its name."""
        self.open("hostssl replication all all cert")
        permit = self.permit(is_encrypted=True, subject=self.NAME)
        expected = f'identity="CN=standby1,O=us" method=cert ({self.hba}:1)'
        self.assertEqual(permit.identity, expected)
        error = self.refusal("other", is_encrypted=True, subject=self.NAME)
        self.assertEqual(
            (error.sqlstate, error.message),
            ("28000", 'certificate authentication failed for user "other"'),
        )
        error = self.refusal(is_encrypted=True)
        self.assertEqual(
            (error.sqlstate, error.message),
            ("28000", "connection requires a valid client certificate"),
        )
        nameless = Subject("", "O=us")
        error = self.refusal("", is_encrypted=True, subject=nameless)
        self.assertIn("contains no name", error.log_detail or "")

    def test_map_of_whole_names(self) -> None:
        self.ident.write_text('m "/^CN=(.*),O=us$" \\1\n')
        self.open("hostssl replication all all cert map=m clientname=DN")
        self.permit(is_encrypted=True, subject=self.NAME)
        self.refusal("other", is_encrypted=True, subject=self.NAME)

    def test_with_a_password(self) -> None:
        """Both have to be right."""
        self.add("standby1")
        self.open("hostssl replication all all scram-sha-256 clientcert=verify-full")
        self.log_in(is_encrypted=True, subject=self.NAME)
        other = Subject("other", "CN=other")
        step = self.proof("standby1", SECRET, is_encrypted=True, subject=other)
        error = cast(CommandError, self.failureResultOf(step, CommandError).value)
        self.assertEqual(error.sqlstate, "28P01")
        self.assertIn("do not match", error.log_detail or "")
        self.refusal(is_encrypted=True)

    def test_besides_trust(self) -> None:
        """The name has to be right, but it is not by that that somebody comes in."""
        self.open("hostssl replication all all trust clientcert=verify-full")
        permit = self.permit(is_encrypted=True, subject=self.NAME)
        self.assertIn('user="standby1" method=trust', permit.identity)
        self.refusal("other", is_encrypted=True, subject=self.NAME)

    def test_of_a_trusted_authority(self) -> None:
        """A name does not matter."""
        self.open("hostssl replication all all trust clientcert=verify-ca")
        self.permit("anybody", is_encrypted=True, subject=self.NAME)
        self.refusal("anybody", is_encrypted=True)


class PasswordTests(GateCase):
    """``scram-sha-256``, and ``md5``, which is the same here."""

    def setUp(self) -> None:
        super().setUp()
        self.add("standby1")
        self.add("without", None)
        self.open("host replication early all md5", "host replication all all scram-sha-256")

    def test_right(self) -> None:
        permit = self.log_in()
        expected = f'identity="standby1" method=scram-sha-256 ({self.hba}:2)'
        self.assertEqual(permit.identity, expected)
        self.assertIsNone(self.successResultOf(permit.enter()))

    def test_wrong(self) -> None:
        """One answer for all; which of them it was is for the log."""
        for user, why in (
            ("standby1", 'Password does not match for user "standby1". Connection'),
            ("without", 'User "without" has no password assigned. Connection'),
            ("nobody", 'Role "nobody" does not exist. Connection'),
        ):
            error = self.wrong(user, SECRET if user != "standby1" else "x")
            self.assertEqual(error.sqlstate, "28P01")
            self.assertEqual(error.message, f'password authentication failed for user "{user}"')
            self.assertIsNone(error.detail)
            self.assertTrue((error.log_detail or "").startswith(f"{why} "), error.log_detail)

    def test_who_does_not_exist_looks_the_same(self) -> None:
        """The same salt each time, also after a restart; the iterations of the others."""
        self.add("standby2", str(ScramVerifier.of("x", iterations=5000)))
        self.add("standby3", str(ScramVerifier.of("x", iterations=5000)))

        def challenge(user: str) -> bytes:
            exchange = cast(IExchange, self.ask(user))
            body = sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")[5:]
            answer = self.successResultOf(exchange.take(body)).answer
            return answer[answer.index(b",s=") :]

        first = challenge("nobody")
        self.assertTrue(first.endswith(b",i=5000"))
        self.assertEqual(challenge("nobody"), first)
        self.open("host replication all all scram-sha-256")
        self.assertEqual(challenge("nobody"), first)
        self.assertNotEqual(challenge("nobody2"), first)

    def test_protocol(self) -> None:
        """What is not as it has to be is refused in PostgreSQL's words."""
        initial = b"SCRAM-SHA-256\0"
        cases: Sequence[tuple[bytes, str]] = [
            (b"SCRAM-SHA-1\0\0\0\0\x01x", "client selected an invalid SASL"),
            (b"SCRAM-SHA-256-PLUS\0\0\0\0\x01x", "client selected an invalid SASL"),
            (initial + b"\0\0\0\x02x", "insufficient data left in message"),
            (initial + b"\xff\xff\xff\xfe", "insufficient data left in message"),
            (initial + b"\0\0\0\x01xy", "invalid message format"),
            (b"Geheim 1\0", "client selected an invalid SASL"),
            (b"SCRAM-SHA-256", "invalid string in message"),
            (initial, "insufficient data left in message"),
            (initial + b"\0\0\0\x01x", "malformed SCRAM message"),
        ]
        for body, words in cases:
            exchange = cast(IExchange, self.ask())
            taken = exchange.take(body)
            error = cast(CommandError, self.failureResultOf(taken, CommandError).value)
            self.assertEqual(error.sqlstate, "08P01", body)
            self.assertTrue(error.message.startswith(words), (body, error.message))

    def test_a_client_that_lets_us_begin(self) -> None:
        """It says nothing first, and is asked to."""
        exchange = cast(IExchange, self.ask())
        step = self.successResultOf(exchange.take(b"SCRAM-SHA-256\0\xff\xff\xff\xff"))
        self.assertEqual(step, Step(b"R\0\0\0\x08\0\0\0\x0b"))
        step = self.successResultOf(exchange.take(b"n,,n=,r=abc"))
        self.assertIn(b"r=abc", step.answer)

    def test_a_name_that_is_no_text(self) -> None:
        """Is nobody's."""
        exchange = cast(IExchange, self.ask("caf\udce9"))
        step = exchange.take(sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")[5:])
        nonce = self.successResultOf(step).answer[9:].split(b",")[0]
        proof = exchange.take(b"c=biws," + nonce + b",p=" + b64encode(bytes(32)))
        self.clock.advance(10)
        error = cast(CommandError, self.failureResultOf(proof, CommandError).value)
        self.assertEqual(error.sqlstate, "28P01")
        self.assertTrue((error.log_detail or "").isprintable())

    def test_channel_binding(self) -> None:
        """Is offered where there is something to bind to."""
        exchange = cast(IExchange, self.ask(is_encrypted=True, end_point=b"hash"))
        self.assertIn(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", exchange.begin())
        self.assertNotIn(b"PLUS", cast(IExchange, self.ask(is_encrypted=True)).begin())


class ThrottleTests(GateCase):
    """Who was wrong has to wait."""

    def setUp(self) -> None:
        super().setUp()
        self.add("standby1")
        self.open("host replication all all scram-sha-256")

    def test_answers_are_late(self) -> None:
        """The right one, too, from there; and nobody else's."""
        first = self.proof("standby1", "x")
        self.clock.advance(0.24)
        self.assertNoResult(first)
        self.clock.advance(0.02)
        self.failureResultOf(first, CommandError)
        right = self.proof("standby1", SECRET)
        self.assertNoResult(right)
        self.log_in(address="192.0.2.8")
        self.clock.advance(0.26)
        self.assertIsNotNone(self.successResultOf(right).permit)

    def test_not_for_long(self) -> None:
        """However often somebody there is wrong, who is right comes in after five seconds."""
        for _ in range(50):
            self.wrong()
        right = self.proof("standby1", SECRET)
        self.clock.advance(4.9)
        self.assertNoResult(right)
        self.clock.advance(0.2)
        self.assertIsNotNone(self.successResultOf(right).permit)

    def test_a_client_that_does_not_wait(self) -> None:
        """Leaves nothing; its failure counts."""
        proof = self.proof("standby1", "x")
        proof.cancel()
        self.failureResultOf(proof)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(self.proof("standby1", SECRET))


class NoThrottleTests(GateCase):
    """Where nobody has to wait."""

    def test_at_once(self) -> None:
        """Wrong as often as one likes."""
        self.add("standby1")
        self.open("host replication all all scram-sha-256", throttle=Throttle(lambda: 0.0, 0))
        for _ in range(5):
            self.failureResultOf(self.proof("standby1", "x"), CommandError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RoleTests(GateCase):
    """What a role may have."""

    def test_connections(self) -> None:
        """So many at a time."""
        self.add("standby1", None, "connections=1")
        self.open("host replication all all trust")
        first, second = self.permit(), self.permit()
        self.successResultOf(first.enter())
        error = self.failureResultOf(second.enter(), CommandError).value
        self.assertEqual(
            (error.sqlstate, error.message),
            ("53300", 'too many connections for role "standby1"'),
        )
        second.leave()
        self.successResultOf(self.permit("other").enter())
        self.failureResultOf(self.permit().enter(), CommandError)
        first.leave()
        first.leave()
        third = self.permit()
        self.successResultOf(third.enter())
        self.failureResultOf(self.permit().enter(), CommandError)

    def test_streams(self) -> None:
        """These timelines, from there on."""
        self.add("standby1", None, "timelines=2-3", "from=0/5000000")
        self.open("host replication all all trust")
        permit = self.permit()
        permit.check_stream(2, 0x5000000)
        permit.check_stream(3, 0x6000000)
        for timeline, start in ((1, 0x5000000), (4, 0x5000000), (2, 0x4FFFFFF)):
            with self.assertRaises(CommandError) as caught:
                permit.check_stream(timeline, start)
            self.assertEqual(caught.exception.sqlstate, "42501")
            self.assertEqual(
                caught.exception.detail,
                "The role may have WAL of timelines 2 to 3, from 0/5000000 on.",
            )

    def test_details(self) -> None:
        """Other limits, other words."""
        self.open("host replication all all trust")
        for limit, words in (
            ("timelines=2", "of timeline 2."),
            ("timelines=2-", "of timeline 2 and later."),
            ("from=0/5000000", "of any timeline, from 0/5000000 on."),
        ):
            self.add("standby1", None, limit)
            with self.assertRaises(CommandError) as caught:
                self.permit().check_stream(1, 0)
            self.assertEqual(caught.exception.detail, f"The role may have WAL {words}")

    def test_what_changes_meanwhile(self) -> None:
        """Limits are those of the moment; a role that is dropped has nothing any more."""
        from walstream.formats.role_file import without_role

        self.add("standby1", None)
        self.open("host replication all all trust")
        permit = self.permit()
        permit.check_stream(1, 0)
        self.add("standby1", None, "timelines=2-")
        self.permit("other")
        with self.assertRaises(CommandError):
            permit.check_stream(1, 0)
        self.store.change(lambda text: without_role(text, "standby1", self.store.path))
        self.permit("other").check_stream(1, 0)
        with self.assertRaises(CommandError) as caught:
            permit.check_stream(2, 0)
        self.assertEqual(caught.exception.detail, "The role does not exist any more.")


class FileTests(GateCase):
    """Files that change, and files that are wrong."""

    def test_roles_are_read_when_they_change(self) -> None:
        """Without being told."""
        texts = capture_log(self)
        self.open("host replication all all scram-sha-256")
        self.wrong("standby1", SECRET)
        self.add("standby1")
        self.clock.advance(100)
        self.log_in()
        self.assertEqual(texts, [f"roles read from {self.store.path}"])

    def test_bad_roles_leave_the_old(self) -> None:
        """And it is said once."""
        self.add("standby1")
        self.open("host replication all all scram-sha-256")
        texts = capture_log(self)
        os.chmod(self.store.path, 0o640)
        self.log_in()
        self.log_in()
        (said,) = texts
        self.assertIn("the roles that were read before stay in force", said)
        self.assertIn("has group or world access", said)

    def test_bad_files_at_the_start(self) -> None:
        """Nothing begins with them."""
        self.add("standby1")
        os.chmod(self.store.path, 0o640)
        for lines in (["host replication all all trust"], ["nonsense"]):
            self.hba.write_text("\n".join(lines))
            files = AccessFiles(str(self.hba), None, self.store.path)
            gate = AccessGate(files, self.clock, Lane(), Lane())
            self.failureResultOf(gate.open(), FormatError)

    def test_reload(self) -> None:
        """New rules are for who comes then."""
        self.open("host replication all all trust")
        texts = capture_log(self)
        permit = self.permit()
        self.hba.write_text("host replication all all reject\n")
        self.permit()
        self.successResultOf(self.gate.reload())
        self.assertEqual(texts, [f"{self.hba} was reloaded"])
        self.refusal()
        permit.check_stream(1, 0)

    def test_a_bad_file_is_not_taken(self) -> None:
        """What was there before stays in force, and the log says so."""
        self.open("host replication all all trust")

        def refuse(policy: Policy) -> None:
            if any("reject" in rule.line.text for rule in policy.rules):
                raise FormatError("not that")

        self.check = refuse
        for text, words in (
            ("host replication all", "end-of-line before"),
            ("host replication all all reject", "not that"),
            ("host replication all all cert map=m", "only supported on hostssl"),
            (None, "could not open file"),
        ):
            texts = capture_log(self)
            self.hba.unlink() if text is None else self.hba.write_text(text)
            self.successResultOf(self.gate.reload())
            (said,) = texts[-1:]
            self.assertIn("was not reloaded, what was read before stays in force", said)
            self.assertIn(words, said)
            self.permit()

    def test_warnings(self) -> None:
        """What is hardly meant is said, whenever it is read."""
        texts = capture_log(self)
        self.open("host all all all trust", has_tls=False)
        self.open("hostssl replication all all cert", has_tls=False)
        self.open("hostgssenc replication all all trust", has_tls=False)
        self.assertEqual(len(texts), 3)
        self.assertIn("nobody comes in", texts[0])
        self.assertIn("hostssl record cannot match", texts[1])
        self.assertIn("hostgssenc record cannot match", texts[2])

    def test_certificates_that_nobody_asks_for(self) -> None:
        """Are no way in: it is said when the rules are read, and in PostgreSQL's words later."""
        texts = capture_log(self)
        for rule in ("cert", "trust clientcert=verify-ca", "scram-sha-256 clientcert=verify-full"):
            self.open(f"hostssl replication all all {rule}", has_authorities=False)
            self.assertIn("because --tls-ca is not given: line 1 of", texts.pop())
            error = self.refusal(is_encrypted=True)
            self.assertEqual(
                (error.sqlstate, error.message),
                (
                    "F0000",
                    "client certificates can only be checked if a root certificate store is "
                    "available",
                ),
            )
        self.open("hostssl replication all all scram-sha-256", has_authorities=False)
        self.open("hostssl replication all all cert")
        self.assertEqual(texts, [])

    def test_a_map_without_maps(self) -> None:
        """Is refused: it would match nobody."""
        self.hba.write_text("local replication all peer map=m\n")
        files = AccessFiles(str(self.hba), None, self.store.path)
        gate = AccessGate(files, self.clock, Lane(), Lane())
        error = self.failureResultOf(gate.open(), FormatError).value
        self.assertIn('there is no --ident for map "m"', str(error))

    def test_close(self) -> None:
        """Its threads end."""
        self.open("host replication all all trust")
        self.successResultOf(self.gate.close())
        self.assertTrue(all(lane.is_closed for lane in self.lanes))
