"""Publisher: messages that reach the broker, or a typed error that says why not, across lost connections.

Each message is confirmed, mandatory and persistent unless it is said otherwise, has one id for all its copies, and one
deadline for everything: waiting for a connection, for the broker's alarm to end, for the confirm.  After a loss what
was not confirmed is written again, in order, before anything new (`on_loss="resend"`), or fails (`on_loss="fail"`).

Invariants (reliability promises R1 to R8):

- every publish() has exactly one outcome, at most a second after its deadline;
- the order of first writes is the order of publish(), and a copy is written before everything that was published later
  and had not been written; so, later duplicates removed, the queue has the messages in order;
- what waits and what is in flight together stay within `max_outstanding` messages and `max_outstanding_bytes`;
- a message that makes the broker close the channel is found, by writing those in flight again in small groups, and
  fails with the broker's error; the others go on.

Source: https://www.rabbitmq.com/docs/confirms, https://www.rabbitmq.com/docs/publishers,
https://www.rabbitmq.com/docs/reliability
"""

from __future__ import annotations

import os
from threading import get_ident
from typing import TYPE_CHECKING, Literal

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from txmsg.amqp import validation
from txmsg.amqp.protocol import check_thread
from txmsg.amqp.publishing import to_bytes
from txmsg.amqp.recovery.outbox import PublisherOutbox
from txmsg.amqp.recovery.publication import Publication, PublisherReport
from txmsg.errors import ConfigurationError, ConnectionClosed, EncodeError, NotSent, Overloaded, TxmsgError
from txmsg.wire.primitives import MAX_SHORT_STRING
from txmsg.wire.properties import BasicProperties

if TYPE_CHECKING:
    from txmsg.amqp.recovery.connection import ReconnectingConnection

__all__ = ["Publisher"]

#: What a publication costs beside its body, in bytes: counted against `max_outstanding_bytes`.
PUBLICATION_OVERHEAD = 1536

#: A name of so many characters fits a short string in any encoding.
_SHORT = MAX_SHORT_STRING // 4

_PERSISTENT = BasicProperties(delivery_mode=2)
_TRANSIENT = BasicProperties()


class Publisher(PublisherOutbox):
    """Publishes on a :class:`ReconnectingConnection`, also while that has no connection; made by its `publisher()`.

    mandatory: bool -- default of publish(): what cannot be routed to a queue fails with PublishReturned.
    persistent: bool -- properties that name no delivery_mode get 2 (https://www.rabbitmq.com/docs/persistence-conf).
    confirm: bool -- False: a publish succeeds when it has been written; what is lost with a connection is then lost.
    on_loss: "resend" or "fail" -- what becomes of publishes that were written and not confirmed when the connection or
        the channel ended: written again, or failed with PublishUnconfirmed.
    max_outstanding: int, max_outstanding_bytes: int -- the bound of what waits and what is in flight; a message counts
        1.5 KiB more than its body.  A single larger message is taken when there is nothing else.
    when_full: "fail" -- beyond the bound publish() fails at once with Overloaded; see `when_room()` to avoid it.
        "wait" -- up to 100 further publishes wait for room, each within its deadline, and only then Overloaded.
    timeout: float -- seconds that a publish may take in all, kept to within a second.

    Raises ConfigurationError for a value that cannot be used.
    """

    #: Publishes that may wait for room, with when_full="wait".
    LINE = 100

    def __init__(
        self,
        connection: ReconnectingConnection,
        *,
        mandatory: bool = True,
        persistent: bool = True,
        confirm: bool = True,
        on_loss: Literal["resend", "fail"] = "resend",
        max_outstanding: int = 10_000,
        max_outstanding_bytes: int = 64 * 1024 * 1024,
        when_full: Literal["fail", "wait"] = "fail",
        timeout: float = 30.0,
    ) -> None:
        if on_loss not in ("resend", "fail"):
            raise ConfigurationError(f"on_loss is 'resend' or 'fail', not {validation.shown(on_loss)}")
        if when_full not in ("fail", "wait"):
            raise ConfigurationError(f"when_full is 'fail' or 'wait', not {validation.shown(when_full)}")
        self.mandatory = validation.flag("mandatory", mandatory)
        self.persistent = validation.flag("persistent", persistent)
        self.on_loss = on_loss
        self.when_full = when_full
        self.timeout = validation.seconds("timeout", timeout)
        super().__init__(
            connection,
            confirm=validation.flag("confirm", confirm),
            resends=on_loss == "resend",
            max_messages=validation.integer("max_outstanding", max_outstanding, 1, 2**31),
            max_bytes=validation.integer("max_outstanding_bytes", max_outstanding_bytes, 1, 2**40),
        )
        self._id_prefix = os.urandom(10).hex()
        self._id_counter = 0
        #: The properties of the last publish, and what they became: most publishes share them.
        self._last_given: BasicProperties | None = None
        self._last_used = _PERSISTENT if persistent else _TRANSIENT

    # -- for the user ------------------------------------------------------------------------------

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: BasicProperties | None = None,
        *,
        mandatory: bool | None = None,
        timeout: float | None = None,
    ) -> Deferred[str]:
        """Publish one message; the Deferred fires with its message id when the broker has taken responsibility.

        exchange, routing_key, body, properties: as for :meth:`Channel.basic_publish`.  A message without a `message_id`
        gets one, which all its copies have.   mandatory, timeout: other than the publisher's.

        Fails with exactly one of

        - PublishReturned -- mandatory, and not routable;
        - PublishNacked -- the broker refused responsibility;
        - a ChannelClosed or ConnectionClosed (NotFound, AccessRefused, PreconditionFailed ...) -- the broker ended the
          channel or the connection because of this very message (of several in flight at once, with `on_loss="fail"`,
          all fail with it);
        - PublishTimeout -- written, and not confirmed before the deadline: the outcome is unknown;
        - PublishUnconfirmed -- the same, because of a loss with `on_loss="fail"`, because the publisher was closed, or
          because the broker refused a copy after a loss (the first one may have been taken);
        - NotSent, Overloaded -- nothing has left: publishing again is safe;
        - EncodeError -- it cannot be sent as it is; ConfigurationError -- for a timeout that is none.

        Raises nothing but WrongThread.  Cancelling the Deferred keeps back what has not been written; what has been
        written stays so, but is not written again.
        """
        if self._ended is not None or self._is_stopping:
            return fail(NotSent("the publisher is closed", self._ended))
        thread_id = self._keeper.thread_id
        if thread_id is not None and get_ident() != thread_id:
            check_thread(thread_id)
        try:
            publication = self._make(exchange, routing_key, body, properties, mandatory, timeout)
        except TxmsgError as error:
            return fail(error)
        except (TypeError, AttributeError):
            return fail(EncodeError("exchange and routing key are str, properties are BasicProperties or None"))
        if not self._line and self.has_room_for(publication.size):
            self.take(publication)
        elif self.when_full == "wait" and self.waiting_for_room() < self.LINE:
            self.take_later(publication)
        else:
            return fail(
                Overloaded(
                    f"{self.outstanding} messages ({self.outstanding_bytes} bytes) wait for their outcome: await "
                    "when_room(), or raise max_outstanding / max_outstanding_bytes"
                )
            )
        return publication.deferred

    def _make(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: BasicProperties | None,
        mandatory: bool | None,
        timeout: float | None,
    ) -> Publication:
        """Check everything that can be wrong with a message; raises EncodeError, TypeError, AttributeError."""
        if type(body) is not bytes:
            body = to_bytes(body)
        # Cheap for what is short in any encoding; the rest is counted.
        if len(exchange) > _SHORT or len(routing_key) > _SHORT:
            _check_names(exchange, routing_key)
        if properties is not self._last_given or properties is None:
            self._use(properties)
        used = self._last_used
        is_mandatory = self.mandatory if mandatory is None else mandatory
        message_id = used.message_id
        if message_id is None:
            self._id_counter += 1
            message_id = f"{self._id_prefix}{self._id_counter:012x}"
            encoded = used.encode_with_message_id(message_id.encode("ascii"))
            is_ours = True
        else:
            encoded = used.encode()
            is_ours = False
        limit = self.timeout if timeout is None else validation.seconds("timeout", timeout)
        deadline = self._clock.seconds() + limit
        size = len(body) + PUBLICATION_OVERHEAD
        return Publication(
            self, exchange, routing_key, encoded, message_id, is_ours, body, is_mandatory, deadline, size
        )

    def _use(self, properties: BasicProperties | None) -> None:
        """Remember properties, and what becomes of them: most publishes share theirs."""
        if properties is None:
            used = _PERSISTENT if self.persistent else _TRANSIENT
        elif not isinstance(properties, BasicProperties):
            raise TypeError
        elif self.persistent and properties.delivery_mode is None:
            used = properties.replace(delivery_mode=2)
        else:
            used = properties
        self._last_given, self._last_used = properties, used

    def join(self) -> Publisher:
        """For the connection, which makes publishers: live on it from now on."""
        self.connection.add_member(self)
        protocol = self.connection.protocol
        if protocol is not None and self._ended is None:
            self._keeper.open_now(protocol)
        return self

    def when_room(self) -> Deferred[None]:
        """A new Deferred that fires when another publish would not meet the bound: at once, or later.

        Await it between publishes that you do not await one by one.  It fires at the end of the publisher, too.
        """
        return self.wait_for_room()

    def drain(self, timeout: float | None = None) -> Deferred[PublisherReport]:
        """Wait until no publish is without an outcome, at most `timeout` seconds; fires with the report.

        None: as long as their deadlines last.  Does not fail; the report has what is left (`outstanding`).
        """
        waiter = self.wait_until_idle()
        if timeout is not None:
            waiter.addTimeout(timeout, self._clock, lambda result, limit: None)
        return waiter.addErrback(_trap_cancelled).addCallback(lambda result: self.report())

    def report(self) -> PublisherReport:
        """What has become of all messages so far."""
        self.counts["outstanding"] = self.outstanding + self.waiting_for_room()
        return PublisherReport(**self.counts)

    def close(self, timeout: float = 10.0) -> Deferred[PublisherReport]:
        """Take no more, wait for what is outstanding (at most `timeout` seconds), and end; fires with the report.

        What has no outcome by then fails with PublishUnconfirmed, or NotSent where nothing has left.  May be called at
        any time and more than once.  Never fails.
        """
        stopping = self.stop()
        if timeout is not None:
            stopping.addTimeout(timeout, self._clock, lambda result, limit: None)
        return stopping.addErrback(_trap_cancelled).addCallback(self._end)

    def _end(self, result: None) -> PublisherReport:
        channel = self._channel
        if self._ended is None:
            self.connection.remove_member(self)
            self.closed(ConnectionClosed("the publisher was closed", initiator="client"))
        if channel is not None:
            channel.close()
        return self.report()

    @property
    def is_open(self) -> bool:
        """Whether publish() takes messages."""
        return self._ended is None and not self._is_stopping

    def __repr__(self) -> str:
        state = "closed" if self._ended is not None else "ready" if self._channel is not None else "waiting"
        return (
            f"<Publisher {state}, {self.outstanding} outstanding ({self.outstanding_bytes} bytes), "
            f"{self.counts['confirmed']} confirmed>"
        )


def _check_names(*names: str) -> None:
    for name in names:
        if len(name.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING:
            raise EncodeError(f"exchange and routing key have at most {MAX_SHORT_STRING} bytes of UTF-8")


def _trap_cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
