"""A primary, hubs one behind another, and a standby behind the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.servers import Clusters
from tests.servers.daemon import Serving
from walstream.embedded import Cluster

__all__ = ["Chain"]


class Chain:
    """Made when the context is entered, ended when it is left.

    The first hub is the primary's only synchronous standby, by the name ``hub1``.

    :param directory: for archives and logs.
    :param hubs: how many; each waits for the next one, and the last for the standby ``s1``.
    :param position: for which of the three positions they wait.
    :param options: of each hub, instead of that.
    :param settings: of the standby.
    :ivar hubs: the hubs, the primary's first.
    """

    def __init__(
        self,
        clusters: Clusters,
        directory: Path,
        *,
        hubs: int = 1,
        position: str = "apply",
        options: Sequence[str] | None = None,
        settings: dict[str, str | int] | None = None,
    ) -> None:
        self._clusters = clusters
        self._directory = directory
        self._number = hubs
        self._position = position
        self._options = options
        self._settings = settings
        self._stack = ExitStack()
        self.hubs: list[Serving] = []

    def __enter__(self) -> Self:
        self.primary = self._clusters.primary(settings={"wal_keep_size": "256MB"})
        for place in range(self._number):
            self.hubs.append(self._start(place))
            self.hubs[place].await_text("starting log streaming")
        self.standby: Cluster = self._clusters.standby(
            self.primary,
            self.hubs[-1].conninfo(application_name="s1"),
            "s1",
            settings=self._settings,
        )
        self.standby.wait_for_replay(self.primary.end_of_wal())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_again(self, place: int, *options: str) -> Serving:
        """Start a hub that has ended, the first of them is 0; with more options."""
        self.hubs[place] = self._start(place, *options, port=self.hubs[place].port)
        return self.hubs[place]

    def _start(self, place: int, *more: str, port: int | None = None) -> Serving:
        name = f"hub{place + 1}"
        below = "s1" if place + 1 == self._number else f"hub{place + 2}"
        options = self._options
        if options is None:
            options = (f"--report-{self._position}", f"ANY 1 ({below})")
        upstream = self.hubs[place - 1] if place else self.primary
        hub = Serving(
            "hub",
            "-d",
            upstream.conninfo(application_name=name),
            "-D",
            self._directory / name,
            *options,
            *more,
            log=self._directory / f"{name}.log",
            port=port,
        )
        return self._stack.enter_context(hub)
