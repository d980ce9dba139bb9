"""The contracts of `walstream.interfaces`, as tests that every implementation must pass.

A provider or sink of your own is tested so::

    class ObjectStoreUnderTest:
        def __init__(self) -> None:
            self.provider = …
            self.start = WALPosition(1, LSN.parse("0/3000000"))

        def append(self, data: bytes) -> None: …
        def switch_timeline(self) -> None: …
        def settle(self) -> None: …
        def cleanup(self) -> None: …

    ObjectStoreContract = provider_contract(ObjectStoreUnderTest)

The test case is named after what it is given, as here: by that name ``trial -j`` finds it.

The tests are synchronous: ``settle`` has to bring about whatever is outstanding, so threads and
timers are best replaced by something that a test can drive, such as
`twisted.internet.task.Clock`. They run under trial, pytest and unittest alike.
"""

from __future__ import annotations

from walstream.testing.provider_contract import ProviderUnderTest, provider_contract
from walstream.testing.sink_contract import SinkUnderTest, sink_contract

__all__ = ["ProviderUnderTest", "SinkUnderTest", "provider_contract", "sink_contract"]
