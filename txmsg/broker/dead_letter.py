"""Dead letters: what is rejected, expires, is too much or comes back too often goes to another exchange.

RabbitMQ's rules (https://www.rabbitmq.com/docs/dlx), its header x-death, and its detection of cycles: a queue that
the message died in before gets it again only if a consumer rejected it somewhere on the way.  The order of the
fields of a death, and of the headers, is RabbitMQ's too.

Invariant: however long a chain of queues that dead-letter into each other is, nothing recurses.  What dies while
dead letters are on their way waits in one worklist per virtual host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.arguments import QUORUM
from txmsg.broker.delivery_count import DELIVERY_COUNT
from txmsg.broker.message import Message
from txmsg.errors import EncodeError
from txmsg.wire.field_values import Int64, Timestamp
from txmsg.wire.properties import BasicProperties

if TYPE_CHECKING:
    from txmsg.broker.queue import Queue
    from txmsg.broker.vhost import VirtualHost

__all__ = ["DELIVERY_LIMIT", "EXPIRED", "MAXLEN", "REJECTED_BY_CONSUMER", "DeadLetters", "died", "is_cycle"]

#: The reasons, as they stand in x-death.
REJECTED_BY_CONSUMER: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"

_DEATHS: Final = "x-death"


class DeadLetters:
    """The dead letters of one virtual host that are on their way."""

    __slots__ = ("_is_running", "_vhost", "_waiting")

    def __init__(self, vhost: VirtualHost) -> None:
        self._vhost = vhost
        self._waiting: deque[tuple[Queue, Message, str]] = deque()
        self._is_running = False

    def send(self, queue: Queue, messages: Iterable[Message], reason: str) -> None:
        """`messages` have left `queue`, which has a dead letter exchange.

        They are routed before this returns, unless it is called because of another dead letter: then after that one.
        """
        self._waiting.extend((queue, message, reason) for message in messages)
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._waiting:
                origin, message, why = self._waiting.popleft()
                letter, properties = died(origin, message, why, self._vhost.clock.seconds())
                self._vhost.publish_dead_letter(origin.name, letter, properties)
        finally:
            self._is_running = False


def died(queue: Queue, message: Message, reason: str, now: float) -> tuple[Message, BasicProperties]:
    """The dead letter of `message`, with its properties; `now` is what x-death says as the time."""
    exchange, key = queue.settings.dead_letter_exchange or "", queue.settings.dead_letter_routing_key
    old = message.decoded_properties
    headers = dict(old.headers or ())
    if queue.type == QUORUM:
        headers.pop(DELIVERY_COUNT, None)  # it was counted here
    death: dict[str, Any] = {
        "count": Int64(1),
        "reason": reason,
        "queue": queue.name,
        "time": Timestamp(int(now)),
        "exchange": message.exchange,
        "routing-keys": [message.routing_key, *_texts(headers.get("CC"))],
    }
    if old.expiration is not None:
        death["original-expiration"] = old.expiration
    _add_death(headers, death)
    if key is None:
        key = message.routing_key
    else:
        headers.pop("CC", None)
    # Without its expiration, or it would expire again where nobody has asked for that.
    properties = old.replace(headers=dict(sorted(headers.items())), expiration=None)
    try:
        return Message.published(exchange, key, properties, message.body), properties
    except EncodeError:
        # Its own headers are at the limits of a table: what it died of is worth more.
        properties = old.replace(headers={_DEATHS: headers[_DEATHS][:1]}, expiration=None)
        return Message.published(exchange, key, properties, message.body), properties


def _add_death(headers: dict[str, Any], death: dict[str, Any]) -> None:
    """The newest death comes first; one of the same queue and reason is counted instead, and keeps its time."""
    known = headers.get(_DEATHS)
    if not isinstance(known, list):
        if known is None:
            # The first one of all has headers of its own, too.
            headers["x-first-death-reason"] = death["reason"]
            headers["x-first-death-queue"] = death["queue"]
            headers["x-first-death-exchange"] = death["exchange"]
        headers[_DEATHS] = [death]
        return
    same = [one for one in known if _is_of(one, death["queue"], death["reason"])]
    others = [one for one in known if not _is_of(one, death["queue"], death["reason"])]
    if same:
        count = same[0].get("count")
        death = {**same[0], "count": Int64(count + 1 if isinstance(count, int) else 1)}
    headers[_DEATHS] = [dict(sorted(death.items())), *others]


def _is_of(death: object, queue: str, reason: str) -> bool:
    return isinstance(death, Mapping) and death.get("queue") == queue and death.get("reason") == reason


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def is_cycle(queue: str, properties: BasicProperties) -> bool:
    """Whether a dead letter with these properties must not go into the queue of that name.

    It has died there before, and no consumer rejected it since: it would go round for ever.
    """
    deaths = (properties.headers or {}).get(_DEATHS)
    if not isinstance(deaths, list):
        return False
    for death in deaths:  # the newest first
        if not isinstance(death, Mapping):
            continue
        if death.get("reason") == REJECTED_BY_CONSUMER:
            return False
        if death.get("queue") == queue:
            return True
    return False
