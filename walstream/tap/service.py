"""From options to the service that they ask for."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.service import IService
from twisted.python import usage

from walstream.tap.options import DemoOptions, HubOptions, Options, ReceiveOptions, SendOptions

__all__ = ["makeService"]


def makeService(options: Options) -> IService:
    """The service that *options* ask for: it ends the process when it is over."""
    from twisted.internet import reactor

    from walstream.services.process import ExitStatus, ProcessService
    from walstream.services.steady_time import use_steady_time

    use_steady_time(reactor)
    # Made before what has to be cleaned up at the end: see there.
    status = ExitStatus()
    service = _command_service(options.subOptions, reactor)
    return cast(IService, ProcessService(service, reactor, status.fail))


def _command_service(options: usage.Options, reactor: Any) -> Any:
    if isinstance(options, DemoOptions):
        from walstream.demo import make_demo_service

        return make_demo_service(options, reactor)
    from walstream.services import assembly
    from walstream.services.descriptors import with_room_for_clients

    match options:
        case ReceiveOptions() if not options.uses_archive():
            return assembly.slot(
                reactor,
                options.upstream,
                options["slot"],
                drop=bool(options["drop-slot"]),
                may_exist=bool(options["if-not-exists"]),
            )
        case ReceiveOptions():
            return assembly.receive(
                reactor,
                options.archive,
                options.upstream,
                options.settings,
                retry=not options["no-loop"],
                verbose=bool(options["verbose"]),
                care=options.care,
                control=options.control,
            )
        case SendOptions():
            return assembly.send(
                reactor,
                options.archive,
                options.listen,
                with_room_for_clients(options.sender_settings),
                slot_care=options.slot_care,
                control=options.control,
                processes=options.processes,
                tls=options.tls,
                access=options.access,
            )
        case HubOptions():
            return assembly.hub(
                reactor,
                options.archive,
                options.upstream,
                options.settings,
                options.listen,
                with_room_for_clients(options.sender_settings),
                verbose=bool(options["verbose"]),
                care=options.care,
                downstream=options.downstream,
                slot_care=options.slot_care,
                control=options.control,
                processes=options.processes,
                tls=options.tls,
                access=options.access,
            )
    raise AssertionError(f"no service for {options!r}")
