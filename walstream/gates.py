"""The contract between a sender and whoever decides who comes in, and how far.

A **gate** is told who asks, and says what the client has to prove: nothing, or what an **exchange**
of messages shows; or it refuses. Who is in has a **permit**, which says what it may have. Part of
`walstream.interfaces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from walstream.wire.encryption import Subject

__all__ = ["Admission", "Applicant", "IExchange", "IGate", "IPermit", "Step"]


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks to come in, before anything of it is proved.

    :ivar user: the role that it says it is.
    :ivar address: where it comes from: an IP address; None for a UNIX socket.
    :ivar account: the user number, on this machine, of the process at the other end of a UNIX
        socket; None if the system does not tell.
    :ivar is_encrypted: whether the connection is, with TLS.
    :ivar subject: whose certificate it has shown, which an authority that we trust has signed;
        None if it has shown none.
    :ivar end_point: the hash of our own certificate (``tls-server-end-point``, RFC 5929); None
        without TLS, or if there is none for it.
    """

    user: str
    application_name: str = ""
    address: str | None = None
    account: int | None = None
    is_encrypted: bool = False
    subject: Subject | None = None
    end_point: bytes | None = None


class IPermit(Interface):
    """What a client may have that has come in."""

    identity: str | None = Attribute(
        "Who it has proved to be, and how, for the log: "
        '``identity="…" method=scram-sha-256 (FILE:LINE)``; None if nobody has asked.'
    )

    def enter() -> Deferred[None]:
        """It comes in: called once, when it has been told that it is who it says.

        :raises CommandError: (in the Deferred) if there is no place for another one.
        """

    def leave() -> None:
        """It is gone. May be called before `enter` has an answer, and more than once."""

    def check_stream(timeline: int, start: int) -> None:
        """It asks for WAL.

        :raises CommandError: if it may not have what begins at *start* on that timeline.
        """


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a message of an exchange.

    :ivar answer: what is sent, whole messages; it may be nothing.
    :ivar permit: what it has come to; None while the client has to go on.
    """

    answer: bytes
    permit: IPermit | None = None


class IExchange(Interface):
    """What one client has to prove, message by message."""

    longest: int = Attribute("The most bytes that the body of a message of the client may have.")
    expects: str = Attribute("What the client's messages are called: ``SASL response``, say.")

    def begin() -> bytes:
        """The message, whole, by which the client is asked."""

    def take(body: bytes) -> Deferred[Step]:
        """Take the body of a password message (``p``) of the client's.

        The next one is not read before this has fired. Cancelled when the client is gone.

        :raises CommandError: (in the Deferred) if it does not come in.
        """


Admission: TypeAlias = IPermit | IExchange
"""What a gate has to say about an applicant."""


class IGate(Interface):
    """Decides who comes in."""

    def admit(applicant: Applicant) -> Deferred[Admission]:
        """What this client has to prove. Cancelled when it is gone, or has had its time.

        :raises CommandError: (in the Deferred) if it cannot come in, whatever it proves; its
            ``log_detail`` is for the log alone.
        """
