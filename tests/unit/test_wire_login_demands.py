"""Tests for `walstream.wire.login_demands`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.wire.login_demands import LoginDemands, RequiredAuth


class RequiredAuthTests(SynchronousTestCase):
    """``require_auth``, as libpq reads it."""

    def test_methods_that_will_do(self) -> None:
        """Those that are named; a server that asks for nothing only with ``none``."""
        required = RequiredAuth.parse("md5,scram-sha-256")
        self.assertEqual(required.methods, {"md5", "scram-sha-256"})
        self.assertTrue(required.exchange)
        self.assertFalse(RequiredAuth.parse("md5,none").exchange)
        self.assertEqual(RequiredAuth.parse("none").methods, set())

    def test_methods_that_will_not_do(self) -> None:
        """All but those that are named; and whoever asks for nothing, unless with ``!none``."""
        required = RequiredAuth.parse("!password,!md5")
        self.assertEqual(required.methods, {"gss", "sspi", "scram-sha-256", "oauth"})
        self.assertFalse(required.exchange)
        self.assertTrue(RequiredAuth.parse("!none").exchange)
        self.assertIn("password", RequiredAuth.parse("!none").methods)

    def test_codes(self) -> None:
        """Each method by the messages that belong to it."""
        for text, codes in (
            ("password", {3}),
            ("md5", {5}),
            ("gss", {7, 8}),
            ("sspi", {8, 9}),
            ("scram-sha-256", {10, 11, 12}),
            ("oauth", {10, 11, 12}),
            ("none", set()),
            ("!none", {3, 5, 7, 8, 9, 10, 11, 12}),
        ):
            required = RequiredAuth.parse(text)
            self.assertEqual({code for code in range(1, 100) if required.allows(code)}, codes, text)

    def test_cleartext(self) -> None:
        """Only who names it has allowed it, whoever the server is."""
        for text, allowed in (("password", True), ("md5,password", True), ("!none", False)):
            demands = LoginDemands(RequiredAuth.parse(text))
            self.assertIs(demands.allows_cleartext_anywhere, allowed)
        self.assertFalse(LoginDemands().allows_cleartext_anywhere)

    def test_mistakes(self) -> None:
        """libpq's words for each."""
        for text, said in (
            ("scram", 'invalid require_auth value: "scram"'),
            ("md5,", 'invalid require_auth value: ""'),
            ("md5, password", 'invalid require_auth value: " password"'),
            ("!", 'invalid require_auth value: ""'),
            ("MD5", 'invalid require_auth value: "MD5"'),
            ("md5,md5", 'require_auth method "md5" is specified more than once'),
            ("none,none", 'require_auth method "none" is specified more than once'),
            ("!md5,!md5", 'require_auth method "!md5" is specified more than once'),
            (
                "!md5,password",
                'require_auth method "password" cannot be mixed with negative methods',
            ),
            (
                "password,!md5",
                'negative require_auth method "!md5" cannot be mixed with non-negative methods',
            ),
        ):
            error = self.assertRaises(FormatError, RequiredAuth.parse, text)
            self.assertEqual(str(error), said)
