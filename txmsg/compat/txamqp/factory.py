"""AMQFactory: a factory of AMQClients."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory

from txmsg.compat.txamqp.client import TwistedDelegate
from txmsg.compat.txamqp.protocol import AMQClient
from txmsg.compat.txamqp.spec import DEFAULT_SPEC, load

__all__ = ["DEFAULT_SPEC", "AMQFactory"]


class AMQFactory(Factory):
    """Builds an AMQClient, or what `protocol` is, with a TwistedDelegate of its own, for each connection.

    spec -- ignored but for its name.   clock -- for the timers of the clients.
    """

    protocol: Any = AMQClient

    def __init__(self, spec: str | None = None, clock: Any = None) -> None:
        self._spec = load(DEFAULT_SPEC if spec is None else spec)
        self._clock = clock
        self._vhost = "/"
        self._heartbeat = 0

    def set_vhost(self, vhost: str) -> None:
        """The virtual host of clients to come."""
        self._vhost = vhost

    def set_heartbeat(self, heartbeat: int) -> None:
        """The heartbeat of clients to come, in seconds; 0 for none."""
        self._heartbeat = heartbeat

    def buildProtocol(self, addr: Any) -> Any:
        """Twisted: a client for a connection."""
        return self.protocol(
            TwistedDelegate(), vhost=self._vhost, spec=self._spec, heartbeat=self._heartbeat, clock=self._clock
        )
