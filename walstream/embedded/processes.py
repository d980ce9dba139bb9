"""Programs that run as another user and end with us.

Knows users, environments and signals. Of PostgreSQL it knows only that its programs refuse to be
run by root, and that ``PG*`` variables steer them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from walstream.errors import WalstreamError

__all__ = [
    "Account",
    "EmbeddedError",
    "environment",
    "is_alive",
    "processes_below",
    "remove_shared_memory",
    "run",
    "spawn",
    "workspace",
]

# <linux/prctl.h> and <linux/ipc.h>
_PR_SET_PDEATHSIG = 1
_IPC_RMID = 0


class EmbeddedError(WalstreamError):
    """An embedded server, or one of PostgreSQL's programs, did not do what was asked of it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's user that runs PostgreSQL's programs."""

    name: str
    uid: int
    gid: int

    @classmethod
    def ourselves(cls) -> Account:
        """The user that runs this process."""
        uid = os.geteuid()
        name = str(uid)
        with suppress(KeyError):  # a container's user need not have an entry
            name = pwd.getpwuid(uid).pw_name
        return cls(name, uid, os.getegid())

    @classmethod
    def for_servers(cls) -> Account:
        """Ourselves; or, as root, ``nobody`` or else ``postgres``.

        :raises EmbeddedError: when there is none of them.
        """
        if os.geteuid() != 0:
            return cls.ourselves()
        for name in ("nobody", "postgres"):
            with suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(name, entry.pw_uid, entry.pw_gid)
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is no user nobody or postgres to run it "
            "as: add one of them, or start this as an ordinary user"
        )

    @property
    def is_ourselves(self) -> bool:
        """Whether nothing has to be changed to be this user."""
        return self.uid == os.geteuid()

    def own(self, path: Path) -> None:
        """Give *path*, a file or a directory, to this user."""
        if not self.is_ourselves:
            os.chown(path, self.uid, self.gid)

    def make_directory(self, path: Path) -> None:
        """Make *path* a directory of this user and for nobody else, if it is not there yet."""
        if not path.exists():
            path.mkdir(mode=0o700)
            self.own(path)


@contextmanager
def workspace(prefix: str = "walstream-") -> Iterator[Path]:
    """A temporary directory that every user can enter; removed in the end with all that is in it.

    As root it is always in ``/tmp``: a directory that TMPDIR names, or that pytest makes, is often
    closed to the user that the servers run as.
    """
    parent = "/tmp" if os.geteuid() == 0 else None
    base = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        base.chmod(0o755)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)
        if base.exists():  # something in it was still being written
            shutil.rmtree(base)


def environment() -> dict[str, str]:
    """Our environment without what would steer PostgreSQL's programs.

    That is every ``PG*`` variable, the language of messages, and HOME, where libpq looks for
    passwords, services and certificates, and which another user may not be able to enter.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "HOME": "/nonexistent"}


def spawn(
    arguments: Sequence[str | Path],
    account: Account,
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.STDOUT,
    extra_environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program as *account*, in a session of its own (a Ctrl-C is for us to handle).

    It is sent SIGINT, whatever becomes of us, when the **thread** that called this ends (on Linux;
    prctl(2), PR_SET_PDEATHSIG). So call it from the main thread, or from one that lives as long.
    """
    prefix = _setpriv(account)
    change_user = not prefix and not account.is_ourselves
    return subprocess.Popen(
        [*prefix, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        env=environment() | dict(extra_environment or {}),
        start_new_session=True,
        # The hook runs after the change of user, which would undo it.
        preexec_fn=None if prefix else _death_signal_hook(),
        user=account.uid if change_user else None,
        group=account.gid if change_user else None,
        extra_groups=[account.gid] if change_user else None,
    )


def run(arguments: Sequence[str | Path], account: Account, *, timeout: float = 60.0) -> str:
    """Run a program to its end and give its output, standard error included.

    :param timeout: seconds.
    :raises EmbeddedError: with all that the program said, if it fails or takes too long.
    """
    command = " ".join(str(argument) for argument in arguments)
    try:
        process = spawn(arguments, account, stdout=subprocess.PIPE)
    except OSError as error:
        raise EmbeddedError(f"{command}: {error}") from error
    with process:
        try:
            output = process.communicate(timeout=timeout)[0].decode(errors="replace")
        except BaseException as error:
            process.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise EmbeddedError(f"{command}: not done after {timeout:g} seconds") from error
    if process.returncode != 0:
        raise EmbeddedError(f"{command}: exit status {process.returncode}\n{output.rstrip()}")
    return output


def processes_below(pid: int) -> list[int]:
    """The children of process *pid*, zombies not counted; none on systems without ``/proc``."""
    if sys.platform != "linux":
        return []
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [number for number in numbers if _parent(number) == pid]


def is_alive(pid: int) -> bool:
    """Whether process *pid* exists and is not a zombie."""
    return _parent(pid) is not None


def _parent(pid: int) -> int | None:
    """The parent of a process; None for one that has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            # The name in parentheses may hold anything; behind it are state and parent, proc(5).
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(parent)


def _setpriv(account: Account) -> list[str]:
    """What to put before a command; nothing without a setpriv that can do it."""
    program = _find_setpriv()
    if program is None:
        return []
    prefix = [program, "--pdeathsig", "INT"]
    if not account.is_ourselves:
        prefix += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    return [*prefix, "--"]


@functools.cache
def _find_setpriv() -> str | None:
    """util-linux's setpriv since 2.33; BusyBox's knows no --pdeathsig."""
    program = shutil.which("setpriv")
    if program is None:
        return None
    probe = subprocess.run(
        [program, "--pdeathsig", "INT", "true"], capture_output=True, check=False, timeout=10
    )
    return program if probe.returncode == 0 else None


def _death_signal_hook() -> Callable[[], None] | None:
    """The same by ourselves, in the child between fork and exec; elsewhere than on Linux nothing.

    Everything that allocates is done before the fork, where other threads may hold locks.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return die_with_parent


def remove_shared_memory(number: int) -> None:
    """Remove a System V shared memory segment, if it is there and ours to remove: shmctl(2)."""
    ctypes.CDLL(None).shmctl(number, _IPC_RMID, None)
