"""What was found by feeding bad input, each with the input that showed it."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import SenderCase
from tests.unit.log_capture import capture_log
from tests.unit.test_protocols_receiver import LET_IN, ReceiverCase, result
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import load_identity
from walstream.archive.ledger import load_ledger
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_files import SlotFiles, check_slot_name
from walstream.errors import (
    ArchiveError,
    CommandError,
    Disconnected,
    FormatError,
    ProtocolViolation,
)
from walstream.formats.role_file import parse_roles, role_line, without_role
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.formats.timelines import TimelineHistory
from walstream.protocols.cancel_keys import new_key, told
from walstream.protocols.names import clean_ascii
from walstream.protocols.settings import version_number
from walstream.wire.frames import frame
from walstream.wire.messages import (
    error_response,
    notice_response,
    parameter_status,
    parse_error,
    query,
)
from walstream.wire.scram_server import ScramServerExchange
from walstream.wire.startup import PROTOCOL_3_0, PROTOCOL_3_2


class TextTests(SynchronousTestCase):
    """Texts and files."""

    def test_a_user_that_is_not_text(self) -> None:
        """One who is unknown, and whose name no encoding has, is refused like any other."""
        exchange = ScramServerExchange("\udcff", None, b"secret")
        with self.assertRaises(CommandError):
            exchange.begin("SCRAM-SHA-256", b"n,,n=,r=abc")
            exchange.finish(b"c=biws,r=abc,p=AAAA")

    def test_numbers_that_python_does_not_convert(self) -> None:
        """Python refuses texts of more than 4300 digits with an error of its own."""
        self.assertEqual(version_number("9" * 5000), 999_999_999 * 10_000)
        self.assertRaises(FormatError, SynchronousStandbyNames.parse, "1" * 5000 + " (a)")
        self.assertEqual(SynchronousStandbyNames.parse("0" * 5000 + "2 (a, b)").number, 2)

    def test_a_history_of_one_long_line(self) -> None:
        """What is wrong with it is said in a line that can be read."""
        error = self.assertRaises(FormatError, TimelineHistory.parse, 2, b"x" * 1_000_000)
        self.assertLess(len(str(error)), 1000)

    def test_a_role_that_is_not_text(self) -> None:
        """It can be read, but it is not written."""
        roles = parse_roles("b\udcf5 -\n", "roles")
        self.assertRaises(FormatError, role_line, roles["b\udcf5"])

    def test_a_role_with_a_verifier_that_looks_like_a_file(self) -> None:
        """The error does not name the file, which is the verifier."""
        error = self.assertRaises(FormatError, parse_roles, "alice @SCRAM-SHA-256$4096:x", "roles")
        self.assertNotIn("4096", str(error))
        self.assertIn("does not include others", str(error))

    def test_a_verifier_in_another_place(self) -> None:
        """Wherever a line that is wrong has it, it is not repeated."""
        secret = "SCRAM-SHA-256$4096:x"
        for line in (
            f"a b {secret}",
            f"a - connections={secret}",
            f"a - from={secret}",
            f"{secret} -\n{secret} -",
        ):
            error = self.assertRaises(FormatError, parse_roles, line, "roles")
            self.assertNotIn("4096", str(error))

    def test_a_verifier_that_is_none(self) -> None:
        """It can be read, but it is not written, since it would be read as something else."""
        roles = parse_roles('alice "a b"\n', "roles")
        self.assertRaises(FormatError, role_line, roles["alice"])

    def test_two_backslashes_and_an_empty_line(self) -> None:
        """The second one continues the line, the first one stays, as with PostgreSQL."""
        for text in ("a b\\\\", "a b\\\\\n", "a b\\\\\n\n"):
            self.assertEqual(parse_roles(text, "roles")["a"].verifier, "b\\")

    def test_a_role_behind_strange_lines(self) -> None:
        """A form feed in a comment does not end its line."""
        text = "# a\x0cb\nalice -\nbob -\n"
        without = without_role(text, "alice", "roles")
        self.assertEqual(list(parse_roles(without, "roles")), ["bob"])
        self.assertIn("# a\x0cb\n", without)


class _Content(FileSystem):
    """A file system with the same content in all of its files."""

    def __init__(self, content: str) -> None:
        self._content = content.encode()

    def read(self, path: str, limit: int = -1) -> bytes:
        return self._content

    def names(self, path: str) -> list[str]:
        return ["a.json"]


class ArchiveFileTests(SynchronousTestCase):
    """Files of an archive that something has damaged."""

    def test_json_that_is_none_of_ours(self) -> None:
        """It is said to be damaged, whatever it is."""
        identity = {"system_identifier": "1", "server_version": "18"}
        entry = {"timeline": "x", "start": "0/100000", "end": None}
        ledger = {
            "format": 1,
            "system_identifier": "1",
            "segment_size": 1 << 20,
            "removed_before": "0/0",
            "ranges": [entry],
            "gaps": [],
            "holes": [],
        }
        for content in (
            json.dumps({**identity, "segment_size": float("inf")}),
            json.dumps(ledger),
            "[" * 100_000,
            "null",
            "[]",
            '{"a": 1e999}',
        ):
            files, paths = _Content(content), ArchivePaths("/archive")
            self.assertRaises(ArchiveError, load_ledger, files, paths)
            self.assertRaises(ArchiveError, load_identity, files, paths)
            if not content.startswith("{"):
                slots = SlotFiles(files, paths.slots)
                self.assertRaises(ArchiveError, lambda slots=slots: list(slots.load()))


class NameTests(SynchronousTestCase):
    """What peers call themselves."""

    def test_application_names(self) -> None:
        """As PostgreSQL has them: printable ASCII."""
        self.assertEqual(clean_ascii("walreceiver 1"), "walreceiver 1")
        self.assertEqual(clean_ascii("a\nb\x7f"), "a\\x0ab\\x7f")
        self.assertEqual(clean_ascii("\u00e9\udcff"), "\\xc3\\xa9\\xff")

    def test_paths_that_lead_elsewhere(self) -> None:
        """What cannot be the name of a slot is never that of a file."""
        for name in (
            "../../etc/passwd",
            "a/b",
            ".",
            "..",
            "a\n",
            "a\0",
            "A",
            "\u00e9",
            "x" * 64,
            "",
        ):
            self.assertRaises(CommandError, check_slot_name, name)
        check_slot_name("x" * 63)

    def test_errors_of_servers(self) -> None:
        """One line, of a length that can be read, without what commands a terminal."""
        text = "a\n2026-01-01 [x] all is well\x1b[2J" + "x" * 10_000
        error = parse_error(error_response("FATAL", "XX000", text, detail="\r", hint="\u2028")[5:])
        self.assertTrue(str(error).isprintable())
        self.assertLess(len(str(error)), 3000)
        self.assertTrue(str(parse_error(b"Mx\ty\0\0")).isprintable())

    def test_cancel_keys(self) -> None:
        """What was told is what fits, and no part of it, nor more than that."""
        for version, size in ((PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32)):
            key = new_key()
            self.assertEqual(len(told(key, version)), size)


class ClientTests(SenderCase):
    """What a client says."""

    def test_names_that_would_forge(self) -> None:
        """A name with a line break is one word of one line, here and with every client."""
        logged = capture_log(self)
        name = "x\n2026-01-01T00:00:00 authorized: user=postgres\x1b[2J"
        answer = self.log_in(application_name=name, user="u\r\nv")
        self.assertNotIn(name.encode(), answer)
        self.assertTrue(self.standby().application_name.isprintable())
        self.assertTrue(any("authorized" in text for text in logged))
        for text in logged:
            self.assertTrue(text.isprintable(), text)

    def test_a_slot_that_is_not_text(self) -> None:
        """Whatever a store makes of such a name, it comes back as it was."""
        self.log_in()
        answer = self.say(frame(b"Q", b'CREATE_REPLICATION_SLOT "a\xff" PHYSICAL\0'))
        self.assertIn(b"\0\0\0\2a\xff", answer)

    def test_a_command_as_long_as_it_may_be(self) -> None:
        """It is read in no time that anybody would notice."""
        self.log_in()
        longest = (1 << 17) - 1
        command = ("SHOW " + "a." * longest)[: longest - 1] + "a"
        self.assertIn(b"42704", self.say(frame(b"Q", command.encode() + b"\0"))[:200])
        self.assertEqual(self.say(frame(b"Q", command.encode() + b"a\0")), b"")
        self.assertFalse(self.transport.connected)


class ServerTests(ReceiverCase):
    """What a server says."""

    def test_parameters_without_end(self) -> None:
        """So many and no more are kept."""
        self.connect()
        self.server.send(LET_IN[:9])
        for number in range(200):
            self.server.send(parameter_status(f"p{number}", "x" * 1000))
        self.assertEqual(len(self.receiver.parameters), 200)
        self.server.send(parameter_status("one more", "x"))
        self.assertIsInstance(self.error(), ProtocolViolation)

    def test_notices_without_end(self) -> None:
        """The log has a few of them."""
        logged = capture_log(self)
        self.connect()
        for _ in range(1000):
            self.server.send(notice_response("NOTICE", "00000", "x"))
        self.assertLess(len([text for text in logged if "upstream says" in text]), 12)

    def test_numbers_that_are_none(self) -> None:
        """A timeline has 32 bits and is not 0, a system identifier has 64."""
        for system, timeline in (("1", "0"), ("1", "4294967296"), (str(2**64), "1"), ("x", "1")):
            self.setUp()
            self.connect()
            self.server.send(LET_IN)
            self.server.expect(query("IDENTIFY_SYSTEM"))
            self.server.send(result(system.encode(), timeline.encode(), b"0/400000", None))
            self.assertIsInstance(self.error(), ProtocolViolation)

    def test_a_byte_a_second_of_an_answer(self) -> None:
        """The whole of a message has to come within a minute."""
        self.connect()
        self.server.send(LET_IN)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        message = frame(b"T", b"\0" * 100)
        for byte in message:
            if not self.transport.connected:
                break
            self.transport.deliver(bytes([byte]))
            self.clock.advance(1)
        error = self.error()
        self.assertIsInstance(error, Disconnected)
        self.assertIn("silent for too long", str(error))

    def test_a_value_as_long_as_it_likes(self) -> None:
        """Where a name or a number is due, no megabytes are looked at."""
        self.connect()
        self.server.send(LET_IN)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        self.server.send(result(b"1" * 10_001, b"1", b"0/0", None))
        self.assertIsInstance(self.error(), ProtocolViolation)

    def error(self) -> BaseException:
        """What ended the receiver."""
        error: BaseException = self.failureResultOf(self.receiver.finished).value
        return error
