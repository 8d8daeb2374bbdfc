"""Field values as RabbitMQ's error texts show them: as Erlang terms.

RabbitMQ 3.10 on Erlang/OTP 25, measured: strings and octets that stand alone are put in as they are (``~s``), all else
is pretty-printed (``~p``).  What is left out is the breaking of lines: Erlang breaks terms of more than 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from txmsg.errors import clip
from txmsg.wire.field_values import Float32, Int8, Int16, Int32, Int64, Int64L, Timestamp, UInt8, UInt16, UInt32

__all__ = ["kind_of", "shown", "term", "term_of_text"]

_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "bool"),
    (Int8, "byte"),
    (UInt8, "unsignedbyte"),
    (Int16, "short"),
    (UInt16, "unsignedshort"),
    (Int32, "signedint"),
    (UInt32, "unsignedint"),
    (Int64, "long"),
    (Int64L, "long"),
    (Timestamp, "timestamp"),
    (Float32, "float"),
    (float, "double"),
    (Decimal, "decimal"),
    (str, "longstr"),
    (bytes, "binary"),
    (bytearray, "binary"),
    (memoryview, "binary"),
    (list, "array"),
    (tuple, "array"),
)

#: Levels of tables that are shown: a text holds 255 octets, and each level takes more than 10.
_DEEPEST: Final = 32
#: Of each table, array or string no more is looked at, for the same reason.
_MOST: Final = 256

_ESCAPES: Final = {
    8: "\\b",
    9: "\\t",
    10: "\\n",
    11: "\\v",
    12: "\\f",
    13: "\\r",
    27: "\\e",
    34: '\\"',
    92: "\\\\",
}


def kind_of(value: object) -> str:
    """The name RabbitMQ prints for the kind of a field value: `longstr`, `signedint`, `table` ..."""
    for type_, name in _KINDS:
        if isinstance(value, type_):
            return name
    if isinstance(value, int):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return "table" if isinstance(value, Mapping) else "void"


def shown(value: object) -> str:
    """A value that stands alone: a string or octets as they are, all else as :func:`term` has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "surrogateescape")
    return term(value)


def term(value: object, level: int = 0) -> str:
    """A value as an Erlang term; the end of very long or very deep ones, which no text has room for, is left out."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return clip(str(int(value)))
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return _binary(value[:_MOST].encode("utf-8", "surrogateescape"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _binary(bytes(value[:_MOST]))
    if isinstance(value, Decimal):
        return _decimal(value)
    if level > _DEEPEST:
        return "[...]"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:_MOST]
        return f"[{','.join(f'{{{term(str(name))},{_typed(item, level)}}}' for name, item in pairs)}]"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_in_array(item, level) for item in value[:_MOST])}]"
    return "undefined"


def _typed(value: Any, level: int) -> str:
    return f"{kind_of(value)},{term(value, level + 1)}"


def _in_array(value: Any, level: int) -> str:
    return f"{{{_typed(value, level)}}}"


def _binary(octets: bytes) -> str:
    """`<<"text">>` where all octets are printable in Latin-1, else their numbers."""
    if not octets:
        return "<<>>"
    if all(octet in _ESCAPES or 32 <= octet < 127 or octet >= 160 for octet in octets):
        # Erlang writes one character for each octet, and the text is sent in Latin-1: UTF-8 comes out as it was.
        text = "".join(_ESCAPES.get(ord(c), c) for c in octets.decode("utf-8", "surrogateescape"))
        return f'<<"{text}">>'
    return f"<<{','.join(map(str, octets))}>>"


def term_of_text(text: str) -> str:
    """A list of characters as an Erlang term: the text in double quotes."""
    return f'"{"".join(_ESCAPES.get(ord(character), character) for character in text)}"'


def _decimal(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    return f"{{{-exponent if isinstance(exponent, int) else 0},{number}}}"


def _float(value: float) -> str:
    """The shortest digits that give this float again, in whichever notation is shorter; always with a point."""
    if value != value or value in (float("inf"), float("-inf")):
        return "undefined"  # RabbitMQ has no such values
    mantissa, _, exponent = float.__repr__(value).partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return f"{sign}0.0"
    # The value is 0.DIGITS times ten to this power.
    power = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    scientific = f"{digits[0]}.{digits[1:] or '0'}e{power - 1}"
    if power <= 0:
        plain = f"0.{'0' * -power}{digits}"
    elif power >= len(digits):
        plain = f"{digits}{'0' * (power - len(digits))}.0"
    else:
        plain = f"{digits[:power]}.{digits[power:]}"
    return sign + (plain if len(plain) <= len(scientific) and abs(value) < 2**53 else scientific)
