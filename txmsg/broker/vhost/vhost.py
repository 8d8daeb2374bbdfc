"""A virtual host: exchanges, queues and bindings, and publishing through them.

AMQP 0-9-1 section 2.1.1 (the model); https://www.rabbitmq.com/docs/vhosts.  What can be declared is in `topology`,
where a message goes from an exchange in `routing`.

Knows neither octets nor connections.  Nothing here waits: whatever the journal has still to keep is PENDING.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from txmsg.broker import faults
from txmsg.broker.exchanges import EXCHANGE_TYPES, STANDARD_EXCHANGES, DefaultExchange, Destination, Exchange
from txmsg.broker.interfaces import Clock, Journal
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.message import Message
from txmsg.broker.queues.dead_letter import DeadLetters, is_cycle
from txmsg.broker.queues.queue import PENDING, REJECTED, ROUTED, UNROUTED, Queue
from txmsg.broker.vhost.bindings import Binding
from txmsg.broker.vhost.direct_reply import REPLY_PREFIX, DirectReply
from txmsg.broker.vhost.routing import BCC, CC, Queues, routing_keys, without_bcc
from txmsg.broker.vhost.topology import Topology
from txmsg.broker.vhost.usage import Usage

if TYPE_CHECKING:
    from txmsg.wire.properties import BasicProperties

__all__ = ["VirtualHost"]


class VirtualHost(Topology):
    """A virtual host.

    name: str.
    clock: Clock -- the reactor, or a `task.Clock`.
    limits: BrokerLimits.
    journal: Journal -- what is durable is told to it; to be replaced only before there is any queue.
    usage: Usage -- the bytes of the whole broker; by default one of its own.
    strict_4: bool -- refuse what RabbitMQ 4 refuses: transient queues that are not exclusive (541).

    exchanges: dict[str, Exchange], queues: dict[str, Queue] -- by name.  Read-only.
    topology_version: int -- grows whenever a queue, an exchange or a binding comes or goes.
    direct_reply: DirectReply -- the channels that consume replies.
    """

    def __init__(
        self,
        name: str = "/",
        *,
        clock: Clock,
        limits: BrokerLimits | None = None,
        journal: Journal | None = None,
        usage: Usage | None = None,
        strict_4: bool = False,
    ) -> None:
        super().__init__(name, limits=limits, journal=journal, strict_4=strict_4)
        self.clock = clock
        self.usage = usage or Usage(self.limits.broker_bytes)
        self.direct_reply = DirectReply()
        self.dead_letters = DeadLetters(self)
        self._known_routes = self.routes.known
        self.exchanges[""] = DefaultExchange(self, "", durable=True)
        for standard, (kind, internal) in STANDARD_EXCHANGES.items():
            self.exchanges[standard] = EXCHANGE_TYPES[kind](self, standard, durable=True, internal=internal)

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name!r}: {len(self.exchanges)} exchanges, {len(self.queues)} queues>"

    def _new_exchange(
        self,
        name: str,
        type: str,
        *,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Mapping[str, Any] | None,
    ) -> Exchange:
        made = EXCHANGE_TYPES[type]
        return made(self, name, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments)

    def _new_queue(
        self,
        name: str,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any] | None,
        owner: Hashable | None,
    ) -> Queue:
        return Queue(
            self,
            name,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
            owner=owner,
        )

    def clear(self) -> None:
        """Delete everything but the standard exchanges, and stop: the virtual host is deleted."""
        super().clear()
        if self.policies is not None:
            self.policies.forget()
        self.stop()

    def stop(self) -> None:
        """Cancel all timers; nothing is deleted.  The virtual host is not to be used any more."""
        self.dead_letters.stop()
        for queue in self.queues.values():
            queue.stop()

    # -- at start -----------------------------------------------------------------------------------------

    def restore_exchange(
        self,
        name: str,
        type: str,
        *,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Exchange:
        """A durable exchange from the store; neither limits nor the journal are asked.  Fault for an unknown type."""
        if type not in EXCHANGE_TYPES:
            raise faults.unknown_exchange_type(type)
        made = self._new_exchange(
            name, type, durable=True, auto_delete=auto_delete, internal=internal, arguments=arguments
        )
        self._enter_exchange(made)
        return made

    def restore_queue(
        self, name: str, *, auto_delete: bool = False, arguments: Mapping[str, Any] | None = None
    ) -> Queue:
        """A durable queue from the store; neither limits nor the journal are asked.  Fault for invalid arguments."""
        made = self._new_queue(
            name, durable=True, exclusive=False, auto_delete=auto_delete, arguments=arguments, owner=None
        )
        self._enter_queue(made)
        return made

    def restore_binding(self, binding: Binding) -> None:
        """A binding from the store; neither limits nor the journal are asked.  Fault 404 if an end is missing."""
        exchange = self.exchange(binding.source)
        found: Destination
        if binding.is_to_queue:
            found = self.queue(binding.destination)
        else:
            found = self.exchange(binding.destination)
        exchange.check_binding(binding.arguments)
        if binding not in exchange.bindings:
            self._enter_binding(binding, exchange, found)

    # -- publishing ---------------------------------------------------------------------------------------

    def publishable(self, exchange: str) -> Exchange:
        """The exchange, if clients may publish to it; Fault 404, or 403 if it is internal."""
        found = self.exchange(exchange)
        if found.internal:
            raise faults.internal_exchange(exchange, self.name)
        return found

    def publish(self, exchange: str, routing_key: str, message: Message, properties: BasicProperties) -> int:
        """Route a message and put it into the queues (basic.publish).

        `properties` are those of `message`, decoded.  Returns UNROUTED, ROUTED, REJECTED if any queue refused it, or
        else PENDING if the journal has still to keep it in any.  Faults: 403 if the exchange is internal, 404 if it
        is missing, 406 if CC or BCC is no array, 506 if too many patterns match.
        """
        headers = properties.headers
        if headers is None:
            queues = self._known_routes.get((exchange, routing_key))
            if queues is not None:
                if len(queues) == 1:
                    return queues[0].put(message)
                return _put(queues, message)
        source = self.publishable(exchange)
        keys = [routing_key]
        if headers is not None:
            if CC in headers or BCC in headers:
                keys = routing_keys(routing_key, headers)
            if BCC in headers:
                message = Message.published(exchange, routing_key, without_bcc(properties), message.body)
        if not exchange and any(key.startswith(REPLY_PREFIX) for key in keys):
            keys = self._reply(keys, message)
        return _put(self.routes.find(source, keys, properties.headers), message)

    def check_capacity(self, message: Message, properties: BasicProperties) -> None:
        """Fault 311 if a queue that `message` goes to, or the broker, holds as many bytes as one may.

        For a publisher without confirms, once :meth:`publish` has answered REJECTED: nothing else would tell it.
        """
        headers = properties.headers
        keys = [message.routing_key] if headers is None else routing_keys(message.routing_key, headers)
        for queue in self.routes.find(self.publishable(message.exchange), keys, headers):
            if queue.is_full_for(message):
                raise faults.queue_full(queue.name, self.name, self.limits.queue_bytes)
        if self.usage.is_full:
            raise faults.broker_full(int(self.usage.hard_limit))

    def _reply(self, keys: list[str], message: Message) -> list[str]:
        """Hand the message to the channels among `keys`; returns the others.

        Like RabbitMQ, which counts what only goes to a channel as not routed.
        """
        for key in keys:
            if key.startswith(REPLY_PREFIX):
                self.direct_reply.deliver(key, message)
        return [key for key in keys if not key.startswith(REPLY_PREFIX)]

    def publish_dead_letter(self, queue: str, message: Message, properties: BasicProperties) -> None:
        """Route what died in `queue` from `message.exchange`, its dead letter exchange, with `message.routing_key`.

        Where the exchange is missing, nothing matches (or too much does), or only queues through which it would
        circle, the message is lost, as in RabbitMQ.
        """
        source = self.exchanges.get(message.exchange)
        if source is None:
            return
        headers = properties.headers or {}
        try:
            keys = routing_keys(message.routing_key, headers)
            if not source.name and any(key.startswith(REPLY_PREFIX) for key in keys):
                keys = self._reply(keys, message)
            queues = self.routes.find(source, keys, headers)
        except faults.Fault:  # there is nobody to tell
            return
        _put(tuple(found for found in queues if not is_cycle(found.name, properties)), message)


def _put(queues: Queues, message: Message) -> int:
    """Put `message` into all of `queues`: one that refuses it outweighs one that has still to keep it."""
    outcome = UNROUTED
    for queue in queues:
        answer = queue.put(message)
        if outcome == UNROUTED or answer == REJECTED or (answer == PENDING and outcome == ROUTED):
            outcome = answer
    return outcome
