"""A small disk of a test's own: it can be full, and its power can fail.

It is an ext4 file system in an image file. What the kernel has not written to the image is not in
a copy of it: mounting a copy is what a machine finds after its power failed. This needs root, and
a kernel with loop devices.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

__all__ = ["Disk", "disks_are_available"]

_FILLER = "filler"


@cache
def disks_are_available() -> bool:
    """Whether a `Disk` can be made here."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Disk(Path(directory), 8):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


class Disk:
    """An ext4 file system, mounted while the context lasts.

    :param directory: where the image and the mount point are made, or found.
    :param size: MiB.
    :ivar path: the mount point.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self._size = size

    def __enter__(self) -> Self:
        if os.path.ismount(self.path):  # of a run that was killed
            self.unmount()
        self.path.mkdir(exist_ok=True)
        if not self._image.exists():
            with self._image.open("wb") as image:
                image.truncate(self._size << 20)
            _run("mkfs.ext4", "-q", "-F", self._image)
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()

    @contextmanager
    def full(self) -> Iterator[None]:
        """There is no space left while the context lasts."""
        filler = self.path / _FILLER
        try:
            with filler.open("wb") as file:
                self._fill(file.fileno())
            yield
        finally:
            filler.unlink()

    def _fill(self, fd: int) -> None:
        length, step = 0, self._size << 19
        while step >= 1024:
            try:
                os.posix_fallocate(fd, length, step)
                length += step
            except OSError:
                step //= 2

    def fail_power(self) -> None:
        """Lose everything that was not synced. No process may have a file open any more."""
        copy = self._image.with_suffix(".copy")
        device = Path("/sys/class/block", os.path.basename(self._device()))
        while True:
            before = (device / "stat").read_text()
            _run("cp", "--sparse=always", self._image, copy)
            # Writes that the kernel made meanwhile, or has begun, are in parts of the copy only.
            if (device / "stat").read_text() == before and not _in_flight(before):
                break
        self.unmount()
        copy.rename(self._image)
        self.mount()

    def mount(self) -> None:
        """Mount it."""
        # A long time between two commits: what nobody has synced stays off the disk.
        _run("mount", "-o", "loop,commit=300", self._image, self.path)

    def unmount(self, *, lazily: bool = False) -> None:
        """Unmount it: lazily, it stays there for those who have files open."""
        _run("umount", *(["-l"] if lazily else []), self.path)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written while the context lasts; nobody may have a file open."""
        _run("mount", "-o", "remount,ro", self.path)
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", self.path)

    def _device(self) -> str:
        return _run("findmnt", "-n", "-o", "SOURCE", self.path).strip()


def _in_flight(stat: str) -> bool:
    """Whether requests are under way: Documentation/block/stat.rst, the ninth value."""
    return stat.split()[8] != "0"


def _run(*command: str | Path) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
