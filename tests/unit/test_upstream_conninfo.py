"""Connection strings: what is read, where defaults come from, and what is refused."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.upstream import TargetSessionAttrs, Upstream, UpstreamHost, parse_conninfo


class ConninfoTests(SynchronousTestCase):
    """`parse_conninfo`, in an environment of its own."""

    def setUp(self) -> None:
        """A home directory that has nothing in it."""
        self.home = Path(self.mktemp())
        self.home.mkdir()

    def parse(self, text: str = "", **environ: str) -> Upstream:
        """Read *text* with these variables and no others."""
        return parse_conninfo(text, {"HOME": str(self.home), **environ})

    def error(self, text: str = "", **environ: str) -> str:
        """What is wrong with *text*."""
        return str(self.assertRaises(FormatError, self.parse, text, **environ))

    # Both forms.

    def test_key_value_string(self) -> None:
        """The older form gives host, port, user and password."""
        upstream = self.parse("host=db1 port=5433 user=rep password='se cret'")
        self.assertEqual(upstream.hosts, (UpstreamHost("db1", None, 5433),))
        self.assertEqual(upstream.account.user, "rep")
        self.assertEqual(upstream.account.password, "se cret")

    def test_uri(self) -> None:
        """The URI form does too, with its escapes undone."""
        upstream = self.parse("postgresql://rep:p%40ss@db1:5433,[::1]/?application_name=hub1")
        self.assertEqual(
            upstream.hosts, (UpstreamHost("db1", None, 5433), UpstreamHost("::1", None, 5432))
        )
        self.assertEqual(upstream.account.password, "p@ss")
        self.assertEqual(upstream.account.application_name, "hub1")

    def test_faulty_string_is_told_in_libpq_words(self) -> None:
        """What libpq cannot read is no connection string, and libpq says why."""
        self.assertIn('invalid connection option "hots"', self.error("hots=db1"))
        self.assertIn('missing "=" after "db1"', self.error("db1"))

    # Defaults.

    def test_nothing_said(self) -> None:
        """Then it is the system user at a local socket, by walstream's own name."""
        upstream = self.parse()
        self.assertEqual([host.name for host in upstream.hosts], ["/var/run/postgresql", "/tmp"])
        self.assertEqual(upstream.account.user, pwd.getpwuid(os.geteuid()).pw_name)
        self.assertEqual(upstream.account.application_name, "walstream")
        self.assertEqual(upstream.account.database, "replication")
        self.assertIsNone(upstream.account.password)
        self.assertEqual(upstream.wanted, TargetSessionAttrs.ANY)
        self.assertFalse(upstream.shuffled)
        self.assertEqual(upstream.connect_timeout, 30.0)
        self.assertEqual(upstream.passfile, self.home / ".pgpass")

    def test_environment_fills_in(self) -> None:
        """PG* variables stand in for what the string does not say."""
        upstream = self.parse(
            "", PGHOST="db1", PGPORT="5433", PGUSER="rep", PGPASSWORD="s", PGAPPNAME="hub1"
        )
        self.assertEqual(upstream.hosts, (UpstreamHost("db1", None, 5433),))
        account = upstream.account
        self.assertEqual(
            (account.user, account.password, account.application_name), ("rep", "s", "hub1")
        )

    def test_string_wins_over_environment(self) -> None:
        """What the string says counts, also if it is an empty value."""
        upstream = self.parse("host=db2 user=''", PGHOST="db1", PGUSER="rep")
        self.assertEqual(upstream.hosts[0].name, "db2")
        self.assertNotEqual(upstream.account.user, "rep")

    def test_fallback_application_name(self) -> None:
        """It counts where there is no application_name, in the environment neither."""
        text = "fallback_application_name=fall"
        self.assertEqual(self.parse(text).account.application_name, "fall")
        self.assertEqual(self.parse(text, PGAPPNAME="env").account.application_name, "env")

    def test_database_counts_in_the_string_only(self) -> None:
        """PGDATABASE is about other connections."""
        self.assertEqual(self.parse("", PGDATABASE="shop").account.database, "replication")
        self.assertEqual(self.parse("dbname=shop").account.database, "shop")

    # Replication.

    def test_replication_is_asked_for_whatever_is_said(self) -> None:
        """Nothing a user says gets into the startup packet's replication, and there's a warning."""
        with capturedLogs() as events:
            upstream = self.parse(
                "host=db1 replication=off options='-c replication=false'", PGREPLICATION="false"
            )
        self.assertEqual(upstream.account.startup_parameters()["replication"], "on")
        self.assertNotIn("replication", upstream.account.parameters)
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertIn("replication=", event["log_format"])

    def test_startup_parameters(self) -> None:
        """Options and an encoding are passed on; the locale's encoding, which is "auto", is not."""
        upstream = self.parse("options='-c wal_sender_timeout=3s' client_encoding=UTF8")
        self.assertEqual(
            upstream.account.parameters,
            {"options": "-c wal_sender_timeout=3s", "client_encoding": "UTF8"},
        )
        self.assertEqual(self.parse("client_encoding=auto").account.parameters, {})

    # Further options.

    def test_target_session_attrs(self) -> None:
        """Each of libpq's six values, and no other."""
        for wanted in TargetSessionAttrs:
            self.assertEqual(self.parse(f"target_session_attrs={wanted.value}").wanted, wanted)
        self.assertIn(
            'target_session_attrs value: "leader"', self.error("target_session_attrs=leader")
        )

    def test_load_balance_hosts(self) -> None:
        """Random order is a choice."""
        self.assertTrue(self.parse("load_balance_hosts=random").shuffled)
        self.assertFalse(self.parse("load_balance_hosts=disable").shuffled)
        self.assertIn("load_balance_hosts", self.error("load_balance_hosts=often"))

    def test_connect_timeout(self) -> None:
        """In seconds; none or fewer than one is no limit."""
        self.assertEqual(self.parse("connect_timeout=3").connect_timeout, 3.0)
        self.assertIsNone(self.parse("connect_timeout=0").connect_timeout)
        self.assertIsNone(self.parse("connect_timeout=-1").connect_timeout)
        self.assertIn(
            'invalid integer value "soon" for connection option "connect_timeout" '
            "(the environment variable PGCONNECT_TIMEOUT)",
            self.error("", PGCONNECT_TIMEOUT="soon"),
        )

    def test_tcp_options(self) -> None:
        """Keepalives are kept as far as they were given; an empty value is none."""
        upstream = self.parse("keepalives=0 keepalives_idle=7 keepalives_count=''")
        self.assertEqual(upstream.tcp_options, {"keepalives": 0, "keepalives_idle": 7})

    def test_no_password_is_shown(self) -> None:
        """Neither of the upstream nor of what it is made of."""
        self.assertNotIn("s3cret", repr(self.parse("password=s3cret")))

    # The password file.

    def test_password_is_looked_up_for_each_host(self) -> None:
        """In the password file, anew at each login."""
        passfile = self.home / ".pgpass"
        upstream = self.parse("host=db1,db2 user=rep")
        self.assertIsNone(upstream.login(upstream.hosts[0]).password)
        passfile.write_text("db1:*:replication:rep:one\ndb2:*:replication:rep:two\n")
        passfile.chmod(0o600)
        logins = [upstream.login(host) for host in upstream.hosts]
        self.assertEqual([login.password for login in logins], ["one", "two"])
        self.assertEqual([login.user for login in logins], ["rep", "rep"])

    def test_password_given_outright_wins(self) -> None:
        """The password file isn't even looked at."""
        upstream = self.parse("host=db1 user=rep password=mine passfile=/nonexistent")
        self.assertEqual(upstream.login(upstream.hosts[0]).password, "mine")

    def test_passfile_may_be_named(self) -> None:
        """By the option or by the variable."""
        self.assertEqual(self.parse("passfile=/a").passfile, Path("/a"))
        self.assertEqual(self.parse("", PGPASSFILE="/b").passfile, Path("/b"))


class PolicyTests(ConninfoTests):
    """What this version cannot do is refused, never left out in silence."""

    def test_tls_is_refused_where_it_is_insisted_on(self) -> None:
        """Each way to insist on it, with the option, where it was said, and the remedy."""
        for text in (
            "sslmode=require",
            "sslmode=verify-ca",
            "sslmode=verify-full",
            "sslnegotiation=direct",
            "sslcertmode=require",
            "sslrootcert=system",
            "channel_binding=require",
            "postgresql://db1/?ssl=true",
        ):
            error = self.error(text)
            self.assertIn("does not speak TLS", error)
            self.assertIn("(the connection string)", error)
            self.assertIn("use sslmode=prefer", error)

    def test_tls_is_done_without_where_that_is_allowed(self) -> None:
        """libpq would fall back to plain text with these, too."""
        for mode in ("disable", "allow", "prefer"):
            self.parse(f"sslmode={mode} sslrootcert=/ca.pem sslcert=/c sslkey=/k sslsni=1")

    def test_environment_may_insist_too(self) -> None:
        """The variable is named; the string can take it back."""
        self.assertIn(
            "sslmode=require (the environment variable PGSSLMODE)",
            self.error("", PGSSLMODE="require"),
        )
        self.assertIn("PGREQUIRESSL", self.error("", PGREQUIRESSL="1"))
        self.parse("", PGREQUIRESSL="1", PGSSLMODE="prefer")
        self.parse("sslmode=prefer", PGSSLMODE="require")

    def test_checks_that_cannot_be_made_are_refused(self) -> None:
        """A peer's user, a method of authentication, GSSAPI, a newer protocol."""
        for text in (
            "requirepeer=postgres",
            "require_auth=scram-sha-256",
            "gssencmode=require",
            "min_protocol_version=3.2",
            "oauth_issuer=https://example.org",
        ):
            name = text.partition("=")[0]
            self.assertIn(name, self.error(text))

    def test_secret_of_a_refused_option_is_not_shown(self) -> None:
        """The error names the option, and not its value."""
        for name in ("scram_client_key", "oauth_client_secret"):
            self.assertNotIn("s3cret", self.error(f"{name}=s3cret"))

    def test_values_that_libpq_does_not_know_either(self) -> None:
        """They are called invalid, as libpq calls them."""
        self.assertIn('invalid sslmode value: "always"', self.error("sslmode=always"))

    def test_empty_value_is_no_value(self) -> None:
        """As to libpq."""
        self.parse("sslmode='' require_auth='' sslrootcert=''")


class ServiceFileTests(ConninfoTests):
    """Services, by name."""

    def write(self, text: str, name: str = ".pg_service.conf") -> Path:
        """A service file in the home directory."""
        path = self.home / name
        path.write_text(text)
        return path

    def test_service_of_the_string(self) -> None:
        """Its options count; those of other services, and comments, do not."""
        self.write(
            "# mine\n[other]\nhost=x\n\n[prod]\nhost=db1\nport=5433\nhost=late\n[next]\nuser=u\n"
        )
        upstream = self.parse("service=prod")
        self.assertEqual(upstream.hosts, (UpstreamHost("db1", None, 5433),))
        self.assertNotEqual(upstream.account.user, "u")

    def test_string_then_service_then_environment(self) -> None:
        """That is the order in which they count."""
        self.write("[prod]\nhost=service\nport=1\n")
        upstream = self.parse("service=prod port=2", PGHOST="environment", PGUSER="environment")
        self.assertEqual(upstream.hosts, (UpstreamHost("service", None, 2),))
        self.assertEqual(upstream.account.user, "environment")

    def test_service_of_the_environment(self) -> None:
        """PGSERVICE names one, PGSERVICEFILE the file."""
        path = self.write("[prod]\nhost=db1\n", "elsewhere")
        upstream = self.parse("", PGSERVICE="prod", PGSERVICEFILE=str(path))
        self.assertEqual(upstream.hosts[0].name, "db1")

    def test_file_of_the_system(self) -> None:
        """It is looked into if the user's own does not have the service."""
        self.write("[other]\nhost=x\n")
        system = self.home / "system"
        system.mkdir()
        self.write("[prod]\nhost=db1\n", "system/pg_service.conf")
        upstream = self.parse("service=prod", PGSYSCONFDIR=str(system))
        self.assertEqual(upstream.hosts[0].name, "db1")

    def test_service_that_is_not_defined(self) -> None:
        """An error, in libpq's words."""
        self.assertIn(
            "definition of service 'prod' not found",
            self.error("service=prod", PGSYSCONFDIR=str(self.home)),
        )
        self.assertIn("not found", self.error("service=prod", PGSERVICEFILE="/nonexistent"))

    def test_faulty_lines(self) -> None:
        """The error has the file and the number of the line."""
        path = self.write("[prod]\nhost\n")
        self.assertIn(f"'{path}', line 2", self.error("service=prod"))
        self.write("[prod]\n\nhots=db1\n")
        self.assertIn("line 3", self.error("service=prod"))
        self.write("[prod]\nservice=other\n")
        self.assertIn("nested", self.error("service=prod"))

    def test_policy_counts_for_services(self) -> None:
        """And the error says which service asked for it."""
        self.write("[prod]\nsslmode=require\n")
        self.assertIn("sslmode=require (service 'prod')", self.error("service=prod"))
