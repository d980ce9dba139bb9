"""How a walsender meets a client: its first packets, and what it is told when it has come in.

What the client has to prove in between is not known here: see `walstream.protocols.entering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from walstream.errors import CommandError
from walstream.formats.log_text import word
from walstream.interfaces import IWALProvider, SystemIdentity
from walstream.protocols.cancel_keys import told
from walstream.protocols.error_words import error_response
from walstream.protocols.names import clean_ascii
from walstream.protocols.settings import major_version, parameter_status
from walstream.wire import messages
from walstream.wire.frames import StartupPacket, StartupReader
from walstream.wire.startup import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST_CODE,
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    SSL_REQUEST_CODE,
    ReplicationMode,
    check_protocol_version,
    legacy_error,
    negotiate_protocol_version,
    parse_startup,
    replication_mode,
    unknown_extensions,
)

__all__ = ["Client", "Welcome", "described"]


@dataclass(frozen=True, slots=True)
class Client:
    """Who a client says it is.

    :ivar parameters: its startup packet's, all of them.
    """

    parameters: Mapping[str, str] = field(repr=False)

    @property
    def user(self) -> str:
        """The role it logs in as."""
        return self.parameters["user"]

    @property
    def application_name(self) -> str:
        """How it wants to be called, as PostgreSQL has it: ASCII; empty if it did not say."""
        return clean_ascii(self.parameters.get("application_name", ""))

    def __str__(self) -> str:
        return described(self.user, self.application_name)


class Welcome:
    """Reads a connection's first packets and answers them.

    :ivar client: who it says it is; None until then.
    :ivar finished: the connection has done what it came for, a CancelRequest, and is to be closed.
    :ivar may_encrypt: whether a client that asks for TLS gets it.
    :ivar awaits_encryption: TLS is to follow, and nothing is read before `encrypted`.
    """

    def __init__(
        self,
        provider: IWALProvider,
        pid: int,
        key: bytes,
        cancel: Callable[[int, bytes], None],
    ) -> None:
        self.client: Client | None = None
        self.finished = False
        self.may_encrypt = False
        self.awaits_encryption = False
        self._provider = provider
        self._pid = pid
        self._key = key
        self._cancel = cancel
        self._reader = StartupReader()
        self._asked_for_encryption: set[int] = set()
        self._refusal: CommandError | None = None
        self._version = PROTOCOL_3_0
        self._legacy = False

    @property
    def is_over(self) -> bool:
        """Whether the client has said what it has to say without a type byte."""
        return self.client is not None or self.finished

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        self._reader.feed(data)

    def take_rest(self) -> bytes:
        """What the client sent behind its startup packet."""
        return self._reader.take_rest()

    def next(self) -> bytes | None:
        """The answer to the next packet; None if more must come first, or nothing is to follow.

        :raises ProtocolViolation: for what cannot be a startup packet: it gets no answer.
        :raises CommandError: for what is refused whoever asks: its ErrorResponse is FATAL.
        """
        if self.is_over or self.awaits_encryption:
            return None
        if self._refusal is not None:
            raise self._refusal
        packet = self._reader.next()
        if packet is None:
            return None
        if packet.code in (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE):
            return self._answer_encryption_request(packet.code)
        if packet.code == CANCEL_REQUEST_CODE:
            return self._take_cancel_request(packet.body)
        return self._take_startup(packet)

    def refusal(self, error: CommandError) -> bytes:
        """What a client is told that is turned away, in the form that its protocol has for it."""
        return legacy_error(error.message) if self._legacy else error_response("FATAL", error)

    def encrypted(self) -> None:
        """The connection is encrypted: what comes now comes from the client."""
        self.may_encrypt = self.awaits_encryption = False

    def _answer_encryption_request(self, code: int) -> bytes:
        # Each may be asked for once; asked again, PostgreSQL takes it for a protocol version.
        if code in self._asked_for_encryption:
            check_protocol_version(code, self._newest())
        self._asked_for_encryption.add(code)
        # What follows in the clear may come from anybody in between (CVE-2021-23214).
        if self._reader.take_rest():
            self._refusal = _unencrypted_data(code)
        if code != SSL_REQUEST_CODE or not self.may_encrypt:
            return b"N"
        if self._refusal is not None:
            raise self._refusal
        self.awaits_encryption = True
        self._asked_for_encryption.add(GSSENC_REQUEST_CODE)
        return b"S"

    def _take_cancel_request(self, body: bytes) -> bytes:
        self.finished = True
        self._cancel(int.from_bytes(body[:4], "big"), body[4:])
        return b""

    def _take_startup(self, packet: StartupPacket) -> bytes:
        # Of whoever says 0.0 PostgreSQL believes that it is new.
        self._legacy = 0 < packet.code < PROTOCOL_3_0
        version = self._version = check_protocol_version(packet.code, self._newest())
        parameters = parse_startup(packet.body)
        _check_mode(parameters)
        self._identity()
        self.client = Client(parameters)
        extensions = unknown_extensions(parameters)
        if version != packet.code or extensions:
            return negotiate_protocol_version(version, extensions)
        return b""

    @property
    def server_version(self) -> str:
        """As what we speak.

        :raises CommandError: if there is no WAL yet to tell.
        """
        return self._identity().server_version

    def greeting(self) -> bytes:
        """What a client is told when it has come in, behind AuthenticationOk."""
        assert self.client is not None, "it has said who it is"
        answer = b""
        for name, value in parameter_status(self._identity(), self.client.parameters).items():
            answer += messages.parameter_status(name, value)
        key = messages.backend_key_data(self._pid, self.key)
        return answer + key + messages.ready_for_query()

    @property
    def key(self) -> bytes:
        """By which the client may cancel what it does, as it is told it."""
        return told(self._key, self._version)

    def _newest(self) -> int:
        """The newest version of the protocol that a server like the one announced speaks."""
        identity = self._provider.identity
        if identity is not None and major_version(identity.server_version) < 18:
            return PROTOCOL_3_0
        return PROTOCOL_3_2

    def _identity(self) -> SystemIdentity:
        identity = self._provider.identity
        if identity is None:
            raise CommandError("57P03", "the database system is starting up")
        return identity


def described(user: str, application_name: str) -> str:
    """A client as the log names it."""
    name = word(application_name) if application_name else "[unknown]"
    return f"user={word(user)} application_name={name}"


def _unencrypted_data(code: int) -> CommandError:
    kind = "SSL" if code == SSL_REQUEST_CODE else "GSSAPI encryption"
    return CommandError(
        "08P01",
        f"received unencrypted data after {kind} request",
        detail="This could be either a client-software bug or evidence of an attempted "
        "man-in-the-middle attack.",
    )


def _check_mode(parameters: Mapping[str, str]) -> None:
    """Only physical replication is served here."""
    mode = replication_mode(parameters.get("replication", "off"))
    if mode is ReplicationMode.PHYSICAL:
        return
    what = "SQL" if mode is ReplicationMode.NONE else "logical replication"
    raise CommandError(
        "0A000",
        f"{what} is not available from a WAL archive",
        hint="Connect with replication=true, or to a PostgreSQL server.",
    )
