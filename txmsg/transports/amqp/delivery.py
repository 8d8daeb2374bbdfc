"""What a consumer of ``amqp://`` is handed."""

from __future__ import annotations

from typing import Any

from txmsg.amqp import BasicProperties, Delivery, UndecodableProperties

__all__ = ["AMQPDelivery"]

#: The last properties without headers, and what they are as a dict.  Those that repeat are decoded once, into one
#: object that cannot change: then a copy is all it costs.
_last: tuple[object, dict[str, Any]] = (None, {})


def _mapping(properties: BasicProperties | UndecodableProperties) -> dict[str, Any]:
    global _last
    known, values = _last
    if properties is known:
        return values.copy()
    if isinstance(properties, UndecodableProperties):
        return {}
    values = properties.as_dict()
    if properties.headers is None:
        _last = (properties, values)
        return values.copy()
    return values


class AMQPDelivery:
    """A :class:`~txmsg.abc.MessagingDelivery` around the client's own.

    delivery: Delivery -- that one, with everything AMQP tells.
    """

    __slots__ = ("_properties", "delivery")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self._properties: dict[str, Any] | None = None

    @property
    def body(self) -> bytes:
        """The content."""
        return self.delivery.body

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that are present; a dict of this delivery's own, empty where there is a `properties_error`."""
        if self._properties is None:
            self._properties = _mapping(self.delivery.properties)
        return self._properties

    @property
    def properties_error(self) -> BaseException | None:
        """Why the sender's properties cannot be decoded; None where they can.  It can be settled either way."""
        found = self.delivery.properties
        return found.error if isinstance(found, UndecodableProperties) else None

    @property
    def exchange(self) -> str:
        """Where it was published to."""
        return self.delivery.exchange

    @property
    def routing_key(self) -> str:
        """With which key."""
        return self.delivery.routing_key

    @property
    def redelivered(self) -> bool:
        """False: nobody has seen it before.  True: somebody may have."""
        return self.delivery.redelivered

    @property
    def consumer_tag(self) -> str:
        """Of the consumer it was sent to; "" from `get`."""
        return self.delivery.consumer_tag

    @property
    def delivery_tag(self) -> int:
        """Its number on the channel."""
        return self.delivery.delivery_tag

    def ack(self, multiple: bool = False) -> None:
        """It is done with.  StaleDelivery, AlreadySettled."""
        self.delivery.ack(multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """Give it back.  Raises as `ack`."""
        self.delivery.nack(requeue, multiple)

    def reject(self, requeue: bool = False) -> None:
        """Give this one back.  Raises as `ack`."""
        self.delivery.reject(requeue)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to settle."""
        return self.delivery.is_settled

    def __repr__(self) -> str:
        return f"<AMQPDelivery of {self.delivery!r}>"
