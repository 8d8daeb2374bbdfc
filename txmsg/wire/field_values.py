"""Numbers that remember with which kind of field they are sent.

AMQP 0-9-1 section 4.2.1 (the grammar of field values), read as RabbitMQ reads it
(https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3); `txmsg.wire.tables` has the list of all kinds.

They are ints and floats in every respect: equal to, and usable as, the plain number.  The range is checked when
a value is encoded, so that making one is cheap.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

__all__ = [
    "INT_KINDS",
    "Float32",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Int64L",
    "SizedInt",
    "Timestamp",
    "UInt8",
    "UInt16",
    "UInt32",
]


class SizedInt(int):
    """An int with a kind; its range is checked when it is encoded."""

    __slots__ = ()
    FORMAT: ClassVar[str]
    RANGE: ClassVar[str]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    __str__ = int.__repr__


class Int8(SizedInt):
    """Kind b: -128 to 127."""

    __slots__ = ()
    FORMAT = ">Bb"
    RANGE = "-128 to 127"


class UInt8(SizedInt):
    """Kind B: 0 to 255."""

    __slots__ = ()
    FORMAT = ">BB"
    RANGE = "0 to 255"


class Int16(SizedInt):
    """Kind s: -32768 to 32767."""

    __slots__ = ()
    FORMAT = ">Bh"
    RANGE = "-32768 to 32767"


class UInt16(SizedInt):
    """Kind u: 0 to 65535."""

    __slots__ = ()
    FORMAT = ">BH"
    RANGE = "0 to 65535"


class Int32(SizedInt):
    """Kind I, as any int that fits; this class insists on it."""

    __slots__ = ()
    FORMAT = ">Bi"
    RANGE = "-2**31 to 2**31-1"


class UInt32(SizedInt):
    """Kind i: 0 to 2**32-1."""

    __slots__ = ()
    FORMAT = ">BI"
    RANGE = "0 to 2**32-1"


class Int64(SizedInt):
    """Kind l, also for small numbers."""

    __slots__ = ()
    FORMAT = ">Bq"
    RANGE = "-2**63 to 2**63-1"


class Int64L(SizedInt):
    """Kind L, which RabbitMQ reads as it reads l: signed.  Only for what came in as L."""

    __slots__ = ()
    FORMAT = ">Bq"
    RANGE = "-2**63 to 2**63-1"


class Timestamp(SizedInt):
    """Kind T: seconds since 1970 in UTC, 0 to 2**64-1.

    An int, not a datetime, because peers send values that no datetime can hold: milliseconds, year 10000.
    """

    __slots__ = ()
    FORMAT = ">BQ"
    RANGE = "0 to 2**64-1"

    def to_datetime(self) -> datetime | None:
        """The aware datetime in UTC, or None where it is beyond the year 9999."""
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(self))
        except OverflowError:
            return None


class Float32(float):
    """Kind f: encoded as the nearest 32-bit float; beyond its range is an EncodeError."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Float32({float(self)!r})"

    __str__ = float.__repr__


#: Class -> the octet of its kind.
INT_KINDS: Final[dict[type[SizedInt], int]] = {
    Int8: ord("b"),
    UInt8: ord("B"),
    Int16: ord("s"),
    UInt16: ord("u"),
    Int32: ord("I"),
    UInt32: ord("i"),
    Int64: ord("l"),
    Int64L: ord("L"),
    Timestamp: ord("T"),
}
