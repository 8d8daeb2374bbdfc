"""Points in time on Celery's wire: ISO 8601 with an offset; without one they are UTC (celery E-05, E-06).

The invariant: what comes out of here is aware, in UTC, and can be compared; nothing else is ever sent.  Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from txmsg.errors import ConfigurationError, DecodeError, clip

__all__ = ["MAX_EXPIRATION", "Time", "expiration", "read_time", "time_after"]

#: A point in time, text of one, or seconds from now on.
Time = datetime | timedelta | float | str

#: Milliseconds: RabbitMQ closes the channel for a message whose expiration is above 2**32 - 1, about 49 days.
MAX_EXPIRATION: Final = 2**32 - 1


def read_time(value: Any, what: str, naive: tzinfo = UTC) -> datetime | None:
    """What a message says, in UTC; None and "" are no time.

    naive -- the zone of a time that names none.   DecodeError: not a time, or one that UTC cannot say.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise DecodeError(f"{what} is no time in ISO 8601: {clip(value, 60)!r}") from None
    if not isinstance(value, datetime):
        raise DecodeError(f"{what} is a time in ISO 8601, not {type(value).__name__}")
    return _utc(value, what, naive)


def _utc(value: datetime, what: str, naive: tzinfo = UTC) -> datetime:
    if value.tzinfo is None:
        value = value.replace(tzinfo=naive)
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise DecodeError(f"{what} is out of range") from None


def time_after(value: Time, what: str, now: datetime) -> datetime:
    """What a caller asks for, in UTC: seconds from `now` on, a datetime (naive: UTC), or text of one.

    ConfigurationError: no time, not finite, or out of range.  Nothing that a worker could not read is sent (K-07).
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value)
        except (OverflowError, ValueError):  # infinite or too large; not a number
            raise ConfigurationError(f"{what} is out of range") from None
    try:
        if isinstance(value, timedelta):
            return _utc(now, "now") + value
        found = read_time(value, what)
    except OverflowError:
        raise ConfigurationError(f"{what} is out of range") from None
    except DecodeError as error:
        raise ConfigurationError(str(error)) from None
    if found is None:
        raise ConfigurationError(f"{what} is a time, seconds from now, or None, not {value!r}")
    return found


def expiration(expires: datetime, now: datetime) -> str | None:
    """The property `expiration` for a task that expires then: milliseconds as text, "0" in the past.

    None above :data:`MAX_EXPIRATION`: only the header says it then, which workers look at.
    """
    left = max(0, (expires - _utc(now, "now")) // timedelta(milliseconds=1))
    return str(left) if left <= MAX_EXPIRATION else None
