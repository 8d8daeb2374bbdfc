"""A recovering connection and a whole broker on one test clock, without sockets.

The broker is the embedded one; :meth:`Site.cut` ends the connections as a failing network does, and the topology of the
broker is looked at from the inside.  Every test ends with the connection closed, and nothing may be left on the clock.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp.recovery import Backoff, ReconnectingConnection, RecoveryEvent
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.testing import EmbeddedBroker

__all__ = ["Site", "SiteTestCase", "ends"]


def ends(deferred: Deferred[Any]) -> list[Any]:
    """A list that gets what it ends with."""
    seen: list[Any] = []
    deferred.addCallbacks(seen.append, lambda failure: seen.append(failure.value))
    return seen


class Site:
    """One broker, one connection.

    events: what the connection has reported.
    """

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.broker = EmbeddedBroker(reactor=self.clock)
        self.result(self.broker.start())
        self.connection = ReconnectingConnection(
            self.broker.parameters(heartbeat=0),
            reactor=self.clock,
            backoff=options.pop("backoff", Backoff(initial=0.1, jitter=False, reset_after=30.0)),
            endpoint=lambda parameters: self.broker.endpoint,
            **options,
        )
        self.events: list[RecoveryEvent] = []
        self.connection.add_event_callback(self.events.append)

    def start(self) -> None:
        """Connect."""
        self.result(self.connection.start())

    def settle(self, seconds: float = 0.0, step: float = 0.05) -> None:
        """Let everything happen that happens within this time."""
        for _ in range(30):
            self.clock.advance(0)
        left = seconds
        while left > 0:
            self.clock.advance(min(step, left))
            left -= step
            for _ in range(10):
                self.clock.advance(0)

    def outcome(self, deferred: Deferred[Any], seconds: float = 60.0) -> Any:
        """What it ends with within `seconds`: a value or an exception."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        left = seconds
        while not found and left > 0:
            for _ in range(5):
                self.clock.advance(0)
            if not found:
                self.clock.advance(0.05)
                left -= 0.05
        if not found:
            raise AssertionError("it has not ended")
        return found[0].value if isinstance(found[0], Failure) else found[0]

    def result(self, deferred: Deferred[Any], seconds: float = 60.0) -> Any:
        """The value it fires with within `seconds`."""
        value = self.outcome(deferred, seconds)
        if isinstance(value, BaseException):
            raise value
        return value

    def run(self, coroutine: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
        """What a coroutine returns."""
        return self.result(Deferred.fromCoroutine(coroutine), seconds)

    def channel(self, **options: Any) -> RecoveringChannel:
        """An open recovering channel."""
        channel = self.result(self.connection.channel(**options))
        assert isinstance(channel, RecoveringChannel)
        return channel

    def cut(self) -> None:
        """End all connections without a word; the clock is moved until that is known."""
        self.broker.faults.cut()
        self.settle()

    def reconnect(self) -> None:
        """Cut, and wait until the next connection is ready."""
        epoch = self.connection.epoch
        self.cut()
        self.ready(epoch + 1)

    def ready(self, epoch: int | None = None, seconds: float = 60.0) -> None:
        """Wait until the connection is ready, for the `epoch`-th time at least."""
        left = seconds
        while left > 0:
            if self.connection.protocol is not None and (epoch is None or self.connection.epoch >= epoch):
                self.settle()
                if self.connection.protocol is not None:
                    return
            self.settle(0.05)
            left -= 0.05
        raise AssertionError(f"not ready: {self.connection!r}, {self.connection.last_error!r}")

    def kinds(self) -> list[str]:
        """The kinds of the events so far."""
        return [event.kind for event in self.events]

    def entities(self) -> set[str]:
        """What the broker has, as the topology would write it."""
        found = {f"exchange {name!r}" for name in self.broker.exchanges()}
        found |= {f"queue {name!r}" for name in self.broker.queues()}
        found |= {
            f"binding of {binding.destination_type} {binding.destination!r} to exchange {binding.source!r} "
            f"with {binding.routing_key!r}"
            for binding in self.broker.bindings()
        }
        return found

    def subscribed(self) -> list[str]:
        """The queue of each consumer that the broker knows, sorted."""
        return sorted(name for name, view in self.broker.queues().items() for _ in view.consumers)

    def wipe(self) -> None:
        """Cut, and let the broker forget everything, as one does that was restarted and has kept nothing."""
        self.broker.faults.cut()
        self.broker.broker.delete_vhost("/")
        self.broker.add_vhost("/")
        self.settle()

    def close(self) -> None:
        """End it."""
        self.broker.faults.clear()
        self.result(self.connection.close())
        self.result(self.broker.stop())
        self.settle()


class SiteTestCase(SynchronousTestCase):
    """A test with a site of its own, connected."""

    #: For the ReconnectingConnection.
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        """Start."""
        self.site = self.make_site()
        self.site.start()

    def make_site(self, **options: Any) -> Site:
        """One more, which is closed at the end of the test; nothing is left on its clock then."""
        site = Site(**(self.options | options))
        self.addCleanup(self._close, site)
        return site

    def _close(self, site: Site) -> None:
        site.close()
        self.assertEqual(site.clock.getDelayedCalls(), [])
