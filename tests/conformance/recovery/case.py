"""A recovering connection for the cases of this folder, and what they do to it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.conformance.base import BrokerCase, reactor
from txmsg.amqp.recovery import Backoff, ReconnectingConnection, RecoveryEvent

__all__ = ["RecoveryCase"]


class RecoveryCase(BrokerCase):
    """Helpers for a case with a ReconnectingConnection; it is closed at the end."""

    #: What the connections of the case have reported.
    events: list[RecoveryEvent]

    async def recovering(self, **overrides: Any) -> ReconnectingConnection:
        """A ReconnectingConnection that is ready."""
        self.events = []
        connection = ReconnectingConnection(
            self.parameters(**overrides), reactor=reactor, backoff=Backoff(initial=0.05, maximum=1.0)
        )
        connection.add_event_callback(self.events.append)
        self.addCleanup(self._close_recovering, connection)
        await connection.start()
        return connection

    def _close_recovering(self, connection: ReconnectingConnection) -> Deferred[None]:
        return connection.close()

    async def lose(self, connection: ReconnectingConnection) -> None:
        """Cut it, and wait until the next one is ready."""
        epoch = connection.epoch
        assert connection.protocol is not None
        connection.protocol.abort()
        await self.until(lambda: connection.epoch > epoch and connection.is_ready, 20)

    def kinds(self) -> list[str]:
        """The kinds of the events so far."""
        return [event.kind for event in self.events]
