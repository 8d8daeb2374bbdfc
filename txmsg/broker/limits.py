"""How much one client, one virtual host and the whole broker may hold.

All limits are on by default (reliability promise R36: no client can take the broker down by asking for more).  What
happens beyond one is written at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MIB", "BrokerLimits"]

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """The numbers, all changeable.

    frame_max: octets of a frame, with its eight octets around; offered in connection.tune.  Beyond: 501.
    max_message_size: octets of a body; refused when the content header names more.  Beyond: 406.
    max_table_depth: how deep field tables and arrays may be nested.  Beyond: 502.
    max_table_items: entries of all tables in one method or content header.  Beyond: 502.
    channels: per connection; offered in connection.tune.  Beyond: 530.
    connections: of all clients.  Beyond: closed when accepted.
    unauthenticated: connections that have not logged in yet, half of them from one address.  Beyond: not read until
        another is done.
    connections_per_address: from one address.  Beyond: closed when accepted.
    handshake_timeout: seconds from the connect to connection.open, TLS included.  Beyond: closed.
    login_delay: seconds before a refused login is answered; doubled for each further one from the same address.
    login_delay_max: seconds it grows to.
    consumers_per_channel: Beyond: 530.
    queues, exchanges, bindings: per virtual host; exchanges without the standard ones.  Beyond: 406.
    topology_bytes: octets that the names, keys and arguments of all that is declared in a virtual host take, and those
        of consumers, with what each thing costs.  Beyond: 406.
    queue_bytes: octets that one queue holds, with what each message costs.  Beyond: what is published to it
        is refused, which a publisher with confirms sees as a nack.
    broker_bytes: octets in all queues together.  Beyond: publishers are blocked until it is less again.  What clients
        have begun and not finished, parts of messages and transactions, counts too and takes half of it at most:
        beyond, the connection that holds most is closed, 506.
    unacked_per_channel: deliveries without an ack on one channel, whatever its prefetch count.  Beyond: no more
        deliveries until some are settled.
    acknowledgement_timeout: seconds that a delivery may stay without an ack; 0 for any time.  Beyond: 406.
    write_buffer: octets waiting for a client that does not read.  Beyond: that client is dropped, 320.  For all such
        clients together no more may wait than `broker_bytes`: beyond, the one with most is dropped at once.
    heartbeat: seconds, offered in connection.tune; 0 for none.
    """

    frame_max: int = 131_072
    max_message_size: int = 16 * MIB
    max_table_depth: int = 32
    max_table_items: int = 1024
    channels: int = 256
    connections: int = 256
    unauthenticated: int = 16
    connections_per_address: int = 64
    handshake_timeout: float = 10.0
    login_delay: float = 1.0
    login_delay_max: float = 30.0
    consumers_per_channel: int = 256
    queues: int = 10_000
    bindings: int = 50_000
    exchanges: int = 1_000
    topology_bytes: int = 128 * MIB
    queue_bytes: int = 64 * MIB
    broker_bytes: int = 256 * MIB
    unacked_per_channel: int = 10_000
    acknowledgement_timeout: float = 1800.0
    write_buffer: int = 8 * MIB
    heartbeat: int = 60
