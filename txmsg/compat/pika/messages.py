"""Methods, frames and properties in pika's classes, and properties in ours.

pika's objects can be changed by whoever has them, so every message gets its own; ours cannot, so one serves many
messages (`PropertiesWriter`, `PropertiesReader`).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from pika import frame, spec

from txmsg.amqp import BasicProperties, Delivery, ReturnedMessage, UndecodableProperties
from txmsg.wire.events import ACK, DELIVER, GET_OK, NACK, RETURN

__all__ = [
    "PropertiesReader",
    "PropertiesWriter",
    "ReceivedMessage",
    "deliver_method",
    "event_frame",
    "get_ok_method",
    "method_frame",
    "return_method",
]

ReceivedMessage = namedtuple("ReceivedMessage", ["channel", "method", "properties", "body"])
ReceivedMessage.__doc__ = """What a consumer is handed, and what a publisher gets back.

channel: the TwistedChannel; method: pika's Basic.Deliver, Basic.GetOk or Basic.Return; properties: pika's
BasicProperties; body: bytes.
"""

_NAMES = BasicProperties.NAMES
_Properties = spec.BasicProperties
_new = object.__new__

#: For the content events of a channel: the class in pika, and where its arguments are in the event.
_EVENTS: dict[int, tuple[Any, slice]] = {
    DELIVER: (spec.Basic.Deliver, slice(2, 7)),
    GET_OK: (spec.Basic.GetOk, slice(2, 7)),
    RETURN: (spec.Basic.Return, slice(2, 6)),
    ACK: (spec.Basic.Ack, slice(2, 4)),
    NACK: (spec.Basic.Nack, slice(2, 5)),
}


# -- methods --------------------------------------------------------------------------------------


def _spec_class(name: str) -> Any:
    """The class of pika.spec for a method by its name in the protocol: "queue.declare-ok" is spec.Queue.DeclareOk."""
    class_name, method = name.split(".")
    return getattr(getattr(spec, class_name.capitalize()), "".join(part.capitalize() for part in method.split("-")))


_shapes: dict[type, tuple[Any, tuple[str, ...]]] = {}


def method_frame(channel_number: int, method: Any) -> Any:
    """A method of ours as pika's `frame.Method`."""
    shape = _shapes.get(type(method))
    if shape is None:
        made = _spec_class(method.NAME)
        names = tuple(name for name in vars(made()) if hasattr(method, name))
        shape = _shapes[type(method)] = made, names
    made, names = shape
    return frame.Method(channel_number, made(**{name: getattr(method, name) for name in names}))


def event_frame(event: tuple[Any, ...]) -> Any:
    """A content event of ours as pika's `frame.Method`."""
    made, arguments = _EVENTS[event[0]]
    return frame.Method(event[1], made(*event[arguments]))


def deliver_method(delivery: Delivery) -> Any:
    """Basic.Deliver of a delivery."""
    return spec.Basic.Deliver(
        delivery.consumer_tag, delivery.delivery_tag, delivery.redelivered, delivery.exchange, delivery.routing_key
    )


def get_ok_method(delivery: Delivery) -> Any:
    """Basic.GetOk of a delivery that was asked for."""
    return spec.Basic.GetOk(
        delivery.delivery_tag,
        delivery.redelivered,
        delivery.exchange,
        delivery.routing_key,
        delivery.message_count,
    )


def return_method(returned: ReturnedMessage) -> Any:
    """Basic.Return of a message that came back."""
    return spec.Basic.Return(returned.reply_code, returned.reply_text, returned.exchange, returned.routing_key)


# -- properties -----------------------------------------------------------------------------------


class PropertiesReader:
    """Ours into pika's.  The decoder hands out one object for equal properties, so the last one is remembered."""

    __slots__ = ("_last", "_values")

    def __init__(self) -> None:
        self._last: object = None
        self._values: dict[str, Any] = {}

    def read(self, properties: BasicProperties | UndecodableProperties) -> Any:
        """pika's BasicProperties; empty ones where the sender's cannot be decoded."""
        made = _new(_Properties)
        if properties is self._last:
            made.__dict__ = self._values.copy()
            return made
        if not isinstance(properties, BasicProperties):
            return spec.BasicProperties()
        values = {name: getattr(properties, name) for name in _NAMES}
        headers = values["headers"]
        if headers is None:
            self._last, self._values = properties, values
            made.__dict__ = values.copy()
        else:
            values["headers"] = {name: _plain(value) for name, value in headers.items()}
            made.__dict__ = values
        return made


class PropertiesWriter:
    """pika's into ours; remembers the last ones that had no headers.

    last: the attributes of those, made: what they became.  pika's may have been changed since, so compare `last`.
    """

    __slots__ = ("last", "made")

    def __init__(self) -> None:
        self.last: dict[str, Any] | None = None
        self.made = BasicProperties()

    def write(self, properties: Any) -> BasicProperties:
        """Our BasicProperties.  KeyError or TypeError for what has not the 14 properties."""
        values = vars(properties)
        made = BasicProperties(*[_sendable(values[name]) for name in _NAMES])
        if made.headers is None:
            self.last, self.made = dict(values), made
        return made


def _sendable(value: Any) -> Any:
    """A property's value: pika takes bytes for str, and an enumeration (DeliveryMode) for what it stands for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value.value if isinstance(value, Enum) else value


_EXACT: frozenset[type] = frozenset({str, int, bool, bytes, float, type(None)})
_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Mapping, lambda value: {name: _plain(each) for name, each in value.items()}),
    (list, lambda value: [_plain(each) for each in value]),
    (float, float),
)


def _plain(value: Any) -> Any:
    """A header's value in the types that pika decodes to: no sized numbers, and timestamps as datetime."""
    kind = type(value)
    if kind in _EXACT:
        return value
    if isinstance(value, int):
        to_datetime = getattr(value, "to_datetime", None)
        moment = None if to_datetime is None else to_datetime()
        # A timestamp beyond the year 9999 (milliseconds, say) stays a number; pika drops the connection over it.
        return int(value) if moment is None else moment
    for base, convert in _PLAIN:
        if isinstance(value, base):
            return convert(value)
    return value
