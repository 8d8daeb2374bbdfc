"""The headers in which a message carries its retries, and what else changes when it is published again.

- `x-retry-count` (int): how many times it was put back; absent before the first time.
- `x-retry-history` (list of tables): the last HISTORY of these: attempt (int), at (timestamp), reason (str), delay
  (int, milliseconds; absent for the last step, the dead letter).
- `x-retry-exchange`, `x-retry-routing-key` (str): with which it was published in the first place.

Headers come from whoever published: nothing here trusts them.  Some properties would get in the way of a copy:
`user_id` must be that of the connection (https://www.rabbitmq.com/docs/validated-user-id), `expiration` would end the
wait early (https://www.rabbitmq.com/docs/ttl), and CC and BCC would send it elsewhere, too
(https://www.rabbitmq.com/docs/sender-selected).  The first two are kept as `x-retry-user-id` and `x-retry-expiration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from txmsg.amqp.delivery import Delivery
from txmsg.errors import clip
from txmsg.wire.properties import BasicProperties

__all__ = [
    "HISTORY",
    "RETRY_COUNT",
    "RETRY_HISTORY",
    "headers_of",
    "next_properties",
    "origin_of",
    "retry_count",
    "shown_reason",
]

RETRY_COUNT = "x-retry-count"
RETRY_HISTORY = "x-retry-history"
RETRY_EXCHANGE = "x-retry-exchange"
RETRY_ROUTING_KEY = "x-retry-routing-key"
RETRY_USER_ID = "x-retry-user-id"
RETRY_EXPIRATION = "x-retry-expiration"

#: How many attempts a message's history has at most: the last ones.
HISTORY = 10
#: How many characters of a reason are kept.
REASON = 300
#: A count above this is no count of ours.
_MAX_COUNT = 2**31 - 1

_OURS = frozenset(
    {RETRY_COUNT, RETRY_HISTORY, RETRY_EXCHANGE, RETRY_ROUTING_KEY, RETRY_USER_ID, RETRY_EXPIRATION, "CC", "BCC"}
)


def headers_of(delivery: Delivery) -> Mapping[str, Any]:
    """The headers of a delivery; none where its properties cannot be decoded."""
    headers = getattr(delivery.properties, "headers", None)
    return headers if headers else {}


def retry_count(delivery: Delivery) -> int:
    """How many times it was put back; 0 for what is no number."""
    count = headers_of(delivery).get(RETRY_COUNT, 0)
    return count if type(count) is int and 0 <= count <= _MAX_COUNT else 0


def origin_of(delivery: Delivery) -> tuple[str, str]:
    """The exchange and routing key with which it was published in the first place."""
    headers = headers_of(delivery)
    exchange, routing_key = headers.get(RETRY_EXCHANGE), headers.get(RETRY_ROUTING_KEY)
    if isinstance(exchange, str) and isinstance(routing_key, str):
        return exchange, routing_key
    return delivery.exchange, delivery.routing_key


def next_properties(
    delivery: Delivery, reason: object, at: datetime, delay: int | None, queues: frozenset[str]
) -> BasicProperties:
    """The properties of its next copy.

    reason: an exception, or whatever has a str().   delay: milliseconds; None: it becomes a dead letter.
    queues: whose entries are taken out of `x-death`: a broker that found its own hops there would take the way back for
        a loop, and drop the message (https://www.rabbitmq.com/docs/dlx#cycles).
    """
    given = delivery.properties
    properties = given if isinstance(given, BasicProperties) else BasicProperties()
    old = headers_of(delivery)
    headers = {name: value for name, value in old.items() if name not in _OURS}
    _drop_own_deaths(headers, queues)
    attempt = retry_count(delivery) + 1
    entry: dict[str, Any] = {"attempt": attempt, "at": at, "reason": shown_reason(reason)}
    if delay is not None:
        entry["delay"] = delay
    history = old.get(RETRY_HISTORY)
    headers[RETRY_HISTORY] = [*(history if isinstance(history, list) else ()), entry][-HISTORY:]
    headers[RETRY_COUNT] = retry_count(delivery) if delay is None else attempt
    headers[RETRY_EXCHANGE], headers[RETRY_ROUTING_KEY] = origin_of(delivery)
    for name, value in ((RETRY_USER_ID, properties.user_id), (RETRY_EXPIRATION, properties.expiration)):
        if value is not None:
            headers[name] = value
        elif name in old:
            headers[name] = old[name]
    return properties.replace(headers=headers, user_id=None, expiration=None)


def _drop_own_deaths(headers: dict[str, Any], queues: frozenset[str]) -> None:
    deaths = headers.get("x-death")
    if isinstance(deaths, list):
        kept = [death for death in deaths if not (isinstance(death, dict) and death.get("queue") in queues)]
        if kept:
            headers["x-death"] = kept
        else:
            del headers["x-death"]
    for which in ("first", "last"):
        if headers.get(f"x-{which}-death-queue") in queues:
            for what in ("queue", "reason", "exchange"):
                headers.pop(f"x-{which}-death-{what}", None)


def shown_reason(reason: object) -> str:
    """A reason as it is kept: an exception's class and text, clipped."""
    if isinstance(reason, BaseException):
        return clip(f"{type(reason).__name__}: {reason}", REASON)
    return clip(str(reason), REASON)
