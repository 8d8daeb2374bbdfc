"""The producer that declared handlers are given: values in, the service's publisher below.

It serializes and compresses as the messaging layer does; who sends, confirms and tries again is the service's
:class:`~txmsg.amqp.Publisher`, on its own connection (R16).
"""

from __future__ import annotations

from typing import Any

from txmsg.amqp import BasicProperties
from txmsg.errors import ConfigurationError, EncodeError
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.entities.exchange import delivery_mode_of, exchange_name
from txmsg.messaging.entities.fields import milliseconds, seconds
from txmsg.messaging.serialization import encode_body

__all__ = ["ServiceProducer"]


class ServiceProducer:
    """Publishes values.

    publisher: a Publisher, or a ThreadPublisher for a handler in a thread.
    serializer, compression: by name, where a publish does not say its own; None: JSON (text and octets as they are),
        and no compression.

    Deferreds fire with the message id when the broker has confirmed; in a thread the calls wait, and return it.
    """

    __slots__ = ("_compression", "_publisher", "_serializer")

    def __init__(self, publisher: Any, serializer: str | None = None, compression: str | None = None) -> None:
        self._publisher = publisher
        self._serializer = serializer
        self._compression = compression

    def __repr__(self) -> str:
        return f"<ServiceProducer of {self._publisher!r}>"

    def publish(
        self,
        body: Any,
        routing_key: str = "",
        *,
        exchange: Any = "",
        serializer: str | None = None,
        compression: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        delivery_mode: int | str = 2,
        expiration: float | None = None,
        mandatory: bool | None = None,
        timeout: float | None = None,
        **properties: Any,
    ) -> Any:
        """Publish one value.

        exchange: an Exchange or its name; "" is the default one, which routes to the queue that `routing_key` names.
        content_type: the body is octets or text of that type, and is sent as it is.
        delivery_mode: 2 or "persistent", 1 or "transient".
        expiration: seconds.   timeout: seconds in all, over outages too; None: the service's `publish_timeout`.
        mandatory: fail with PublishReturned when it is routed to no queue; None: as the publisher does.
        properties: others of AMQP's, such as priority and correlation_id.

        EncodeError, ConfigurationError (a value that cannot be used), and as :meth:`txmsg.amqp.Publisher.publish`.
        """
        encoded = encode_body(
            body,
            serializer=serializer or self._serializer,
            compression=compression or self._compression,
            content_type=content_type,
            content_encoding=content_encoding,
        )
        headers = dict(headers or {})
        if encoded.compression is not None:
            headers["compression"] = encoded.compression
        expires = seconds("expiration", expiration)
        mode = delivery_mode_of(delivery_mode)
        try:
            made = BasicProperties(
                content_type=encoded.content_type,
                content_encoding=encoded.content_encoding,
                headers=headers or None,
                delivery_mode=mode,
                expiration=None if expires is None else str(milliseconds(expires)),
                **properties,
            )
        except TypeError:
            unknown = ", ".join(sorted(set(properties) - set(BasicProperties.NAMES)))
            raise EncodeError(f"a message has no property {unknown}") from None
        return self._publisher.publish(
            exchange_name(exchange), routing_key, encoded.body, made, mandatory=mandatory, timeout=timeout
        )

    def reply(self, message: Message, body: Any, **details: Any) -> Any:
        """Publish the answer to a message: to its `reply_to`, with its correlation id.

        details: as for :meth:`publish`.   ConfigurationError: the message does not say where to.
        """
        properties = message.properties
        reply_to = properties.get("reply_to")
        if not reply_to:
            raise ConfigurationError("the message has no reply_to: its sender waits for no answer")
        details.setdefault("correlation_id", properties.get("correlation_id"))
        return self.publish(body, reply_to, **details)
