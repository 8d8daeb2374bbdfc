"""JSON (RFC 8259) both ways, with limits on what comes in (C5.3).

Depth, the digits of a number and the size are bounded before anything is built; what Python's own decoder would answer
with RecursionError or a long silence is a DecodeError here.  NaN, Infinity and repeated keys, which Kombu and Python
write and read, can be refused.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NoReturn

from txmsg.errors import BodyTooLarge, ConfigurationError, DecodeError
from txmsg.messaging.serialization.json_types import JSONTypes, default_json_types

__all__ = ["JSONLimits", "JSONSerializer"]

# A string, closed or not: this always matches as far as it has looked, so that the search is linear.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_NO_BRACKETS: Final = bytes(octet for octet in range(256) if octet not in b"[]{}")
# One level more, one less (as a signed octet).
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONLimits:
    """What JSON may come in.

    max_size: int -- octets, 16 MiB.   max_depth: int -- objects and arrays within each other, 256; Python's own
    decoder gives up somewhere below 1,000, depending on who calls it.   max_digits: int -- of an integer, 4300, which
    is Python's own limit: reading them takes time that grows with the square of their number.
    allow_nan: bool -- NaN, Infinity and numbers too large for a float; they are no JSON, but Python writes them.
    allow_duplicate_keys: bool -- the last one counts; readers differ in that, which has been used to smuggle.
    """

    max_size: int = 16 * 2**20
    max_depth: int = 256
    max_digits: int = 4300
    allow_nan: bool = True
    allow_duplicate_keys: bool = True

    def __post_init__(self) -> None:
        for name in ("max_size", "max_depth", "max_digits"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} is an int from 1, not {value!r}")


class JSONSerializer:
    """Values to JSON and back.

    `types`: which further types it carries (:class:`JSONTypes`); they may be added to later.  What is written has no
    spaces and no character outside ASCII.
    """

    def __init__(self, limits: JSONLimits | None = None, types: JSONTypes | None = None) -> None:
        self.limits = limits = JSONLimits() if limits is None else limits
        self.types = default_json_types() if types is None else types
        self._encoder = json.JSONEncoder(separators=(",", ":"), default=self.types.encode, allow_nan=limits.allow_nan)
        self._long_run = re.compile(rb"(?<![0-9])[0-9]{%d}" % (limits.max_digits + 1))
        # Hooks cost a call for each object, so that they are there only where a body may need them.
        self._plain = self._decoder(with_types=False, count_digits=False)
        self._typed = self._decoder(with_types=True, count_digits=False)
        self._careful = self._decoder(with_types=True, count_digits=True)

    def __repr__(self) -> str:
        return f"JSONSerializer({self.limits!r})"

    def encode(self, value: Any) -> bytes:
        """The octets of a value; raises what `json` raises for what it cannot say."""
        return self._encoder.encode(value).encode("ascii")

    def decode(self, body: bytes) -> Any:
        """The value of some octets.  DecodeError (never RecursionError), BodyTooLarge."""
        limits = self.limits
        if len(body) > limits.max_size:
            raise BodyTooLarge(f"JSON of {len(body)} octets, above {limits.max_size}", limits.max_size)
        if body.count(b"[") + body.count(b"{") > limits.max_depth:
            self._check_depth(body)
        try:
            text = body.decode("utf-8")
            # A key can be written with escapes, too.
            decoder = self._typed if '"__type__"' in text or "\\u" in text else self._plain
            if len(body) > limits.max_digits and self._long_run.search(body):
                decoder = self._careful
            return decoder.decode(text)
        except DecodeError:
            raise
        except RecursionError:
            # Somebody called us from deep down, or set a limit that Python cannot keep.
            raise DecodeError("JSON nested too deep for this stack") from None
        except json.JSONDecodeError as error:
            # Not chained: it carries the whole body.
            raise DecodeError(f"a body that is not JSON: {error.msg}, at character {error.pos}") from None
        except UnicodeDecodeError as error:
            raise DecodeError(f"a body that is not JSON: no UTF-8 at octet {error.start}") from None
        except ValueError as error:
            raise DecodeError(f"a body that is not JSON: {type(error).__name__}") from None

    def _check_depth(self, body: bytes) -> None:
        """Count the levels: a pass in C for each step, whatever the depth.

        Behind the first mistake in a body the count means nothing; there the decoder stops, too.
        """
        steps = memoryview(_STRING.sub(b"", body).translate(_STEPS, _NO_BRACKETS)).cast("b")
        if max(accumulate(steps), default=0) > self.limits.max_depth:
            raise DecodeError(f"JSON nested deeper than {self.limits.max_depth} levels")

    def _decoder(self, *, with_types: bool, count_digits: bool) -> json.JSONDecoder:
        options: dict[str, Any] = {}
        if not self.limits.allow_duplicate_keys:
            options["object_pairs_hook"] = self._unique_typed if with_types else _unique
        elif with_types:
            options["object_hook"] = self.types.decode
        if not self.limits.allow_nan:
            options.update(parse_constant=_no_constant, parse_float=_finite)
        if count_digits:
            options["parse_int"] = self._short_int
        return json.JSONDecoder(**options)

    def _unique_typed(self, pairs: list[tuple[str, Any]]) -> Any:
        return self.types.decode(_unique(pairs))

    def _short_int(self, digits: str) -> int:
        if len(digits.lstrip("-")) > self.limits.max_digits:
            raise DecodeError(f"a number in JSON of more than {self.limits.max_digits} digits")
        return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise DecodeError("an object in JSON that has a key twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise DecodeError("a number in JSON that is not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise DecodeError("a number in JSON that is not finite")
    return value
