"""Dead letters: what is rejected, expires, is too much or comes back too often goes to another exchange.

RabbitMQ's rules (https://www.rabbitmq.com/docs/dlx), its header x-death, and its detection of cycles: a queue that
the message died in before gets it again only if a consumer rejected it somewhere on the way.  The order of the
fields of a death, and of the headers, is RabbitMQ's too.

Invariant: however queues dead-letter into each other, nothing recurses and everything ends.  What dies while dead
letters are on their way waits in one worklist per virtual host, with a limit on how much more may come of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.message import Message
from txmsg.broker.queues.arguments import QUORUM
from txmsg.broker.queues.delivery_count import DELIVERY_COUNT
from txmsg.errors import EncodeError
from txmsg.wire.field_values import Int64, Timestamp
from txmsg.wire.properties import BasicProperties

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Timer
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = [
    "DELIVERY_LIMIT",
    "EXPIRED",
    "MAXLEN",
    "MAX_DEATHS",
    "REJECTED_BY_CONSUMER",
    "DeadLetters",
    "died",
    "is_cycle",
]

#: The reasons, as they stand in x-death.
REJECTED_BY_CONSUMER: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"

_DEATHS: Final = "x-death"
_MAX_COUNT: Final = 2**63 - 1
#: Entries in x-death.  Each hop reads and writes all of them, so a chain of queues costs the square of its length, for
#: one publish; without a limit a client could have the broker do nothing else (reliability promise R36).  And without
#: its history a letter could go round for ever.  RabbitMQ has no such limit.
MAX_DEATHS: Final = 100


#: Letters that are routed before the reactor gets its turn.
_RUN: Final = 1000
#: How many letters may die again on their way, in all and for each that was sent.  Queues of length 0 that dead-letter
#: into each other through one exchange would make N! letters of one publish (R36).
_FURTHER: Final = 1000
_FURTHER_EACH: Final = 10


class DeadLetters:
    """The dead letters of one virtual host that are on their way.

    dropped: int -- how many went no further because too many others died again.
    """

    __slots__ = ("_further", "_is_running", "_next_run", "_vhost", "_waiting", "dropped")

    def __init__(self, vhost: VirtualHost) -> None:
        self._vhost = vhost
        self._waiting: deque[tuple[Queue, Message, str]] = deque()
        self._is_running = False
        self._next_run: Timer | None = None
        self._further = 0
        self.dropped = 0

    def __len__(self) -> int:
        """How many are waiting."""
        return len(self._waiting)

    def send(self, queue: Queue, messages: Sequence[Message], reason: str) -> None:
        """`messages` have left `queue`, which has a dead letter exchange.

        They are routed before this returns, but for what is behind a long run of others, and for those that die
        while another letter is put into its queue: they come after it.
        """
        if self._is_running:
            left = len(messages) - self._further
            if left > 0:
                self.dropped += left
                messages = messages[: self._further]
            self._further -= len(messages)
        else:
            if not self._waiting:
                self._further = _FURTHER
            self._further += _FURTHER_EACH * len(messages)
        self._waiting.extend((queue, message, reason) for message in messages)
        if not self._is_running and self._next_run is None:
            self._run(_RUN)

    def stop(self) -> None:
        """The broker ends: all that wait are routed now."""
        if self._next_run is not None:
            self._next_run.cancel()
            self._next_run = None
        while self._waiting and not self._is_running:
            self._run(_RUN, is_last=True)

    def _run(self, most: int, *, is_last: bool = False) -> None:
        self._next_run = None
        self._is_running = True
        try:
            while self._waiting and most:
                most -= 1
                origin, message, why = self._waiting.popleft()
                letter = died(origin, message, why, self._vhost.clock.seconds())
                if letter is not None:
                    self._vhost.publish_dead_letter(origin.name, *letter)
        finally:
            self._is_running = False
        if self._waiting and not is_last:
            self._next_run = self._vhost.clock.callLater(0, self._run, _RUN)


def died(queue: Queue, message: Message, reason: str, now: float) -> tuple[Message, BasicProperties] | None:
    """The dead letter of `message`, with its properties; `now` is what x-death says as the time.

    None if its history is too long for one more death: it is dropped.
    """
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
    if len(headers[_DEATHS]) > MAX_DEATHS:
        return None
    # Where all headers together do not fit a table any more, what it died of is worth more than the others.
    for kept in (dict(sorted(headers.items())), {_DEATHS: headers[_DEATHS]}):
        # Without its expiration, or it would expire again where nobody has asked for that.
        properties = old.replace(headers=kept, expiration=None)
        try:
            return Message.published(exchange, key, properties, message.body), properties
        except EncodeError:
            continue
    return None


def _add_death(headers: dict[str, Any], death: dict[str, Any]) -> None:
    """The newest death comes first; one of the same queue and reason is counted instead, and keeps its time."""
    known = headers.get(_DEATHS)
    if not isinstance(known, list):
        if _DEATHS not in headers:
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
        death = {**same[0], "count": Int64(min(count + 1, _MAX_COUNT) if isinstance(count, int) else 1)}
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
