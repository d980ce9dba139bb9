"""The two receivers: one interface, as far as their command lines have it in common."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from walstream.embedded import Installation

__all__ = ["Receiver", "Running", "pg_receivewal", "walstream"]


class Running:
    """A receiver that runs.

    :ivar log: what it has said.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        """Everything that it has said."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Stop it in order; its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver's program.

    :ivar command: how it is started, without what it is to do.
    """

    name: str
    command: tuple[str, ...]

    @contextmanager
    def running(self, conninfo: str, archive: Path, *options: str, log: Path) -> Iterator[Running]:
        """Run it; it is killed in the end, if it runs still."""
        archive.mkdir(mode=0o700, exist_ok=True)
        # walstream's name is its own unless the connection string has one.
        words = (*self.command, "-d", f"{conninfo} application_name=receiver", "-D", str(archive))
        running = Running((*words, "-v", *options), log)
        try:
            yield running
        finally:
            running.kill()


def pg_receivewal(installation: Installation) -> Receiver:
    """PostgreSQL's."""
    return Receiver("pg_receivewal", (str(installation.tool("pg_receivewal")),))


def walstream() -> Receiver:
    """Ours."""
    twistd = str(Path(sys.executable).with_name("twistd"))
    command = (sys.executable, twistd, "-n", "--pidfile=", "walstream", "receive")
    return Receiver("walstream", command)
