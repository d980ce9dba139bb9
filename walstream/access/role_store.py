"""The file of roles on disk: read, changed by one process at a time, never half.

Its form is in `walstream.formats.role_file`. Everything here waits for the disk.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Final

from walstream.errors import FormatError
from walstream.formats.role_file import Role, parse_roles
from walstream.system.private_file import open_private
from walstream.wire.scram_verifier import ScramVerifier

__all__ = ["RoleStore", "Roles"]

# More than a hundred thousand roles.
_LARGEST: Final = 32 << 20
_SECRET_SIZE: Final = 32
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles, as they were read.

    :ivar verifiers: of those that have one.
    :ivar state: changes when the file does.
    :ivar iterations: how many most of the verifiers have; None if there are none.
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    verifiers: Mapping[str, ScramVerifier] = field(default_factory=dict, repr=False)
    state: tuple[int, ...] | None = None
    iterations: int | None = None


class RoleStore:
    """A file of roles, which need not be there: then there are none.

    Beside it are a lock and a secret of its own, by which users that do not exist look as if they
    did. All are for their owner only.

    :ivar path: where it is.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def read(self, known: Roles | None = None) -> Roles:
        """The roles; *known* itself if the file has not changed since.

        :raises FormatError: if the file is not right, or others may read it.
        :raises OSError: if it cannot be read.
        """
        state = self._state()
        if known is not None and known.state == state:
            return known
        if state is None:
            return Roles()
        text, state = self._content()
        roles = parse_roles(text, self.path)
        verifiers = dict(self._verifiers(roles))
        counts = Counter(verifier.iterations for verifier in verifiers.values())
        return Roles(roles, verifiers, state, max(counts, key=counts.__getitem__, default=None))

    def make_directory(self) -> None:
        """See to it that there is the directory that the file is in; the one above must be there.

        :raises OSError: if it cannot be made.
        """
        directory = os.path.dirname(self.path)
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
            fd = os.open(directory, _DIRECTORY | os.O_NOFOLLOW)
            try:
                _hand_over(fd, os.path.dirname(directory))
            finally:
                os.close(fd)

    def change(self, edit: Callable[[str], str]) -> None:
        """Change the file, durably, and all of it or nothing.

        :param edit: makes the new text of the old one.
        :raises FormatError: if the file is not right, or would not be.
        :raises OSError: if it cannot be changed.
        """
        with self._locked():
            old = self._content()[0] if self._state() is not None else ""
            new = edit(old)
            parse_roles(new, self.path)
            if new != old:
                self._store(self.path, new.encode())

    def secret(self) -> bytes:
        """What nobody knows, and stays the same: made when it is asked for first.

        Where it cannot be kept, it is another one each time.
        """
        path = self.path + ".secret"
        try:
            with self._locked():
                with suppress(FileNotFoundError), open(path, "rb") as file:
                    secret = file.read(_SECRET_SIZE)
                    if len(secret) == _SECRET_SIZE:
                        return secret
                secret = token_bytes(_SECRET_SIZE)
                self._store(path, secret)
                return secret
        except OSError:
            return token_bytes(_SECRET_SIZE)

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return _fingerprint(status)

    def _content(self) -> tuple[str, tuple[int, ...]]:
        name = f'file of roles "{self.path}"'
        with open(open_private(self.path, name), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise FormatError(f"{name} is too large")
        try:
            return content.decode("utf-8"), _fingerprint(status)
        except UnicodeDecodeError:
            raise FormatError(f"{name} is not UTF-8") from None

    def _verifiers(self, roles: Mapping[str, Role]) -> Iterator[tuple[str, ScramVerifier]]:
        for role in roles.values():
            if role.verifier is not None:
                try:
                    yield role.name, ScramVerifier.parse(role.verifier)
                except FormatError as error:
                    raise FormatError(
                        f'role "{role.name}" in file "{self.path}": {error}'
                    ) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process changes it meanwhile."""
        # Whose the directory is could have root hand over another file, by a link to it.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path + ".lock", flags, 0o600)
        try:
            _hand_over(fd, os.path.dirname(self.path))
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _store(self, path: str, content: bytes) -> None:
        incoming = path + ".incoming"
        with suppress(FileNotFoundError):
            os.unlink(incoming)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(incoming, flags, 0o600), "wb") as file:
            _hand_over(file.fileno(), os.path.dirname(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(incoming, path)
        directory = os.open(os.path.dirname(path), _DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _hand_over(fd: int, directory: str) -> None:
    """What root makes in a directory belongs to whom that belongs: it is who reads it."""
    owner = os.stat(directory)
    if os.geteuid() == 0 and os.fstat(fd).st_uid != owner.st_uid:
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _fingerprint(status: os.stat_result) -> tuple[int, ...]:
    mode, owner = status.st_mode, status.st_uid
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, mode, owner
