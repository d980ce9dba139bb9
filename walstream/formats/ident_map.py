"""``pg_ident.conf``: which names of the outside world may be which user.

A name is what a client has proved by other means than a password: its certificate's, or its
account's on this machine. PostgreSQL's documentation, "User Name Maps"; ``check_ident_usermap``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from walstream.errors import FormatError
from walstream.formats.auth_file import AuthLine, Files, Token, read_auth_file
from walstream.formats.name_pattern import name_pattern

__all__ = ["IdentLine", "may_be", "read_ident"]


@dataclass(frozen=True, slots=True)
class IdentLine:
    """A line: in this map, that system user may be that user.

    :ivar system_user: a name, or behind a slash a regular expression.
    :ivar user: a name, in which ``\\1`` stands for what the expression's parentheses have found;
        behind a slash a regular expression, quoted or not, as it is; or ``all``.
    """

    line: AuthLine
    map_name: str
    system_user: Token
    user: Token

    def allows(self, system_user: str, user: str) -> bool:
        """Whether that name may be that user."""
        wanted = self.user
        if self.system_user.text.startswith("/"):
            found = name_pattern(self.system_user.text[1:]).search(system_user)
            if found is None:
                return False
            if _has_reference(wanted):
                # Parentheses that have found nothing stand for nobody; and nothing that it becomes
                # means anything else than itself.
                part = found[1]
                return part is not None and wanted.text.replace("\\1", part, 1) == user
        elif self.system_user.text != system_user:
            return False
        if wanted.text.startswith("/"):
            return name_pattern(wanted.text[1:]).search(user) is not None
        return wanted.is_keyword("all") or wanted.text == user


def may_be(lines: Iterable[IdentLine], map_name: str | None, system_user: str, user: str) -> bool:
    """Whether who has proved to be *system_user* may come in as *user*.

    Without a map the two have to be the same.
    """
    if map_name is None:
        return system_user == user
    return any(line.map_name == map_name and line.allows(system_user, user) for line in lines)


def read_ident(path: str, files: Files) -> list[IdentLine]:
    """Read the maps.

    :raises FormatError: for the first line that is wrong.
    """
    return [_ident_line(line) for line in read_auth_file(path, files)]


def _ident_line(line: AuthLine) -> IdentLine:
    names = ("map name", "ident username", "PostgreSQL username")
    if len(line.fields) < len(names):
        raise line.wrong("missing entry at end of line")
    map_name, system_user, user = (
        _single(line, tokens, name) for tokens, name in zip(line.fields, names, strict=False)
    )
    groups = _groups(line, system_user)
    if _has_reference(user) and groups == 0:
        raise line.wrong(
            f'regular expression "{system_user.text[1:]}" has no subexpressions as requested by '
            f'backreference in "{user.text}"'
        )
    if not user.is_quoted and user.text.startswith("+"):
        raise line.wrong(
            f"{user.text} means the members of a role, which only a database server knows: "
            "name the users"
        )
    _groups(line, user)
    return IdentLine(line, map_name.text, system_user, user)


def _has_reference(user: Token) -> bool:
    """Whether what the parentheses have found is a part of it: never of an expression."""
    return "\\1" in user.text and not user.text.startswith("/")


def _single(line: AuthLine, tokens: Sequence[Token], what: str) -> Token:
    if len(tokens) != 1:
        raise line.wrong(f"there has to be one {what}")
    return tokens[0]


def _groups(line: AuthLine, token: Token) -> int | None:
    """How many parentheses a regular expression has; None for another word."""
    if not token.text.startswith("/"):
        return None
    try:
        return name_pattern(token.text[1:]).groups
    except FormatError as error:
        raise FormatError(f"{error}: {line.place}") from None
