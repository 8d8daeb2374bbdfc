"""Headers exchanges: a message goes where the arguments of the binding match its headers.

AMQP 0-9-1 section 3.1.3.4; https://www.rabbitmq.com/docs/exchanges#headers.

`x-match` says how many pairs must match: `all` (the default) or `any`.  Pairs whose name begins with `x-` do not
count, unless it is `all-with-x` or `any-with-x`.  A pair without a value (void) asks for the presence of the header.
As in RabbitMQ, `all` without pairs matches everything, `any` without pairs nothing, and values are compared without
regard to how many bits they were sent in: 1 equals 1.0, but neither "1" nor true.

Bindings are found by the pairs of the message, so the cost grows with its headers and with the bindings that share
a pair with it, not with all bindings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.erlang_terms import kind_of, term
from txmsg.broker.exchanges.exchange import Destination, Destinations, Exchange, Headers
from txmsg.broker.faults import invalid_binding
from txmsg.broker.vhost.footprint import PAIR

if TYPE_CHECKING:
    from txmsg.broker.vhost.bindings import Binding

__all__ = ["HeadersExchange", "comparable"]

X_MATCH: Final = "x-match"
ANY_MATCHES: Final = ("any", "any-with-x")
MATCHES: Final = ("all", "all-with-x", *ANY_MATCHES)

#: Stands for the value in a pair that asks for presence only.
_PRESENT: Final = ("present",)


def comparable(value: object) -> object:
    """Something hashable that is equal for two field values exactly when a headers exchange finds them equal."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "surrogateescape")  # as long strings were
    if isinstance(value, Decimal):
        return ("decimal", value.as_tuple())
    if isinstance(value, Mapping):
        return tuple((str(name), kind_of(item), comparable(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple((kind_of(item), comparable(item)) for item in value)
    return ("void",)


class _Pattern:
    """The pairs of one binding."""

    __slots__ = ("destination", "is_any", "pairs")

    def __init__(self, arguments: Mapping[str, Any], destination: Destination) -> None:
        match = arguments.get(X_MATCH, "all")
        with_x = match in ("all-with-x", "any-with-x")
        self.is_any = match in ANY_MATCHES
        self.destination = destination
        self.pairs: list[tuple[str, object]] = [
            (name, _PRESENT if value is None else comparable(value))
            for name, value in arguments.items()
            if name != X_MATCH and (with_x or not name.startswith("x-"))
        ]


class HeadersExchange(Exchange):
    """A headers exchange."""

    type = "headers"
    uses_headers = True
    uses_key = False
    __slots__ = ("_always", "_by_name", "_patterns")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patterns: dict[Binding, _Pattern] = {}
        #: Bindings that ask for nothing.
        self._always = Destinations()
        #: Name of a header -> its value, or _PRESENT -> the bindings to be looked at.
        self._by_name: dict[str, dict[object, dict[_Pattern, None]]] = {}

    def check_binding(self, arguments: Mapping[str, Any]) -> None:
        """406 for an x-match that is none."""
        if X_MATCH not in arguments:
            return
        match = arguments[X_MATCH]
        if not isinstance(match, str):
            raise invalid_binding(
                f"Invalid x-match field type {kind_of(match)} (value {term(match)}); expected longstr"
            )
        if match not in MATCHES:
            raise invalid_binding(
                f"Invalid x-match field value {term(match)}; expected all, any, all-with-x, or any-with-x"
            )

    def cost_of(self, binding: Binding) -> int:
        """The octets that a binding takes, about, with the pairs by which it is found."""
        arguments = binding.arguments
        is_any = arguments.get(X_MATCH) in ANY_MATCHES
        return super().cost_of(binding) + PAIR * (len(arguments) if is_any else 1)

    def add(self, binding: Binding, destination: Destination) -> None:
        """Add a binding that is not there yet."""
        super().add(binding, destination)
        pattern = self._patterns[binding] = _Pattern(binding.arguments, destination)
        if not pattern.pairs:
            if not pattern.is_any:
                self._always.count_in(destination)
            return
        if not pattern.is_any:
            # Any one of the pairs will do to find it; the rarest leaves the least to look at in vain.
            pattern.pairs.sort(key=lambda pair: len(self._by_name.get(pair[0], {}).get(pair[1], ())))
        for name, value in self._found_by(pattern):
            self._by_name.setdefault(name, {}).setdefault(value, {})[pattern] = None

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is there."""
        super().remove(binding)
        pattern = self._patterns.pop(binding)
        if not pattern.pairs:
            if not pattern.is_any:
                self._always.count_out(pattern.destination)
            return
        for name, value in self._found_by(pattern):
            by_value = self._by_name[name]
            del by_value[value][pattern]
            if not by_value[value]:
                del by_value[value]
            if not by_value:
                del self._by_name[name]

    @staticmethod
    def _found_by(pattern: _Pattern) -> list[tuple[str, object]]:
        return pattern.pairs if pattern.is_any else pattern.pairs[:1]

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """The destinations whose binding matches the headers."""
        if not headers or not self._by_name:
            return self._always
        found: dict[Destination, None] = dict.fromkeys(self._always)
        known: dict[str, object] = {}
        for name, pattern in self._candidates(headers, known):
            destination = pattern.destination
            if destination in found:
                continue
            if pattern.is_any or _match_all(pattern, name, headers, known):
                found[destination] = None
        return found

    def _candidates(self, headers: Headers, known: dict[str, object]) -> Iterator[tuple[str, _Pattern]]:
        """The bindings of which at least one pair matches, with its name; `known` collects what was converted."""
        for name, value in headers.items():
            by_value = self._by_name.get(name)
            if by_value is None:
                continue
            known[name] = compared = comparable(value)
            for key in (compared, _PRESENT):
                for pattern in by_value.get(key, ()):
                    yield name, pattern


def _match_all(pattern: _Pattern, matched: str, headers: Headers, known: dict[str, object]) -> bool:
    """Whether all the pairs match, given that the one of the name `matched` does."""
    for name, value in pattern.pairs:
        if name == matched:
            continue
        if name not in headers:
            return False
        if value is _PRESENT:
            continue
        if name not in known:
            known[name] = comparable(headers[name])
        if known[name] != value:
            return False
    return True
