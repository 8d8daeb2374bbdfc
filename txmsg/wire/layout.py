"""Declared arguments to codec: what the AMQP methods are made of.

AMQP 0-9-1 section 4.2.5 ("Data types") and 2.1.1 ("method frames").  A method is declared once, as a slotted
dataclass whose annotations are the kinds below, and :func:`method` gives it `encode` and `decode`::

    @method(60, 60, sent_by=SERVER, has_content=True)
    class Deliver(Method):
        consumer_tag: ShortStr = ""
        delivery_tag: LongLong = 0
        redelivered: Bit = False
        ...

There are two codecs.  :meth:`Method.encode` and :meth:`Method.decode` walk over the declared arguments; they are
plain, slow, and give every error its text.  `txmsg.wire.compiler` writes for each class a function that
does the same, about five times faster, and turns to the plain one as soon as anything is unusual.

Invariants: encoding gives bytes or :class:`EncodeError`; decoding any bytes gives a method or
:class:`RemoteProtocolError`: 501 where octets are missing or left over, 502 for what is wrong inside a table.
Consecutive bits share an octet, the first in its lowest bit; bits that are not declared are ignored.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar, dataclass_transform

from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire import compiler
from txmsg.wire.constants import FRAME_ERROR, Role
from txmsg.wire.primitives import (
    decode_long_string,
    decode_short_string,
    encode_long_string,
    encode_short_string,
    show,
    type_name,
)
from txmsg.wire.tables import DEFAULT_TABLE_LIMITS, TableLimits, decode_table, encode_table

__all__ = [
    "METHODS",
    "Argument",
    "Bit",
    "Long",
    "LongLong",
    "LongStr",
    "LongText",
    "Method",
    "Octet",
    "SecretLongStr",
    "SecretLongText",
    "Short",
    "ShortStr",
    "Table",
    "decode_argument",
    "encode_argument",
    "encode_bit",
    "method",
]

_HIDDEN: Final = "hidden"

# The kinds of arguments.  Integers are unsigned.
Octet = Annotated[int, "octet"]
Short = Annotated[int, "short"]
Long = Annotated[int, "long"]
LongLong = Annotated[int, "longlong"]
Bit = Annotated[bool, "bit"]
#: Up to 255 bytes of UTF-8; octets that are not UTF-8 survive as lone surrogates.
ShortStr = Annotated[str, "shortstr"]
#: A long string of octets, and one that is text.
LongStr = Annotated[bytes, "longstr"]
LongText = Annotated[str, "longtext"]
#: The same for what must not be shown.
SecretLongStr = Annotated[bytes, "longstr", _HIDDEN]
SecretLongText = Annotated[str, "longtext", _HIDDEN]
Table = Annotated[dict[str, Any], "table"]

#: Kind -> octets, for unsigned integers.
INTEGER_SIZES: Final[dict[str, int]] = {"octet": 1, "short": 2, "long": 4, "longlong": 8}


@dataclass(frozen=True, slots=True, eq=False)
class Argument:
    """One declared argument.

    name: str -- in snake case.  kind: str -- "octet", "short", "long", "longlong", "bit", "shortstr",
    "longstr" (octets), "longtext" (a long string that is text) or "table".
    where: str -- "queue.declare.durable", for error texts.  is_secret: bool -- never to be shown.
    default: object -- what a method made without it has; a dict is made anew for each.
    """

    name: str
    kind: str
    where: str
    is_secret: bool
    default: object


class Method:
    """The base of the 64 methods.

    An instance is a plain mutable record: change an argument, and `encode` gives the changed bytes.  Values are
    checked when they are encoded.

    CLASS_ID, METHOD_ID: int.  NAME: str, "queue.declare".  ARGUMENTS: tuple of :class:`Argument`, in wire order.
    HAS_CONTENT: bool -- a content header and a body follow.
    SYNCHRONOUS: bool -- the sender waits for one of REPLIES (unless the `nowait` argument is set).
    REPLIES: tuple of method classes.  SENT_BY: frozenset of :class:`Role`.
    """

    __slots__ = ()

    CLASS_ID: ClassVar[int]
    METHOD_ID: ClassVar[int]
    NAME: ClassVar[str]
    ARGUMENTS: ClassVar[tuple[Argument, ...]]
    HAS_CONTENT: ClassVar[bool]
    SYNCHRONOUS: ClassVar[bool]
    REPLIES: ClassVar[tuple[type[Method], ...]]
    SENT_BY: ClassVar[frozenset[Role]]

    def encode(self) -> bytes:
        """Class id, method id and arguments: the payload of a method frame.

        :class:`EncodeError`, which names the method and the argument, for a value that AMQP cannot carry.
        """
        parts = [self.CLASS_ID.to_bytes(2, "big"), self.METHOD_ID.to_bytes(2, "big")]
        for group in compiler.groups(self.ARGUMENTS):
            if group[0].kind == "bit":
                octet = sum(encode_bit(getattr(self, bit.name), bit.where) << i for i, bit in enumerate(group))
                parts.append(bytes((octet,)))
            else:
                parts.append(encode_argument(group[0].kind, getattr(self, group[0].name), group[0].where))
        return b"".join(parts)

    @classmethod
    def decode(
        cls, data: bytes, start: int = 4, end: int | None = None, limits: TableLimits = DEFAULT_TABLE_LIMITS
    ) -> Self:
        """The method whose arguments are `data[start:end]`; by default all after the two ids.

        :class:`RemoteProtocolError` unless they are exactly the arguments of this method.
        """
        at, stop = start, len(data) if end is None else end
        values: list[Any] = []
        for group in compiler.groups(cls.ARGUMENTS):
            if group[0].kind == "bit":
                octet, at = decode_argument("octet", data, at, stop, group[0].where, limits)
                values.extend(octet >> i & 1 == 1 for i in range(len(group)))
            else:
                value, at = decode_argument(group[0].kind, data, at, stop, group[0].where, limits)
                values.append(value)
        if at != stop:
            raise RemoteProtocolError(f"{cls.NAME}: {stop - at} octets after the last argument", FRAME_ERROR)
        return cls(*values)

    def __repr__(self) -> str:
        """Shows what differs from the defaults, cut to a bearable length, and no secret."""
        shown = []
        for argument in self.ARGUMENTS:
            value = getattr(self, argument.name, None)
            if value != argument.default:
                shown.append(f"{argument.name}={'***' if argument.is_secret else show(value)}")
        return f"{self.NAME.split('.')[0]}.{type(self).__name__}({', '.join(shown)})"


#: (class id, method id) -> class, for all methods; filled by :func:`method`.
METHODS: Final[dict[tuple[int, int], type[Method]]] = {}

M = TypeVar("M", bound=Method)


@dataclass_transform(eq_default=True)
def method(
    class_id: int,
    method_id: int,
    *,
    sent_by: frozenset[Role],
    has_content: bool = False,
    replies_to: type[Method] | None = None,
) -> Callable[[type[M]], type[M]]:
    """Make a declaration into a slotted dataclass with a codec, and register it in :data:`METHODS`.

    The arguments are the class attributes of :class:`Method`; `replies_to` is the method whose sender waits for
    this one.
    """

    def declare(declaration: type[M]) -> type[M]:
        made = dataclass(slots=True, repr=False)(declaration)
        name = f"{made.__module__.rpartition('.')[2]}.{_kebab(made.__name__)}"
        made.CLASS_ID, made.METHOD_ID, made.NAME = class_id, method_id, name
        made.HAS_CONTENT, made.SENT_BY = has_content, sent_by
        made.SYNCHRONOUS, made.REPLIES = False, ()
        made.ARGUMENTS = _arguments_of(made, name)
        if replies_to is not None:
            replies_to.SYNCHRONOUS = True
            replies_to.REPLIES += (made,)
        compiler.compile_codec(made, encode_argument, decode_argument)
        if (class_id, method_id) in METHODS:
            raise TypeError(f"{name}: {class_id},{method_id} is {METHODS[class_id, method_id].NAME} already")
        METHODS[class_id, method_id] = made
        return made

    return declare


def _kebab(name: str) -> str:
    """`DeclareOk` as `declare-ok`, the specification's spelling."""
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


def _arguments_of(made: type[Method], name: str) -> tuple[Argument, ...]:
    hints = typing.get_type_hints(made, include_extras=True)
    arguments = []
    for field in fields(made):  # type: ignore[arg-type]  # it is a dataclass by now
        kind, *marks = hints[field.name].__metadata__
        default = field.default if field.default_factory is MISSING else field.default_factory()
        arguments.append(Argument(field.name, kind, f"{name}.{field.name}", _HIDDEN in marks, default))
    return tuple(arguments)


# -- one argument at a time -------------------------------------------------------------------------------


def encode_bit(value: object, where: str) -> int:
    """0 or 1; :class:`EncodeError` for what is not a bool: a str "no" would count as true."""
    if isinstance(value, int) and value in (0, 1):
        return int(value)
    raise EncodeError(f"{where}: expected a bool, got {type_name(value)}")


def encode_argument(kind: str, value: Any, where: str) -> bytes:
    """`value` as an argument of `kind` (any but "bit"); :class:`EncodeError` that begins with `where`."""
    if kind == "shortstr":
        return encode_short_string(value, where)
    if kind == "table":
        return encode_table(value, where)
    if kind == "longstr":
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise EncodeError(f"{where}: expected bytes, got {type_name(value)}")
        return encode_long_string(value, where)
    if kind == "longtext":
        if not isinstance(value, str):
            raise EncodeError(f"{where}: expected a str, got {type_name(value)}")
        return encode_long_string(value, where)
    size = INTEGER_SIZES[kind]
    if not isinstance(value, int):
        raise EncodeError(f"{where}: expected an int, got {type_name(value)}")
    if not 0 <= value < 1 << 8 * size:
        raise EncodeError(f"{where}: {show(value)} is out of range, 0 to {(1 << 8 * size) - 1}")
    return int(value).to_bytes(size, "big")


def decode_argument(kind: str, data: bytes, at: int, end: int, where: str, limits: TableLimits) -> tuple[Any, int]:
    """The argument of `kind` (any but "bit") at `at`, and the offset after it, which is at most `end`."""
    if kind == "shortstr":
        return decode_short_string(data, at, end, where)
    if kind == "table":
        return decode_table(data, at, end, where, limits)
    if kind == "longstr":
        return decode_long_string(data, at, end, where)
    if kind == "longtext":
        octets, after = decode_long_string(data, at, end, where)
        return octets.decode("utf-8", "surrogateescape"), after
    after = at + INTEGER_SIZES[kind]
    if after > end:
        raise RemoteProtocolError(f"{where}: the integer is cut, {max(end - at, 0)} octets are left", FRAME_ERROR)
    return int.from_bytes(data[at:after], "big"), after
