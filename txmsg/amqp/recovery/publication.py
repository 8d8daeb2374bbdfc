"""One message on its way through a :class:`~txmsg.amqp.recovery.publisher.Publisher`, and the sums over all of them.

A publication outlives the channels it is written to: it is what each of them tells the broker's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from txmsg.amqp.recovery.publisher import Publisher

__all__ = ["Publication", "PublisherReport"]


class Publication:
    """A message between publish() and its outcome.

    exchange, routing_key: str.   properties: bytes -- encoded, with the message id, which stays the same however often
        it is written.   message_id: str.   content: bytes -- the body; empty once it is not needed any more.
    is_mandatory: bool.   key, body -- what a return is recognised by, as in :class:`MandatoryPublish`.
    deadline: float -- on the publisher's clock.   size: int -- bytes it counts for against the bound.
    is_written: bool -- whether it has ever left: then nobody knows without the broker's answer.
    is_repeated: bool -- whether it has been written again after a loss.
    is_suspect: bool -- whether it was among those in flight when the broker closed the channel because of one.
    called: bool -- whether it has its outcome.   deferred: who waits for that.
    """

    __slots__ = (
        "body",
        "called",
        "content",
        "deadline",
        "deferred",
        "exchange",
        "is_mandatory",
        "is_repeated",
        "is_suspect",
        "is_written",
        "message_id",
        "properties",
        "publisher",
        "routing_key",
        "size",
    )

    def __init__(
        self,
        publisher: Publisher,
        exchange: str,
        routing_key: str,
        properties: bytes,
        message_id: str,
        is_unique: bool,
        content: bytes,
        is_mandatory: bool,
        deadline: float,
        size: int,
    ) -> None:
        self.publisher = publisher
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.message_id = message_id
        self.content = content
        self.body = None if is_unique else content
        self.is_mandatory = is_mandatory
        self.deadline = deadline
        self.size = size
        self.is_written = False
        self.is_repeated = False
        self.is_suspect = False
        self.called = False
        self.deferred: Deferred[str] = Deferred(self._cancelled)

    @property
    def key(self) -> tuple[str, str, str]:
        """Message id, exchange, routing key."""
        return self.message_id, self.exchange, self.routing_key

    def callback(self, tag: Any) -> None:
        """The broker has taken responsibility."""
        self.publisher.publication_confirmed(self)

    def errback(self, fail: Any = None) -> None:
        """It was returned or refused, or the channel has ended; `fail` is a Failure."""
        self.publisher.publication_failed(self, fail)

    def _cancelled(self, deferred: Deferred[str]) -> None:
        """Nobody waits any more: what has not left does not leave; what has cannot be taken back."""
        self.publisher.publication_given_up(self)

    def fail(self, error: BaseException) -> None:
        """For the publisher: tell whoever waits."""
        self.called = True
        self.content = b""
        self.deferred.errback(Failure(error))

    def __repr__(self) -> str:
        state = "done" if self.called else "written" if self.is_written else "waiting"
        return f"<Publication {self.message_id} {len(self.content)} bytes {state}>"


@dataclass(frozen=True, slots=True)
class PublisherReport:
    """What has become of a publisher's messages so far.

    published: publish() took so many.  Each is in exactly one of the others: confirmed (in `confirm=False` mode:
    written), returned, nacked, refused (the broker closed the channel because of it), timed_out and unconfirmed (it has
    left, and nobody knows), not_sent (it has not left), cancelled, outstanding (no outcome yet).
    resent: how many copies were written again after a loss; the queue may hold that many duplicates.
    """

    published: int = 0
    confirmed: int = 0
    returned: int = 0
    nacked: int = 0
    refused: int = 0
    timed_out: int = 0
    unconfirmed: int = 0
    not_sent: int = 0
    cancelled: int = 0
    outstanding: int = 0
    resent: int = 0
