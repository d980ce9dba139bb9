"""Whether a commit with ``remote_apply`` can be read on a standby when it has returned.

The standby is behind one hub or several, and the primary knows nothing of it. A test does it some
times; ``python -m tests.remote_apply`` does it ten thousand times.
"""

from __future__ import annotations

from tests.remote_apply.chain import Chain
from tests.remote_apply.commits import Visibility, watch_commits

__all__ = ["Chain", "Visibility", "watch_commits"]
