"""Script: where tests make the broker misbehave on purpose.

A broker whose `script` is not None asks it at each of the points below.  Without one nothing is asked and nothing
costs anything.  Nothing of this can be reached through AMQP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from txmsg.broker.faults import Fault

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection
    from txmsg.wire.layout import Method

__all__ = ["Script"]


class Script(Protocol):
    """What goes wrong, and when.  `broker.script` is looked at anew each time, so it may be set at any time."""

    def accepted(self, connection: BrokerConnection) -> bool:
        """A socket was accepted; False closes it at once."""

    def data_received(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """Octets came; what is returned is read in their place, None swallows them."""

    def method_received(self, connection: BrokerConnection, channel_number: int, method: Method) -> Fault | None:
        """A method without content came, on channel 0 only once the connection is open; a Fault refuses it."""

    def publish_received(
        self, connection: BrokerConnection, channel_number: int, exchange: str, routing_key: str
    ) -> Literal["nack", "drop"] | Fault | None:
        """A publish came: "nack" refuses it, "drop" loses it without a word, a Fault closes; None lets it be."""

    def sending(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """Octets are about to leave; what is returned leaves in their place, None lets nothing leave."""

    def connection_lost(self, connection: BrokerConnection) -> None:
        """The socket is gone."""
