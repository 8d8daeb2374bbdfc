"""Publication: one message that is ready to be sent, with what is to be known for sending it again.

Its octets and its properties are made once; each copy is the same (R7).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from txmsg.errors import ChannelClosed, NotSent, OperationalError, PublishNacked, PublishUnconfirmed
from txmsg.messaging.retrying.ensuring import is_worth_retrying

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from txmsg.messaging.connection.channel import Channel
    from txmsg.messaging.retrying.retrying import RetryIntervals

__all__ = ["Publication"]

#: Which exchange is meant in "no exchange 'orders' in vhost '/'", "access to exchange 'amq.default' in vhost ...".
_EXCHANGE: Final = re.compile(r"\bexchange '(.*?)' in vhost ")
#: How large a message was that is too large.
_SIZE: Final = re.compile(r"\bmessage size ([0-9]{1,20}) is larger than\b")

#: What a publication weighs besides its body, in octets: about what its objects take.
_OVERHEAD: Final = 1000


class Publication:
    """One message that is ready to be sent, as often as need be.

    exchange, routing_key, body, properties, mandatory -- for the channel of the transport.
    declare -- what has to be there before.
    intervals: RetryIntervals | None -- None: it is not sent again.
    errback(exc, interval), on_revive(channel) -- of its retry policy.
    timeout: float | None -- seconds for everything.
    """

    __slots__ = (
        "body",
        "declare",
        "deferred",
        "errback",
        "exchange",
        "failures",
        "in_flight",
        "intervals",
        "is_done",
        "is_waiting",
        "limit",
        "mandatory",
        "on_revive",
        "properties",
        "reply_queue",
        "rounds",
        "routing_key",
        "sequence",
        "timeout",
        "unknown",
    )

    def __init__(
        self,
        sequence: int,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        declare: Sequence[Any] = (),
        intervals: RetryIntervals | None = None,
    ) -> None:
        self.sequence = sequence
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.declare = declare
        self.intervals = intervals
        self.errback: Callable[[BaseException, float], object] | None = None
        self.on_revive: Callable[[Channel], object] | None = None
        self.timeout: float | None = None
        #: A queue whose name, which the broker gives it, becomes reply_to.
        self.reply_queue: Any = None
        self.deferred: Deferred[None] | None = None
        self.failures = 0
        self.rounds = 0
        #: The last error that leaves open whether the message has arrived.
        self.unknown: BaseException | None = None
        self.is_done = False
        self.is_waiting = False
        self.in_flight: Deferred[None] | None = None
        self.limit: IDelayedCall | None = None

    def __lt__(self, other: Publication) -> bool:
        return self.sequence < other.sequence

    @property
    def weight(self) -> int:
        """What it takes in memory, about, in octets."""
        return len(self.body) + _OVERHEAD

    def failed(self, error: BaseException, was_sent: bool) -> bool:
        """Count a failure; whether there may be another attempt."""
        self.failures += 1
        if was_sent and not isinstance(error, (NotSent, PublishNacked)):
            self.unknown = error
        return self.intervals is not None and self._is_worth_it(error) and self.intervals.allows(self.failures)

    def _is_worth_it(self, error: BaseException) -> bool:
        return is_worth_retrying(error) or self._is_bystander(error)

    def _is_bystander(self, error: BaseException) -> bool:
        """Whether the broker has closed the channel for the sake of something else than this message.

        It names the method (AMQP 0-9-1 section 1.5.2.5), and RabbitMQ the exchange, in the text of a 403 and a 404,
        and the size of a message that is too large.
        """
        if not isinstance(error, ChannelClosed) or error.initiator != "server" or not error.method_name:
            return False
        if error.method_name != "basic.publish":
            return True
        size = _SIZE.search(error.reply_text)
        if size is not None:
            return int(size[1]) != len(self.body)
        named = _EXCHANGE.search(error.reply_text)
        return named is not None and named[1] != (self.exchange or "amq.default")

    def outcome(self, error: BaseException) -> BaseException:
        """What the caller is told when `error` was the last one."""
        if self.intervals is None or not self._is_worth_it(error):
            return error
        times = f"{self.failures} attempt{'s' if self.failures > 1 else ''}"
        return OperationalError(f"gave up after {times}", self.unknown or error)

    def not_sent(self, why: str, cause: BaseException | None) -> BaseException:
        """It is over before an attempt; what was sent before may have arrived."""
        if self.unknown is not None:
            return PublishUnconfirmed(why, self.unknown)
        return NotSent(why, cause)
