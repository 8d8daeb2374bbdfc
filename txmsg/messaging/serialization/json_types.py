"""Values that JSON itself lacks, in the envelopes that Kombu 5 writes: {"__type__": "uuid", "__value__": {...}}.

Which types there are is a table, and a message can name nothing that is not in it (C5.4).
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar
from uuid import UUID

from txmsg.errors import DecodeError, clip

__all__ = ["JSONTypes", "default_json_types"]

_T = TypeVar("_T")

_ENVELOPE: Final = {"__type__", "__value__"}


class JSONTypes:
    """Python types and their envelopes.  :func:`default_json_types` makes a table with those of txmsg."""

    def __init__(self) -> None:
        self._encoders: dict[type, tuple[str | None, Callable[[Any], Any]]] = {}
        self._decoders: dict[str, Callable[[Any], Any]] = {}

    def register(
        self,
        python_type: type[_T],
        marker: str | None,
        encoder: Callable[[_T], Any],
        decoder: Callable[[Any], _T] | None = None,
    ) -> None:
        """Carry a type, and its subclasses.

        marker: str -- what stands under "__type__"; None: no envelope, so that it does not come back as itself.
        encoder -- gives something JSON can say, or something of another type in this table.
        decoder -- gets that back; it must look at what it gets, which a stranger has written.  None: it stays as it is.

        Types are tried in the order in which they were registered: subclasses before their bases.
        """
        self._encoders[python_type] = (marker, encoder)
        if marker is not None:
            self._decoders[marker] = decoder or _same

    def encode(self, value: Any) -> Any:
        """What to write for a value that JSON does not know: its `__json__()` before anything else.  TypeError."""
        reducer = getattr(value, "__json__", None)
        if reducer is not None:
            return reducer()
        # Django's lazy strings: their class is there only if Django is.
        promise = getattr(sys.modules.get("django.utils.functional"), "Promise", None)
        if promise is not None and isinstance(value, promise):
            return str(value)
        known = self._encoders.get(type(value))
        if known is None:
            known = next((how for kind, how in self._encoders.items() if isinstance(value, kind)), None)
        if known is not None:
            marker, encoder = known
            return encoder(value) if marker is None else {"__type__": marker, "__value__": encoder(value)}
        if isinstance(value, bytes | bytearray | memoryview):
            return _octets(bytes(value))
        raise TypeError(f"JSON has no {type(value).__name__}")

    def decode(self, value: dict[str, Any]) -> Any:
        """What an object of JSON stands for: itself, unless it is an envelope.  DecodeError."""
        if value.keys() != _ENVELOPE:
            return value
        marker = value["__type__"]
        decoder = self._decoders.get(marker) if isinstance(marker, str) else None
        if decoder is None:
            raise DecodeError(f"an unknown type in JSON: {clip(str(marker)[:200])!r}")
        try:
            return decoder(value["__value__"])
        except DecodeError:
            raise
        except Exception as error:
            # Not chained: "Invalid isoformat string: ..." and its like quote the body.
            raise DecodeError(f"a value that is no {marker} in JSON: {type(error).__name__}") from None


def _same(value: Any) -> Any:
    return value


def _octets(value: bytes) -> dict[str, str]:
    try:
        return {"__type__": "bytes", "__value__": value.decode()}
    except UnicodeDecodeError:
        return {"__type__": "base64", "__value__": base64.b64encode(value).decode("ascii")}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"a {type(value).__name__} in JSON where a text is wanted")
    return value


def _base64(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error:
        raise DecodeError("broken base64 in JSON") from None


def _decimal(value: Any) -> Decimal:
    try:
        return Decimal(_text(value))
    except InvalidOperation:
        raise DecodeError("a value that is no decimal in JSON") from None


def _uuid(value: Any) -> UUID:
    # Only this form: UUID() itself takes six others, and their combinations.
    if not isinstance(value, dict) or value.keys() != {"hex"}:
        raise DecodeError("a value that is no uuid in JSON")
    return UUID(hex=_text(value["hex"]))


def default_json_types() -> JSONTypes:
    """datetime, date, time, Decimal, UUID, and bytes, as Kombu writes them."""
    types = JSONTypes()
    # A datetime is a date, too.
    types.register(datetime, "datetime", datetime.isoformat, lambda value: datetime.fromisoformat(_text(value)))
    types.register(date, "date", date.isoformat, lambda value: datetime.fromisoformat(_text(value)).date())
    types.register(time, "time", time.isoformat, lambda value: time.fromisoformat(_text(value)))
    types.register(Decimal, "decimal", str, _decimal)
    types.register(UUID, "uuid", lambda value: {"hex": value.hex}, _uuid)
    types._decoders["bytes"] = lambda value: _text(value).encode()
    types._decoders["base64"] = _base64
    return types
