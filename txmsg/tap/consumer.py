"""What `twistd` loads for `txmsg-consumer`: the options and the service."""

from __future__ import annotations

from txmsg.service.consumer import ConsumerService
from txmsg.service.options import ConsumerOptions as Options

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> ConsumerService:
    """The service for parsed `options`, wired to the process: its end is the process's end and exit code."""
    # The reactor that twistd's --reactor chose is installed by now; importing it earlier would choose for it.
    from twisted.internet import reactor

    service = ConsumerService(options.settings, plans=options.plans, reactor=reactor)
    options.process_exit.watch(service, reactor)
    return service
