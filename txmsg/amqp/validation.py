"""Checks of what a user configures: the same words for the same mistake everywhere.

Each check returns the value to use, or raises ConfigurationError with the name of the setting, what was given and
what is allowed.  Values that can be secret never come here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import NoReturn, TypeVar

from txmsg.errors import ConfigurationError, clip

__all__ = ["flag", "host_name", "integer", "nearest", "refuse_unknown", "seconds", "shown", "text", "unchangeable"]

_T = TypeVar("_T")

#: 31 days: a longer time limit is a slip of the unit, and some event loops cannot hold it.
LONGEST = 31 * 86400.0
#: Short strings of AMQP (section 4.2.5.3).
SHORT_STRING_LIMIT = 255


def shown(value: object) -> str:
    """Return `repr(value)`, cut and printable, for an error text."""
    return clip(repr(value), 80)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'heartbeat'?" for the known name that looks most like `name`, or ""."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigurationError for the first of the `given` names that is not among the `known` ones."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ConfigurationError(f"{what} has no parameter {shown(name)}{nearest(name, names)}")


def unchangeable(cls: type[_T]) -> type[_T]:
    """Class decorator, above a frozen dataclass with slots: also an unknown attribute is refused with AttributeError.

    What `dataclass` makes for that fails with a TypeError in Python 3.11, because the slots need a second class.
    """

    def refuse(self: object, name: str, *value: object) -> NoReturn:
        raise AttributeError(f"a {cls.__name__} is never changed: make another one (attribute {name!r})")

    cls.__setattr__ = refuse  # type: ignore[method-assign]
    cls.__delattr__ = refuse  # type: ignore[method-assign]
    return cls


def integer(name: str, value: object, lowest: int, highest: int) -> int:
    """Return `value` if it is an int (and not a bool) between the limits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be an int from {lowest} to {highest}, not {shown(value)}")
    if not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be from {lowest} to {highest}, not {value}")
    return value


def seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Return `value` as a float of seconds; more than 0, or from 0 on with `zero`, and at most 31 days."""
    allowed = f"a number of seconds {'from 0' if zero else 'greater than 0'} to {LONGEST:.0f}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} must be {allowed}, not {shown(value)}")
    if math.isnan(value) or value < 0 or value > LONGEST or (value == 0 and not zero):
        raise ConfigurationError(f"{name} must be {allowed}, not {value}")
    return float(value)


def text(name: str, value: object, *, empty: bool = False) -> str:
    """Return `value` if it is a str that AMQP can carry as a short string: at most 255 bytes of UTF-8, no NUL."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a str, not {shown(value)}")
    if not value and not empty:
        raise ConfigurationError(f"{name} must not be empty")
    if "\0" in value:
        raise ConfigurationError(f"{name} must not hold a NUL character: {shown(value)}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        size = -1
    if size < 0:
        raise ConfigurationError(f"{name} must be valid Unicode, not {shown(value)}")
    if size > SHORT_STRING_LIMIT:
        raise ConfigurationError(f"{name} must have at most {SHORT_STRING_LIMIT} bytes in UTF-8, not {size}")
    return value


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {shown(value)}")
    return value


def host_name(name: str, value: object) -> str:
    """Return `value` if it can be a host name or an IP address (IPv6 without brackets)."""
    host = text(name, value)
    if host.startswith("[") or host.endswith("]"):
        raise ConfigurationError(f"{name} must be an IPv6 address without brackets, not {shown(host)}")
    if not host.isprintable() or any(c in " /\\@?#[]," for c in host):
        raise ConfigurationError(f"{name} must be a host name or an IP address, not {shown(host)}")
    return host
