"""Replies: send_reply answers a request, collect_replies gathers the answers.

A request carries `reply_to` (a queue) and `correlation_id`; the reply goes to that queue, through the default exchange
unless another one is given, with the same correlation_id and in the serialization of the request (kombu O8, O9,
O15).
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from twisted.internet.defer import Deferred, fail

from txmsg.errors import ConfigurationError
from txmsg.messaging.consuming.iterating import MessageIterator, itermessages
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.serialization import serializers
from txmsg.messaging.serialization.media_types import parse_media_type

if TYPE_CHECKING:
    from txmsg.messaging.entities import Exchange, Queue

__all__ = ["ReplyIterator", "collect_replies", "send_reply"]


def send_reply(
    exchange: Exchange | str,
    request: Message,
    body: Any,
    producer: Any,
    retry: bool = False,
    retry_policy: Any = None,
    **properties: Any,
) -> Deferred[None]:
    """Publish `body` as the answer to `request`; fires, and fails, as `Producer.publish` does.

    exchange -- an Exchange or a name; "" is the default exchange, which leads to the queue that `reply_to` names.
    properties -- of the publish; they win over what is taken from the request: routing_key (its reply_to),
    correlation_id, serializer.
    ConfigurationError for a request without `reply_to`: nobody waits for an answer.
    """
    asked = request.properties
    reply_to = asked.get("reply_to")
    if not reply_to and "routing_key" not in properties:
        return fail(ConfigurationError("the request has no reply_to: nobody waits for a reply"))
    given: dict[str, Any] = {"routing_key": reply_to, "correlation_id": asked.get("correlation_id")}
    content_type = request.content_type
    if content_type and "content_type" not in properties:
        # Text and octets have no name among the serializers: what is sent then is chosen by the body.
        serializer = serializers.type_to_name.get(parse_media_type(content_type).name)
        if serializer is not None:
            given["serializer"] = serializer
    given.update(properties)
    sent: Deferred[None] = producer.publish(body, exchange=exchange, retry=retry, retry_policy=retry_policy, **given)
    return sent


def collect_replies(
    connection: Any, channel: Any, queue: Queue | Iterable[Queue], *args: Any, **settings: Any
) -> ReplyIterator:
    """The bodies of the messages in a queue of replies; arguments as of :func:`itermessages`, `no_ack` being True.

    After the first one, `channel.after_reply_message_received(queue_name)` is called where a channel has that.
    """
    settings.setdefault("no_ack", True)
    return ReplyIterator(itermessages(connection, channel, queue, *args, **settings))


class ReplyIterator:
    """What :func:`collect_replies` returns: a :class:`MessageIterator` that yields bodies."""

    def __init__(self, messages: MessageIterator) -> None:
        self._messages = messages
        self._is_first = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        body, _ = await self._messages.__anext__()
        if self._is_first:
            self._is_first = False
            consumer = self._messages.consumer
            told = getattr(consumer.channel, "after_reply_message_received", None)
            if told is not None:
                for queue in consumer.queues:
                    told(queue.name)
        return body

    async def aclose(self) -> None:
        """Stop consuming, and give back what was not yielded."""
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
