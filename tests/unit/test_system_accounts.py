"""Tests for walstream.system.accounts."""

from __future__ import annotations

import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from walstream.system.accounts import account_name


class AccountNameTests(SynchronousTestCase):
    """Who has a number."""

    def test_name(self) -> None:
        """As the system has it; not everybody has one."""
        self.assertEqual(account_name(os.geteuid()), pwd.getpwuid(os.geteuid()).pw_name)
        self.assertIsNone(account_name(2**31 - 9))
