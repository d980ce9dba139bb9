"""The tests: ``unit`` without a reactor, ``live`` with one, ``integration`` with real servers.

Hypothesis tries the same examples in every run, so that a run that fails can be repeated; with
``WALSTREAM_TEST_RANDOM=1`` it tries others each time.
"""

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("WALSTREAM_TEST_RANDOM"):
    settings.load_profile("repeatable")
