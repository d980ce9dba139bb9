"""A server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.

Source: PostgreSQL's documentation, "SASL Authentication", its ``auth-scram.c`` for the words of
what is refused, RFC 5802 and 7677. The computations are the scramp library's; what is seen to here
is that the messages are short and of the form that PostgreSQL accepts, that channel binding can't
be argued away, and that a user who does not exist takes the same way to the same refusal.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from secrets import token_bytes
from typing import Final

from scramp import ScramException, ScramMechanism

from walstream.errors import CommandError
from walstream.wire.scram_verifier import DEFAULT_ITERATIONS, MECHANISM, ScramVerifier

__all__ = ["LONGEST_SCRAM_MESSAGE", "MECHANISM_PLUS", "WRONG_PASSWORD", "ScramServerExchange"]

MECHANISM_PLUS: Final = f"{MECHANISM}-PLUS"

LONGEST_SCRAM_MESSAGE: Final = 1024
"""Bytes of a SASL message that are accepted (``PG_MAX_SASL_MESSAGE_LENGTH``)."""

WRONG_PASSWORD: Final = "28P01"
"""The SQLSTATE of ``invalid_password``."""

_END_POINT: Final = "tls-server-end-point"
# gs2-header: the flag, no authorization identity; then the name, which is not looked at, since the
# user is the startup packet's; then the nonce, and what extensions there are.
_PRINTABLE: Final = r"[!-+\--~]*"
_ATTRIBUTES: Final = "(?:,[A-Za-z]=[^,]*)*"
_FIRST: Final = re.compile(
    rf"(n|y|p=([^,]*)),(a=[^,]*)?,(n=[^,]*,r=({_PRINTABLE}){_ATTRIBUTES})", re.ASCII | re.DOTALL
)
# What the client binds to, the nonce, extensions; then the proof, and nothing else.
_FINAL: Final = re.compile(
    r"c=([^,]*),r=([^,]*)(?:,[A-Za-oq-z]=[^,]*)*,p=([^,]*)(.*)", re.ASCII | re.DOTALL
)
_HEADER: Final = r"(?:n|y|p=[^,]*),(?:a=[^,]*)?,"
_EXTENSION: Final = re.compile(f"{_HEADER}m=", re.ASCII)
_NONCE: Final = re.compile(f"{_HEADER}n=[^,]*,r=([^,]*)(?:,.*)?", re.ASCII | re.DOTALL)
# scramp follows RFC 5802 and does not let a name be empty, as libpq's is.
_SOME_NAME: Final = "n=*,r="
_NONCE_SIZE: Final = 18  # SCRAM_RAW_NONCE_LEN
_PROOF_SIZE: Final = 32


class ScramServerExchange:
    """One exchange with a client that says it is *user*.

    :param verifier: the user's; None if there is no such user, or it has none.
    :param mock_secret: see `ScramVerifier.mock`.
    :param mock_iterations: as many as others have.
    :param end_point: the hash of our certificate (``tls-server-end-point``, RFC 5929), if the
        connection is encrypted and the certificate has one.
    :param nonce: what makes it unique; random unless given, as a test does.
    """

    def __init__(
        self,
        user: str,
        verifier: ScramVerifier | None,
        mock_secret: bytes,
        end_point: bytes | None = None,
        *,
        mock_iterations: int = DEFAULT_ITERATIONS,
        nonce: str | None = None,
    ) -> None:
        self._user = user
        # Made for whoever is there as well: it would take time only for those who are not.
        mock = ScramVerifier.mock(user, mock_secret, mock_iterations)
        self._is_doomed = verifier is None
        self._verifier = mock if verifier is None else verifier
        self._binding = None if end_point is None else (_END_POINT, end_point)
        self._is_bound = False
        self._bound_to = ""  # what the client has to say of that, in the end
        self._own_nonce = nonce or b64encode(token_bytes(_NONCE_SIZE)).decode("ascii")
        self._nonce = ""
        self._server = ScramMechanism(MECHANISM).make_server(self._authenticate)

    @property
    def mechanisms(self) -> Sequence[str]:
        """What is offered, the strongest first."""
        return [MECHANISM] if self._binding is None else [MECHANISM_PLUS, MECHANISM]

    def begin(self, mechanism: str, client_first: bytes) -> bytes:
        """The client has chosen a mechanism, and begun; the answer.

        :raises CommandError: if it is refused.
        """
        if mechanism not in self.mechanisms:
            raise _protocol("client selected an invalid SASL authentication mechanism")
        message = _text(client_first)
        match = _FIRST.fullmatch(message)
        if match is None:
            raise _not_first(message)
        flag, binding, identity, bare, nonce = match.groups()
        self._check_binding(flag[0], binding, mechanism)
        if identity:
            raise CommandError(
                "0A000", "client uses authorization identity, but it is not supported"
            )
        return self._first_step(mechanism, flag, bare, nonce)

    def finish(self, client_final: bytes) -> bytes:
        """The client proves that it knows the password; the answer proves that we know it, too.

        :raises CommandError: if it does not (28P01), or does not bind to this connection (28000).
        """
        message = _text(client_final)
        self._check_final(message)
        try:
            self._server.set_client_final(message)
            answer: str = self._server.get_server_final()
        except ScramException as error:
            raise self._refusal(error) from error
        if self._is_doomed:
            raise self._wrong_password()
        return answer.encode("ascii")

    def _check_final(self, message: str) -> None:
        """``read_client_final_message``, in its order; of the proof, only whether it is one."""
        match = _FINAL.fullmatch(message)
        if match is None:
            raise _malformed(
                "The final message of the client has not the form that it should have."
            )
        bound_to, nonce, proof, rest = match.groups()
        if bound_to != self._bound_to:
            if self._is_bound:
                raise CommandError("28000", "SCRAM channel binding check failed")
            raise _protocol("unexpected SCRAM channel-binding attribute in client-final-message")
        if not _is_proof(proof):
            raise _malformed("Malformed proof in client-final-message.")
        if rest:
            raise _malformed("Garbage found at the end of client-final-message.")
        if nonce != self._nonce:
            raise CommandError("08P01", "invalid SCRAM response", detail="Nonce does not match.")

    def _authenticate(self, _: str) -> tuple[bytes, bytes, bytes, int]:
        verifier = self._verifier
        return verifier.salt, verifier.stored_key, verifier.server_key, DEFAULT_ITERATIONS

    def _check_binding(self, flag: str, binding: str | None, mechanism: str) -> None:
        """``read_client_first_message``: channel binding is used where both can, and only there."""
        if flag != "p" and mechanism == MECHANISM_PLUS:
            raise _malformed(
                f"The client selected {MECHANISM_PLUS}, but the SCRAM message does not include "
                "channel binding data."
            )
        if flag == "y" and self._binding is not None:
            raise CommandError(
                "28000",
                "SCRAM channel binding negotiation error",
                detail="The client supports SCRAM channel binding but thinks the server does not.  "
                "However, this server does support channel binding.",
            )
        if flag == "p" and mechanism == MECHANISM:
            raise _malformed(
                f"The client selected {MECHANISM} without channel binding, but the SCRAM message "
                "includes channel binding data."
            )
        if flag == "p" and binding != _END_POINT:
            raise _protocol(f'unsupported SCRAM channel-binding type "{ascii(binding)[1:-1]}"')

    def _first_step(self, mechanism: str, flag: str, bare: str, nonce: str) -> bytes:
        self._is_bound = self._binding is not None and flag.startswith("p")
        bound_to = f"{flag},,".encode()
        if self._is_bound and self._binding is not None:
            bound_to += self._binding[1]
        self._bound_to = b64encode(bound_to).decode("ascii")
        self._nonce = nonce + self._own_nonce
        # Nor may a nonce be empty, as PostgreSQL lets a client's be, which gives up nothing but the
        # client's own knowledge that this is no old exchange: of ours, which is long, one character
        # is as good as the client's.
        length = len(nonce) or 1
        server = ScramMechanism(mechanism).make_server(
            self._authenticate, channel_binding=self._binding, s_nonce=self._nonce[length:]
        )
        try:
            server.set_client_first(f"{flag},,{_SOME_NAME}{self._nonce[:length]}")
            # What is signed in the end is what was really said.
            server.client_first_bare = bare
            # A server's verifier may have any number of them, also fewer than scramp allows.
            server.i = self._verifier.iterations
            answer: str = server.get_server_first()
        except ScramException as error:
            raise self._refusal(error) from error
        self._server = server
        return answer.encode("ascii")

    def _refusal(self, error: ScramException) -> CommandError:
        if error.server_error is not None and error.server_error.value == "invalid-proof":
            return self._wrong_password()
        return _malformed("The message is not accepted.")

    def _wrong_password(self) -> CommandError:
        return CommandError(
            WRONG_PASSWORD, f'password authentication failed for user "{self._user}"'
        )


def _text(message: bytes) -> str:
    if not message:
        raise _malformed("The message is empty.")
    if len(message) > LONGEST_SCRAM_MESSAGE:
        raise _malformed("The message is too long.")
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("The message is not UTF-8.") from None
    if "\0" in text:
        raise _malformed("Message length does not match input length.")
    return text


def _not_first(message: str) -> CommandError:
    """What is wrong with a message that should be the first."""
    if _EXTENSION.match(message):
        return CommandError("0A000", "client requires an unsupported SCRAM extension")
    nonce = _NONCE.fullmatch(message)
    if nonce is not None and not re.fullmatch(_PRINTABLE, nonce[1], re.ASCII):
        return _protocol("non-printable characters in SCRAM nonce")
    return _malformed("The first message of the client has not the form that it should have.")


def _is_proof(text: str) -> bool:
    try:
        return len(b64decode(text, validate=True)) == _PROOF_SIZE
    except ValueError:
        return False


def _malformed(detail: str) -> CommandError:
    return CommandError("08P01", "malformed SCRAM message", detail=detail)


def _protocol(message: str) -> CommandError:
    return CommandError("08P01", message)
