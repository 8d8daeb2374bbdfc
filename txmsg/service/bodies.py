"""Declared handlers: from a delivery to `handle(body, message)`, and from their queues to the broker.

The messaging layer's values on the service's own connections: a :class:`BodyHandler` is a handler like any other, so
that order, concurrency, threads, settling and the drain are those of every handler (:mod:`txmsg.service.dispatch`).

Invariants: whether a body may be decoded is decided by the accept list before any octet of it is read (kombu
H10); one that is refused never reaches the handler, and becomes what `on_decode_error` says (R20).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from txmsg.amqp import Delivery, RecoveringChannel
from txmsg.errors import ConfigurationError, TxmsgError, clip
from txmsg.messaging.compression import compressions
from txmsg.messaging.consuming.message import received
from txmsg.messaging.consuming.trust import Trust
from txmsg.messaging.entities import Queue
from txmsg.messaging.serialization import serializers
from txmsg.service.declared import DeclaredConsumer
from txmsg.service.policy import BodyRefused, Settlement
from txmsg.service.producing import ServiceProducer
from txmsg.transports.amqp import AMQPChannel, AMQPDelivery

__all__ = ["BodyHandler", "declare_queue", "queue_entities"]


def queue_entities(declared: DeclaredConsumer) -> tuple[Queue, ...]:
    """The queues of a declaration, none of them bound; ConfigurationError for one that a service cannot consume."""
    queues = []
    for given in declared.queues:
        if not isinstance(given, (str, Queue)):
            raise ConfigurationError(f"a consumer's queue is a Queue or a name, not a {type(given).__name__}")
        queue = Queue(given, no_declare=True) if isinstance(given, str) else given
        if not declared.declare and not queue.no_declare:
            queue = copy.copy(queue)
            queue.no_declare = True
        if queue.no_ack:
            raise ConfigurationError(f"queue {clip(queue.name)!r} has no_ack: what is not handled yet would be lost")
        queues.append(queue)
    return tuple(queues)


async def declare_queue(queue: Queue, channel: RecoveringChannel) -> tuple[str, Mapping[str, Any] | None]:
    """Declare a queue with its exchange and bindings, or check that it is there; its name, and how to consume.

    What is declared on a recovering channel is declared again after a loss.  Fails as the channel does.
    """
    bound = queue(AMQPChannel(channel))
    if queue.no_declare:
        await channel.queue_declare(queue.name, passive=True)
    else:
        await bound.declare()
    return bound.name, queue.consumer_arguments or None


class BodyHandler:
    """A handler of deliveries that decodes the body and calls a declared one.

    declared: the declaration.   handler: its callable.

    ConfigurationError: the accept list, the serializer or the compression names what is not there.
    """

    def __init__(self, declared: DeclaredConsumer, handler: Callable[..., Any]) -> None:
        try:
            unpacked = declared.accept_compression
            self._trust = Trust.of(declared.accept, None if unpacked is None else compressions.accept(unpacked))
            # What cannot encode nothing cannot encode at all.
            if declared.serializer is not None:
                serializers.dumps("", declared.serializer)
            if declared.compression is not None:
                compressions.compress(b"", declared.compression)
        except TxmsgError as error:
            raise ConfigurationError(str(error)) from None
        self._handler = handler
        self._declared = declared

    def __repr__(self) -> str:
        return f"<BodyHandler of {self._declared!r}>"

    def __call__(self, delivery: Delivery, publisher: Any = None) -> Any:
        """Decode and call; the result is the handler's.  Raises BodyRefused, or what the handler raises."""
        message = received(AMQPDelivery(delivery), None, self._trust, False)
        try:
            body = message.payload
        except Exception as error:
            on_decode_error = self._declared.on_decode_error
            if callable(on_decode_error):
                return on_decode_error(message, error)
            raise BodyRefused(Settlement(on_decode_error), error) from None
        if publisher is None:
            return self._handler(body, message)
        producer = ServiceProducer(publisher, self._declared.serializer, self._declared.compression)
        return self._handler(body, message, producer=producer)
