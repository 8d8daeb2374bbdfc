"""Topology: the methods of classes exchange and queue, as a channel answers them.

AMQP 0-9-1 sections 1.6 and 1.7; https://www.rabbitmq.com/docs/access-control#authorisation says which permission an
operation needs.  The invariants:

* Permission is asked before existence (C7.5), so nobody can learn what there is from what is refused.
* What is durable is on disk before its reply leaves.
* An empty queue name is that of the queue the channel declared last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from txmsg.broker import faults
from txmsg.broker.exchanges import ALTERNATE_EXCHANGE, EXCHANGE_TYPES
from txmsg.broker.queues.arguments import QUORUM
from txmsg.broker.vhost.direct_reply import REPLY_TO
from txmsg.broker.vhost.topology import server_name, without_line_breaks
from txmsg.wire.layout import Method
from txmsg.wire.methods import exchange, queue

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel

__all__ = ["Topology"]

_RESERVED: Final = "amq."
_DEAD_LETTER_EXCHANGE: Final = "x-dead-letter-exchange"


class Topology:
    """What a channel declares, binds and deletes."""

    def __init__(self, channel: ServerChannel) -> None:
        self._channel = channel
        self._connection = channel.connection
        self._vhost = channel.vhost
        self.handlers: dict[type[Any], Any] = {
            exchange.Declare: self._declare_exchange,
            exchange.Delete: self._delete_exchange,
            exchange.Bind: self._bind_exchange,
            exchange.Unbind: self._unbind_exchange,
            queue.Declare: self._declare_queue,
            queue.Bind: self._bind_queue,
            queue.Unbind: self._unbind_queue,
            queue.Purge: self._purge_queue,
            queue.Delete: self._delete_queue,
        }

    def _reply(self, method: Any, reply: Method, *, kept: bool) -> None:
        """Answer `method`; `kept`: once the journal has what it did."""
        if getattr(method, "nowait", False):
            return
        if kept:
            self._channel.reply_when_kept(reply, type(method))
        else:
            self._channel.send(reply)

    # -- exchanges ----------------------------------------------------------------------------------------

    def _declare_exchange(self, method: exchange.Declare) -> None:
        name = without_line_breaks(method.exchange)
        if not method.passive:
            if method.type not in EXCHANGE_TYPES:
                raise faults.unknown_exchange_type(method.type)
            if not name:
                raise faults.default_exchange()
            permissions = self._connection.permissions
            permissions.check_configure("exchange", name)
            alternate = method.arguments.get(ALTERNATE_EXCHANGE)
            # Of an exchange that there is these are not asked for: its arguments are only compared.
            if isinstance(alternate, str) and name not in self._vhost.exchanges:
                permissions.check_read("exchange", name)
                permissions.check_write("exchange", alternate)
        self._vhost.declare_exchange(
            name,
            method.type,
            passive=method.passive,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method.arguments,
        )
        self._reply(method, exchange.DeclareOk(), kept=method.durable and not method.passive)

    def _delete_exchange(self, method: exchange.Delete) -> None:
        name = without_line_breaks(method.exchange)
        if not name:
            raise faults.default_exchange()
        if name.startswith(_RESERVED):
            raise faults.system_exchange(name, self._vhost.name)
        self._connection.permissions.check_configure("exchange", name)
        found = self._vhost.exchanges.get(name)
        self._vhost.delete_exchange(name, if_unused=method.if_unused)
        self._reply(method, exchange.DeleteOk(), kept=found is not None and found.durable)

    def _bind_exchange(self, method: exchange.Bind) -> None:
        self._check_bind_exchange(method)
        self._vhost.bind_exchange(method.destination, method.source, method.routing_key, method.arguments)
        self._reply(method, exchange.BindOk(), kept=True)

    def _unbind_exchange(self, method: exchange.Unbind) -> None:
        self._check_bind_exchange(method)
        self._vhost.unbind_exchange(method.destination, method.source, method.routing_key, method.arguments)
        self._reply(method, exchange.UnbindOk(), kept=True)

    def _check_bind_exchange(self, method: exchange.Bind | exchange.Unbind) -> None:
        source, destination = without_line_breaks(method.source), without_line_breaks(method.destination)
        self._connection.permissions.check_write("exchange", destination)
        if not source or not destination:
            raise faults.default_exchange()
        self._connection.permissions.check_read("exchange", source)

    # -- queues -------------------------------------------------------------------------------------------

    def _queue_name(self, name: str) -> str:
        return self._channel.consuming.queue_name(without_line_breaks(name))

    def _declare_queue(self, method: queue.Declare) -> None:
        channel = self._channel
        name = without_line_breaks(method.queue)
        if name.startswith(REPLY_TO):
            if not self._vhost.direct_reply.exists(name):
                raise faults.not_found("queue", name, self._vhost.name)
            channel.last_queue = name
            self._reply(method, queue.DeclareOk(name, 0, 1), kept=False)
            return
        if not method.passive:
            self._check_declare_queue(name, method.arguments)
        declared = self._vhost.declare_queue(
            name,
            passive=method.passive,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method.arguments,
            owner=self._connection,
        )
        channel.last_queue = declared.name
        reply = queue.DeclareOk(declared.name, declared.message_count, declared.consumer_count)
        self._reply(method, reply, kept=declared.durable and not method.passive)

    def _check_declare_queue(self, name: str, arguments: dict[str, Any]) -> None:
        if name.startswith(_RESERVED):  # though there may be one, which the broker has named
            raise faults.reserved_name("queue", name)
        permissions = self._connection.permissions
        # The name to be made is not known yet: one like it is judged.
        name = name or server_name("amq.gen")
        permissions.check_configure("queue", name)
        dead_letters = arguments.get(_DEAD_LETTER_EXCHANGE)
        # Of a queue that there is these are not asked for: its arguments are only compared.
        if isinstance(dead_letters, str) and name not in self._vhost.queues:
            permissions.check_read("queue", name)
            permissions.check_write("exchange", dead_letters)

    def _bind_queue(self, method: queue.Bind) -> None:
        name, routing_key = self._check_bind_queue(method)
        self._vhost.bind_queue(name, method.exchange, routing_key, method.arguments, self._connection)
        self._reply(method, queue.BindOk(), kept=self._is_durable(name))

    def _unbind_queue(self, method: queue.Unbind) -> None:
        name, routing_key = self._check_bind_queue(method)
        self._vhost.unbind_queue(name, method.exchange, routing_key, method.arguments, self._connection)
        self._reply(method, queue.UnbindOk(), kept=self._is_durable(name))

    def _check_bind_queue(self, method: queue.Bind | queue.Unbind) -> tuple[str, str]:
        """The names of queue and routing key, with what empty ones stand for, once permission is given."""
        name = self._queue_name(method.queue)
        routing_key = method.routing_key
        if not method.queue and not routing_key:
            routing_key = name
        source = without_line_breaks(method.exchange)
        self._connection.permissions.check_write("queue", name)
        if not source:
            raise faults.default_exchange()
        self._connection.permissions.check_read("exchange", source)
        return name, routing_key

    def _is_durable(self, name: str) -> bool:
        found = self._vhost.queues.get(name)
        return found is not None and found.durable

    def _purge_queue(self, method: queue.Purge) -> None:
        name = self._queue_name(method.queue)
        self._connection.permissions.check_read("queue", name)
        purged = self._vhost.queue(name, self._connection)
        count = purged.purge()
        self._reply(method, queue.PurgeOk(count), kept=purged.durable)

    def _delete_queue(self, method: queue.Delete) -> None:
        name = self._queue_name(method.queue)
        self._connection.permissions.check_configure("queue", name)
        kept = self._is_durable(name)
        found = self._vhost.queues.get(name)
        if found is not None and found.type == QUORUM and (method.if_unused or method.if_empty):
            flag = "if-unused" if method.if_unused else "if-empty"
            raise faults.quorum_delete_unsupported(name, self._vhost.name, flag)
        count = self._vhost.delete_queue(
            name, if_unused=method.if_unused, if_empty=method.if_empty, owner=self._connection
        )
        self._reply(method, queue.DeleteOk(count), kept=kept)
