"""A client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.

Source: PostgreSQL's documentation, "SASL Authentication", RFC 5802 and 7677. The computations are
the scramp library's; what is seen to here is that no server can make us work for long or be
believed unproved, and that it can't argue channel binding away.
"""

from __future__ import annotations

import re
from typing import Final

from scramp import ScramClient, ScramException

from walstream.errors import ProtocolViolation, ServerNotTrusted
from walstream.wire.scram_password import scram_password
from walstream.wire.scram_verifier import MECHANISM

__all__ = ["ScramClientExchange", "iterations_asked"]

# RFC 7677 asks for 4096 iterations at least, which is PostgreSQL's default too. A million takes
# about half a second.
_FEWEST_ITERATIONS: Final = 4096
_MOST_ITERATIONS: Final = 1_000_000
_ITERATIONS: Final = re.compile(rb"(?:^|,)i=([0-9]+)(?:,|$)")

# PostgreSQL's are 24 and 16 bytes, and its own verifiers could hold others. Nobody has a use for
# more than this.
_LONGEST_NONCE: Final = 512
_LONGEST_SALT: Final = 512
_SHORTEST_SALT: Final = 8
_FIRST: Final = re.compile(
    r"r=(?P<nonce>[!-+\--~]+),s=(?P<salt>[A-Za-z0-9+/]+={0,2}),i=(?P<count>[0-9]{1,9})", re.ASCII
)

# PostgreSQL takes the user from the startup packet and ignores the name in a SCRAM message; scramp
# follows RFC 5802 and does not let it be empty.
_NO_NAME: Final = "*"
_END_POINT: Final = "tls-server-end-point"


class ScramClientExchange:
    """One exchange.

    :param mechanism: SCRAM-SHA-256, or the same with ``-PLUS``.
    :param end_point: the hash of the server's certificate, if we can bind to it. Where it is given
        and *mechanism* is not the one that binds, the server is told so, and won't believe it if
        it had offered that one: somebody in the middle had taken it away.
    :param nonce: what makes it unique; random unless given, as a test does.
    :ivar verified: the server has proved that it knows the password.
    """

    def __init__(
        self, mechanism: str, password: str, end_point: bytes | None, nonce: str | None = None
    ) -> None:
        binding = None if end_point is None else (_END_POINT, end_point)
        self._client = ScramClient([mechanism], _NO_NAME, "", binding, c_nonce=nonce)
        self._client.password = scram_password(password)
        self.is_bound = mechanism != MECHANISM
        self.verified = False

    def first(self) -> bytes:
        """What to begin with."""
        return bytes(self._client.get_client_first(), "ascii")

    def proof(self, server_first: bytes) -> bytes:
        """The proof that we know the password, for the server's first message.

        :raises ProtocolViolation: if that is not as it should be, or asks for too much work.
        """
        _check_first(server_first)
        try:
            self._client.set_server_first(_ascii(server_first))
            return bytes(self._client.get_client_final(), "ascii")
        except ScramException as error:
            raise _unacceptable(error) from error

    def verify(self, server_final: bytes) -> None:
        """Take the server's proof.

        :raises ServerNotTrusted: if it is none.
        """
        try:
            self._client.set_server_final(_ascii(server_final))
        except ScramException as error:
            if "signature" in str(error):
                raise ServerNotTrusted("incorrect server signature") from None
            raise _unacceptable(error) from error
        self.verified = True


def iterations_asked(server_first: bytes) -> int:
    """How many iterations a server's first message asks for; 0 if it does not say."""
    match = _ITERATIONS.search(server_first)
    # Nine digits are more than enough to be too many, and cheap to read.
    return 0 if match is None else int(match[1][:9])


def _check_first(server_first: bytes) -> None:
    # A message without a count, and an error, are left to scramp, which refuses them.
    if _ITERATIONS.search(server_first) is None:
        return
    count = iterations_asked(server_first)
    if not _FEWEST_ITERATIONS <= count <= _MOST_ITERATIONS:
        raise ProtocolViolation(
            f"the server asks for {count} SCRAM iterations; {_FEWEST_ITERATIONS} to "
            f"{_MOST_ITERATIONS} are accepted (its scram_iterations when the password was set)"
        )
    match = _FIRST.fullmatch(_ascii(server_first))
    if match is None:
        raise ProtocolViolation("the server's SCRAM exchange is not acceptable: malformed message")
    salt = len(match["salt"]) * 3 // 4
    if len(match["nonce"]) > _LONGEST_NONCE or not _SHORTEST_SALT <= salt <= _LONGEST_SALT:
        raise ProtocolViolation(
            "the server's SCRAM exchange is not acceptable: a nonce of "
            f"{len(match['nonce'])} characters, a salt of about {salt} bytes"
        )


def _ascii(message: bytes) -> str:
    try:
        return message.decode("ascii")
    except UnicodeDecodeError as error:
        raise ProtocolViolation("SCRAM message is not ASCII") from error


def _unacceptable(error: ScramException) -> ProtocolViolation:
    return ProtocolViolation(f"the server's SCRAM exchange is not acceptable: {error}")
