"""Publishing: basic.publish, publisher confirms, returned messages, and publishes that have to wait.

One publish is one write: its method, header and body frames leave in one piece, so the frames of two
messages never mix, and a cancelled publish never leaves half a message.
Source: https://www.rabbitmq.com/docs/publishers, https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txmsg.amqp.channel_core import ChannelCore, State
from txmsg.amqp.confirms import ConfirmLedger, MandatoryPublish, PublishWaiter, Returnable
from txmsg.amqp.delivery import ReturnedMessage
from txmsg.amqp.outbox import HELD_OVERHEAD
from txmsg.errors import ChannelClosed, ConnectionClosed, EncodeError, NotSent, PublishUnconfirmed, TxmsgError, clip
from txmsg.wire.methods import confirm
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

if TYPE_CHECKING:
    from txmsg.amqp.client import AMQPProtocol

__all__ = ["Publishing", "to_bytes"]

_OPEN = State.OPEN


class Publishing(ChannelCore):
    """The part of a channel that publishes."""

    def __init__(self, connection: AMQPProtocol, channel_number: int) -> None:
        super().__init__(connection, channel_number)
        self._confirms: ConfirmLedger | None = None
        self._return_callbacks: list[Callable[[ReturnedMessage], object]] = []
        self._published_waiters: list[Deferred[None]] = []
        self._encode_publish = connection.wire.encode_publish
        #: Whether publishes have to queue up behind others, or the broker has stopped the channel's flow.
        self._is_holding = False
        #: Called when the broker has stopped the channel's flow, or let it go on.
        self.on_flow: Callable[[], object] | None = None

    @property
    def is_confirming(self) -> bool:
        """Whether the channel is in confirm mode."""
        return self._confirms is not None

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | bytearray | memoryview | str,
        properties: BasicProperties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[int | None]:
        """Publish one message.

        exchange: str -- "" is the default exchange, which routes to the queue named by `routing_key`.
        body: bytes-like, or str (sent as UTF-8); may be empty.
        properties: BasicProperties -- None for none.
        mandatory: bool -- True: the broker returns the message if it cannot be routed to any queue.

        On a channel in confirm mode the Deferred fires with the delivery tag (int) at the broker's ack, or
        fails with exactly one of

        - PublishReturned -- mandatory, and not routable;
        - PublishNacked -- the broker refused responsibility;
        - ChannelClosed, ConnectionClosed (or a subclass) -- the broker closed the channel or connection;
        - PublishUnconfirmed -- the connection was lost, or we closed it, first: the outcome is unknown;
        - PublishTimeout -- no answer within `confirm_timeout`: the outcome is unknown;
        - NotSent, Overloaded -- nothing has left, publishing again is safe.

        Without confirm mode it fires with None once the message is on its way and the socket takes more:
        wait for it now and then, and a slow broker slows you down instead of filling the memory.

        A mandatory message without a message id is given a unique one on a channel in confirm mode,
        so that a return finds its publish.  Cancelling the Deferred does not take the message back,
        unless it is still held here.
        """
        connection = self.connection
        if get_ident() != connection.thread_id:
            connection.check_thread()
        if self._state is not _OPEN:
            return fail(self._wrong_state())
        confirms = self._confirms
        message: MandatoryPublish | None = None
        try:
            if type(body) is not bytes:
                body = to_bytes(body)
            if properties is None:
                properties = NO_PROPERTIES
            elif not isinstance(properties, BasicProperties):
                raise TypeError  # the codec would take bytes as properties encoded already
            if mandatory and confirms is not None:
                message, encoded = _identify(confirms, exchange, routing_key, properties, body)
                frames = self._encode_publish(self.channel_number, exchange, routing_key, True, encoded, body)
            else:
                frames = self._encode_publish(self.channel_number, exchange, routing_key, mandatory, properties, body)
        except TxmsgError as error:
            return self._not_sent_in_a_moment() if self._is_ended_by_peer(error) else fail(error)
        except (TypeError, AttributeError):
            return fail(EncodeError("exchange and routing key are str, properties are BasicProperties or None"))
        if self._is_holding or not connection.can_publish:
            return self._hold(frames, message)
        connection.write_all(frames)
        if confirms is None:
            if connection.can_publish:
                return succeed(None)
            waiting: Deferred[int | None] = Deferred()
            connection.outbox.wait_for_room(waiting)
            return waiting
        deferred: Deferred[int | None] = Deferred()
        if message is None:
            # ConfirmLedger.published, without the call.
            confirms.last_tag = tag = confirms.last_tag + 1
            confirms.pending[tag] = deferred
        else:
            confirms.published_mandatory(deferred, message)
        return deferred

    def _not_sent_in_a_moment(self) -> Deferred[int | None]:
        """For a publish after the broker's close, of which we have not learned yet."""
        waiting: Deferred[int | None] = Deferred()
        self.when_closed().addCallback(
            lambda reason: waiting.errback(Failure(NotSent("the channel ended before it was written", reason)))
        )
        return waiting

    def confirm_select(self, *, nowait: bool = False, watch_limits: bool = True) -> Deferred[confirm.SelectOk | None]:
        """Put the channel in confirm mode; calling it again changes nothing.

        watch_limits: False: the caller watches the time limits itself, `confirm_timeout` does not count.

        Publishes made after this call are confirmed, also those made before the reply is here.
        Cannot be combined with transactions (406).  Source: https://www.rabbitmq.com/docs/confirms
        """
        if self._confirms is not None:
            self.connection.check_thread()
            return succeed(None)
        # Publishes made before were captured without a ledger; all later ones are counted in order.
        reply = self._call(confirm.Select(nowait=nowait), must_write=True)
        if self._state is _OPEN:
            limit = self.connection.parameters.confirm_timeout if watch_limits else None
            self._confirms = ConfirmLedger(self.connection.clock, limit)
        return reply

    # -- publishing for a publisher that has an outbox of its own ------------------------------------

    @property
    def takes_publishes(self) -> bool:
        """Whether a publish would be written at once: nothing is held here, the socket and the broker take more."""
        return self._state is _OPEN and not self._is_holding and self.connection.can_publish

    @property
    def unconfirmed(self) -> ConfirmLedger | None:
        """The publishes that wait for the broker's answer; None without confirm mode."""
        return self._confirms

    def publish_encoded(
        self,
        waiter: PublishWaiter,
        exchange: str,
        routing_key: str,
        properties: BasicProperties | bytes,
        body: bytes,
        message: Returnable | None,
    ) -> bool:
        """Write one publish while `takes_publishes`; in confirm mode `waiter` gets the broker's answer.

        properties: bytes where they are encoded.   message: what a return is recognised by; None: not mandatory.
        Returns False, and nothing was written, where the broker has ended the channel: its reason is about to be read.
        Raises EncodeError.
        """
        connection, confirms = self.connection, self._confirms
        try:
            frames = self._encode_publish(
                self.channel_number, exchange, routing_key, message is not None, properties, body
            )
        except TxmsgError as error:
            if self._is_ended_by_peer(error):
                return False
            raise
        connection.write_all(frames)
        if confirms is not None:
            confirms.last_tag = tag = confirms.last_tag + 1
            confirms.pending[tag] = waiter
            if message is not None:
                confirms.may_return(tag, message)
        return True

    # -- returned messages -------------------------------------------------------------------------

    def add_return_callback(self, callback: Callable[[ReturnedMessage], object]) -> None:
        """Call `callback(returned)` for each message that comes back, before its publish fails."""
        self._return_callbacks.append(callback)

    def remove_return_callback(self, callback: Callable[[ReturnedMessage], object]) -> None:
        """Stop calling it; ValueError if it is not registered."""
        self._return_callbacks.remove(callback)

    def _returned(self, message: ReturnedMessage) -> None:
        matched = self._confirms is not None and self._confirms.returned(message)
        for callback in list(self._return_callbacks):
            self.connection.guarded(callback, message)
        if not matched and not self._return_callbacks:
            self._log.warn(
                "a message was returned and nobody asked for it: {code} {text!r} exchange {exchange!r} key {key!r}",
                code=message.reply_code,
                text=clip(message.reply_text),
                exchange=clip(message.exchange),
                key=clip(message.routing_key),
            )

    # -- publishes that have to wait ---------------------------------------------------------------

    def _hold(self, frames: list[bytes], message: MandatoryPublish | None) -> Deferred[int | None]:
        """Keep a publish until the socket, the broker and the channel's flow allow it."""
        connection, confirms = self.connection, self._confirms
        deferred: Deferred[int | None] = Deferred()

        def write() -> None:
            connection.write_all(frames)
            if confirms is None:
                deferred.callback(None)
            elif message is None:
                confirms.published(deferred)
            else:
                confirms.published_mandatory(deferred, message)

        parameters = connection.parameters
        limit = parameters.operation_timeout if confirms is None else parameters.confirm_timeout
        deadline = None if limit is None else connection.clock.seconds() + limit
        try:
            self._held.hold_publish(write, HELD_OVERHEAD + sum(map(len, frames)), deferred, deadline)
        except TxmsgError as error:
            return fail(error)
        self._is_holding = True
        connection.outbox.hold(self)
        return deferred

    def _may_publish(self) -> bool:
        return self.connection.can_publish and self.flow_active

    def drain_held(self) -> None:
        """For the connection: write what was held, as far as it goes."""
        self._held.drain(self._may_publish)
        self._is_holding = bool(self._held) or not self.flow_active
        if not self._held:
            self.connection.outbox.holding.pop(self, None)
            self._check_published()

    def expire_held(self, now: float, why: str) -> None:
        """For the connection: fail held publishes whose time is up."""
        self._held.expire(now, why)
        self.drain_held()

    def set_flow(self, active: bool) -> None:
        """The broker's channel.flow: stop publishing, or go on."""
        self.flow_active = active
        self.drain_held()
        if self.on_flow is not None:
            self.on_flow()

    def when_published(self) -> Deferred[None]:
        """A Deferred that fires when no publish of this channel is held or waits for its confirm."""
        if not self._held and not self._confirms:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._published_waiters.remove)
        self._published_waiters.append(waiter)
        self._check_published()
        return waiter

    def _check_published(self) -> None:
        if not self._published_waiters or self._held:
            return
        if self._confirms:
            self._confirms.when_idle = self._check_published
            return
        waiters, self._published_waiters = self._published_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    # -- the end -----------------------------------------------------------------------------------

    def drop_held(self, reason: BaseException) -> None:
        """Fail with NotSent what is still held: a close is about to leave, and nothing may follow that."""
        self._held.close(reason)
        self.connection.outbox.holding.pop(self, None)

    def _end_publishing(self, reason: BaseException) -> None:
        by_broker = isinstance(reason, (ChannelClosed, ConnectionClosed)) and reason.initiator == "server"

        def make_error(tag: int) -> BaseException:
            if by_broker:
                return reason.with_traceback(None)  # as in `PendingReplies.fail_all`
            return PublishUnconfirmed(f"publish {tag} was written, but not confirmed before the end", reason)

        # First what was written, then what waited behind it: who publishes again keeps the order.
        if self._confirms is not None:
            self._confirms.close(make_error)
        self.drop_held(reason)
        waiters, self._published_waiters = self._published_waiters, []
        for waiter in waiters:
            waiter.callback(None)
        self._return_callbacks.clear()
        self.on_flow = None


def to_bytes(body: object) -> bytes:
    """A body as bytes: str as UTF-8; EncodeError for what is neither str nor bytes-like."""
    if isinstance(body, str):
        try:
            return body.encode("utf-8")
        except UnicodeEncodeError:
            raise EncodeError("a body given as str must be valid Unicode") from None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise EncodeError(f"a body is bytes or str, not {type(body).__name__}")


def _identify(
    confirms: ConfirmLedger, exchange: str, routing_key: str, properties: BasicProperties, body: bytes
) -> tuple[MandatoryPublish, bytes]:
    """What a return of this message is recognised by, and its encoded properties."""
    message_id = properties.message_id
    if message_id is not None:
        return MandatoryPublish(message_id, exchange, routing_key, body), properties.encode()
    message_id = confirms.next_message_id()
    return (
        MandatoryPublish(message_id, exchange, routing_key, None),
        properties.encode_with_message_id(message_id.encode("ascii")),
    )
