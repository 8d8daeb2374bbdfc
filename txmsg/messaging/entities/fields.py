"""What the fields of a declaration may be, and what becomes of them.

A wrong value is refused where it is written, with a ConfigurationError that names the field, says what it was and
what to give.  Durations are seconds here and integer milliseconds in the arguments RabbitMQ knows
(https://www.rabbitmq.com/docs/ttl).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from txmsg.errors import ConfigurationError, clip

__all__ = ["count", "flag", "frozen", "milliseconds", "name", "seconds", "table"]

#: A name is a short string of AMQP: so many octets at most (section 4.2.5.3).
MAX_NAME: Final = 255


def _refused(field: str, value: Any, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{field} is {clip(repr(value))}: give {wanted}")


def name(field: str, value: Any) -> str:
    """A name or a routing key: a str of at most 255 octets."""
    if not isinstance(value, str):
        raise _refused(field, value, "a str")
    if len(value) > MAX_NAME // 4:
        try:
            octets = len(value.encode())
        except UnicodeEncodeError:
            raise _refused(field, value, "text that UTF-8 can carry") from None
        if octets > MAX_NAME:
            raise ConfigurationError(f"{field} has {octets} octets: AMQP carries names of up to {MAX_NAME}, shorten it")
    return value


def flag(field: str, value: Any) -> bool:
    """True or False, and nothing that is merely true or false in a condition."""
    if not isinstance(value, bool):
        raise _refused(field, value, "True or False")
    return value


def seconds(field: str, value: Any) -> float | None:
    """A duration in seconds, 0 or more; None: not given."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _refused(field, value, "seconds as a number, 0 or more, or None")
    return value


def milliseconds(value: float) -> int:
    """Seconds as RabbitMQ takes them; what is more than 0 does not become 0, which means something else."""
    rounded = round(value * 1000)
    return rounded if rounded or not value else 1


def count(field: str, value: Any, limit: int | None = None) -> int | None:
    """A whole number, 0 or more and at most `limit`; None: not given."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (limit is not None and value > limit):
        up_to = "0 or more" if limit is None else f"0 to {limit}"
        raise _refused(field, value, f"a whole number, {up_to}, or None")
    return value


def table(field: str, value: Any) -> dict[str, Any] | None:
    """Arguments: a copy of a mapping with names as keys; None: not given."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _refused(field, value, "a dict of arguments, or None")
    for key in value:
        if not isinstance(key, str):
            raise _refused(f"a key of {field}", key, "a str")
    return dict(value)


def frozen(value: Any) -> Any:
    """Arguments as something that can be hashed; what AMQP tells apart (1, 1.0 and True) is not the same here."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ("table", *sorted(((str(key), frozen(item)) for key, item in value.items()), key=lambda pair: pair[0]))
    if isinstance(value, list | tuple):
        return ("array", *(frozen(item) for item in value))
    try:
        hash(value)
    except TypeError:
        return (type(value).__name__, repr(value))
    return (type(value).__name__, value)
