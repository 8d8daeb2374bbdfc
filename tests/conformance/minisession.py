"""The small test broker's connection, channel, exchange and queue methods; see minibroker for what it is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pamqp import commands
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tests.conformance.minibasic import BasicMethods
from tests.conformance.minibroker import Exchange, MiniBroker, Queue, Refused, ServerChannel

Basic, Channel, Connection = commands.Basic, commands.Channel, commands.Connection


class ServerSession(BasicMethods):
    """One connection, handled as RabbitMQ would."""

    def __init__(self, broker: MiniBroker) -> None:
        super().__init__(broker)
        self._handlers: dict[str, Callable[[ServerChannel, Any], None]] = {
            name: getattr(self, name.replace(".", "_").lower())
            for name in [
                *("Channel.Close", "Channel.CloseOk", "Channel.Flow", "Confirm.Select"),
                *("Exchange.Declare", "Exchange.Delete", "Exchange.Bind", "Exchange.Unbind"),
                *("Queue.Declare", "Queue.Bind", "Queue.Unbind", "Queue.Purge", "Queue.Delete"),
                *("Basic.Qos", "Basic.Consume", "Basic.Cancel", "Basic.Get", "Basic.Recover", "Basic.Publish"),
                *("Basic.Ack", "Basic.Nack", "Basic.Reject", "Tx.Select", "Tx.Commit", "Tx.Rollback"),
            ]
        }

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        for channel in list(self.channels.values()):
            self._drop_channel(channel)
        for queue in [q for q in self.broker.queues.values() if q.owner is self]:
            self.broker.delete_queue(queue)

    # -- dispatch ----------------------------------------------------------------------------------

    def header_received(self, header: bytes) -> None:
        if self._intercepted("ProtocolHeader", 0, header):
            return
        if header != b"AMQP\x00\x00\x09\x01":
            self.write(b"AMQP\x00\x00\x09\x01")
            self.transport.loseConnection()
            return
        self.send(0, Connection.Start(0, 9, self.broker.server_properties, self.broker.mechanisms, "en_US"))

    def method_received(self, number: int, method: Any) -> None:
        if self.is_closing and method.name not in ("Connection.CloseOk", "Connection.Close"):
            return
        channel = self.channels.get(number)
        if channel is not None and channel.closing and method.name not in ("Channel.CloseOk", "Channel.Close"):
            return
        if self._intercepted(method.name, number, method):
            return
        if number == 0:
            getattr(self, method.name.replace(".", "_").lower())(method)
        elif method.name == "Channel.Open":
            assert channel is None, f"channel {number} was opened while it was in use"
            self.channels[number] = ServerChannel(number)
            self.send(number, Channel.OpenOk())
        elif channel is None:
            # channel.close-ok for a channel that is gone, after crossing closes, is in order
            if method.name != "Channel.CloseOk":
                self.close_connection(504, f"CHANNEL_ERROR - {method.name} on a channel that is not open")
        else:
            self._handle(channel, method, lambda: self._handlers[method.name](channel, method))

    def content_received(self, kind: int, number: int, payload: bytes) -> None:
        channel = self.channels.get(number)
        if channel is None or channel.closing or self.is_closing:
            return
        assert channel.content is not None, "content without a method"
        if kind == 2:
            class_id, weight, size = struct.unpack(">HHQ", payload[:12])
            assert (class_id, weight) == (60, 0)
            channel.content[1:] = [size, payload[12:], b""]
        else:
            channel.content[3] += payload
        method, size, properties, body = channel.content
        assert len(body) <= size
        if len(body) == size:
            channel.content = None
            if not self._intercepted("content", number, (method, properties, body)):
                self._handle(channel, method, lambda: self.published(channel, method, properties, body))

    def turn_ended(self) -> None:
        for channel in self.channels.values():
            tags, channel.to_confirm = channel.to_confirm, []
            if tags:
                self.send(channel.number, Basic.Ack(tags[-1], multiple=len(tags) > 1))

    def _intercepted(self, name: str, number: int, method: Any) -> bool:
        interceptor = self.broker.on.get(name)
        return interceptor is not None and interceptor(self, number, method)

    def _handle(self, channel: ServerChannel, method: Any, handle: Callable[[], None]) -> None:
        try:
            handle()
        except Refused as refused:
            ids = divmod(method.index, 65536)
            if refused.hard:
                self.close_connection(refused.code, refused.text, *ids)
            else:
                self.close_channel(channel, refused.code, refused.text, *ids)

    # -- connection --------------------------------------------------------------------------------

    def connection_startok(self, method: Any) -> None:
        user = password = None
        if method.mechanism == "PLAIN":
            response = method.response if isinstance(method.response, bytes) else method.response.encode()
            _, user, password = response.decode().split("\0")
        if user is None or self.broker.users.get(user) != password:
            self.close_connection(403, "ACCESS_REFUSED - Login was refused. For details see the broker logfile.")
            return
        self.send(0, Connection.Tune(*self.broker.tune))

    def connection_tuneok(self, method: Any) -> None:
        self.tuned = (method.channel_max, method.frame_max, method.heartbeat)
        offer = self.broker.tune
        # As RabbitMQ does: a wish above the offer, or "no limit", is answered with a reset.
        if any(o and (not w or w > o) for o, w in zip(offer[:2], self.tuned[:2], strict=True)):
            self.hang_up()
        elif method.frame_max:
            self.frame_max = method.frame_max

    def connection_open(self, method: Any) -> None:
        if method.virtual_host != "/":
            self.close_connection(530, f"NOT_ALLOWED - vhost {method.virtual_host} not found", 10, 40)
        else:
            self.send(0, Connection.OpenOk())

    def connection_close(self, method: Any) -> None:
        self.send(0, Connection.CloseOk())
        self.transport.loseConnection()

    def connection_closeok(self, method: Any) -> None:
        self.transport.loseConnection()

    def connection_updatesecret(self, method: Any) -> None:
        self.send(0, Connection.UpdateSecretOk())

    # -- channel -----------------------------------------------------------------------------------

    def close_channel(
        self, channel: ServerChannel, code: int, text: str, class_id: int = 0, method_id: int = 0
    ) -> None:
        """Send channel.close; what the client still sends is ignored until its close-ok."""
        channel.closing = True
        self.turn_ended()
        self._release(channel)
        self.send(channel.number, Channel.Close(code, text, class_id, method_id))

    def channel_close(self, channel: ServerChannel, method: Any) -> None:
        self.send(channel.number, Channel.CloseOk())
        self._drop_channel(channel)

    def channel_closeok(self, channel: ServerChannel, method: Any) -> None:
        self._drop_channel(channel)

    def channel_flow(self, channel: ServerChannel, method: Any) -> None:
        if not method.active:
            raise Refused(540, "NOT_IMPLEMENTED - active=false", hard=True)
        self.send(channel.number, Channel.FlowOk(True))

    def _drop_channel(self, channel: ServerChannel) -> None:
        self._release(channel)
        self.channels.pop(channel.number, None)

    def _release(self, channel: ServerChannel) -> None:
        consumers, channel.consumers = channel.consumers, {}
        for consumer in consumers.values():
            consumer.queue.consumers.remove(consumer)
        self.give_back(channel, list(channel.unacked))
        for consumer in consumers.values():
            self.broker.consumer_left(consumer.queue)

    # -- exchange ----------------------------------------------------------------------------------

    def exchange_declare(self, channel: ServerChannel, method: Any) -> None:
        name, kind = method.exchange, method.exchange_type
        existing = self.broker.exchanges.get(name)
        if method.passive:
            self._exchange(name)
        elif existing is None:
            self.broker.exchanges[name] = Exchange(name, kind, method.durable)
        elif (existing.type, existing.durable) != (kind, method.durable):
            raise Refused(406, f"PRECONDITION_FAILED - inequivalent arg for exchange '{name}' in vhost '/'")
        if not method.nowait:
            self.send(channel.number, commands.Exchange.DeclareOk())

    def exchange_delete(self, channel: ServerChannel, method: Any) -> None:
        exchange = self.broker.exchanges.get(method.exchange)
        if exchange is not None and method.if_unused and exchange.bindings:
            raise Refused(406, f"PRECONDITION_FAILED - exchange '{method.exchange}' in vhost '/' in use")
        self.broker.exchanges.pop(method.exchange, None)
        if not method.nowait:
            self.send(channel.number, commands.Exchange.DeleteOk())

    def exchange_bind(self, channel: ServerChannel, method: Any) -> None:
        self._exchange(method.destination)
        binding = ("exchange", method.destination, method.routing_key)
        bindings = self._exchange(method.source).bindings
        if binding not in bindings:
            bindings.append(binding)
        if not method.nowait:
            self.send(channel.number, commands.Exchange.BindOk())

    def exchange_unbind(self, channel: ServerChannel, method: Any) -> None:
        source = self._exchange(method.source)
        source.bindings = [b for b in source.bindings if b != ("exchange", method.destination, method.routing_key)]
        if not method.nowait:
            self.send(channel.number, commands.Exchange.UnbindOk())

    # -- queue -------------------------------------------------------------------------------------

    def queue_declare(self, channel: ServerChannel, method: Any) -> None:
        name = method.queue
        if method.passive or name in self.broker.queues:
            queue = self._queue(channel, name)
            wanted = (method.durable, method.auto_delete, method.exclusive, method.arguments)
            if not method.passive and wanted != (
                queue.durable,
                queue.auto_delete,
                queue.owner is not None,
                queue.arguments,
            ):
                raise Refused(406, f"PRECONDITION_FAILED - inequivalent arg for queue '{name}' in vhost '/'")
        else:
            name = name or self.broker.generated_name("amq.gen-")
            owner = self if method.exclusive else None
            queue = Queue(name, method.durable, method.auto_delete, owner, method.arguments)
            self.broker.queues[name] = queue
        channel.last_queue = queue.name
        if not method.nowait:
            self.send(channel.number, commands.Queue.DeclareOk(queue.name, len(queue.messages), len(queue.consumers)))

    def queue_bind(self, channel: ServerChannel, method: Any) -> None:
        queue = self._queue(channel, method.queue)
        exchange = self._exchange(method.exchange)
        binding = ("queue", queue.name, method.routing_key)
        if binding not in exchange.bindings:
            exchange.bindings.append(binding)
        if not method.nowait:
            self.send(channel.number, commands.Queue.BindOk())

    def queue_unbind(self, channel: ServerChannel, method: Any) -> None:
        queue = self._queue(channel, method.queue)
        exchange = self._exchange(method.exchange)
        exchange.bindings = [b for b in exchange.bindings if b != ("queue", queue.name, method.routing_key)]
        self.send(channel.number, commands.Queue.UnbindOk())

    def queue_purge(self, channel: ServerChannel, method: Any) -> None:
        queue = self._queue(channel, method.queue)
        count = len(queue.messages)
        queue.messages.clear()
        if not method.nowait:
            self.send(channel.number, commands.Queue.PurgeOk(count))

    def queue_delete(self, channel: ServerChannel, method: Any) -> None:
        count = 0
        if (method.queue or channel.last_queue) in self.broker.queues:
            queue = self._queue(channel, method.queue)
            if (method.if_empty and queue.messages) or (method.if_unused and queue.consumers):
                raise Refused(406, f"PRECONDITION_FAILED - queue '{method.queue}' in vhost '/' in use or not empty")
            count = self.broker.delete_queue(queue)
        if not method.nowait:
            self.send(channel.number, commands.Queue.DeleteOk(count))
