"""What `twistd` loads for `txmsg-consumer`: the options and the service."""

from __future__ import annotations

from txmsg.service.consumer import ConsumerService
from txmsg.service.options import ConsumerOptions as Options
from txmsg.service.serving import ServerService
from txmsg.service.together import ServiceGroup

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> ConsumerService | ServerService | ServiceGroup:
    """The service for parsed `options`, wired to the process: its end is the process's end and exit code."""
    # The reactor that twistd's --reactor chose is installed by now; importing it earlier would choose for it.
    from twisted.internet import reactor

    settings = options.settings
    services: list[ConsumerService | ServerService] = []
    if options.plans:
        services.append(ConsumerService(settings, plans=options.plans, reactor=reactor))
    services += [ServerService(plan, settings, reactor=reactor) for plan in options.servers]
    service = services[0] if len(services) == 1 else ServiceGroup(services)
    options.process_exit.watch(service, reactor)
    return service
