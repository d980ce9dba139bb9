"""What serves clients: one process, or several; and what of it has files that may change."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from walstream.interfaces import ISlotStore, IWALProvider
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.services.access import Access, OpenDoor
from walstream.services.hub import Storage
from walstream.services.processes import SenderProcesses
from walstream.services.tls_files import TLSFiles

if TYPE_CHECKING:
    from walstream.tls.server import ServerTLS

__all__ = ["Senders", "make_senders"]


@dataclass(frozen=True, slots=True)
class Senders:
    """What serves clients.

    :ivar storage: what of it has to be opened before it is used, and closed after.
    :ivar reloads: read files again that have been changed.
    """

    factory: WALSenderFactory | SenderProcesses
    storage: list[Storage]
    reloads: list[Callable[[], object]] = field(default_factory=list)


def make_senders(
    reactor: Any,
    archive: str | os.PathLike[str],
    provider: IWALProvider,
    slots: ISlotStore,
    settings: SenderSettings,
    processes: int,
    tls: ServerTLS | None,
    access: Access | None,
) -> Senders:
    """What serves clients of that archive. The parameters are `walstream.services.assembly`'s."""
    storage: list[Storage] = [OpenDoor()] if access is None else []
    reloads: list[Callable[[], object]] = []
    files = None if tls is None else TLSFiles.of(tls, reactor)
    if files is not None:
        storage.append(files)
    if processes > 1:
        workers = SenderProcesses(
            reactor,
            archive,
            provider,
            slots,
            settings,
            processes,
            tls=None if tls is None else tls.files,
            access=access,
        )
        if files is not None:
            reloads.append(partial(_reload_tls, files, workers))
        if access is not None:
            reloads.append(partial(workers.reload, tls=False))
        return Senders(workers, [workers, *storage], reloads)
    gate = None if access is None else access.gate(reactor)
    factory = WALSenderFactory(provider, slots, settings, reactor, tls=tls, gate=gate)
    if files is not None:
        reloads.append(files.reload)
    if gate is not None:
        reloads.append(gate.reload)
        storage.append(gate)
    return Senders(factory, storage, reloads)


def _reload_tls(files: TLSFiles, workers: SenderProcesses) -> Deferred[None]:
    """Workers read the files by themselves; whether those are good is said once."""

    def has_read(is_good: bool) -> None:
        if is_good:
            workers.reload(tls=True)

    return files.reload().addCallback(has_read)
