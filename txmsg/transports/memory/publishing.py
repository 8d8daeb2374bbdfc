"""Publishing over ``memory://``: the checks that a broker's wire would make, then the model.

Invariants: a message that AMQP could not carry is refused, as on the wire; a publish is confirmed once the model has
accepted it (and, over a durable vhost, once it is on disk).
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed

from txmsg.abc import Properties
from txmsg.broker import faults
from txmsg.broker.faults import Fault
from txmsg.broker.message import Message
from txmsg.broker.queues.expiry import check_expiration
from txmsg.broker.queues.queue import PENDING, REJECTED, UNROUTED
from txmsg.broker.vhost.direct_reply import REPLY_TO
from txmsg.errors import EncodeError, Overloaded, PublishNacked, PublishReturned, TxmsgError
from txmsg.transports.memory.life import name
from txmsg.transports.memory.topology import Topology
from txmsg.wire.constants import DELIVERY_MODE_PERSISTENT, DELIVERY_MODE_TRANSIENT, NO_ROUTE
from txmsg.wire.primitives import MAX_SHORT_STRING
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

if TYPE_CHECKING:
    from txmsg.transports.memory.connection import MemoryConnection
    from txmsg.transports.memory.consumer import MemoryConsumer

__all__ = ["Publishing"]

#: Characters that fit a short string whatever they are, so that nothing has to be encoded to know it.
_SHORT: Final = MAX_SHORT_STRING // 4


class Publishing(Topology):
    """The part of a channel that publishes."""

    def __init__(self, connection: MemoryConnection) -> None:
        super().__init__(connection)
        self._publish = connection.vhost.publish
        self._usage = connection.vhost.usage
        self._max_size = connection.vhost.limits.max_message_size
        #: The consumer of direct replies.
        self._replies: MemoryConsumer | None = None
        #: The properties without headers that were given last, and what they are for the model: most repeat.
        self._given: dict[str, Any] = {}
        self._given_properties = NO_PROPERTIES

    def forget_properties(self) -> None:
        """Check the next ones anew: the consumer of direct replies is another one, or none."""
        self._given, self._given_properties = {}, NO_PROPERTIES

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[None]:
        """Publish one message; fires when the broker has taken it over.

        Fails with PublishReturned (mandatory, and routed to no queue), PublishNacked (a full queue refused it),
        Overloaded (the limit on the memory of all queues is reached), EncodeError (what AMQP cannot carry; the channel
        stays open), NotFound (no such exchange; the channel ends), or why the channel has ended.
        """
        if get_ident() != self._thread_id:
            self.check_thread()
        if self._reason is not None:
            return fail(self._reason.with_traceback(None))
        try:
            if type(exchange) is not str or len(exchange) > _SHORT or not exchange.isascii():
                name("exchange", exchange)
            if type(routing_key) is not str or len(routing_key) > _SHORT or not routing_key.isascii():
                name("routing_key", routing_key)
            if type(body) is not bytes:
                body = _octets(body)
            if not properties:
                checked = NO_PROPERTIES
            elif self._given == properties:
                checked = self._given_properties
            else:
                checked = self._checked(properties)
            if len(body) > self._max_size:
                raise faults.message_too_large(len(body), self._max_size)
            if self._usage.is_high:
                return fail(Overloaded("the messages in memory have reached the limit of the broker"))
            message = Message.published(exchange, routing_key, checked, body)
            outcome = self._publish(exchange, routing_key, message, checked)
        except Fault as fault:
            return fail(self._refused(fault))
        except (TypeError, AttributeError):
            return fail(EncodeError("properties are a mapping or None"))
        except TxmsgError as error:
            return fail(error)
        if outcome == PENDING:
            confirmed: Deferred[None] = Deferred()
            self.vhost.journal.after_commit(lambda: confirmed.callback(None), confirmed.errback)
            return confirmed
        if outcome == REJECTED:
            return fail(PublishNacked("the broker refused the message: a queue is full"))
        if outcome == UNROUTED and mandatory:
            return fail(PublishReturned(NO_ROUTE, "NO_ROUTE", exchange, routing_key))
        return succeed(None)

    def _checked(self, given: Properties) -> BasicProperties:
        """The properties in `given`, if AMQP can carry them; those without headers are remembered, they repeat."""
        try:
            properties = BasicProperties(**given)
        except TypeError:
            unknown = sorted(str(key) for key in set(given) - set(BasicProperties.NAMES))
            raise EncodeError(f"a message has no property {', '.join(unknown)}" if unknown else str(given)) from None
        properties.encode()
        expiration = properties.expiration
        if expiration is not None:
            check_expiration(expiration)
        mode = properties.delivery_mode
        if mode is not None and mode not in (DELIVERY_MODE_TRANSIENT, DELIVERY_MODE_PERSISTENT):
            raise faults.invalid_message(f"{{delivery_mode_unknown,{mode}}}")
        if properties.reply_to == REPLY_TO:
            if self._replies is None:
                raise faults.fast_reply_missing()
            properties = properties.replace(reply_to=self._replies.reply_name)
        if properties.headers is None:
            self._given, self._given_properties = dict(given), properties
        return properties


def _octets(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise EncodeError(f"a body is bytes, not {type(body).__name__}")
