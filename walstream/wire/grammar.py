"""Reads the text of today's replication commands.

Follows ``repl_gram.y`` of PostgreSQL 15 to 18 to the letter, the legacy options of
CREATE_REPLICATION_SLOT included. The commands themselves are in `walstream.wire.commands` and can
be had from here as well; those of the design of 2009 are in `walstream.wire.dialect2009`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.wire.commands import (
    AlterReplicationSlot,
    BaseBackup,
    Command,
    CreateReplicationSlot,
    DropReplicationSlot,
    FetchTimelineHistory,
    IdentifySystem,
    OptionValue,
    ReadReplicationSlot,
    Show,
    StartLogicalReplication,
    StartReplication,
    UploadManifest,
)
from walstream.wire.lexer import Kind, syntax_error, tokens

__all__ = [
    "NEWEST",
    "AlterReplicationSlot",
    "BaseBackup",
    "Command",
    "CreateReplicationSlot",
    "DropReplicationSlot",
    "FetchTimelineHistory",
    "IdentifySystem",
    "OptionValue",
    "ReadReplicationSlot",
    "Show",
    "StartLogicalReplication",
    "StartReplication",
    "UploadManifest",
    "parse_command",
]


#: The newest major version whose grammar is known.
NEWEST: Final = 18


def parse_command(text: bytes, major: int = NEWEST) -> Command:
    """The command that *text* is.

    :param major: the version of PostgreSQL whose commands are known.
    :raises CommandError: 0A000 if it does not begin with the name of a command, which makes it
        SQL in PostgreSQL's eyes; 42601 if it goes on as no command does.
    """
    parser = _Parser(text, major)
    command = parser.command()
    parser.end()
    return command


_Option = tuple[str, OptionValue]
_REDUNDANT: Final = "conflicting or redundant options"


class _Parser:
    # Recursive descent with one token of look-ahead; a method for each rule of the grammar.

    def __init__(self, text: bytes, major: int) -> None:
        self._major = major
        self._tokens = tokens(text)
        self._token = next(self._tokens)

    def command(self) -> Command:
        rule = _COMMANDS.get(self._token.value) if self._token.kind is Kind.KEYWORD else None
        if rule is None or self._major < _SINCE.get(self._token.value, 0):
            raise CommandError(
                "0A000", "cannot execute SQL commands in WAL sender for physical replication"
            )
        self._advance()
        return rule(self)

    def end(self) -> None:
        self._accept(Kind.SYMBOL, ";")
        if self._token.kind is not Kind.END:
            raise syntax_error()

    # --- the commands, behind their names

    def identify_system(self) -> Command:
        return IdentifySystem()

    def show(self) -> Command:
        return Show(self._dotted_name())

    def timeline_history(self) -> Command:
        return FetchTimelineHistory(self._timeline())

    def start_replication(self) -> Command:
        slot = self._name() if self._keyword("SLOT") else None
        if slot is not None and self._keyword("LOGICAL"):
            return StartLogicalReplication(slot, self._position(), self._plugin_options())
        self._keyword("PHYSICAL")
        start = self._position()
        return StartReplication(
            start, self._timeline() if self._keyword("TIMELINE") else None, slot
        )

    def create_replication_slot(self) -> Command:
        name = self._name()
        temporary = self._keyword("TEMPORARY")
        if self._keyword("LOGICAL"):
            plugin = self._name()
            return CreateReplicationSlot(
                name, temporary, plugin=plugin, options=_unique(self._create_options(), _REDUNDANT)
            )
        self._expect(Kind.KEYWORD, "PHYSICAL")
        return CreateReplicationSlot(
            name, temporary, _reserve_wal(self._create_options(), self._major)
        )

    def read_replication_slot(self) -> Command:
        return ReadReplicationSlot(self._dotted_name())

    def alter_replication_slot(self) -> Command:
        name = self._name()
        self._expect(Kind.SYMBOL, "(")
        return AlterReplicationSlot(name, _alterations(self._options(), self._major))

    def drop_replication_slot(self) -> Command:
        return DropReplicationSlot(self._name(), self._keyword("WAIT"))

    def base_backup(self) -> Command:
        options = self._options() if self._accept(Kind.SYMBOL, "(") else []
        return BaseBackup(_unique(options, 'duplicate option "{}"'))

    def upload_manifest(self) -> Command:
        return UploadManifest()

    # --- their parts

    def _dotted_name(self) -> str:
        names = [self._name()]
        while self._accept(Kind.SYMBOL, "."):
            names.append(self._name())
        return ".".join(names)

    def _timeline(self) -> int:
        timeline = self._take(Kind.NUMBER)
        if timeline == 0:
            raise CommandError("42601", "invalid timeline 0")
        return int(timeline)

    def _position(self) -> LSN:
        return LSN(self._take(Kind.POSITION))

    def _options(self) -> list[_Option]:
        # Behind the opening parenthesis, which at least one option must follow.
        options = [self._option()]
        while self._accept(Kind.SYMBOL, ","):
            options.append(self._option())
        self._expect(Kind.SYMBOL, ")")
        return options

    def _option(self) -> _Option:
        if self._token.kind is Kind.KEYWORD:
            name = str(self._take(Kind.KEYWORD)).lower()
        else:
            name = self._name()
        if self._token.kind in (Kind.IDENTIFIER, Kind.STRING, Kind.NUMBER):
            return name, self._take(self._token.kind)
        return name, None

    def _create_options(self) -> list[_Option]:
        if self._accept(Kind.SYMBOL, "("):
            return self._options()
        options = []
        while self._token.kind is Kind.KEYWORD and self._token.value in _LEGACY_OPTIONS:
            options.append(_LEGACY_OPTIONS[str(self._take(Kind.KEYWORD))])
        return options

    def _plugin_options(self) -> Mapping[str, OptionValue]:
        if not self._accept(Kind.SYMBOL, "("):
            return {}
        options = [self._plugin_option()]
        while self._accept(Kind.SYMBOL, ","):
            options.append(self._plugin_option())
        self._expect(Kind.SYMBOL, ")")
        return dict(options)

    def _plugin_option(self) -> _Option:
        name = self._name()
        return name, self._take(Kind.STRING) if self._token.kind is Kind.STRING else None

    # --- tokens

    def _name(self) -> str:
        return str(self._take(Kind.IDENTIFIER))

    def _keyword(self, keyword: str) -> bool:
        return self._accept(Kind.KEYWORD, keyword)

    def _accept(self, kind: Kind, value: str) -> bool:
        if self._token != (kind, value):
            return False
        self._advance()
        return True

    def _expect(self, kind: Kind, value: str) -> None:
        if not self._accept(kind, value):
            raise syntax_error()

    def _take(self, kind: Kind) -> str | int:
        token = self._token
        if token.kind is not kind:
            raise syntax_error()
        self._advance()
        return token.value

    def _advance(self) -> None:
        self._token = next(self._tokens)


_COMMANDS: Final[Mapping[str | int, Callable[[_Parser], Command]]] = {
    "ALTER_REPLICATION_SLOT": _Parser.alter_replication_slot,
    "BASE_BACKUP": _Parser.base_backup,
    "CREATE_REPLICATION_SLOT": _Parser.create_replication_slot,
    "DROP_REPLICATION_SLOT": _Parser.drop_replication_slot,
    "IDENTIFY_SYSTEM": _Parser.identify_system,
    "READ_REPLICATION_SLOT": _Parser.read_replication_slot,
    "SHOW": _Parser.show,
    "START_REPLICATION": _Parser.start_replication,
    "TIMELINE_HISTORY": _Parser.timeline_history,
    "UPLOAD_MANIFEST": _Parser.upload_manifest,
}

# What older versions take for SQL.
_SINCE: Final[Mapping[str | int, int]] = {"ALTER_REPLICATION_SLOT": 17, "UPLOAD_MANIFEST": 17}

_LEGACY_OPTIONS: Final[Mapping[str | int, _Option]] = {
    "EXPORT_SNAPSHOT": ("snapshot", "export"),
    "NOEXPORT_SNAPSHOT": ("snapshot", "nothing"),
    "RESERVE_WAL": ("reserve_wal", None),
    "TWO_PHASE": ("two_phase", None),
    "USE_SNAPSHOT": ("snapshot", "use"),
}

# Options of logical slots, and the version from which on they can be given, and altered.
_LOGICAL_OPTIONS: Final = {"failover": 17, "snapshot": 0, "two_phase": 0}
_ALTERABLE: Final = {"failover": 17, "two_phase": 18}
_TRUE: Final = frozenset({None, 1, "true", "on"})
_FALSE: Final = frozenset({0, "false", "off"})


def _unique(options: list[_Option], complaint: str) -> Mapping[str, OptionValue]:
    unique: dict[str, OptionValue] = {}
    for name, value in options:
        if name in unique:
            raise CommandError("42601", complaint.format(name))
        unique[name] = value
    return unique


def _reserve_wal(options: list[_Option], major: int) -> bool:
    # As `parseCreateReplSlotOptions` for a physical slot, which has this one option.
    wanted = False
    for name, value in _unique(options, _REDUNDANT).items():
        if _LOGICAL_OPTIONS.get(name, major + 1) <= major:
            raise CommandError("42601", _REDUNDANT)
        if name != "reserve_wal":
            raise CommandError("XX000", f"unrecognized option: {name}")
        wanted = _boolean(name, value)
    return wanted


def _alterations(options: list[_Option], major: int) -> Mapping[str, OptionValue]:
    # As `ParseAlterReplSlotOptions`.
    unique = _unique(options, _REDUNDANT)
    for name, value in unique.items():
        if _ALTERABLE.get(name, major + 1) > major:
            raise CommandError("XX000", f"unrecognized option: {name}")
        _boolean(name, value)
    return unique


def _boolean(name: str, value: OptionValue) -> bool:
    # As `defGetBoolean`.
    wanted = value.lower() if isinstance(value, str) else value
    if wanted in _TRUE:
        return True
    if wanted in _FALSE:
        return False
    raise CommandError("42601", f"{name} requires a Boolean value")
