"""Tests for walstream.tap: every option, and what is said of a wrong one."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import TypeVar

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream import __version__
from walstream.access.policy import AccessFiles
from walstream.archive.retention import RetentionPolicy
from walstream.formats.compression import Compression, Method
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.protocols.downstream import DownstreamSettings
from walstream.protocols.policy import ReportRules
from walstream.protocols.receiver import Dialect
from walstream.protocols.receiver_settings import ReportApply
from walstream.protocols.settings import SenderSettings
from walstream.services.slot_care import SlotCare
from walstream.tap import Options
from walstream.tap.options import DemoOptions, HubOptions, ReceiveOptions, SendOptions
from walstream.tap.tls_group import TLSOptions
from walstream.upstream import UpstreamHost

_T = TypeVar("_T")

LISTEN = "--listen=tcp:5433:interface=127.0.0.1"


class OptionsCase(SynchronousTestCase):
    """Parses command lines, in an environment that says nothing of a server."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.archive = f"--archive={self.directory}"
        self.patch(os, "environ", {"HOME": str(self.directory)})

    def parse(self, *words: str) -> usage.Options:
        """The options of a whole command line."""
        kind: type[usage.Options] = Options
        options = kind()
        options.parseOptions(list(words))
        return options

    def receive(self, *words: str) -> ReceiveOptions:
        """The options of "receive", with what it must have."""
        return self.command(ReceiveOptions, "receive", "--upstream=host=db1", self.archive, *words)

    def send(self, *words: str) -> SendOptions:
        """The options of "send", with what it must have."""
        return self.command(SendOptions, "send", self.archive, LISTEN, *words)

    def hub(self, *words: str) -> HubOptions:
        """The options of "hub", with what it must have."""
        return self.command(HubOptions, "hub", "--upstream=host=db1", self.archive, LISTEN, *words)

    def command(self, kind: type[_T], *words: str) -> _T:
        """The options of a command."""
        options = self.parse(*words).subOptions
        assert isinstance(options, kind)
        return options

    def refusal(self, *words: str) -> str:
        """What is said of a command line that will not do."""
        return str(self.assertRaises(usage.UsageError, self.parse, *words))

    def assert_refused(self, words: tuple[str, ...], *said: str) -> None:
        """The command line is refused, in a text with all these parts."""
        text = self.refusal(*words)
        for part in said:
            self.assertIn(part, text)


class CommandTests(OptionsCase):
    """What all commands have in common."""

    def test_no_command(self) -> None:
        """Without a command there is an error that lists them."""
        self.assertEqual(self.refusal(), "a command is missing: receive, send, hub or demo")

    def test_unknown_command(self) -> None:
        """A command that there is not is an error that names it."""
        self.assertIn("recieve", self.refusal("recieve"))

    def test_unknown_option(self) -> None:
        """An option that a command does not have is an error that names it."""
        self.assertIn("--endpos", self.refusal("hub", "--endpos=0/1"))

    def test_surplus_words(self) -> None:
        """Words that belong to no option are an error."""
        self.assertRaises(usage.UsageError, self.receive, "surplus")

    def test_given_twice(self) -> None:
        """What would win in silence is an error, also by another name, or with the same value."""
        for words, name in (
            (("demo", "--rows=1", "--rows=2"), "rows"),
            (("send", self.archive, LISTEN, "--hba=a", "--hba", "b"), "hba"),
            (("send", self.archive, LISTEN, self.archive), "archive"),
            (("receive", "-Da", "--directory=b"), "archive"),
            (("hub", "--upstream=host=a", "--dbname=host=b"), "upstream"),
            (("hub", "-Sa", "--slot=a"), "slot"),
        ):
            self.assertEqual(
                self.refusal(*words), f"--{name} is given twice: leave one of them out"
            )

    def test_flags_given_twice(self) -> None:
        """They say the same."""
        self.assertTrue(self.receive("-v", "--verbose")["verbose"])

    def test_version(self) -> None:
        """The version is walstream's, also behind a command."""
        for words in (("--version",), ("receive", "--version"), ("hub", "-V")):
            output = StringIO()
            self.patch(sys, "stdout", output)
            left = self.assertRaises(SystemExit, self.parse, *words)
            self.assertEqual(left.code, 0)
            self.assertEqual(output.getvalue(), f"walstream {__version__}\n")

    def test_help(self) -> None:
        """Each command's help has its synopsis, and a text for every option."""
        for command in ("receive", "send", "hub", "demo"):
            output = StringIO()
            self.patch(sys, "stdout", output)
            self.assertRaises(SystemExit, self.parse, command, "--help")
            text = output.getvalue()
            self.assertIn(f"walstream {command} ", text)
            self.assertNotIn("None", text)


class SlotOptionsTests(OptionsCase):
    """--create-slot, --if-not-exists, --drop-slot"""

    def test_no_archive_is_needed(self) -> None:
        """For what is done with a slot alone."""
        for words in ("--create-slot", "--create-slot --if-not-exists", "--drop-slot"):
            options = self.command(
                ReceiveOptions, "receive", "-dhost=db1", "--slot=s", *words.split()
            )
            self.assertFalse(options.uses_archive())
        self.assertTrue(self.receive("--slot=s").uses_archive())

    def test_what_does_not_go_together(self) -> None:
        """Is refused in pg_receivewal's words."""
        for words, said in (
            ("-Ss --create-slot --drop-slot", "cannot use --create-slot together with --drop-slot"),
            ("--create-slot", "--create-slot needs a slot to be specified using --slot"),
            ("--drop-slot", "--drop-slot needs a slot to be specified using --slot"),
            ("-Ss --if-not-exists", "--if-not-exists is for --create-slot only"),
            ("-Ss --create-slot --dialect=2009", "knows no replication slots"),
        ):
            self.assert_refused(("receive", "-dhost=db1", *words.split()), said)


class GapOptionsTests(OptionsCase):
    """--accept-gap"""

    def test_position(self) -> None:
        """Of both commands that receive."""
        for options in (self.receive("--accept-gap=1/AB"), self.hub("--accept-gap=1/AB")):
            self.assertEqual(options.settings.accept_gap, LSN.parse("1/AB"))
        self.assertIsNone(self.receive().settings.accept_gap)
        self.assert_refused(
            ("receive", "-dhost=db1", self.archive, "--accept-gap=yes"), "--accept-gap", "X/X"
        )

    def test_dialect(self) -> None:
        """The first design cannot tell what lies behind a gap."""
        words = ("receive", "-dhost=db1", self.archive, "--dialect=2009", "--accept-gap=0/1")
        self.assert_refused(words, "--accept-gap is not possible with --dialect=2009")


class ArchiveOptionsTests(OptionsCase):
    """--archive"""

    def test_path(self) -> None:
        """The path is made absolute, since twistd may change the directory."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        for option in ("--archive=wal", "-Dwal", "--directory=wal"):
            options = self.command(ReceiveOptions, "receive", "-dhost=a", option)
            self.assertEqual(options.archive, self.directory / "wal")

    def test_missing(self) -> None:
        """Without it there is an error with an example."""
        self.assert_refused(
            ("receive", "-d", "host=a"), "--archive is missing", "--archive=/srv/wal"
        )
        self.assert_refused(("send", LISTEN), "--archive is missing")

    def test_not_a_directory(self) -> None:
        """A file is no archive."""
        path = self.directory / "file"
        path.touch()
        self.assert_refused(
            ("receive", "-dhost=a", f"-D{path}"), "--archive: ", f"{path} is not a directory"
        )

    def test_parent(self) -> None:
        """A directory can be made only below one that is there."""
        path = self.directory / "no" / "archive"
        self.assert_refused(
            ("receive", "-dhost=a", f"-D{path}"),
            "--archive: ",
            f"no directory {path.parent}; make that one first",
        )

    def test_sender_makes_none(self) -> None:
        """What is only read has to be there."""
        path = self.directory / "archive"
        self.assert_refused(
            ("send", LISTEN, f"-D{path}"), "--archive: there is no directory", str(path)
        )


class ControlOptionsTests(OptionsCase):
    """--control"""

    def test_places(self) -> None:
        """In the archive, nowhere, or at a path that is made absolute."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        path = str(self.directory / "socket")
        for words, place in (
            ((), "archive"),
            (("--control=archive",), "archive"),
            (("--control=none",), "none"),
            (("--control", "socket"), path),
        ):
            for options in (self.receive(*words), self.send(*words), self.hub(*words)):
                self.assertEqual(options.control, place)

    def test_no_directory(self) -> None:
        """A path in a directory that is not there is a mistake."""
        path = str(self.directory / "no" / "socket")
        self.assert_refused(
            ("send", LISTEN, self.archive, f"--control={path}"),
            f"--control: there is no directory {self.directory / 'no'}",
        )


class CompressionOptionsTests(OptionsCase):
    """--compress"""

    def test_methods(self) -> None:
        """By its long name and by pg_receivewal's short one; none unless asked for."""
        self.assertIs(self.receive().compression, None)
        self.assertIs(self.hub("-Z", "none").compression, None)
        for words in (("--compress=zstd:1",), ("-Z", "zstd:level=1"), ("-Zzstd:1",)):
            options = self.receive(*words)
            self.assertEqual(options.compression, Compression(Method.ZSTD, 1))
        self.assertEqual(self.hub("-Z", "6").compression, Compression(Method.GZIP, 6))

    def test_wrong(self) -> None:
        """What is wrong is said as PostgreSQL says it: 020_pg_receivewal."""
        words = ("receive", "-dhost=a", self.archive, "--compress=none:1")
        self.assert_refused(
            words,
            "--compress: invalid compression specification: compression algorithm "
            '"none" does not accept a compression level',
        )

    def test_missing_package(self) -> None:
        """The extra that brings it is named; gzip needs none."""
        self.patch(sys, "modules", {**sys.modules, "lz4.frame": None, "zstandard": None})
        for method in ("lz4", "zstd"):
            words = ("receive", "-dhost=a", self.archive, f"--compress={method}")
            self.assert_refused(words, "--compress: ", "install walstream[compression]")
        self.receive("--compress=gzip")

    def test_jobs(self) -> None:
        """At least one, and only with a method."""
        self.assertEqual(self.receive("-Zlz4", "--compress-jobs=3").compress_jobs, 3)
        self.assertTrue(1 <= self.receive("-Zlz4").compress_jobs <= 4)
        words = ("receive", "-dhost=a", self.archive)
        self.assert_refused((*words, "--compress-jobs=2"), "--compress-jobs", "leave it out")
        for number in ("0", "x", "-1"):
            self.assert_refused((*words, "-Zlz4", f"--compress-jobs={number}"), "--compress-jobs:")

    def test_not_for_send(self) -> None:
        """Which writes nothing."""
        self.assert_refused(("send", self.archive, LISTEN, "-Zlz4"), "Z")


class UpstreamOptionsTests(OptionsCase):
    """The options about the server."""

    def test_upstream(self) -> None:
        """A connection string may be given by either name."""
        for word in ("--upstream=host=a port=1", "-dhost=a port=1", "--dbname=postgres://a:1"):
            options = self.command(ReceiveOptions, "receive", self.archive, word)
            self.assertEqual(options.upstream.hosts, (UpstreamHost("a", None, 1),))

    def test_missing(self) -> None:
        """Without it, and nothing in the environment, there is an error with an example."""
        for command in (("receive",), ("hub", LISTEN)):
            self.assert_refused(
                (*command, self.archive), "--upstream is missing", "host=db1", "PGHOST"
            )

    def test_environment(self) -> None:
        """The environment may say where the server is."""
        self.patch(os, "environ", {"HOME": "/", "PGHOST": "db7"})
        options = self.command(ReceiveOptions, "receive", self.archive)
        self.assertEqual(options.upstream.hosts, (UpstreamHost("db7"),))

    def test_empty(self) -> None:
        """An empty connection string is one: a local server."""
        options = self.command(ReceiveOptions, "receive", self.archive, "--upstream=")
        self.assertIsNotNone(options.upstream.hosts[0].socket_path)

    def test_faulty(self) -> None:
        """What is wrong in a connection string is said with the option's name."""
        for text, said in (
            ("hots=a", 'invalid connection option "hots"'),
            ("sslmode=please", 'invalid sslmode value: "please"'),
            ("port=x", 'invalid port number: "x"'),
            ("service=none", "definition of service 'none' not found"),
        ):
            self.assert_refused(("receive", self.archive, f"-d{text}"), "--upstream: ", said)

    def test_password_on_the_command_line(self) -> None:
        """It is taken, with a warning that does not repeat it."""
        log = capture_log(self)
        for text in ("host=a password=sesame", "postgresql://me:sesame@a"):
            log.clear()
            self.command(ReceiveOptions, "receive", self.archive, f"-d{text}")
            (said,) = log
            self.assertIn("password is on the command line", said)
            self.assertIn("--password-file", said)
            self.assertNotIn("sesame", said)
        log.clear()
        self.patch(os, "environ", {"HOME": "/", "PGPASSWORD": "sesame"})
        self.receive()
        self.assertEqual(log, [])

    def test_password_file(self) -> None:
        """It has to be there, and nobody else's to read."""
        path = self.directory / "password"
        path.write_text("sesame\n")
        path.chmod(0o600)
        words = ("receive", self.archive, "-dhost=a", f"--password-file={path}")
        options = self.command(ReceiveOptions, *words)
        self.assertEqual(options.upstream.login(options.upstream.hosts[0]).password, "sesame")
        path.chmod(0o640)
        self.assert_refused(words, "--password-file: ", "group or world access")
        path.unlink()
        self.assert_refused(words, "--password-file: ", "No such file")
        self.assert_refused(
            ("receive", self.archive, "-dhost=a password=x", f"--password-file={path}"),
            "--upstream: ",
            "leave one of them out",
        )

    def test_defaults(self) -> None:
        """What nobody says is as in pg_receivewal."""
        settings = self.receive().settings
        self.assertIsNone(settings.slot)
        self.assertFalse(settings.synchronous)
        self.assertEqual(settings.status_interval, 10.0)
        self.assertIsNone(settings.start_position)
        self.assertIsNone(settings.end_position)
        self.assertIs(settings.dialect, Dialect.MODERN)

    def test_settings(self) -> None:
        """Each option is a setting, by its long and its short name."""
        for words in (
            (
                "--slot=s1 --status-interval=3 --startpos=0/3000000 --endpos=1/0 --synchronous "
                "--no-loop --verbose"
            ),
            "-Ss1 -s3 --startpos=0/3000000 -E1/0 --synchronous -n -v",
        ):
            options = self.receive(*words.split())
            settings = options.settings
            self.assertEqual(settings.slot, "s1")
            self.assertEqual(settings.status_interval, 3.0)
            self.assertEqual(settings.start_position, LSN(0x3000000))
            self.assertEqual(settings.end_position, LSN(1 << 32))
            self.assertTrue(settings.synchronous)
            self.assertTrue(options["no-loop"])
            self.assertTrue(options["verbose"])

    def test_hub(self) -> None:
        """A hub always makes WAL durable as it comes, and has no end."""
        settings = self.hub("--slot=s1", "-s0", "-v").settings
        self.assertTrue(settings.synchronous)
        self.assertIsNone(settings.end_position)
        self.assertEqual(settings.slot, "s1")
        self.assertEqual(settings.status_interval, 0.0)

    def test_report_apply(self) -> None:
        """What is here is reported as applied, by its new and its old word, or nothing."""
        for command in (self.receive, self.hub):
            for words, expected in (
                ((), ReportApply.FLUSH),
                (("--report-apply=local",), ReportApply.FLUSH),
                (("--report-apply=flush",), ReportApply.FLUSH),
                (("--report-apply=none",), ReportApply.NONE),
            ):
                self.assertIs(command(*words).settings.report_apply, expected)
        self.assertEqual(self.hub("--report-apply=none").downstream, DownstreamSettings())
        needed = ("receive", "--upstream=host=a", self.archive)
        self.assert_refused((*needed, "--report-apply=ANY 1 (s1)"), "--report-apply: ", "local")

    def test_downstream(self) -> None:
        """What a hub does for its standbys, in the grammar of synchronous_standby_names."""
        self.assertEqual(self.hub().downstream, DownstreamSettings())
        options = self.hub(
            "--report-write=*",
            "--report-flush",
            "ANY 2 (s1, s2, s3)",
            "--report-apply=s1",
            "--report-timeout=2.5",
            "--feedback=off",
        )
        parse = SynchronousStandbyNames.parse
        rules = ReportRules(parse("*"), parse("ANY 2 (s1, s2, s3)"), parse("FIRST 1 (s1)"))
        self.assertEqual(options.downstream, DownstreamSettings(rules, 2.5, False))
        self.assertIs(options.settings.report_apply, ReportApply.FLUSH)
        needed = ("hub", "--upstream=host=a", self.archive, LISTEN)
        for words, *said in (
            ("--report-flush=none none", "--report-flush: ", "'none'"),
            ("--report-write=", "--report-write: ", "say local"),
            ("--report-apply=ANY (a)", "--report-apply: ", "ANY (a)"),
            ("--report-timeout=soon", "--report-timeout: ", "seconds"),
            ("--feedback=yes", "--feedback: ", "neither on nor off"),
        ):
            self.assert_refused((*needed, words), *said)

    def test_dialect_2009(self) -> None:
        """The first design has a segment size of its own choice."""
        settings = self.receive("--dialect=2009", "--wal-segsize=64").settings
        self.assertIs(settings.dialect, Dialect.DESIGN_2009)
        self.assertEqual(settings.segment_size, SegmentSize(64 << 20))
        self.assertEqual(self.receive("--dialect=2009").settings.segment_size, 16 << 20)

    def test_faulty_values(self) -> None:
        """A wrong value is refused with the option's name and what it should be."""
        needed = ("receive", "--upstream=host=a", self.archive)
        for words, said in (
            ("--slot=North", ("--slot: 'North'", "lower-case letters")),
            ("--slot=", ("--slot: ''", "1 to 63")),
            ("--slot=" + "x" * 64, ("--slot: ", "1 to 63")),
            ("--status-interval=soon", ("--status-interval: 'soon'", "whole number")),
            ("--status-interval=-1", ("--status-interval: '-1'", "0 or more")),
            ("--startpos=3000000", ("--startpos: '3000000'", "X/X")),
            ("--endpos=0/", ("--endpos: '0/'", "X/X")),
            ("--dialect=2010", ("--dialect: '2010'", "modern or 2009")),
            ("--dialect=2009 --wal-segsize=3", ("--wal-segsize: ",)),
            ("--dialect=2009 --wal-segsize=0", ("--wal-segsize: ",)),
            ("--dialect=2009 --wal-segsize=x", ("--wal-segsize: 'x'", "whole number")),
            ("--wal-segsize=16", ("--wal-segsize", "--dialect=2009 only", "leave it out")),
            ("--dialect=2009 --slot=s1", ("--slot", "--dialect=2009", "leave one of them out")),
        ):
            self.assert_refused((*needed, *words.split()), *said)


class RetentionOptionsTests(OptionsCase):
    """The options about what is kept."""

    def test_none(self) -> None:
        """Everything is kept."""
        self.assertFalse(self.receive().retention)
        self.assertFalse(self.hub().retention)

    def test_limit_of_slots(self) -> None:
        """It goes with what is kept, and is no wish to remove anything by itself."""
        limit = "--max-slot-wal-keep-size=10GB"
        policy = self.hub(limit, "--keep-age=1d").retention
        self.assertEqual(policy.max_slot_wal_keep_size, 10 << 30)
        self.assert_refused(("receive", self.archive, "-dhost=a", limit), "say what to keep too")

    def test_policy(self) -> None:
        """Each is a part of it; paths are made absolute."""
        words = "--keep-age=30d --keep-size=500GB --keep-from=readers --keep-backups=2"
        policy = self.hub(*words.split(), "--keep-backup=/a", "--keep-backup", "b").retention
        self.assertEqual(
            policy,
            RetentionPolicy(
                keep_age=30 * 86400,
                keep_size=500 << 30,
                keep_from="readers",
                keep_backups=2,
                keep_backup=("/a", os.path.abspath("b")),
            ),
        )

    def test_faulty_values(self) -> None:
        """A wrong value is refused with the option's name and what it should be."""
        needed = ("receive", "--upstream=host=a", self.archive)
        for word, said in (
            ("--keep-age=30", "a time such as 30d"),
            ("--keep-size=500", "a size such as 500GB"),
            ("--keep-backups=0", "whole number of 1 or more"),
        ):
            self.assert_refused((*needed, word), word.partition("=")[0], said)


class ListenOptionsTests(OptionsCase):
    """The options about followers."""

    def test_listen(self) -> None:
        """The endpoint is passed on as it is."""
        for options in (self.send(), self.hub()):
            self.assertEqual(options.listen, ("tcp:5433:interface=127.0.0.1",))
        short = self.command(SendOptions, "send", self.archive, "-lunix:/run/x")
        self.assertEqual(short.listen, ("unix:/run/x",))

    def test_several(self) -> None:
        """In the order in which they are given; each is checked, and named if it will not do."""
        near = "tcp:5433:interface=127.0.0.1"
        for options in (self.send("-lunix:/run/x"), self.hub("--listen", "unix:/run/x")):
            self.assertEqual(options.listen, (near, "unix:/run/x"))
        for words, said in (
            (("-ltcp:5434",), "--listen: 'tcp:5434' will not do"),
            (("-ltcp:5434", "-lunix:/run/x"), "--listen: 'tcp:5434' will not do"),
            ((LISTEN,), f"--listen: {near!r} is given twice"),
        ):
            self.assert_refused(("send", self.archive, LISTEN, *words), said)

    def test_missing(self) -> None:
        """Without it there is an error with an example."""
        for words in (("send", self.archive), ("hub", self.archive, "-dhost=a")):
            self.assert_refused(words, "--listen is missing", "tcp:5433:interface=127.0.0.1")

    def test_reach(self) -> None:
        """Other machines are let in only if one says so."""
        self.assert_refused(
            ("send", self.archive, "-ltcp:5433"), "--listen: 'tcp:5433'", "--trust-network"
        )
        options = self.command(SendOptions, "send", self.archive, "-ltcp:5433", "--trust-network")
        self.assertEqual(options.listen, ("tcp:5433",))

    def test_access(self) -> None:
        """Who comes in: everybody, or whom the files let in, which are named in full."""
        self.assertIsNone(self.send().access)
        access = self.hub("--hba=h").access
        assert access is not None
        roles = os.path.join(os.path.abspath(self.archive.partition("=")[2]), ".walstream/roles")
        self.assertEqual(access.files, AccessFiles(os.path.abspath("h"), None, roles))
        self.assertEqual((access.delay, access.may_trust_strangers), (0.25, True))
        access = self.send("--hba=h", "--ident=i", "--roles=r", "--auth-delay=0").access
        assert access is not None
        paths = [os.path.abspath(name) for name in "hir"]
        self.assertEqual((access.files, access.delay), (AccessFiles(*paths), 0.0))

    def test_access_from_other_machines(self) -> None:
        """Then nobody may come in for nothing, unless one says so."""
        words = ("send", self.archive, "-ltcp:5433", "--hba=h")
        self.assert_refused(words, "--tls-certificate", "--trust-network")
        options = self.command(SendOptions, *words, "--trust-network")
        assert options.access is not None
        self.assertTrue(options.access.may_trust_strangers)

    def test_access_from_other_machines_by_one_of_several(self) -> None:
        """One that they can reach is enough."""
        self.patch(TLSOptions, "_tls", lambda _: None)
        safe = ("--hba=h", "--tls-certificate=c")
        for where, may_trust in (("unix:/run/x", True), ("tcp:5434", False)):
            access = self.send(*safe, "--listen", where).access
            assert access is not None
            self.assertIs(access.may_trust_strangers, may_trust)

    def test_access_without_rules(self) -> None:
        """Maps and roles are of no use."""
        for name in ("--ident=i", "--roles=r"):
            with self.assertRaisesRegex(usage.UsageError, "with --hba only"):
                self.send(name)

    def test_processes(self) -> None:
        """One, a number, or as many as there are cores."""
        self.assertEqual(self.send().processes, 1)
        self.assertEqual(self.hub("--processes=3").processes, 3)
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
        self.assertEqual(self.send("--processes=auto").processes, cores)
        for value in ("0", "-1", "many"):
            with self.assertRaisesRegex(usage.UsageError, "--processes: "):
                self.send(f"--processes={value}")

    def test_processes_serve_what_is_flushed(self) -> None:
        """Others than the one that receives don't know what is only written."""
        self.hub("--serve=written", "--processes=1")
        with self.assertRaisesRegex(usage.UsageError, "--serve=written is for one process"):
            self.hub("--serve=written", "--processes=2")

    def test_sender_timeout(self) -> None:
        """A client's silence is limited to a minute, or to what one says; 0 is no limit."""
        self.assertEqual(self.send().sender_settings.sender_timeout, 60.0)
        self.assertEqual(self.hub("--sender-timeout=1.5").sender_settings.sender_timeout, 1.5)
        self.assertEqual(self.send("--sender-timeout=0").sender_settings.sender_timeout, 0.0)
        for value in ("-1", "nan", "inf", "1min"):
            self.assert_refused(
                ("send", self.archive, LISTEN, f"--sender-timeout={value}"),
                f"--sender-timeout: {value!r}",
                "number of seconds",
            )


class LimitOptionsTests(OptionsCase):
    """--max-clients, --max-rate, --max-total-rate, --delay, --lag-warning"""

    def test_defaults(self) -> None:
        """A thousand clients, as fast as they can, all at once; a warning from a gigabyte on."""
        self.assertEqual(self.send().sender_settings, SenderSettings())

    def test_values(self) -> None:
        """With units as PostgreSQL has them."""
        settings = self.hub(
            "--max-clients=7",
            "--max-rate=50MB",
            "--max-total-rate=1GB",
            "--delay=late=8h",
            "--delay=a=b=90s",
            "--lag-warning=64kB",
        ).sender_settings
        self.assertEqual((settings.max_clients, settings.lag_warning), (7, 65536))
        self.assertEqual((settings.max_rate, settings.max_total_rate), (50 << 20, 1 << 30))
        self.assertEqual(settings.delays, {"late": 28800.0, "a=b": 90.0})

    def test_nothing(self) -> None:
        """0 is no limit, and no warning."""
        settings = self.send("--max-clients=0", "--max-rate=0", "--lag-warning=0").sender_settings
        self.assertEqual((settings.max_clients, settings.max_rate, settings.lag_warning), (0, 0, 0))

    def test_faulty_values(self) -> None:
        """A wrong one is refused, with the option's name and what it wants."""
        for word, said in (
            ("--max-clients=-1", "whole number"),
            ("--max-rate=50", "a size such as"),
            ("--max-rate=1kB", "at least 32kB"),
            ("--max-total-rate=0kb", "a size such as"),
            ("--delay=8h", "NAME=TIME"),
            ("--delay==8h", "NAME=TIME"),
            ("--delay=late=8", "a time such as"),
            ("--lag-warning=much", "a size such as"),
        ):
            option = word.partition("=")[0]
            self.assert_refused(("send", self.archive, LISTEN, word), f"{option}: ", said)

    def test_two_delays_of_one_name(self) -> None:
        """Of which one would win in silence."""
        words = ("send", self.archive, LISTEN, "--delay=late=8h", "--delay=*=1h", "--delay=late=8h")
        self.assert_refused(words, "--delay is given twice for late")

    def test_of_one_command_only(self) -> None:
        """What one command line says is not in the next one's."""
        self.send("--delay=late=8h")
        self.assertEqual(self.send().sender_settings.delays, {})


class KeptSlotsTests(OptionsCase):
    """The options about the slots that clients have here."""

    def test_values(self) -> None:
        """As given, or as they are."""
        self.assertEqual(self.send().slot_care, SlotCare(most=1000, idle_timeout=0.0))
        options = self.hub("--max-replication-slots=0", "--idle-replication-slot-timeout=2d")
        self.assertEqual(options.slot_care, SlotCare(most=0, idle_timeout=2 * 86400.0))

    def test_faulty_values(self) -> None:
        """A wrong value is refused with the option's name."""
        for word in ("--max-replication-slots=x", "--idle-replication-slot-timeout=2"):
            self.assert_refused(("send", self.archive, LISTEN, word), word.partition("=")[0])


class DemoOptionsTests(OptionsCase):
    """The demo's options."""

    def test_values(self) -> None:
        """It runs until it is stopped and writes 100 rows a second, unless told otherwise."""
        for words, seconds, rows in (((), None, 100), (("--for=2.5", "--rows=0"), 2.5, 0)):
            options = self.command(DemoOptions, "demo", *words)
            self.assertEqual((options.seconds, options.rows), (seconds, rows))

    def test_faulty_values(self) -> None:
        """A wrong value is refused with the option's name."""
        self.assert_refused(("demo", "--for=ever"), "--for: 'ever'", "number of seconds")
        self.assert_refused(("demo", "--rows=1.5"), "--rows: '1.5'", "whole number")
