"""Where a message goes: from an exchange through others to queues.

AMQP 0-9-1 section 3.1.3; https://www.rabbitmq.com/docs/e2e (exchange to exchange), /docs/ae (alternate exchange) and
/docs/sender-selected (the headers CC and BCC).

Invariants: a queue is found once, however many ways lead to it; every exchange is asked once, so circles end; what
is remembered is forgotten whenever a binding, an exchange or a queue comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from txmsg.broker.exchanges.exchange import Exchange
from txmsg.broker.faults import invalid_message, kind_of, too_many_routes

if TYPE_CHECKING:
    from txmsg.broker.exchanges.exchange import Headers
    from txmsg.broker.queues.queue import Queue
    from txmsg.wire.properties import BasicProperties

__all__ = ["BCC", "CC", "MAX_STEPS", "NO_QUEUES", "Queues", "RouteCache", "find_queues", "routing_keys", "without_bcc"]

Queues: TypeAlias = "tuple[Queue, ...]"

CC: Final = "CC"
BCC: Final = "BCC"
NO_QUEUES: Final[Queues] = ()

#: Look-ups for one message: keys, places of patterns and destinations, what is met again counted again; some 20 ms.
MAX_STEPS: Final = 100_000

#: Routes that are remembered, and queues in all of them together; beyond it all are forgotten.
_MAX_ROUTES: Final = 4096
_MAX_PLACES: Final = 200_000


def routing_keys(routing_key: str, headers: Headers) -> list[str]:
    """The routing key, and those in the headers CC and BCC, each once.

    What is no text in their arrays is skipped.  Fault 406 if one of the headers is no array.
    """
    keys = {routing_key: None}
    for name in (CC, BCC):
        if name not in headers:
            continue
        value = headers[name]
        if not isinstance(value, (list, tuple)):
            raise invalid_message(f'{{unacceptable_type_in_header,"{name}",{kind_of(value)}}}')
        keys.update((key, None) for key in value if isinstance(key, str))
    return list(keys)


def without_bcc(properties: BasicProperties) -> BasicProperties:
    """`properties` as consumers, and whom a message is returned to, see them: without the header BCC."""
    headers = properties.headers
    if headers is None or BCC not in headers:
        return properties
    return properties.replace(headers={name: value for name, value in headers.items() if name != BCC})


def find_queues(exchange: Exchange, keys: Sequence[str], headers: Headers | None) -> tuple[Queues, bool]:
    """The queues behind `exchange` for a message with these routing keys and headers, each once.

    The second value says whether an exchange on the way looked at the headers.  Fault 506 if it takes more than
    MAX_STEPS to find out: a thousand keys in CC may each lead to all the bindings there are, or be compared with all
    the patterns there are and match none (R36).
    """
    exchanges = exchange.vhost.exchanges
    queues: dict[Queue, None] = {}
    seen = {exchange}
    waiting = [exchange]
    used_headers = False
    steps = 0
    while waiting:
        current = waiting.pop()
        used_headers = used_headers or current.uses_headers
        is_routed = False
        # Where the key means nothing all the keys lead to the same places.
        for key in keys if current.uses_key else keys[:1]:
            found = current.route(key, headers)
            steps += 1 + len(found) + current.steps
            if steps > MAX_STEPS:
                raise too_many_routes(exchange.name, exchange.vhost.name)
            for destination in found:
                is_routed = True
                if not isinstance(destination, Exchange):
                    queues[destination] = None
                elif destination not in seen:
                    seen.add(destination)
                    waiting.append(destination)
        if not is_routed and current.alternate:  # the default exchange, "", is none to RabbitMQ
            alternate = exchanges.get(current.alternate)
            if alternate is not None and alternate not in seen:
                seen.add(alternate)
                waiting.append(alternate)
    return tuple(queues), used_headers


class RouteCache:
    """The routes that were found, by exchange and routing key, until something changes.

    known: dict -- (exchange, routing key) -> queues; to be read only, and never replaced.
    """

    __slots__ = ("_places", "known")

    def __init__(self) -> None:
        #: Queues in all the routes: a thousand keys may each lead to ten thousand queues (R36).
        self._places = 0
        self.known: dict[tuple[str, str], Queues] = {}

    def find(self, exchange: Exchange, keys: Sequence[str], headers: Headers | None) -> Queues:
        """As :func:`find_queues`; remembered for a single key, unless a headers exchange is on the way.

        What is remembered is used for publishes without another look at the exchange, so nothing is that begins at
        an internal one, where dead letters may go but no publish.
        """
        if len(keys) != 1:
            return find_queues(exchange, keys, headers)[0] if keys else NO_QUEUES
        asked = (exchange.name, keys[0])
        queues = self.known.get(asked)
        if queues is None:
            queues, used_headers = find_queues(exchange, keys, headers)
            if not used_headers and not exchange.internal:
                self._places += len(queues)
                if len(self.known) >= _MAX_ROUTES or self._places > _MAX_PLACES:
                    self.known.clear()
                    self._places = len(queues)
                self.known[asked] = queues
        return queues

    def forget(self) -> None:
        """A binding, an exchange or a queue has come or gone."""
        self.known.clear()
        self._places = 0

    def forget_queue(self, name: str) -> None:
        """A queue has come: nothing is bound to it yet, so only the default exchange has a new route."""
        self.known.pop(("", name), None)
