"""Tests for walstream.upstream.conninfo: what a user says becomes an `Upstream`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream.errors import FormatError
from walstream.services.endpoint import UpstreamAddress
from walstream.upstream import TargetSessionAttrs, Upstream, UpstreamHost, parse_conninfo
from walstream.upstream.home import system_user
from walstream.upstream.settings import gather, secrets_in
from walstream.wire.login_demands import ChannelBinding, LoginDemands


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        del os.environ[variable]
    else:
        os.environ[variable] = value


class ConninfoCase(SynchronousTestCase):
    """Parses with an environment of its own: an empty home, and no service files of the system."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(parents=True)
        self.environ = {"HOME": str(self.home), "PGSYSCONFDIR": str(self.home / "etc")}

    def parse(self, text: str, **environ: str) -> Upstream:
        """*text* in an environment that has these variables besides."""
        return parse_conninfo(text, self.environ | environ)

    def refusal(self, text: str, **environ: str) -> str:
        """What is said of a string that will not do."""
        return str(self.assertRaises(FormatError, self.parse, text, **environ))

    def service_file(self, content: str, name: str = ".pg_service.conf") -> Path:
        """A service file below the home directory."""
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path


class FormTests(ConninfoCase):
    """The two forms of a connection string, and what is there without one."""

    def test_key_value(self) -> None:
        """A key=value string has libpq's keys, with quotes and escapes as there."""
        upstream = self.parse(r"host=db1 port = 5433 user='o\'neil' password='a b' dbname=x")
        self.assertEqual(upstream.hosts, (UpstreamHost("db1", None, 5433),))
        self.assertEqual(upstream.account.user, "o'neil")
        self.assertEqual(upstream.account.password, "a b")
        self.assertEqual(upstream.account.database, "x")

    def test_uri(self) -> None:
        """A URI has several hosts, escapes, a literal IPv6 address and parameters."""
        upstream = self.parse(
            "postgresql://me:p%40ss@db1:5433,[::1]:5434/x?application_name=north&connect_timeout=3"
        )
        self.assertEqual(
            upstream.hosts, (UpstreamHost("db1", None, 5433), UpstreamHost("::1", None, 5434))
        )
        self.assertEqual(upstream.account.user, "me")
        self.assertEqual(upstream.account.password, "p@ss")
        self.assertEqual(upstream.account.database, "x")
        self.assertEqual(upstream.account.application_name, "north")
        self.assertEqual(upstream.connect_timeout, 3.0)

    def test_uri_with_socket(self) -> None:
        """A URI names the directory of a UNIX socket by an escaped path, or by a parameter."""
        for text in ("postgres://%2Frun%2Fpg:5433", "postgres:///?host=/run/pg&port=5433"):
            (host,) = self.parse(text).hosts
            self.assertEqual(host.socket_path, "/run/pg/.s.PGSQL.5433")

    def test_nothing_said(self) -> None:
        """An empty string is a local server, logged in to as the system's user."""
        upstream = self.parse("")
        self.assertTrue(all(host.socket_path for host in upstream.hosts))
        self.assertEqual(upstream.account.user, system_user())
        self.assertIsNone(upstream.account.password)
        self.assertEqual(upstream.account.database, "replication")
        self.assertEqual(upstream.account.application_name, "walstream")
        self.assertEqual(upstream.account.parameters, {})
        self.assertEqual(upstream.passfile, self.home / ".pgpass")
        self.assertIs(upstream.wanted, TargetSessionAttrs.ANY)
        self.assertFalse(upstream.shuffled)
        self.assertEqual(upstream.tcp_options, {})

    def test_unknown_option(self) -> None:
        """An option that libpq does not know is refused in libpq's words."""
        self.assertIn('invalid connection option "hots"', self.refusal("hots=db1"))
        self.assertIn('invalid URI query parameter: "hots"', self.refusal("postgres://a?hots=b"))

    def test_faulty_syntax(self) -> None:
        """What is no connection string is refused in libpq's words."""
        self.assertIn('missing "=" after "db1"', self.refusal("db1"))
        self.assertIn('invalid percent-encoded token: "%zz"', self.refusal("postgres://%zz"))

    def test_password_is_not_shown(self) -> None:
        """No password can be seen in what is logged of an upstream."""
        for upstream in (
            self.parse("host=a password=sesame"),
            self.parse("postgres://u:sesame@a"),
            self.parse("host=a", PGPASSWORD="sesame"),
        ):
            self.assertEqual(upstream.account.password, "sesame")
            for shown in (repr(upstream), str(upstream), repr(upstream.login(upstream.hosts[0]))):
                self.assertNotIn("sesame", shown)

    def test_password_is_not_shown_of_settings(self) -> None:
        """What was said is shown without its values, any of which may be secret."""
        shown = repr(gather("user=me password=sesame", {"PGPASSWORD": "sesame"}))
        self.assertIn("the connection string", shown)
        self.assertNotIn("sesame", shown)


class PrecedenceTests(ConninfoCase):
    """The string, its service and the environment."""

    def test_environment(self) -> None:
        """libpq's variables give what the string leaves out."""
        upstream = self.parse(
            "",
            PGHOST="db1",
            PGPORT="5433",
            PGUSER="me",
            PGPASSWORD="sesame",
            PGAPPNAME="north",
            PGCONNECT_TIMEOUT="7",
            PGOPTIONS="-c lc_messages=C",
            PGPASSFILE="/somewhere/pass",
            PGTARGETSESSIONATTRS="standby",
            PGLOADBALANCEHOSTS="random",
        )
        self.assertEqual(upstream.hosts, (UpstreamHost("db1", None, 5433),))
        self.assertEqual(upstream.account.user, "me")
        self.assertEqual(upstream.account.password, "sesame")
        self.assertEqual(upstream.account.application_name, "north")
        self.assertEqual(upstream.account.parameters, {"options": "-c lc_messages=C"})
        self.assertEqual(upstream.connect_timeout, 7.0)
        self.assertEqual(upstream.passfile, Path("/somewhere/pass"))
        self.assertIs(upstream.wanted, TargetSessionAttrs.STANDBY)
        self.assertTrue(upstream.shuffled)

    def test_only_the_given_environment(self) -> None:
        """The process's own environment is not looked at."""
        for name in ("PGUSER", "PGHOST"):
            self.addCleanup(_restore, name, os.environ.get(name))
            os.environ[name] = "elsewhere"
        upstream = self.parse("")
        self.assertEqual(upstream.account.user, system_user())
        self.assertIsNotNone(upstream.hosts[0].socket_path)

    def test_order(self) -> None:
        """The string wins over the service, the service over the environment."""
        self.service_file("[north]\nhost=of-service\nport=2\n")
        variables = {"PGHOST": "of-environment", "PGPORT": "3", "PGUSER": "of-environment"}
        upstream = self.parse("service=north host=of-string", **variables)
        self.assertEqual(upstream.hosts, (UpstreamHost("of-string", None, 2),))
        self.assertEqual(upstream.account.user, "of-environment")

    def test_empty_value_in_string(self) -> None:
        """An empty value in the string hides the environment's, and is as good as none."""
        upstream = self.parse("user='' application_name=''", PGUSER="me", PGAPPNAME="north")
        self.assertEqual(upstream.account.user, system_user())
        self.assertEqual(upstream.account.application_name, "walstream")

    def test_database_of_the_environment(self) -> None:
        """PGDATABASE and a service's database are for SQL, and mean nothing to a walsender."""
        self.service_file("[north]\ndbname=shop\n")
        self.assertEqual(self.parse("", PGDATABASE="shop").account.database, "replication")
        self.assertEqual(self.parse("service=north").account.database, "replication")


class ServiceTests(ConninfoCase):
    """Connection service files."""

    def test_files_in_order(self) -> None:
        """PGSERVICEFILE is instead of the file in the home directory; the system's comes last."""
        self.service_file("[a]\nhost=home\n[b]\nhost=home\n")
        self.service_file("[a]\nhost=system\n[c]\nhost=system\n", "etc/pg_service.conf")
        named = str(self.service_file("[b]\nhost=named\n", "named.conf"))
        found = {
            (service, file): self.parse(f"service={service}", **file_variable).hosts[0].name
            for service in "abc"
            for file, file_variable in (("", {}), ("named", {"PGSERVICEFILE": named}))
        }
        self.assertEqual(
            found,
            {
                ("a", ""): "home",
                ("b", ""): "home",
                ("c", ""): "system",
                ("a", "named"): "system",
                ("b", "named"): "named",
                ("c", "named"): "system",
            },
        )

    def test_service_of_the_environment(self) -> None:
        """PGSERVICE names a service; one that the string names wins."""
        self.service_file("[a]\nhost=host-a\n[b]\nhost=host-b\n")
        self.assertEqual(self.parse("", PGSERVICE="a").hosts[0].name, "host-a")
        self.assertEqual(self.parse("service=b", PGSERVICE="a").hosts[0].name, "host-b")

    def test_form(self) -> None:
        """Comments, blanks and empty lines are left out, and what is said first counts."""
        self.service_file(
            "# hello\n\n[b]\nhost=other\n[a]  \n  host=one  \r\n#x\nhost=two\n\n[a]\n"
        )
        self.assertEqual(self.parse("service=a").hosts[0].name, "one")

    def test_undefined_service(self) -> None:
        """A service that no file defines is an error that names it."""
        self.service_file("[north-east]\nhost=a\n")
        self.assertIn("definition of service 'north' not found", self.refusal("service=north"))

    def test_missing_file(self) -> None:
        """A file that PGSERVICEFILE names has to be there."""
        said = self.refusal("service=a", PGSERVICEFILE="/nowhere/services")
        self.assertIn("'/nowhere/services' not found", said)
        self.assertIn("PGSERVICEFILE", said)

    def test_faulty_lines(self) -> None:
        """A line that will not do is an error with the file and the line's number."""
        for line, words in (
            ("hots=a", "'hots' is not a connection option"),
            ("host", "'host' is not a connection option with a value"),
            ("service=b", "nested service specifications are not supported"),
            ("ldap://a/dc=b?description?one?(cn=c)", "options are not looked up in LDAP"),
        ):
            path = self.service_file(f"[a]\nuser=me\n{line}\n")
            said = self.refusal("service=a")
            self.assertIn(words, said)
            self.assertIn(f"{str(path)!r}, line 3", said)

    def test_faults_in_other_services(self) -> None:
        """What stands in a service that was not asked for harms nobody."""
        self.service_file("[b]\nnonsense\n[a]\nhost=one\n[c]\nnonsense\n")
        self.assertEqual(self.parse("service=a").hosts[0].name, "one")


class OptionTests(ConninfoCase):
    """What the options become."""

    def test_application_name(self) -> None:
        """application_name wins over fallback_application_name, and that over the default."""
        for text, name in (
            ("application_name=a fallback_application_name=b", "a"),
            ("fallback_application_name=b", "b"),
            ("", "walstream"),
        ):
            self.assertEqual(self.parse(text).account.application_name, name)

    def test_startup_parameters(self) -> None:
        """Options and the client's encoding go to the server; "auto" means nothing here."""
        upstream = self.parse("options='-c wal_sender_timeout=0' client_encoding=LATIN1")
        self.assertEqual(
            upstream.account.parameters,
            {"options": "-c wal_sender_timeout=0", "client_encoding": "LATIN1"},
        )
        self.assertEqual(self.parse("client_encoding=auto").account.parameters, {})

    def test_replication_is_ignored(self) -> None:
        """A replication option has no effect, wherever it is, but for a warning with its place."""
        log = capture_log(self)
        self.service_file("[north]\nreplication=off\n")
        for text in ("host=a replication=database", "service=north"):
            upstream = self.parse(text, PGREPLICATION="off")
            self.assertEqual(upstream.account.startup_parameters()["replication"], "on")
        self.assertEqual(
            log,
            [
                "replication=database (the connection string) is ignored: "
                "walstream asks for replication itself",
                "replication=off (service 'north') is ignored: "
                "walstream asks for replication itself",
            ],
        )

    def test_target_session_attrs(self) -> None:
        """All of libpq's values are known, and no other."""
        for member in TargetSessionAttrs:
            self.assertIs(self.parse(f"target_session_attrs={member.value}").wanted, member)
        self.assertEqual(
            self.refusal("", PGTARGETSESSIONATTRS="master"),
            'invalid target_session_attrs value: "master" '
            "(the environment variable PGTARGETSESSIONATTRS)",
        )

    def test_load_balance_hosts(self) -> None:
        """Hosts are shuffled if that was asked for."""
        self.assertTrue(self.parse("load_balance_hosts=random").shuffled)
        self.assertFalse(self.parse("load_balance_hosts=disable").shuffled)
        self.assertIn(
            'invalid load_balance_hosts value: "yes" (the connection string)',
            self.refusal("load_balance_hosts=yes"),
        )

    def test_connect_timeout(self) -> None:
        """A time limit is in seconds; none is half a minute, and 0 or less is for ever."""
        for text, seconds in (
            ("", 30.0),
            ("connect_timeout=''", 30.0),
            ("connect_timeout=10", 10.0),
            ("connect_timeout=0", None),
            ("connect_timeout=-1", None),
        ):
            self.assertEqual(self.parse(text).connect_timeout, seconds)
        self.assertIn(
            'invalid integer value "soon" for connection option "connect_timeout"',
            self.refusal("connect_timeout=soon"),
        )

    def test_tcp_options(self) -> None:
        """Of libpq's TCP options those that were given are kept, 0 too."""
        upstream = self.parse("keepalives=0 keepalives_idle=30 tcp_user_timeout=2000")
        self.assertEqual(
            upstream.tcp_options,
            {"keepalives": 0, "keepalives_idle": 30, "tcp_user_timeout": 2000},
        )
        self.assertIn('option "keepalives_idle"', self.refusal("keepalives_idle=1s"))

    def test_password_file(self) -> None:
        """A password that was not given outright is looked up at each login, by host."""
        path = self.home / ".pgpass"
        upstream = self.parse("host=a,b user=me")
        first, second = upstream.hosts
        self.assertIsNone(upstream.login(first).password)
        path.write_text("a:*:replication:me:for-a\nb:*:*:*:for-b\n")
        path.chmod(0o600)
        self.assertEqual(upstream.login(first).password, "for-a")
        self.assertEqual(upstream.login(second).password, "for-b")
        given = self.parse("host=a user=me password=outright")
        self.assertEqual(given.login(given.hosts[0]).password, "outright")

    def test_named_password_file(self) -> None:
        """The option passfile names another password file than the one in the home directory."""
        path = self.home / "secrets"
        path.write_text("*:*:*:*:elsewhere\n")
        path.chmod(0o600)
        upstream = self.parse(f"host=a user=me passfile={path}")
        self.assertEqual(upstream.login(upstream.hosts[0]).password, "elsewhere")


class DemandTests(ConninfoCase):
    """What is demanded of the server before it is told anything."""

    def test_default(self) -> None:
        """libpq's."""
        self.assertEqual(self.parse("host=db1").account.demands, LoginDemands())

    def test_demands(self) -> None:
        """From the string, or from the environment."""
        text = "require_auth=scram-sha-256 channel_binding=require requirepeer=postgres"
        demands = self.parse(text).account.demands
        assert demands.required is not None
        self.assertEqual(demands.required.methods, {"scram-sha-256"})
        self.assertIs(demands.channel_binding, ChannelBinding.REQUIRE)
        self.assertEqual(demands.peer, "postgres")
        environ = {"PGREQUIREAUTH": "!md5", "PGCHANNELBINDING": "disable", "PGREQUIREPEER": "pg"}
        demands = self.parse("", **environ).account.demands
        assert demands.required is not None
        self.assertEqual(demands.required.text, "!md5")
        self.assertIs(demands.channel_binding, ChannelBinding.DISABLE)
        self.assertEqual(demands.peer, "pg")

    def test_mistake(self) -> None:
        """It is found at once, and its place is named."""
        self.assertEqual(
            self.refusal("", PGREQUIREAUTH="scram"),
            'invalid require_auth value: "scram" (the environment variable PGREQUIREAUTH)',
        )


class PasswordTests(ConninfoCase):
    """Where a password is, and who else may see it."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.home / "password"
        self.path.write_text("sesame\n")
        self.path.chmod(0o600)

    def password(self, upstream: Upstream) -> str | None:
        return upstream.login(upstream.hosts[0]).password

    def with_file(self, text: str = "host=db1", **environ: str) -> Upstream:
        return parse_conninfo(text, self.environ | environ, self.path)

    def test_password_file(self) -> None:
        """It wins over the environment and libpq's file, and is read at each login."""
        passfile = self.home / ".pgpass"
        passfile.write_text("*:*:*:*:other")
        passfile.chmod(0o600)
        upstream = self.with_file(PGPASSWORD="another")
        self.assertIsNone(upstream.account.password)
        self.assertEqual(self.password(upstream), "sesame")
        self.path.write_text("changed")
        self.assertEqual(self.password(upstream), "changed")

    def test_password_file_that_is_not_there(self) -> None:
        """Then there is no login: nothing else was meant."""
        upstream = self.with_file()
        self.path.unlink()
        error = self.assertRaises(FormatError, self.password, upstream)
        self.assertIn(str(self.path), str(error))

    def test_two_passwords(self) -> None:
        """One of them must be wrong."""
        error = self.assertRaises(FormatError, self.with_file, "password=hush")
        self.assertIn("leave one of them out", str(error))
        self.assertNotIn("hush", str(error))

    def test_credential(self) -> None:
        """systemd's counts untold, behind what was told, whatever its permissions."""
        directory = self.home / "credentials"
        directory.mkdir()
        environ = {"CREDENTIALS_DIRECTORY": str(directory)}
        self.assertIsNone(self.password(self.parse("host=db1", **environ)))
        credential = directory / "walstream.upstream.password"
        credential.write_text("credential")
        credential.chmod(0o440)
        self.assertEqual(self.password(self.parse("host=db1", **environ)), "credential")
        environ["PGPASSWORD"] = "variable"
        self.assertEqual(self.password(self.parse("host=db1", **environ)), "variable")
        self.assertEqual(self.password(self.with_file(**environ)), "sesame")

    def test_passfile_among_the_credentials(self) -> None:
        """Its permissions are systemd's business too."""
        directory = self.home / "credentials"
        directory.mkdir()
        passfile = directory / "pgpass"
        passfile.write_text("*:*:*:*:line")
        passfile.chmod(0o440)
        text = f"host=db1 passfile={passfile}"
        self.assertIsNone(self.password(self.parse(text)))
        self.assertEqual(
            self.password(self.parse(text, CREDENTIALS_DIRECTORY=str(directory))), "line"
        )

    def test_nothing_shows_it(self) -> None:
        """No text of what was made of a string has the password in it."""
        for upstream in (
            self.parse("host=db1 password=hush-hush"),
            self.parse("postgresql://me:hush-hush@db1"),
            self.parse("", PGPASSWORD="hush-hush"),
        ):
            login = upstream.login(upstream.hosts[0])
            self.assertEqual(login.password, "hush-hush")
            for shown in (upstream, login, UpstreamAddress(upstream.hosts[0], login)):
                self.assertNotIn("hush", repr(shown) + str(shown))
        self.assertNotIn("hush", repr(gather("password=hush-hush", {})))

    def test_mistakes_do_not_show_it(self) -> None:
        """libpq quotes the place of a mistake, which may be half a password."""
        for text in (
            "host=db1 password=hush hush-2",
            "password='hush",
            "password=hu\\",
            "postgresql://me:hush@[db1",
            "postgresql://me:hush@db1/?hush",
            "postgresql://me:hu sh@db1",
            "sslpassword=hush hush",
        ):
            try:
                self.parse(text)
            except FormatError as error:
                self.assertNotIn("hu", str(error).replace("connection", ""))
        self.assertIn('"hots"', self.refusal("hots=db1"))

    def test_secrets_in_a_string(self) -> None:
        """The caller may want to warn of them."""
        self.assertEqual(secrets_in("host=a password=b sslpassword=c"), ["password", "sslpassword"])
        self.assertEqual(secrets_in("postgresql://me:b@a"), ["password"])
        self.assertEqual(secrets_in("host=a passfile=b password=''"), [])
        self.assertEqual(secrets_in("no string"), [])
