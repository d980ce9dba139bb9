"""A primary, hubs one behind another, and a standby behind the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.servers import Clusters
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster

__all__ = ["Chain"]


class Chain:
    """Made when the context is entered, ended when it is left.

    The first hub is the primary's only synchronous standby, by the name ``hub1``.

    :param directory: for archives and logs.
    :param hubs: how many; each waits for the next one, and the last for the standby ``s1``.
    :param options: of each hub, instead of those that make it wait.
    :ivar hubs: the hubs, the primary's first.
    """

    def __init__(
        self,
        clusters: Clusters,
        directory: Path,
        *,
        hubs: int = 1,
        options: Sequence[str] | None = None,
        commit: str = "remote_apply",
    ) -> None:
        self._clusters = clusters
        self._directory = directory
        self._number = hubs
        self._options = options
        self._commit = commit
        self._stack = ExitStack()
        self.hubs: list[Serving] = []

    def __enter__(self) -> Self:
        self.primary = self._clusters.primary()
        upstream = self.primary.conninfo
        for number in range(1, self._number + 1):
            below = "s1" if number == self._number else f"hub{number + 1}"
            options = self._options or ("--report-apply", f"ANY 1 ({below})")
            hub = Serving(
                "hub",
                "-d",
                upstream(application_name=f"hub{number}"),
                "-D",
                self._directory / f"hub{number}",
                *options,
                log=self._directory / f"hub{number}.log",
            )
            self.hubs.append(self._stack.enter_context(hub))
            hub.await_text("starting log streaming")
            upstream = hub.conninfo
        self.standby: Cluster = self._clusters.standby(
            self.primary, upstream(application_name="s1"), "s1"
        )
        self.standby.wait_for_replay(self.primary.end_of_wal())
        self.demand("hub1", self._commit)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def demand(self, names: str, commit: str) -> None:
        """Set for whom the primary's commits wait; wait until it holds."""
        self.primary.configure({"synchronous_standby_names": names, "synchronous_commit": commit})
        self.primary.reload()
        wait_until(
            lambda: (
                self.primary.query("SHOW synchronous_standby_names") == [(names,)]
                and self.primary.query("SHOW synchronous_commit") == [(commit,)]
            ),
            "reloaded",
        )
