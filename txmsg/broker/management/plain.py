"""Field values as JSON.

AMQP knows more than JSON: a decimal becomes a number, a timestamp seconds, octets text if they are UTF-8 and base64
if not, and what is no number nothing (null).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["plain", "plain_table", "plain_text"]


def plain_text(text: str) -> str:
    """`text` with U+FFFD for octets that were not UTF-8 and could not be sent."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def plain_table(table: Mapping[str, Any] | None) -> dict[str, Any]:
    """A field table as a JSON object."""
    return {plain_text(name): plain(value) for name, value in (table or {}).items()}


def plain(value: Any) -> Any:
    """A field value as JSON has it."""
    match value:
        case None | bool():
            return value
        case str():
            return plain_text(value)
        case int():
            return int(value)
        case float() | Decimal():
            number = float(value)
            return number if math.isfinite(number) else None
        case bytes() | bytearray() | memoryview():
            octets = bytes(value)
            try:
                return octets.decode("utf-8")
            except UnicodeDecodeError:
                return base64.b64encode(octets).decode("ascii")
        case Mapping():
            return plain_table(value)
        case list() | tuple():
            return [plain(item) for item in value]
    return plain_text(str(value))
