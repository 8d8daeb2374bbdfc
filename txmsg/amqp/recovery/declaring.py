"""The synchronous methods of a recovering channel: they reach the broker and, once it agrees, the topology.

They take what those of :class:`txmsg.amqp.Channel` take.  While there is no connection they wait for one, up to
`operation_timeout` from the call (OperationTimeout).  When the connection is lost under way, those that may be done
twice go out again; the others (purge, delete with a condition) fail with the loss.

A queue that the broker has named may be called by any name that it has had, and "" is the last queue that was declared
on this channel, also after a reconnect.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from txmsg.amqp.channel import Channel
from txmsg.amqp.operations import Arguments, table
from txmsg.amqp.recovery.channel_core import ChannelOwner, RecoveringChannelCore
from txmsg.amqp.recovery.topology import BindingRecord, ExchangeRecord, QueueRecord
from txmsg.errors import ConfigurationError, EncodeError
from txmsg.wire.methods import channel as channel_methods
from txmsg.wire.methods import exchange as exchange_methods
from txmsg.wire.methods import queue as queue_methods

__all__ = ["RecoveringDeclarations"]


class RecoveringDeclarations(RecoveringChannelCore):
    """The part of a recovering channel that declares."""

    def __init__(self, connection: ChannelOwner, *, prefetch_count: int | None = None, confirm: bool = False) -> None:
        super().__init__(connection, prefetch_count=prefetch_count, confirm=confirm)
        #: The last queue declared here, as it is recorded; and how many declarations are under way.
        self._last_queue = ""
        self._declaring = 0

    def _on_wire(self, queue: str) -> str:
        """What to call a queue to the broker now."""
        if queue == "":
            if self._declaring:
                return ""  # the one that is being declared: only the broker knows it
            queue = self._last_queue
        return self.connection.topology.current_name(queue)

    def _recorded(self, queue: str) -> str:
        return self.connection.topology.name_of(queue) if queue else self._last_queue

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
        """As :meth:`Channel.exchange_declare`; recorded, unless `passive`."""
        given = table(arguments)

        def make(channel: Channel) -> Deferred[Any]:
            return channel.exchange_declare(
                exchange,
                exchange_type,
                passive=passive,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                nowait=nowait,
                arguments=given,
            )

        def record(reply: Any) -> Any:
            if not passive:
                self.connection.topology.exchange_declared(
                    ExchangeRecord(exchange, exchange_type, durable, auto_delete, internal, given)
                )
            return reply

        return self._calls.perform("exchange.declare", make, record)

    def exchange_delete(
        self, exchange: str, *, if_unused: bool = False, nowait: bool = False
    ) -> Deferred[exchange_methods.DeleteOk | None]:
        """As :meth:`Channel.exchange_delete`; it and its bindings are forgotten."""

        def record(reply: Any) -> Any:
            self.connection.topology.exchange_deleted(exchange)
            return reply

        return self._calls.perform(
            "exchange.delete",
            lambda channel: channel.exchange_delete(exchange, if_unused=if_unused, nowait=nowait),
            record,
            repeats=not if_unused,
        )

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[exchange_methods.BindOk | None]:
        """As :meth:`Channel.exchange_bind`; recorded."""
        given = table(arguments)

        def record(reply: Any) -> Any:
            self.connection.topology.bound(BindingRecord("exchange", source, destination, routing_key, given))
            return reply

        return self._calls.perform(
            "exchange.bind",
            lambda channel: channel.exchange_bind(destination, source, routing_key, nowait=nowait, arguments=given),
            record,
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
        """As :meth:`Channel.exchange_unbind`; forgotten."""
        given = table(arguments)

        def record(reply: Any) -> Any:
            self.connection.topology.unbound(BindingRecord("exchange", source, destination, routing_key, given))
            return reply

        return self._calls.perform(
            "exchange.unbind",
            lambda channel: channel.exchange_unbind(destination, source, routing_key, nowait=nowait, arguments=given),
            record,
        )

    # -- queues ------------------------------------------------------------------------------------

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
    ) -> Deferred[queue_methods.DeclareOk]:
        """As :meth:`Channel.queue_declare`; recorded, unless `passive`.

        With `nowait` it fires with None, but for a queue without a name: that is waited for, because nobody would know
        its name.  The name in the reply stays good after a reconnect, on this connection's channels; what the queue is
        called then is `connection.topology.current_name(name)`.
        """
        given = table(arguments)
        self._declaring += 1

        def make(channel: Channel) -> Deferred[Any]:
            return channel.queue_declare(
                self.connection.topology.current_name(queue) if queue else "",
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                nowait=nowait and bool(queue),
                arguments=given,
            )

        def record(reply: queue_methods.DeclareOk | None) -> Any:
            name = queue if reply is None else reply.queue
            topology = self.connection.topology
            self._last_queue = topology.name_of(name)
            if not passive:
                topology.queue_declared(
                    QueueRecord(name, durable, exclusive, auto_delete, given, is_server_named=not queue)
                )
            return reply

        def ended(result: Any) -> Any:
            self._declaring -= 1
            return result

        return self._calls.perform("queue.declare", make, record).addBoth(ended)

    def _binding(self, queue: str, exchange: str, routing_key: str | None, given: dict[str, Any]) -> BindingRecord:
        name = self._recorded(queue)
        if _means_its_name(queue, routing_key):
            routing_key = name
        assert routing_key is not None
        return BindingRecord("queue", exchange, name, routing_key, given)

    def _key_on_wire(self, queue: str, routing_key: str | None) -> str:
        if _means_its_name(queue, routing_key):
            return self._on_wire(queue)
        assert routing_key is not None
        return routing_key

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None = None,
        *,
        nowait: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[queue_methods.BindOk | None]:
        """As :meth:`Channel.queue_bind`; recorded.  A routing key that is the queue's name follows that."""
        given = table(arguments)

        def make(channel: Channel) -> Deferred[Any]:
            key = self._key_on_wire(queue, routing_key)
            return channel.queue_bind(self._on_wire(queue), exchange, key, nowait=nowait, arguments=given)

        def record(reply: Any) -> Any:
            self.connection.topology.bound(self._binding(queue, exchange, routing_key, given))
            return reply

        return self._calls.perform("queue.bind", make, record)

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str | None = None, *, arguments: Arguments = None
    ) -> Deferred[queue_methods.UnbindOk]:
        """As :meth:`Channel.queue_unbind`; forgotten."""
        given = table(arguments)

        def make(channel: Channel) -> Deferred[Any]:
            key = self._key_on_wire(queue, routing_key)
            return channel.queue_unbind(self._on_wire(queue), exchange, key, arguments=given)

        def record(reply: Any) -> Any:
            self.connection.topology.unbound(self._binding(queue, exchange, routing_key, given))
            return reply

        return self._calls.perform("queue.unbind", make, record)

    def queue_purge(self, queue: str = "", *, nowait: bool = False) -> Deferred[queue_methods.PurgeOk]:
        """As :meth:`Channel.queue_purge`; not repeated: what is there after a reconnect may be new."""
        return self._calls.perform(
            "queue.purge", lambda channel: channel.queue_purge(self._on_wire(queue), nowait=nowait), repeats=False
        )

    def queue_delete(
        self, queue: str = "", *, if_unused: bool = False, if_empty: bool = False, nowait: bool = False
    ) -> Deferred[queue_methods.DeleteOk]:
        """As :meth:`Channel.queue_delete`; it and its bindings are forgotten, and its consumers here end.

        Repeated after a loss without a condition; `message_count` is 0 then if the first one had been obeyed.
        """
        if not isinstance(queue, str):
            return fail(EncodeError(f"the name of a queue is a str, not {type(queue).__name__}"))
        topology = self.connection.topology
        asked = self._recorded(queue)
        topology.deletion_begins(asked)

        def record(reply: Any) -> Any:
            topology.queue_deleted(self._recorded(queue), by_application=True)
            return reply

        def ended(result: Any) -> Any:
            topology.deletion_ended(asked)
            return result

        return self._calls.perform(
            "queue.delete",
            lambda channel: channel.queue_delete(
                self._on_wire(queue), if_unused=if_unused, if_empty=if_empty, nowait=nowait
            ),
            record,
            repeats=not (if_unused or if_empty),
        ).addBoth(ended)

    # -- flow and transactions ---------------------------------------------------------------------

    def flow(self, active: bool) -> Deferred[channel_methods.FlowOk]:
        """As :meth:`Channel.flow`; not repeated."""
        return self._calls.perform("channel.flow", lambda channel: channel.flow(active), repeats=False)

    def tx_select(self) -> Deferred[Any]:
        """Not here: what a transaction has done so far cannot be recovered.  Fails with ConfigurationError."""
        return fail(
            ConfigurationError(
                "a recovering channel has no transactions, because a loss ends them half-way: "
                "use confirm mode, or a plain Channel of `connection.protocol`"
            )
        )


def _means_its_name(queue: str, routing_key: str | None) -> bool:
    """Whether a binding's key is its queue's name: none was given, or for the last queue the empty one (1.7.2.4)."""
    return routing_key is None or (queue != "" and routing_key == queue) or (not queue and not routing_key)
