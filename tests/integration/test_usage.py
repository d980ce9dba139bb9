"""What a process of twistd's says and exits with when it was called in a wrong way, or cannot work.

No server is needed: nothing here gets as far as that.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.daemon import Serving, Walstream
from walstream import __version__
from walstream.embedded.configuration import free_port

LISTEN = "--listen=tcp:{port}:interface=127.0.0.1"


def walstream(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run ``twistd -n walstream`` to its end, in an empty home directory."""
    twistd = Path(sys.executable).with_name("twistd")
    environment = {name: value for name, value in os.environ.items() if name[:2] != "PG"}
    return subprocess.run(
        [sys.executable, str(twistd), "-n", "--pidfile=", "walstream", *arguments],
        env=environment | {"HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", ["a command is missing: receive, send, hub or demo"]),
        ("recieve", ["recieve"]),
        ("receive --archive={dir}", ["--upstream is missing", "host=db1"]),
        ("receive --upstream=host=a", ["--archive is missing", "--archive=/srv/wal"]),
        ("receive --upstream=hots=a -D{dir}", ["--upstream: ", 'connection option "hots"']),
        (
            "receive --upstream=gssencmode=require -D{dir}",
            ["--upstream: gssencmode=require (the connection string) is not possible"],
        ),
        ("receive --upstream=host=a -D{dir} --endpos=7", ["--endpos: '7' is not an LSN"]),
        ("receive --upstream=host=a -D{dir} --slot=A", ["--slot: 'A'", "lower-case letters"]),
        ("receive --upstream=host=a -D{dir} --unknown", ["--unknown"]),
        ("send --archive={dir}/none -ltcp:1:interface=127.0.0.1", ["there is no directory"]),
        ("send --archive={dir} --listen=tcp:5433", ["--listen: ", "--trust-network"]),
        ("hub --archive={dir} --upstream=host=a", ["--listen is missing"]),
        ("demo --rows=many", ["--rows: 'many' is not a whole number"]),
    ],
)
def test_wrong_usage(arguments: str, said: list[str], tmp_path: Path) -> None:
    """A wrong call ends with status 1, a text that names the option, and no traceback."""
    done = walstream(*arguments.format(dir=tmp_path).split(), directory=tmp_path)
    assert done.returncode == 1, done.stdout
    for part in said:
        assert part in done.stdout
    assert "Traceback" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_version(tmp_path: Path) -> None:
    """--version prints walstream's version, and is a success."""
    done = walstream("receive", "--version", directory=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"walstream {__version__}\n")


def test_help(tmp_path: Path) -> None:
    """--help is a success, and shows how twistd is called."""
    done = walstream("hub", "--help", directory=tmp_path)
    assert done.returncode == 0
    assert "walstream hub --upstream=CONNINFO --archive=DIR --listen=ENDPOINT" in done.stdout


def test_no_server(tmp_path: Path) -> None:
    """With --no-loop a server that cannot be reached is a failure: status 1, and its address."""
    upstream = f"host=127.0.0.1 port={(port := free_port())} user=nobody"
    done = walstream(
        "receive", "--no-loop", f"--upstream={upstream}", f"-D{tmp_path}/wal", directory=tmp_path
    )
    assert done.returncode == 1, done.stdout
    assert f"receiving ended: 127.0.0.1:{port}: " in done.stdout
    assert "Traceback" not in done.stdout


def test_busy_port(tmp_path: Path) -> None:
    """A port that is taken is a failure: status 1, and the endpoint. The other one is closed."""
    archive, path = tmp_path / "wal", tmp_path / "socket"
    archive.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = LISTEN.format(port=port)
        done = walstream(
            *("send", f"--archive={archive}", f"--listen=unix:{path}", listen), directory=tmp_path
        )
    assert done.returncode == 1, done.stdout
    assert f"cannot listen on {listen.partition('=')[2]}: " in done.stdout
    assert "listening on" not in done.stdout
    assert not path.exists()
    assert "Traceback" not in done.stdout


def test_told_to_stop(tmp_path: Path) -> None:
    """To be told to stop is no failure: status 0, also while the server cannot be reached."""
    upstream = f"--upstream=host=127.0.0.1 port={free_port()} user=nobody"
    log = tmp_path / "log"
    with Walstream("receive", upstream, "-D", tmp_path / "wal", log=log) as process:
        process.await_text("trying again")
        assert process.stop() == 0, process.text
        assert "exiting (SIGTERM)" in process.text


def test_serves_an_empty_archive(tmp_path: Path) -> None:
    """A sender listens although its archive is empty yet, and stops in order."""
    archive = tmp_path / "wal"
    archive.mkdir()
    with Serving("send", "--archive", archive, log=tmp_path / "log") as process:
        assert process.stop() == 0, process.text
