"""Old and new, name by name: pika's Twisted adapter and txamqp on the left, `txmsg.amqp` on the right.

The command and the pages docs/moving-from-*.md are made from these rows.  After a change:
`python scripts/migration_tables.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["LIBRARIES", "PIKA", "TXAMQP", "Kind", "Library", "Row"]

#: name: of the library.   method: called, on whatever it is.   attribute: read.   override: defined in a class.
Kind = Literal["name", "method", "attribute", "override"]


@dataclass(frozen=True, slots=True)
class Row:
    """One old thing and its native form.

    kind: Kind.   old: str -- a dotted name ("pika.BasicProperties"), or the name of a method or attribute.
    native: str -- what to write instead.
    """

    kind: Kind
    old: str
    native: str

    @property
    def shown(self) -> str:
        """How the old thing is named to people: `.basic_ack()`, `.ready`, `def connectionReady`, a dotted name."""
        if self.kind == "method":
            return f".{self.old}()"
        if self.kind == "attribute":
            return f".{self.old}"
        return f"def {self.old}" if self.kind == "override" else self.old


@dataclass(frozen=True, slots=True)
class Library:
    """An old library.

    name: str -- "pika".   module: str -- who imports this, or something in it, is meant.
    drop_in: str -- our module for its users, which counts as `module`.   page: str -- the page about it.
    rows: tuple of Row -- all of them count in a file that imports `module`.
    """

    name: str
    module: str
    drop_in: str
    page: str
    rows: tuple[Row, ...]


#: Methods of a channel that both libraries and txmsg have, and how they are called now.
_SAME: Final = (
    Row("method", "exchange_declare", "channel.exchange_declare(name, kind, durable=...)"),
    Row("method", "exchange_delete", "channel.exchange_delete(name, if_unused=...)"),
    Row("method", "exchange_bind", "channel.exchange_bind(destination, source, routing_key)"),
    Row("method", "exchange_unbind", "channel.exchange_unbind(destination, source, routing_key)"),
    Row("method", "queue_bind", "channel.queue_bind(queue, exchange, routing_key)"),
    Row("method", "queue_unbind", "channel.queue_unbind(queue, exchange, routing_key)"),
    Row("method", "basic_qos", "channel.basic_qos(count); without it the prefetch is 200, 0 is no limit"),
    Row("method", "basic_recover", "channel.basic_recover()"),
    Row("method", "basic_ack", "delivery.ack(); raises StaleDelivery or AlreadySettled, and nothing is sent then"),
    Row("method", "basic_nack", "delivery.nack(requeue=...)"),
    Row("method", "basic_reject", "delivery.reject(); without requeue=True it is dead-lettered or dropped"),
    Row("method", "tx_select", "channel.tx_select()"),
    Row("method", "tx_commit", "channel.tx_commit()"),
    Row("method", "tx_rollback", "channel.tx_rollback()"),
)

PIKA: Final = Library(
    "pika",
    "pika.adapters.twisted_connection",
    "txmsg.compat.pika",
    "docs/moving-from-pika.md",
    (
        Row("name", "pika.adapters.twisted_connection", "txmsg.amqp; or the drop-in, txmsg.compat.pika"),
        Row(
            "name",
            "pika.adapters.twisted_connection.TwistedProtocolConnection",
            "ReconnectingConnection(url), or yield connect(url)",
        ),
        Row("name", "pika.adapters.twisted_connection.TwistedChannel", "Channel, from connection.channel()"),
        Row(
            "name",
            "pika.adapters.twisted_connection.ClosableDeferredQueue",
            "the Consumer that basic_consume gives: consumer.get(), or async for",
        ),
        Row("name", "pika.adapters.twisted_connection.ReceivedMessage", "Delivery: .body, .properties ..."),
        Row("override", "connectionReady", "connection_ready, of AMQPProtocol; or the code after yield connect(url)"),
        Row("attribute", "ready", "the Deferred of connect(url); connection.when_ready()"),
        Row("attribute", "closed", "connection.when_closed(); of a queue: consumer.when_ended()"),
        Row("attribute", "on_closed", "channel.when_closed()"),
        *_SAME,
        Row("method", "queue_declare", "channel.queue_declare(name, ...); fires with DeclareOk itself, no .method"),
        Row("method", "queue_delete", "channel.queue_delete(name, if_unused=..., if_empty=...)"),
        Row("method", "queue_purge", "channel.queue_purge(name)"),
        Row(
            "method",
            "basic_consume",
            "consumer = yield channel.basic_consume(queue, no_ack=...); then yield consumer.get()",
        ),
        Row("method", "basic_cancel", "consumer.cancel()"),
        Row("method", "basic_get", "channel.basic_get(queue, no_ack=...); a Delivery, or None"),
        Row("method", "basic_publish", "channel.basic_publish(exchange, routing_key, body, properties, mandatory=...)"),
        Row("method", "confirm_delivery", "channel.confirm_select()"),
        Row("method", "flow", "channel.basic_qos(count): RabbitMQ refuses channel.flow"),
        Row("method", "callback_deferred", "the Deferreds of the calls; consumer.when_ended(), channel.when_closed()"),
        Row("method", "add_on_return_callback", "channel.add_return_callback(callback)"),
        Row("method", "add_on_close_callback", "channel.when_closed().addCallback(callback)"),
        Row("method", "add_on_cancel_callback", "consumer.when_ended().addCallback(callback)"),
        Row("name", "pika.ConnectionParameters", "ConnectionParameters(host=..., credentials=..., heartbeat=...)"),
        Row("name", "pika.URLParameters", "the URL itself, or ConnectionParameters.from_url(url)"),
        Row(
            "name",
            "pika.connection.ConnectionParameters",
            "ConnectionParameters(host=..., credentials=..., heartbeat=...)",
        ),
        Row("name", "pika.connection.URLParameters", "the URL itself, or ConnectionParameters.from_url(url)"),
        Row("name", "pika.PlainCredentials", "PlainCredentials(user, password)"),
        Row("name", "pika.credentials.PlainCredentials", "PlainCredentials(user, password)"),
        Row("name", "pika.credentials.ExternalCredentials", "ExternalCredentials()"),
        Row("name", "pika.SSLOptions", "TLSOptions(...), or an amqps:// URL"),
        Row("name", "pika.connection.SSLOptions", "TLSOptions(...), or an amqps:// URL"),
        Row("name", "pika.BasicProperties", "BasicProperties(...), which is read-only"),
        Row("name", "pika.spec.BasicProperties", "BasicProperties(...), which is read-only"),
        Row("name", "pika.exceptions.AMQPError", "txmsg.errors.TxmsgError"),
        Row("name", "pika.exceptions.AMQPConnectionError", "txmsg.errors.ConnectionClosed"),
        Row("name", "pika.exceptions.AMQPChannelError", "txmsg.errors.ChannelClosed"),
        Row("name", "pika.exceptions.ConnectionClosed", "txmsg.errors.ConnectionClosed"),
        Row("name", "pika.exceptions.ConnectionClosedByBroker", 'ConnectionClosed, .initiator == "server"'),
        Row("name", "pika.exceptions.ConnectionClosedByClient", 'ConnectionClosed, .initiator == "client"'),
        Row("name", "pika.exceptions.ConnectionWrongStateError", "txmsg.errors.ConnectionWrongState"),
        Row("name", "pika.exceptions.StreamLostError", "txmsg.errors.ConnectionLost"),
        Row("name", "pika.exceptions.AMQPHeartbeatTimeout", "txmsg.errors.HeartbeatTimeout"),
        Row("name", "pika.exceptions.ConnectionBlockedTimeout", "txmsg.errors.ConnectionBlockedTimeout"),
        Row("name", "pika.exceptions.AuthenticationError", "txmsg.errors.AuthenticationFailed"),
        Row("name", "pika.exceptions.ProbableAuthenticationError", "txmsg.errors.AuthenticationFailed"),
        Row("name", "pika.exceptions.ProbableAccessDeniedError", "txmsg.errors.VirtualHostRefused"),
        Row("name", "pika.exceptions.ChannelClosed", "txmsg.errors.ChannelClosed"),
        Row(
            "name",
            "pika.exceptions.ChannelClosedByBroker",
            "NotFound, AccessRefused, PreconditionFailed ...",
        ),
        Row("name", "pika.exceptions.ChannelClosedByClient", 'ChannelClosed, .initiator == "client"'),
        Row("name", "pika.exceptions.ChannelWrongStateError", "txmsg.errors.ChannelWrongState"),
        Row("name", "pika.exceptions.ConsumerCancelled", "txmsg.errors.ConsumerCancelled"),
        Row("name", "pika.exceptions.DuplicateConsumerTag", "txmsg.errors.DuplicateConsumerTag"),
        Row("name", "pika.exceptions.NackError", "txmsg.errors.PublishNacked"),
        Row("name", "pika.exceptions.UnroutableError", "txmsg.errors.PublishReturned"),
        Row("name", "pika.exceptions.NoFreeChannels", "txmsg.errors.ChannelLimitReached"),
    ),
)

TXAMQP: Final = Library(
    "txamqp",
    "txamqp",
    "txmsg.compat.txamqp",
    "docs/moving-from-txamqp.md",
    (
        Row("name", "txamqp", "txmsg.amqp; or the drop-in, txmsg.compat.txamqp"),
        Row("name", "txamqp.protocol.AMQClient", "ReconnectingConnection(url), or yield connect(url)"),
        Row("name", "txamqp.protocol.AMQChannel", "Channel, from connection.channel()"),
        Row("name", "txamqp.client.TwistedDelegate", "nothing: consumers, when_closed() and add_return_callback()"),
        Row("name", "txamqp.client.TwistedEvent", "when_ready() and when_closed() give each caller a Deferred"),
        Row("name", "txamqp.client.Closed", "txmsg.errors.ChannelClosed, ConnectionClosed"),
        Row("name", "txamqp.client.ChannelClosed", "NotFound, AccessRefused, PreconditionFailed ..."),
        Row("name", "txamqp.client.ConnectionClosed", 'txmsg.errors.ConnectionClosed, .initiator == "server"'),
        Row("name", "txamqp.content.Content", "the body itself, and BasicProperties(delivery_mode=2, ...)"),
        Row("name", "txamqp.message.Message", "Delivery, or the typed reply"),
        Row("name", "txamqp.queue.TimeoutDeferredQueue", "the Consumer that basic_consume gives"),
        Row("name", "txamqp.queue.Closed", "the reason itself: ConsumerCancelled, ChannelClosed, ConnectionLost ..."),
        Row("name", "txamqp.queue.Empty", "defer.TimeoutError, of consumer.get().addTimeout(seconds, reactor)"),
        Row("name", "txamqp.factory.AMQFactory", "nothing: connect(url) makes its own"),
        Row("name", "txamqp.endpoint.AMQEndpoint", "connect(url), or connect(parameters, endpoint=endpoint)"),
        Row("name", "txamqp.spec.load", "nothing: the protocol is built in"),
        Row("override", "basic_deliver", "channel.basic_consume(queue, callback)"),
        Row("override", "basic_return_", "channel.add_return_callback(callback)"),
        Row("override", "basic_cancel", "consumer.when_ended().addCallback(callback)"),
        Row("override", "channel_close", "channel.when_closed().addCallback(callback)"),
        Row("override", "connection_close", "connection.when_closed().addCallback(callback)"),
        Row("attribute", "basic_return_queue", "channel.add_return_callback(callback)"),
        Row("attribute", "disconnected", "connection.when_closed()"),
        Row("method", "authenticate", "PlainCredentials(user, password), or in the URL"),
        Row("method", "channel_open", "channel = yield connection.channel(): it is open"),
        Row("method", "channel_close", "channel.close()"),
        Row("method", "channel_flow", "channel.basic_qos(count): RabbitMQ refuses channel.flow"),
        Row("method", "connection_close", "connection.close()"),
        Row("method", "access_request", "nothing: there are no tickets any more"),
        *_SAME,
        Row("method", "queue_declare", "channel.queue_declare(name, ...)"),
        Row("method", "queue_delete", "channel.queue_delete(name, if_unused=..., if_empty=...)"),
        Row("method", "queue_purge", "channel.queue_purge(name)"),
        Row(
            "method",
            "basic_consume",
            "consumer = yield channel.basic_consume(queue, no_ack=...); then yield consumer.get()",
        ),
        Row("method", "queue", "the Consumer that basic_consume gives"),
        Row("method", "basic_cancel", "consumer.cancel()"),
        Row("method", "basic_get", "channel.basic_get(queue, no_ack=...); a Delivery, or None"),
        Row("method", "basic_publish", "channel.basic_publish(exchange, routing_key, body, properties, mandatory=...)"),
        Row("method", "confirm_select", "channel.confirm_select()"),
    ),
)

#: All old libraries.
LIBRARIES: Final = (PIKA, TXAMQP)
