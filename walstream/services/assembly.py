"""The three jobs, put together out of their parts: an archive, a receiver, a sender.

What ``twistd walstream receive``, ``send`` and ``hub`` run, and what an application may start from
that wants the same with parts of its own.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.endpoints import serverFromString

from walstream.archive.reader import ArchiveReader
from walstream.interfaces import ISlotStore, IWALProvider
from walstream.protocols.downstream import DownstreamSettings
from walstream.protocols.receiver import ReceiverSettings
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.services.archive_care import ArchiveCare
from walstream.services.endpoint import UpstreamEndpoint
from walstream.services.hub import HubService, Storage
from walstream.services.loop_watch import LoopWatch
from walstream.services.receive import ReceiverService
from walstream.services.send import SenderService
from walstream.services.slot import SlotAction, SlotService
from walstream.services.slot_care import SlotCare
from walstream.services.synchronous_watch import StandbyInquiry
from walstream.upstream import Upstream

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
) -> HubService:
    """Receive from *upstream* into the directory *archive*.

    :param care: how the archive is filled and looked after.
    """
    directory = care.directory(reactor, archive)
    receiver = ReceiverService(
        UpstreamEndpoint(reactor, upstream),
        directory,
        settings,
        reactor,
        inquiry=StandbyInquiry(reactor, upstream),
        retry=retry,
        verbose=verbose,
    )
    storage: list[Storage] = [directory.storage, *care.caretakers(reactor, directory)]
    return HubService(storage, receiver=receiver)


def slot(
    reactor: Any, upstream: Upstream, name: str, *, drop: bool = False, may_exist: bool = False
) -> SlotService:
    """Make, or *drop*, the replication slot *name* of *upstream*.

    :param may_exist: whether it is no error that a slot to be made exists.
    """
    action = SlotAction.DROP if drop else SlotAction.CREATE
    return SlotService(UpstreamEndpoint(reactor, upstream), name, action, may_exist=may_exist)


def send(
    reactor: Any,
    archive: _Path,
    listen: str,
    settings: SenderSettings,
    *,
    slot_care: SlotCare = _PLAIN_SLOT_CARE,
) -> HubService:
    """Serve the directory *archive*, which another process may be filling.

    :param listen: a Twisted server endpoint string.
    :param slot_care: how its slots are kept.
    """
    reader = ArchiveReader(archive, reactor)
    slots, keeper = slot_care.keep(reactor, archive)
    sender = _sender(reactor, reader, slots, listen, settings)
    return HubService([reader.storage, slots, keeper], sender=sender)


def hub(
    reactor: Any,
    archive: _Path,
    upstream: Upstream,
    settings: ReceiverSettings,
    listen: str,
    sender_settings: SenderSettings,
    *,
    verbose: bool = False,
    care: ArchiveCare = _PLAIN_CARE,
    downstream: DownstreamSettings = _PLAIN_DOWNSTREAM,
    slot_care: SlotCare = _PLAIN_SLOT_CARE,
) -> HubService:
    """Receive from *upstream* into the directory *archive*, and serve it.

    :param settings: with ``synchronous=True``: what is served is what is durable.
    :param listen: a Twisted server endpoint string.
    :param care: how the archive is filled and looked after.
    :param downstream: what is reported and passed on upstream for those who are served.
    :param slot_care: how its slots are kept.
    """
    directory = care.directory(reactor, archive)
    slots, keeper = slot_care.keep(reactor, archive, directory.assure)
    factory = WALSenderFactory(directory, slots, sender_settings, reactor)
    receiver = ReceiverService(
        UpstreamEndpoint(reactor, upstream),
        directory,
        settings,
        reactor,
        inquiry=StandbyInquiry(reactor, upstream),
        verbose=verbose,
        loop_watch=LoopWatch(factory.standbys),
        downstream=downstream.made_for(factory.standbys, reactor, sender_settings.sender_timeout),
    )
    sender = SenderService(serverFromString(reactor, listen), factory)
    caretakers = care.caretakers(reactor, directory)
    storage: list[Storage] = [directory.storage, slots, keeper, *caretakers]
    return HubService(storage, receiver=receiver, sender=sender)


def _sender(
    reactor: Any,
    provider: IWALProvider,
    slots: ISlotStore,
    listen: str,
    settings: SenderSettings,
) -> SenderService:
    factory = WALSenderFactory(provider, slots, settings, reactor)
    return SenderService(serverFromString(reactor, listen), factory)
