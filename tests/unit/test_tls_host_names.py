"""Tests for walstream.tls.host_names: PostgreSQL's cases (``ssl/001_ssltests.pl``), and more."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import ServerNotTrusted
from walstream.tls.host_names import check_host

_KEY = ec.generate_private_key(ec.SECP256R1())
_NOW = datetime.datetime(2026, 1, 1)


def certificate(common_name: str, *alternatives: str) -> x509.Certificate:
    """A certificate; alternatives are DNS names, or addresses."""
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name([]))
        .public_key(_KEY.public_key())
        .serial_number(1)
        .not_valid_before(_NOW)
        .not_valid_after(_NOW)
    )
    found: list[x509.GeneralName] = []
    for each in alternatives:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            found.append(x509.DNSName(each))
    if found:
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(_KEY, hashes.SHA256())


class HostNameTests(SynchronousTestCase):
    """Whose certificate it is."""

    def assert_is(self, found: x509.Certificate, *hosts: str) -> None:
        for host in hosts:
            check_host(found, host)

    def assert_is_not(self, found: x509.Certificate, host: str, said: str) -> None:
        error = self.assertRaises(ServerNotTrusted, check_host, found, host)
        self.assertEqual(str(error), said)

    def test_common_name(self) -> None:
        """Without other names it is the common name that counts, in any case of letters."""
        found = certificate("common-name.pg-ssltest.test")
        self.assert_is(found, "common-name.pg-ssltest.test", "COMMON-NAME.pg-SSLtest.test")
        self.assert_is_not(
            found,
            "wronghost.test",
            'server certificate for "common-name.pg-ssltest.test" does not match host name '
            '"wronghost.test"',
        )

    def test_alternative_names(self) -> None:
        """Any of them will do, and a wildcard for one label."""
        found = certificate(
            "", "dns1.alt-name.pg-ssltest.test", "dns2.alt-name.pg-ssltest.test", "*.wildcard.test"
        )
        self.assert_is(
            found,
            "dns1.alt-name.pg-ssltest.test",
            "dns2.alt-name.pg-ssltest.test",
            "foo.wildcard.test",
            "FOO.WildCard.test",
        )
        for host in (
            "wronghost.alt-name.pg-ssltest.test",
            "deep.sub.wildcard.test",
            "wildcard.test",
        ):
            self.assert_is_not(
                found,
                host,
                'server certificate for "dns1.alt-name.pg-ssltest.test" (and 2 other names) does '
                f'not match host name "{host}"',
            )

    def test_common_name_beside_others(self) -> None:
        """It is not looked at where there are DNS names."""
        found = certificate("common-name.pg-ssltest.test", "dns1.alt-name.pg-ssltest.test")
        self.assert_is_not(
            found,
            "common-name.pg-ssltest.test",
            'server certificate for "dns1.alt-name.pg-ssltest.test" does not match host name '
            '"common-name.pg-ssltest.test"',
        )

    def test_addresses(self) -> None:
        """Addresses are compared as addresses, however they are written."""
        found = certificate("", "192.0.2.1", "2001:db8::1")
        self.assert_is(found, "192.0.2.1", "192.0.02.01", "2001:db8::1", "2001:DB8:0:0::1")
        for host in ("192.0.2.2", "2001:db8::2"):
            self.assert_is_not(
                found,
                host,
                f'server certificate for "192.0.2.1" (and 1 other name) does not match host name '
                f'"{host}"',
            )

    def test_address_as_a_name(self) -> None:
        """Written as a DNS name it matches as one; as a common name too, beside DNS names."""
        self.assert_is(certificate("", "192.0.2.1.example.com", "192.0.2.1"), "192.0.2.1")
        self.assert_is(certificate("192.0.2.1"), "192.0.2.1")
        self.assert_is(certificate("192.0.2.1", "dns1.example.com"), "192.0.2.1")
        self.assert_is(certificate("host.test", "192.0.2.1"), "host.test")
        self.assert_is_not(
            certificate("192.0.2.1", "192.0.2.2"),
            "192.0.2.1",
            'server certificate for "192.0.2.2" does not match host name "192.0.2.1"',
        )

    def test_no_name_at_all(self) -> None:
        """A certificate that names nobody is nobody's."""
        self.assert_is_not(
            certificate(""),
            "host.test",
            "could not get server's host name from server certificate",
        )

    def test_no_host(self) -> None:
        """Where only an address was given to connect to, there is no name to look for."""
        self.assert_is_not(
            certificate("host.test"),
            "",
            "host name must be specified for a verified SSL connection",
        )

    def test_wildcards(self) -> None:
        """A star stands for one whole label at the beginning, and for nothing else."""
        for pattern, host in (
            ("*", "host"),
            ("*.", "host."),
            ("*.test", ".test"),
            ("h*.test", "host.test"),
            ("a.*.test", "a.host.test"),
            ("*.*.test", "a.host.test"),
            ("*.test", "test"),
        ):
            error = self.assertRaises(ServerNotTrusted, check_host, certificate(pattern), host)
            self.assertIn("does not match", str(error))
        self.assert_is(certificate("*.test"), "host.test")

    def test_half_a_name(self) -> None:
        """A name that ends in the middle, for those who read C strings, is refused."""
        error = self.assertRaises(
            ServerNotTrusted, check_host, certificate("host.test\0.evil.test"), "host.test"
        )
        self.assertEqual(str(error), "SSL certificate's name contains embedded null")
