"""What can be asked about the transport of a Connection without connecting."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from txmsg.errors import NotImplementedByPeer
from txmsg.messaging.connection.connecting import ConnectionLife

__all__ = ["Capabilities"]


class Capabilities(ConnectionLife):
    """The questions that Kombu's users ask of a connection."""

    #: The reactor drives every transport.
    is_evented: Final = True
    #: RabbitMQ from 3.3 on reads basic.qos's global flag as "per channel", where the specification says
    #: "per connection" (https://www.rabbitmq.com/docs/consumer-prefetch).
    qos_semantics_matches_spec: Final = False

    @property
    def supports_heartbeats(self) -> bool:
        """Whether a peer that has died is found out although nothing is said."""
        return self.transport.guarantees.has_heartbeats

    def get_heartbeat_interval(self) -> float:
        """Seconds between heartbeats as they were agreed on; 0: there are none, or it is not connected."""
        return float(getattr(self.connection, "heartbeat", None) or 0)

    def heartbeat_check(self, rate: int = 2) -> None:
        """Nothing: heartbeats are sent, and looked for, without being asked.   rate: not used."""

    def register_with_event_loop(self, loop: Any = None) -> None:
        """Nothing: the reactor is the loop.   loop: not used."""

    def supports_exchange_type(self, exchange_type: str) -> bool:
        """Whether the transport has exchanges of this type: direct, fanout, topic, headers ..."""
        return exchange_type in self.transport.exchange_types

    @property
    def driver_type(self) -> str:
        """The kind of broker: the first scheme of the transport."""
        return self.transport.schemes[0]

    @property
    def driver_name(self) -> str:
        """The package that the transport is in."""
        return type(self.transport).__module__.partition(".")[0]

    def driver_version(self) -> str:
        """The version of that package; "N/A" where it has none."""
        try:
            return version(self.driver_name)
        except PackageNotFoundError:
            return "N/A"

    def get_manager(self) -> Any:
        """What the transport has for managing the broker.  NotImplementedByPeer: it has nothing."""
        manager = getattr(self.connection, "manager", None)
        if manager is None:
            raise NotImplementedByPeer(
                f"{self.driver_type}:// has no management API: use the broker's own, over HTTP", initiator="client"
            )
        return manager

    @property
    def manager(self) -> Any:
        """As :meth:`get_manager`."""
        return self.get_manager()
