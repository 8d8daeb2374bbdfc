"""The broker that the crash tests kill: `python -m tests.broker.crash_broker DIRECTORY` prints its port and serves.

It stops in good order when its standard input ends, so it never outlives a test that was stopped itself.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet import stdio, task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from txmsg.broker.server import Broker
from txmsg.broker.store import SQLiteStore

__all__: list[str] = []

reactor: Any = installed_reactor


class _Watch(Protocol):
    """Standard input."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The test has ended, or wants a clean stop."""
        self.ended.callback(None)


async def serve(directory: str) -> None:
    """Start it, and stop it in the end."""
    broker = Broker(store=SQLiteStore(directory, reactor=reactor))
    report = await broker.start()
    for damage in report.damage:
        print(f"damage: {damage.what}", flush=True)  # noqa: T201 -- the test reads it
    listener = await broker.listen(port=0)
    print(listener.port, flush=True)  # noqa: T201
    watch = _Watch()
    stdio.StandardIO(watch)
    await watch.ended
    await broker.stop()


if __name__ == "__main__":
    task.react(lambda _: Deferred.fromCoroutine(serve(sys.argv[1])))
