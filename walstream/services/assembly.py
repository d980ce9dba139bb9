"""The three jobs, put together out of their parts: an archive, a receiver, a sender.

What ``twistd walstream receive``, ``send`` and ``hub`` run, and what an application may start from
that wants the same with parts of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from walstream.archive.reader import ArchiveReader
from walstream.protocols.downstream import NOBODY, Downstream, DownstreamSettings
from walstream.protocols.receiver import ReceiverSettings
from walstream.protocols.settings import SenderSettings
from walstream.services.access import Access
from walstream.services.archive_care import ArchiveCare
from walstream.services.control import IN_ARCHIVE, control_sockets
from walstream.services.control_document import Document, ReceivingSide, SendingSide
from walstream.services.control_values import feedback_value, policy_value, sync_state
from walstream.services.endpoint import UpstreamEndpoint
from walstream.services.hub import HubService, Storage
from walstream.services.listen import server_endpoints
from walstream.services.loop_watch import LoopWatch
from walstream.services.receive import ReceiverService
from walstream.services.send import SenderService
from walstream.services.senders import make_senders
from walstream.services.slot import SlotAction, SlotService
from walstream.services.slot_care import SlotCare
from walstream.services.synchronous_watch import StandbyInquiry
from walstream.upstream import Upstream

if TYPE_CHECKING:
    from walstream.tls.server import ServerTLS

__all__ = ["hub", "receive", "send", "slot"]

_Path = str | os.PathLike[str]

_PLAIN_CARE = ArchiveCare()
_PLAIN_DOWNSTREAM = DownstreamSettings()
_PLAIN_SLOT_CARE = SlotCare()


def receive(
    reactor: Any,
    archive: _Path,
    upstream: Upstream,
    settings: ReceiverSettings,
    *,
    retry: bool = True,
    verbose: bool = False,
    care: ArchiveCare = _PLAIN_CARE,
    control: str = IN_ARCHIVE,
) -> HubService:
    """Receive from *upstream* into the directory *archive*.

    :param care: how the archive is filled and looked after.
    :param control: where the control socket is: see `control_sockets`.
    """
    directory = care.directory(reactor, archive)
    receiver = ReceiverService(
        UpstreamEndpoint(reactor, upstream),
        directory,
        settings,
        reactor,
        inquiry=StandbyInquiry(reactor, upstream),
        prepare=directory.regain,
        retry=retry,
        verbose=verbose,
    )
    document = Document("receive", directory.paths.root, directory, reactor, time.time, directory)
    document.receiving = _receiving_side(receiver, settings)
    storage: list[Storage] = [
        directory.storage,
        *control_sockets(reactor, control, directory, document),
        *care.caretakers(reactor, directory),
    ]
    return HubService(storage, receiver=receiver)


def slot(
    reactor: Any, upstream: Upstream, name: str, *, drop: bool = False, may_exist: bool = False
) -> SlotService:
    """Make, or *drop*, the replication slot *name* of *upstream*.

    :param may_exist: whether it is no error that a slot to be made exists.
    """
    action = SlotAction.DROP if drop else SlotAction.CREATE
    endpoint = UpstreamEndpoint(reactor, upstream)
    return SlotService(endpoint, name, action, reactor, may_exist=may_exist)


def send(
    reactor: Any,
    archive: _Path,
    listen: str | Sequence[str],
    settings: SenderSettings,
    *,
    slot_care: SlotCare = _PLAIN_SLOT_CARE,
    control: str = IN_ARCHIVE,
    processes: int = 1,
    tls: ServerTLS | None = None,
    access: Access | None = None,
) -> HubService:
    """Serve the directory *archive*, which another process may be filling.

    :param listen: a Twisted server endpoint string, or several; all are served alike.
    :param slot_care: how its slots are kept.
    :param control: where the control socket is: see `control_sockets`.
    :param processes: how many processes send; with more than one, this one does not.
    :param tls: with what clients' connections are encrypted, if they want; None: they can't be.
    :param access: who comes in; None: everybody who can reach it.
    """
    reader = ArchiveReader(archive, reactor)
    slots, keeper = slot_care.keep(reactor, archive)
    senders = make_senders(reactor, archive, reader, slots, settings, processes, tls, access)
    factory = senders.factory
    sender = SenderService(server_endpoints(reactor, listen), factory)
    document = Document("send", reader.paths.root, reader, reactor, time.time)
    document.sending = SendingSide(factory.standbys, settings, slots, factory.look)
    sockets = control_sockets(reactor, control, reader, document)
    storage: list[Storage] = [reader.storage, slots, keeper, *senders.storage, *sockets]
    return HubService(storage, sender=sender, reloads=senders.reloads)


def hub(
    reactor: Any,
    archive: _Path,
    upstream: Upstream,
    settings: ReceiverSettings,
    listen: str | Sequence[str],
    sender_settings: SenderSettings,
    *,
    verbose: bool = False,
    care: ArchiveCare = _PLAIN_CARE,
    downstream: DownstreamSettings = _PLAIN_DOWNSTREAM,
    slot_care: SlotCare = _PLAIN_SLOT_CARE,
    control: str = IN_ARCHIVE,
    processes: int = 1,
    tls: ServerTLS | None = None,
    access: Access | None = None,
) -> HubService:
    """Receive from *upstream* into the directory *archive*, and serve it.

    :param settings: with ``synchronous=True``: what is served is what is durable.
    :param listen: a Twisted server endpoint string, or several; all are served alike.
    :param care: how the archive is filled and looked after.
    :param downstream: what is reported and passed on upstream for those who are served.
    :param slot_care: how its slots are kept.
    :param control: where the control socket is: see `control_sockets`.
    :param processes: how many processes send; with more than one, this one receives only, and
        what is served is durable whatever *care* says.
    :param tls: with what clients' connections are encrypted, if they want; None: they can't be.
    :param access: who comes in; None: everybody who can reach it.
    """
    directory = care.directory(reactor, archive)
    slots, keeper = slot_care.keep(reactor, archive, directory.assure)
    senders = make_senders(
        reactor, archive, directory, slots, sender_settings, processes, tls, access
    )
    factory = senders.factory
    standbys = factory.standbys
    made = downstream.made_for(standbys, reactor, sender_settings.sender_timeout)
    receiver = ReceiverService(
        UpstreamEndpoint(reactor, upstream),
        directory,
        settings,
        reactor,
        inquiry=StandbyInquiry(reactor, upstream),
        prepare=directory.regain,
        verbose=verbose,
        loop_watch=LoopWatch(standbys),
        downstream=made,
    )
    sender = SenderService(server_endpoints(reactor, listen), factory)
    document = Document("hub", directory.paths.root, directory, reactor, time.time, directory)
    document.receiving = _receiving_side(receiver, settings, made)
    document.sending = SendingSide(
        standbys, sender_settings, slots, factory.look, partial(sync_state, made)
    )
    storage: list[Storage] = [
        directory.storage,
        slots,
        keeper,
        *senders.storage,
        *control_sockets(reactor, control, directory, document),
        *care.caretakers(reactor, directory),
    ]
    return HubService(storage, receiver=receiver, sender=sender, reloads=senders.reloads)


def _receiving_side(
    receiver: ReceiverService, settings: ReceiverSettings, downstream: Downstream = NOBODY
) -> ReceivingSide:
    return ReceivingSide(
        receiver.record,
        lambda: receiver.progress,
        settings.slot,
        partial(policy_value, downstream),
        partial(feedback_value, downstream),
    )
