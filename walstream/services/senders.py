"""What serves clients: one process, or several; and what of it has files that may change."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from walstream.interfaces import ISlotStore, IWALProvider
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.services.access import Access, OpenDoor
from walstream.services.hub import Storage
from walstream.services.processes import SenderProcesses

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
    door: list[Storage] = [OpenDoor()] if access is None else []
    if processes > 1:
        files = None if tls is None else tls.files
        workers = SenderProcesses(
            reactor, archive, provider, slots, settings, processes, tls=files, access=access
        )
        has_files = tls is not None or access is not None

        def reload() -> None:
            # Workers read the files by themselves; whether those of TLS are good is said once.
            workers.reload(tls=tls is not None and tls.reload())

        return Senders(workers, [workers, *door], [reload] if has_files else [])
    gate = None if access is None else access.gate(reactor)
    factory = WALSenderFactory(provider, slots, settings, reactor, tls=tls, gate=gate)
    reloads: list[Callable[[], object]] = []
    if tls is not None:
        reloads.append(tls.reload)
    if gate is not None:
        reloads.append(gate.reload)
        door = [gate]
    return Senders(factory, door, reloads)
