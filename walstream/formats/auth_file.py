"""The lines of ``pg_hba.conf`` and ``pg_ident.conf``: fields of tokens, and files within files.

What PostgreSQL's documentation says in "The pg_hba.conf File", and its ``hba.c`` does: fields are
separated by blanks, a field may be a list with commas, a token may be in double quotes, ``#``
begins a comment, a backslash at its end continues a line, ``@file`` in a list stands for the
tokens of that file, and ``include``, ``include_if_exists`` and ``include_dir`` for whole files.
What the fields mean is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from posixpath import dirname, join
from typing import Final, Protocol

from walstream.errors import FormatError

__all__ = ["AuthLine", "Files", "Token", "read_auth_file"]

_BLANKS: Final = " \t\r"
# CONF_FILE_MAX_DEPTH of PostgreSQL's conffiles.h.
_DEEPEST: Final = 10
# A line of more is one of the file's own, whatever its first word: so is a role by that name.
_FIELDS_OF_INCLUDE: Final = 2


@dataclass(frozen=True, slots=True)
class Token:
    """A word.

    :ivar is_quoted: whether it begins with a quote: then it is never a keyword.
    """

    text: str
    is_quoted: bool = False

    def is_keyword(self, word: str) -> bool:
        """Whether it is that keyword, which no quoted word is."""
        return not self.is_quoted and self.text == word

    def __str__(self) -> str:
        return f'"{self.text}"' if self.is_quoted else self.text


@dataclass(frozen=True, slots=True)
class AuthLine:
    """A line that says something.

    :ivar file: the file that it is in, and its number there, of which the first is 1.
    :ivar fields: what it says.
    """

    file: str
    number: int
    fields: Sequence[Sequence[Token]]
    text: str

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f'line {self.number} of configuration file "{self.file}"'

    def wrong(self, what: str) -> FormatError:
        """The error that it is not right."""
        return FormatError(f"{what}: {self.place}: {self.text}")


class Files(Protocol):
    """The files that are read; a real file system, or a test's."""

    def read(self, path: str) -> str:
        """The contents of a file.

        :raises OSError: if it cannot be read.
        """

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory.

        :raises OSError: if it cannot be read.
        """


def read_auth_file(path: str, files: Files) -> Iterator[AuthLine]:
    """The lines of a file, and of all that it includes, in order.

    :raises FormatError: for a line that cannot be read, or a file.
    """
    return _lines(path, files, 0)


def _lines(path: str, files: Files, depth: int) -> Iterator[AuthLine]:
    for number, text in _logical_lines(_content(path, files, depth)):
        fields = list(_fields(text, path, files, depth))
        if not fields:
            continue
        include = None
        if len(fields) == _FIELDS_OF_INCLUDE and all(fields):
            include = _INCLUDES.get(fields[0][0].text)
        if include is None:
            yield AuthLine(path, number, fields, text.strip())
        else:
            target = _beside(path, fields[1][0].text)
            yield from include(target, files, depth + 1)


def _include(path: str, files: Files, depth: int) -> Iterator[AuthLine]:
    yield from _lines(path, files, depth)


def _include_if_exists(path: str, files: Files, depth: int) -> Iterator[AuthLine]:
    try:
        files.read(path)
    except FileNotFoundError:
        return
    except OSError:
        pass  # whatever it is, `_lines` tells of it
    yield from _lines(path, files, depth)


def _include_dir(path: str, files: Files, depth: int) -> Iterator[AuthLine]:
    try:
        names = files.names(path)
    except OSError as error:
        raise FormatError(f'could not open directory "{path}": {error.strerror}') from error
    for name in sorted(names):
        if name.endswith(".conf") and not name.startswith("."):
            yield from _lines(join(path, name), files, depth)


_INCLUDES: Final[dict[str, Callable[[str, Files, int], Iterator[AuthLine]]]] = {
    "include": _include,
    "include_if_exists": _include_if_exists,
    "include_dir": _include_dir,
}


def _content(path: str, files: Files, depth: int) -> str:
    if depth > _DEEPEST:
        raise FormatError(f'could not open file "{path}": maximum nesting depth exceeded')
    try:
        content = files.read(path)
    except OSError as error:
        raise FormatError(f'could not open file "{path}": {error.strerror}') from error
    if "\0" in content:
        # To PostgreSQL the line ends there, and the next one is a part of it.
        raise FormatError(f'there is a zero character in file "{path}"')
    return content


def _beside(path: str, name: str) -> str:
    """A name in a file is relative to the directory of that file."""
    return join(dirname(path), name)


def _logical_lines(content: str) -> Iterator[tuple[int, str]]:
    """Lines with those that continue them, and the number of the first of each."""
    first, text = 1, ""
    for number, line in enumerate(content.split("\n"), start=1):
        added = line.rstrip("\r")
        text += added
        # One that was there before, and escaped by the one behind it, is no continuation.
        if added.endswith("\\"):
            text = text[:-1]
            continue
        yield first, text
        first, text = number + 1, ""
    if text:
        yield first, text


def _fields(text: str, path: str, files: Files, depth: int) -> Iterator[list[Token]]:
    """The fields of a line; a field without a token is an @file without one."""
    position = 0
    while True:
        field: list[Token] = []
        found = False
        continues = True
        while continues:
            token, continues, position = _token(text, position)
            if token is None:
                break
            found = True
            if not token.is_quoted and len(token.text) > 1 and token.text[0] == "@":
                name = _beside(path, token.text[1:])
                field += _tokens_of(name, files, depth + 1)
            else:
                field.append(token)
        if not found:
            return
        yield field


def _tokens_of(path: str, files: Files, depth: int) -> Iterator[Token]:
    """All tokens of a file that stands for a list."""
    for line in _lines(path, files, depth):
        for field in line.fields:
            yield from field


def _token(text: str, position: int) -> tuple[Token | None, bool, int]:
    """The next token, whether a comma follows it, and where to go on."""
    while position < len(text) and text[position] in _BLANKS + ",":
        position += 1
    found: list[str] = []
    in_quotes = was_quote = has_begun = starts_with_quote = False
    while position < len(text):
        character = text[position]
        if not in_quotes and character in _BLANKS:
            break
        if not in_quotes and character == "#":
            position = len(text)
            break
        if not in_quotes and character == ",":
            return Token("".join(found), starts_with_quote), True, position + 1
        if character != '"' or was_quote:
            found.append(character)
        # Within quotes, two stand for one: the first ends the quotes, the second begins them anew.
        was_quote = in_quotes and character == '"'
        if character == '"':
            in_quotes = not in_quotes
            starts_with_quote = starts_with_quote or not found
        has_begun = True
        position += 1
    if not has_begun:
        return None, False, position
    return Token("".join(found), starts_with_quote), False, position
