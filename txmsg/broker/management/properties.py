"""The 14 properties of a message as a JSON object, both ways, as the paths `publish` and `get` have them."""

from __future__ import annotations

from typing import Any, Final

from txmsg.broker.management.calls import bad_request
from txmsg.broker.management.plain import plain
from txmsg.broker.queues.expiry import check_expiration
from txmsg.errors import TxmsgError
from txmsg.wire.properties import BasicProperties

__all__ = ["properties_from_json", "properties_to_json"]

#: name -> the largest value.
_NUMBERS: Final = {"delivery_mode": 255, "priority": 255, "timestamp": (1 << 64) - 1}


def properties_to_json(properties: BasicProperties) -> Any:
    """The properties that are there; an empty array if none is, as RabbitMQ has it."""
    found = {name: plain(value) for name in BasicProperties.NAMES if (value := getattr(properties, name)) is not None}
    return found or []


def properties_from_json(document: object) -> BasicProperties:
    """The properties for a JSON object; members that are no properties are left out, as RabbitMQ does.

    :raises Refusal: 400 for a value of the wrong type, or one that cannot be sent.
    :raises Fault: 406 for an expiration that is no number of milliseconds.
    """
    if document == []:
        document = {}
    if not isinstance(document, dict):
        raise bad_request("properties_not_an_object")
    values: dict[str, Any] = {}
    for name in BasicProperties.NAMES:
        value = document.get(name)
        if value is None:
            continue
        if name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _NUMBERS[name]:
                raise bad_request(["not_int", name])
        elif name == "headers":
            if not isinstance(value, dict):
                raise bad_request(["not_a_table", name])
        elif not isinstance(value, str):
            raise bad_request(["not_a_string", name])
        values[name] = value
    expiration = values.get("expiration")
    if expiration is not None:
        check_expiration(expiration)
    properties = BasicProperties(**values)
    try:
        encoded = properties.encode()
    except TxmsgError as error:
        raise bad_request(str(error)) from None
    # Decoded again, so that numbers in the headers are what they would be had they come over AMQP.
    return BasicProperties.decode(encoded)
