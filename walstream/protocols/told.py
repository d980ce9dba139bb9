"""What a server tells without being asked: its parameters, and notices. None of it without end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from twisted.logger import Logger

from walstream.errors import ProtocolViolation
from walstream.protocols.names import clean_ascii
from walstream.wire.messages import parse_error

__all__ = ["ToldByServer"]

# PostgreSQL 18 reports 15 parameters of some hundred bytes in all; extensions may add some.
_MOST_PARAMETERS = 200
# Notices of one connection that are worth a line in the log. A walsender has hardly any.
_MOST_NOTICES = 10


class ToldByServer:
    """Of one connection.

    :ivar parameters: ParameterStatus values, by name.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._parameters: dict[str, str] = {}
        self._notices = 0
        self.parameters: Mapping[str, str] = MappingProxyType(self._parameters)

    def parameter(self, name: str, value: str) -> None:
        """A parameter has this value.

        :raises ProtocolViolation: if there are too many of them.
        """
        # They are shown: to users, and as a version to clients.
        self._parameters[name] = clean_ascii(value)
        if len(self._parameters) > _MOST_PARAMETERS:
            raise ProtocolViolation(f"the server reports more than {_MOST_PARAMETERS} parameters")

    def notice(self, body: bytes) -> None:
        """The server wants its users to know this: it goes to the log, unless there is much.

        :param body: of the NoticeResponse. It isn't looked at if it is not logged.
        :raises ProtocolViolation: if it is none.
        """
        self._notices += 1
        if self._notices <= _MOST_NOTICES:
            self._log.info("upstream says: {notice}", notice=str(parse_error(body)))
        elif self._notices == _MOST_NOTICES + 1:
            self._log.warn("upstream says more than that: its notices are not logged any more")
