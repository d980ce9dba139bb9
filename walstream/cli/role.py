"""``walstream role``: the roles that may come in, their passwords' verifiers and limits."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from getpass import GetPassWarning, getpass
from os.path import isdir

from walstream.access.role_store import RoleStore
from walstream.archive.paths import ArchivePaths
from walstream.cli.tables import table
from walstream.errors import FormatError
from walstream.formats.role_file import Limits, Role, parse_limits, with_role, without_role
from walstream.wire.scram_verifier import DEFAULT_ITERATIONS, ScramVerifier

__all__ = ["FAILURE", "WRONG", "add_arguments", "run"]

#: The file cannot be read or changed, or the command line is wrong.
FAILURE = 2
#: ``verify``: the password is not the role's. ``drop``, ``verify``: there is no such role.
WRONG = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "action", metavar="ACTION", choices=list(_ACTIONS), help=", ".join(_ACTIONS)
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the role; all but list take one")
    parser.add_argument("--archive", "-D", metavar="DIR", help="the roles of this archive")
    parser.add_argument("--roles", metavar="FILE", help="the roles in this file instead")
    parser.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input"
    )
    parser.add_argument(
        "--verifier-stdin",
        action="store_true",
        help="add: read a verifier, as pg_authid has it, from standard input",
    )
    parser.add_argument(
        "--no-password", action="store_true", help="add: no password; for certificates, say"
    )
    parser.add_argument(
        "--iterations",
        metavar="N",
        type=int,
        default=DEFAULT_ITERATIONS,
        help=f"add: of the verifier; {DEFAULT_ITERATIONS} unless given",
    )
    parser.add_argument(
        "--connections", metavar="N", type=int, help="add: how many it may have at a time"
    )
    parser.add_argument(
        "--timelines", metavar="RANGE", help="add: which it may stream, such as 3, 3-5 or 3-"
    )
    parser.add_argument(
        "--from", dest="start", metavar="LSN", help="add: where the WAL begins that it may have"
    )


def run(arguments: Namespace) -> int:
    """Do it."""
    if (arguments.name is None) != (arguments.action == "list"):
        what = "takes no NAME" if arguments.name is not None else "needs a NAME"
        sys.stderr.write(f"walstream role {arguments.action} {what}\n")
        return FAILURE
    path = arguments.roles
    if path is None:
        if arguments.archive is None:
            sys.stderr.write("walstream role: say which roles, by --archive DIR or --roles FILE\n")
            return FAILURE
        paths = ArchivePaths(arguments.archive)
        if not isdir(paths.root):
            raise FormatError(f"there is no directory {paths.root}")
        path = paths.roles
    return _ACTIONS[arguments.action](RoleStore(path), arguments)


def _add(store: RoleStore, arguments: Namespace) -> int:
    limits = _limits(arguments)
    role = Role(arguments.name, _verifier(arguments), limits)
    is_known = role.name in store.read().roles
    if arguments.roles is None:
        store.make_directory()  # no walstream process may have been here yet
    store.change(lambda text: with_role(text, role, store.path))
    sys.stdout.write(f'role "{role.name}" {"replaced" if is_known else "added"}\n')
    return 0


def _drop(store: RoleStore, arguments: Namespace) -> int:
    if arguments.name not in store.read().roles:
        return _no_role(store, arguments.name)
    store.change(lambda text: without_role(text, arguments.name, store.path))
    sys.stdout.write(f'role "{arguments.name}" dropped\n')
    return 0


def _list(store: RoleStore, _: Namespace) -> int:
    roles = store.read()
    rows = []
    for role in sorted(roles.roles.values(), key=lambda role: role.name):
        verifier = roles.verifiers.get(role.name)
        password = "none" if verifier is None else f"{verifier.iterations} iterations"
        rows.append([role.name, password, str(role.limits)])
    for line in table(["role", "password", "limits"], rows):
        sys.stdout.write(f"{line}\n")
    return 0


def _verify(store: RoleStore, arguments: Namespace) -> int:
    roles = store.read()
    if arguments.name not in roles.roles:
        return _no_role(store, arguments.name)
    verifier = roles.verifiers.get(arguments.name)
    if verifier is None:
        sys.stderr.write(f'walstream role: role "{arguments.name}" has no password\n')
        return WRONG
    password = _password(arguments, twice=False)
    if not verifier.is_of(password):
        sys.stderr.write(f'walstream role: that is not the password of role "{arguments.name}"\n')
        return WRONG
    sys.stdout.write(f'that is the password of role "{arguments.name}"\n')
    return 0


_ACTIONS: Mapping[str, Callable[[RoleStore, Namespace], int]] = {
    "add": _add,
    "list": _list,
    "drop": _drop,
    "verify": _verify,
}


def _no_role(store: RoleStore, name: str) -> int:
    sys.stderr.write(f'walstream role: there is no role "{name}" in {store.path}\n')
    return WRONG


def _verifier(arguments: Namespace) -> str | None:
    sources = arguments.password_stdin, arguments.verifier_stdin, arguments.no_password
    if sum(sources) > 1:
        raise FormatError("--password-stdin, --verifier-stdin and --no-password exclude each other")
    if arguments.no_password:
        return None
    if arguments.verifier_stdin:
        return str(ScramVerifier.parse(sys.stdin.readline().strip()))
    password = _password(arguments, twice=True)
    return str(ScramVerifier.of(password, iterations=arguments.iterations))


def _password(arguments: Namespace, *, twice: bool) -> str:
    """The password, without echo; never from the command line, which others can see."""
    if arguments.password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = _ask(f"Password for role {arguments.name}: ")
        if twice and _ask("Enter it again: ") != password:
            raise FormatError("passwords didn't match")
    if not password:
        raise FormatError("an empty password is none: use --no-password for a role without")
    return password


def _ask(prompt: str) -> str:
    """Ask at the terminal, which shows nothing of the answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)
        try:
            return getpass(prompt, sys.stderr)
        except GetPassWarning:
            raise FormatError(
                "there is no terminal to ask for a password at: use --password-stdin"
            ) from None
        except EOFError:
            raise FormatError("no password was given") from None


def _limits(arguments: Namespace) -> Limits:
    words = [
        f"{name}={value}"
        for name, value in (
            ("connections", arguments.connections),
            ("timelines", arguments.timelines),
            ("from", arguments.start),
        )
        if value is not None
    ]
    return parse_limits(words)
