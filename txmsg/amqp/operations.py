"""The synchronous methods of a channel: one method of :class:`Channel` for each method of the protocol.

All return a Deferred that fires with the broker's typed reply (`queue.DeclareOk` ...), or with None where
`nowait` asked the broker not to reply.  They are written in the order of the calls, without waiting for
each other.  All fail with:

- EncodeError -- an argument that AMQP cannot carry; nothing was sent, the channel stays usable;
- the channel's closing error -- NotFound, AccessRefused, ResourceLocked, PreconditionFailed ... : the
  broker answers a method it refuses by closing the channel -- or the connection's closing error;
- OperationTimeout -- no reply within `operation_timeout`; the channel stays usable;
- CancelledError -- the Deferred was cancelled; a late reply is swallowed, the channel stays usable.

Names, arguments and defaults: AMQP 0-9-1 section 1 and
https://www.rabbitmq.com/amqp-0-9-1-reference.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

from twisted.internet.defer import Deferred

from txmsg.amqp.channel_core import ChannelCore
from txmsg.wire.methods import channel, tx
from txmsg.wire.methods import exchange as exchange_methods
from txmsg.wire.methods import queue as queue_methods

__all__ = ["Arguments", "SynchronousMethods", "table"]

#: The arguments table of a declaration or binding; see docs/values.md for what it may hold.
Arguments = Mapping[str, Any] | None


def table(arguments: Arguments) -> dict[str, Any]:
    """A copy of `arguments`: a call may be written later.  What is no mapping is for the encoder to refuse."""
    if arguments is None:
        return {}
    return dict(arguments) if isinstance(arguments, Mapping) else arguments


class SynchronousMethods(ChannelCore):
    """The part of a channel that only turns arguments into methods."""

    # -- exchanges ---------------------------------------------------------------------------------

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[exchange_methods.DeclareOk | None]:
        """Create an exchange, or check that it exists (`passive`).

        exchange_type: "direct", "fanout", "topic", "headers" or one that a plugin brings; passed on as it is.
        durable: survives a restart of the broker.   auto_delete: goes with its last binding.
        internal: cannot be published to, only be bound to.   arguments: for instance `alternate-exchange`.

        NotFound: passive and missing.  PreconditionFailed: exists with other arguments.  AccessRefused:
        a reserved name.
        """
        return self._call(
            exchange_methods.Declare(
                exchange=exchange,
                type=exchange_type,
                passive=passive,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                nowait=nowait,
                arguments=table(arguments),
            )
        )

    def exchange_delete(
        self, exchange: str, *, if_unused: bool = False, nowait: bool = False
    ) -> Deferred[exchange_methods.DeleteOk | None]:
        """Delete an exchange; one that does not exist is fine.  PreconditionFailed: `if_unused` and it is bound."""
        return self._call(exchange_methods.Delete(exchange=exchange, if_unused=if_unused, nowait=nowait))

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[exchange_methods.BindOk | None]:
        """Let messages flow from the exchange `source` to the exchange `destination`.

        Source: https://www.rabbitmq.com/docs/e2e
        """
        return self._call(
            exchange_methods.Bind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                nowait=nowait,
                arguments=table(arguments),
            )
        )

    def exchange_unbind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[exchange_methods.UnbindOk | None]:
        """Take a binding between exchanges away; the arguments must be those it was made with."""
        return self._call(
            exchange_methods.Unbind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                nowait=nowait,
                arguments=table(arguments),
            )
        )

    # -- queues ------------------------------------------------------------------------------------

    @overload
    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        nowait: Literal[False] = False,
        arguments: Arguments = None,
    ) -> Deferred[queue_methods.DeclareOk]: ...

    @overload
    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        nowait: bool,
        arguments: Arguments = None,
    ) -> Deferred[queue_methods.DeclareOk | None]: ...

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[Any]:
        """Create a queue, or check that it exists (`passive`).

        queue: its name; "" lets the broker choose one, which is in the reply.
        exclusive: for this connection only, and deleted with it.   auto_delete: goes with its last consumer.
        arguments: for instance `x-queue-type`, `x-message-ttl` (int, milliseconds), `x-dead-letter-exchange`.

        Fires with DeclareOk: queue, message_count, consumer_count.
        NotFound: passive and missing.  PreconditionFailed: exists with other arguments.  ResourceLocked:
        another connection has it as exclusive.
        """
        return self._call(
            queue_methods.Declare(
                queue=queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                nowait=nowait,
                arguments=table(arguments),
            )
        )

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None = None,
        *,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[queue_methods.BindOk | None]:
        """Let the exchange route messages to the queue.

        queue: "" is the last queue declared on this channel.
        routing_key: the binding key; None takes the queue's name, "" is the empty key.
        """
        return self._call(
            queue_methods.Bind(
                queue=queue,
                exchange=exchange,
                routing_key=queue if routing_key is None else routing_key,
                nowait=nowait,
                arguments=table(arguments),
            )
        )

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str | None = None, *, arguments: Arguments = None
    ) -> Deferred[queue_methods.UnbindOk]:
        """Take a binding away; key and arguments must be those it was made with.  The protocol has no nowait here."""
        return self._call(
            queue_methods.Unbind(
                queue=queue,
                exchange=exchange,
                routing_key=queue if routing_key is None else routing_key,
                arguments=table(arguments),
            )
        )

    @overload
    def queue_purge(self, queue: str = "", *, nowait: Literal[False] = False) -> Deferred[queue_methods.PurgeOk]: ...

    @overload
    def queue_purge(self, queue: str = "", *, nowait: bool) -> Deferred[queue_methods.PurgeOk | None]: ...

    def queue_purge(self, queue: str = "", *, nowait: bool = False) -> Deferred[Any]:
        """Drop all messages that wait in the queue; fires with PurgeOk: message_count."""
        return self._call(queue_methods.Purge(queue=queue, nowait=nowait))

    @overload
    def queue_delete(
        self, queue: str = "", *, if_unused: bool = False, if_empty: bool = False, nowait: Literal[False] = False
    ) -> Deferred[queue_methods.DeleteOk]: ...

    @overload
    def queue_delete(
        self, queue: str = "", *, if_unused: bool = False, if_empty: bool = False, nowait: bool
    ) -> Deferred[queue_methods.DeleteOk | None]: ...

    def queue_delete(
        self, queue: str = "", *, if_unused: bool = False, if_empty: bool = False, nowait: bool = False
    ) -> Deferred[Any]:
        """Delete a queue with its messages; fires with DeleteOk: message_count.

        The queue's consumers, here and elsewhere, end with ConsumerCancelled("server").
        PreconditionFailed: `if_unused` and it has consumers, `if_empty` and it has messages.
        """
        return self._call(queue_methods.Delete(queue=queue, if_unused=if_unused, if_empty=if_empty, nowait=nowait))

    # -- flow and transactions ---------------------------------------------------------------------

    def flow(self, active: bool) -> Deferred[channel.FlowOk]:
        """Ask the broker to stop (False) or go on with deliveries on this channel.

        RabbitMQ refuses False with 540, which closes the connection: limit with `basic_qos` instead.
        """
        return self._call(channel.Flow(active=active))

    def tx_select(self) -> Deferred[tx.SelectOk]:
        """Make the channel transactional: publishes and settlements wait for `tx_commit`.

        Cannot be combined with confirm mode (406).  Source: https://www.rabbitmq.com/docs/semantics#tx
        """
        return self._call(tx.Select(), on_write=self._settlements.transaction_selected)

    def tx_commit(self) -> Deferred[tx.CommitOk]:
        """Let what was published and settled since the last commit take effect."""
        return self._call(tx.Commit(), on_write=self._settlements.transaction_committed)

    def tx_rollback(self) -> Deferred[tx.RollbackOk]:
        """Forget what was published and settled since the last commit.

        Deliveries settled in it are open again, and are not delivered anew: settle them, or `basic_recover`.
        """
        return self._call(tx.Rollback(), on_write=self._settlements.transaction_rolled_back)
