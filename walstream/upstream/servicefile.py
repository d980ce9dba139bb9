"""libpq's connection service file: named groups of options in a simple INI form.

(PostgreSQL documentation, "The Connection Service File"; ``parseServiceFile`` in libpq.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from walstream.errors import FormatError
from walstream.upstream.home import home_directory

__all__ = ["find_service"]

# Where packagers put it unless PGSYSCONFDIR says otherwise: libpq has it compiled in, and each
# build has another directory. These are Debian's, Red Hat's and PostgreSQL's own default.
_SYSTEM_DIRECTORIES = ("/etc/postgresql-common", "/etc", "/usr/local/pgsql/etc")


def find_service(
    name: str, environ: Mapping[str, str], options: Collection[str]
) -> Mapping[str, str]:
    """The options that service *name* stands for.

    :param options: the names that libpq knows.
    :raises FormatError: if no file defines it, or the line of a file is not ``option=value``.
    """
    for path in _files(environ):
        definition = _read(path, name, options)
        if definition is not None:
            return definition
    raise FormatError(f"definition of service {name!r} not found")


def _files(environ: Mapping[str, str]) -> Iterable[Path]:
    """The files to look into, in libpq's order; the first that defines the service counts."""
    if named := environ.get("PGSERVICEFILE"):
        path = Path(named)
        if not path.is_file():
            raise FormatError(f"service file {named!r} not found (PGSERVICEFILE)")
        yield path
    else:
        yield from _existing(home_directory(environ) / ".pg_service.conf")
    system = environ.get("PGSYSCONFDIR")
    for directory in (system,) if system else _SYSTEM_DIRECTORIES:
        yield from _existing(Path(directory, "pg_service.conf"))


def _existing(path: Path) -> Iterable[Path]:
    if path.is_file():
        yield path


def _read(path: Path, name: str, options: Collection[str]) -> Mapping[str, str] | None:
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeError) as error:
        raise FormatError(f"service file {str(path)!r} cannot be read: {error}") from error
    definition: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if definition is not None:
                break
            if line.startswith(f"[{name}]"):
                definition = {}
        elif definition is not None:
            option, value = _parse_line(path, number, line, options)
            # What is said first counts.
            definition.setdefault(option, value)
    return definition


def _parse_line(path: Path, number: int, line: str, options: Collection[str]) -> tuple[str, str]:
    option, equals, value = line.partition("=")
    place = f"service file {str(path)!r}, line {number}"
    if option.startswith("ldap://"):
        raise FormatError(f"{place}: options are not looked up in LDAP")
    if option == "service":
        raise FormatError(f"{place}: nested service specifications are not supported")
    if not equals or option not in options:
        raise FormatError(f"{place}: {option!r} is not a connection option with a value")
    return option, value
