"""As whom a receiver logs in. A value; it knows no sockets and no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from walstream.wire.login_demands import NO_DEMANDS, LoginDemands

__all__ = ["Login"]


@dataclass(frozen=True, slots=True)
class Login:
    """Who a receiver is to its upstream.

    :ivar user: the role; it needs the REPLICATION attribute.
    :ivar password: None if none is known.
    :ivar application_name: the name by which ``synchronous_standby_names`` knows us.
    :ivar database: ignored by servers for physical replication, but shown in their messages.
    :ivar parameters: further startup parameters (``options``, ``client_encoding``, …).
    :ivar demands: how the server has to authenticate us, and itself.
    """

    user: str
    password: str | None = field(default=None, repr=False)
    application_name: str = "walstream"
    database: str = "replication"
    parameters: Mapping[str, str] = field(default_factory=dict)
    demands: LoginDemands = NO_DEMANDS

    def startup_parameters(self) -> dict[str, str]:
        """All parameters of the startup packet.

        ``replication`` comes last and from here alone: nothing that a user or an environment
        gives can turn it off. Its value is ``on``, which every server from 9.0 to 18 and the
        design of December 2009 understand alike.
        """
        return {
            **self.parameters,
            "user": self.user,
            "database": self.database,
            "application_name": self.application_name,
            "replication": "on",
        }
