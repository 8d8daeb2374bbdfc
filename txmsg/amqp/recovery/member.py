"""Member: what lives on a ReconnectingConnection and outlives its single connections.

The topology, the channels and the publishers are members.  The connection knows nothing of them but this.

Invariant, for every member: `recover` and `lost` alternate; a `recover` that runs when the connection goes is cancelled
before `lost` is called; after `closed` nothing is called any more.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from txmsg.amqp.client import AMQPProtocol

__all__ = ["ORDER_CHANNEL", "ORDER_PUBLISHER", "ORDER_TOPOLOGY", "Member"]

#: The values of `Member.order`: what is declared comes first, then what consumes, then what publishes.
ORDER_TOPOLOGY = 0
ORDER_CHANNEL = 10
ORDER_PUBLISHER = 20


class Member(Protocol):
    """Something that is brought back on each new connection; see :meth:`ReconnectingConnection.add_member`.

    order: int -- members with a lower one are recovered first; equal ones together, begun in the order in which they
        were added.
    """

    order: int

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """Come back on a fresh connection, which nobody else has seen yet.

        A failure with ConnectionClosed, or while the connection is ending, means that this connection is over: the
        next one is tried.  Any other failure is reported (:class:`RecoveryEvent`), the member is left to itself
        until the next connection, and recovery goes on (R10).  The Deferred is cancelled when the connection is lost.
        A member that is added while the connection is ready calls its own; the connection does nothing then.
        """
        ...

    def lost(self, reason: BaseException) -> None:
        """The connection is gone, also a half-recovered one.  May come more than once, and before any `recover`."""
        ...

    def closed(self, reason: BaseException) -> None:
        """It is over for good: fail what waits."""
        ...

    def stop(self) -> Deferred[None]:
        """The graceful part of close(): take no more, finish what is begun.  The caller limits it, by cancelling."""
        ...
