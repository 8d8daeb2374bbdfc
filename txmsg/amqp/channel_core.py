"""ChannelCore: the life of a channel, and how its methods are written and their replies found.

opening -> open -> closing -> closed.  It ends once, for one reason, which everything that waits then
fails with.  The parts of :class:`txmsg.amqp.Channel` (operations, publishing, consuming) stand on this.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txmsg.amqp.outbox import HeldQueue
from txmsg.amqp.pending import Call, OnReply, PendingReplies
from txmsg.amqp.settlement import SettlementLedger
from txmsg.errors import ChannelClosed, ChannelWrongState, EncodeError, LocalProtocolError, TxmsgError, channel_error
from txmsg.wire.connection import ChannelState, ConnectionState
from txmsg.wire.methods import Method, channel, method_name

if TYPE_CHECKING:
    from txmsg.amqp.client import AMQPProtocol

__all__ = ["ChannelCore", "State"]


class State(Enum):
    """Where a channel is in its life."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class ChannelCore:
    """What the parts of a channel share; made by :meth:`AMQPProtocol.channel`.

    connection: AMQPProtocol -- the connection it lives on.
    channel_number: int -- its number, free again when the broker has said close-ok.
    closed: Deferred -- fires (never fails) with the reason when the channel has ended.
    """

    _log = Logger(namespace="txmsg.amqp.channel")

    def __init__(self, connection: AMQPProtocol, channel_number: int) -> None:
        self.connection = connection
        self.channel_number = channel_number
        self.closed: Deferred[BaseException] = Deferred()
        self.flow_active = True
        self._state = State.OPENING
        self._wire = connection.wire
        self._reason: BaseException | None = None
        self._closing: ChannelClosed | None = None
        self._close_timer: IDelayedCall | None = None
        self._closed_waiters: list[Deferred[BaseException]] = []
        self._held = HeldQueue(connection.outbox)
        self._settlements = SettlementLedger()
        self._pending = PendingReplies(
            connection.clock,
            connection.parameters.operation_timeout,
            lambda: connection.is_blocked,
            connection.why_no_reply,
        )

    # -- state -------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True from channel.open-ok until the end begins."""
        return self._state is State.OPEN

    @property
    def is_closing(self) -> bool:
        """True while our own close is on its way."""
        return self._state is State.CLOSING

    @property
    def is_closed(self) -> bool:
        """True once the channel has ended, for whatever reason."""
        return self._state is State.CLOSED

    @property
    def close_reason(self) -> BaseException | None:
        """Why the channel ended or is ending; None while it lives."""
        return self._reason or self._closing

    def when_closed(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason at the end of the channel; works at any time."""
        if self._reason is not None:
            return succeed(self._reason)
        waiter: Deferred[BaseException] = Deferred(self._closed_waiters.remove)
        self._closed_waiters.append(waiter)
        return waiter

    def __int__(self) -> int:
        return self.channel_number

    def __repr__(self) -> str:
        return (
            f"<Channel {self.channel_number} {self._state.value}, {len(self._pending)} calls waiting, "
            f"{len(self._settlements)} unsettled, {len(self._held)} held>"
        )

    def _wrong_state(self) -> BaseException:
        reason = self._reason or self._closing
        if reason is not None:
            # Many fail with it, and each that raises it makes its traceback longer.
            return reason.with_traceback(None)
        return ChannelWrongState(f"channel {self.channel_number} is {self._state.value}", initiator="client")

    # -- calls -------------------------------------------------------------------------------------

    def _call(
        self,
        method: Method,
        on_reply: OnReply | None = None,
        on_write: Callable[[], None] | None = None,
        *,
        must_write: bool = False,
    ) -> Deferred[Any]:
        """Write a method and wait for its reply.

        on_reply(reply, abandoned) -- gives what the Deferred fires with.
        on_write() -- called when the method is really written, which is later if publishes are held.
        must_write -- also when nobody waits for the reply any more by then: the channel already counts on it.
        """
        self.connection.check_thread()
        if self._state is not State.OPEN:
            return fail(self._wrong_state())
        nowait = getattr(method, "nowait", False)
        if len(self._held):
            return self._call_behind(method, on_reply, on_write, nowait, must_write)
        try:
            frame = self._wire.send_method(self.channel_number, method)
        except TxmsgError as error:
            if self._is_ended_by_peer(error):
                return self._pending.add(method).deferred  # not written; it fails with the reason
            return fail(error)
        call = None if nowait else self._pending.add(method, on_reply)
        self._write_method(frame, call, on_write)
        if call is None:
            return succeed(None if on_reply is None else on_reply(None, False))
        return call.deferred

    def _call_behind(
        self,
        method: Method,
        on_reply: OnReply | None,
        on_write: Callable[[], None] | None,
        nowait: bool,
        must_write: bool,
    ) -> Deferred[Any]:
        """As `_call`, behind publishes that are held: the channel's order is the order of the calls."""
        try:
            method.encode()
        except TxmsgError as error:
            return fail(error)
        call = self._pending.add(method, on_reply)

        def write() -> None:
            if call.abandoned and not must_write:
                self._pending.forget(call)
                return
            try:
                frame = self._wire.send_method(self.channel_number, method)
            except TxmsgError as error:
                if self._is_ended_by_peer(error):
                    return
                self._pending.forget(call)
                call.fail(error)
                return
            self._write_method(frame, call, on_write)
            if nowait:
                self._pending.forget(call)
                call.succeed(None)

        self._held.hold_call(write)
        return call.deferred

    def _answer(self, method: Method) -> None:
        """Write the reply to a method of the broker, unless its close came right behind that."""
        try:
            self.connection.write(self._wire.send_method(self.channel_number, method))
        except LocalProtocolError as error:
            if not self._is_ended_by_peer(error):
                raise

    def _is_ended_by_peer(self, error: BaseException) -> bool:
        """Whether the wire refused to send because the broker has ended the channel or connection.

        What came before its close in the same bytes is being handled, and our state is still the one of
        then: the reason reaches us within this reactor turn.
        """
        wire = self._wire
        return isinstance(error, LocalProtocolError) and (
            wire.state is not ConnectionState.OPEN or wire.channel_state(self.channel_number) is not ChannelState.OPEN
        )

    def _write_method(self, frame: bytes, call: Call | None, on_write: Callable[[], None] | None) -> None:
        if self._settlements.has_unwritten_acks:
            self.flush_acks()
        if on_write is not None:
            on_write()
        if call is not None:
            call.written = True
        self.connection.write(frame)

    def flush_acks(self) -> None:
        """Write the acks that were given since the last time."""
        raise NotImplementedError

    # -- opening and closing -----------------------------------------------------------------------

    def open(self) -> Deferred[Any]:
        """For the connection: send channel.open; fires with the channel."""
        try:
            frame = self._wire.send_method(self.channel_number, channel.Open())
        except TxmsgError as error:
            if self._wire.state is not ConnectionState.OPEN:
                return self._pending.add(channel.Open()).deferred  # as in `_call`
            self.connection.forget_channel(self.channel_number)
            return fail(error)
        call = self._pending.add(channel.Open(), self._opened)
        call.written = True
        self.connection.write(frame)
        return call.deferred

    def _opened(self, reply: object, abandoned: bool) -> ChannelCore:
        if self._state is State.OPENING:
            self._state = State.OPEN
            if abandoned:
                self.close()
        return self

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> Deferred[BaseException]:
        """End the channel in good order; fires with the reason when the broker has agreed.

        Acks given so far are written first, and publishes that wait for a confirm get up to half of
        `close_timeout` to have it.  After `close_timeout` the channel counts as closed whatever the
        broker does; its number then stays reserved until the broker answers.  May be called at any
        time and more than once.
        """
        self.connection.check_thread()
        done = self.when_closed()
        if self._state in (State.OPEN, State.OPENING):
            self._closing = reason = ChannelClosed(reply_text, reply_code, initiator="client")
            self._stop_settling(reason)
            self._state = State.CLOSING
            clock, limit = self.connection.clock, self.connection.parameters.close_timeout
            self._close_timer = clock.callLater(limit, self._end, reason)
            published = self.when_published()
            enough = clock.callLater(limit / 2, published.cancel)

            def send_close(result: object) -> None:
                if enough.active():
                    enough.cancel()
                self._send_close(reason)

            published.addBoth(send_close)
        return done

    def _send_close(self, reason: ChannelClosed) -> None:
        self.drop_held(reason)
        if self._reason is not None:
            return
        number, send_method = self.channel_number, self._wire.send_method
        try:
            try:
                close = channel.Close(reply_code=reason.reply_code, reply_text=reason.reply_text)
                frame = send_method(number, close)
            except EncodeError:  # a code or text that AMQP cannot carry is no reason to stay open
                frame = send_method(number, channel.Close(reply_code=200))
        except TxmsgError as error:
            if not self._is_ended_by_peer(error):
                self._end(error)
            return
        self._write_method(frame, None, None)

    def when_published(self) -> Deferred[None]:
        """Fires when no publish of this channel is held or waits for its confirm."""
        raise NotImplementedError

    def _closed_by_server(self, close: channel.Close) -> None:
        error = channel_error(
            close.reply_code,
            close.reply_text,
            class_id=close.class_id,
            method_id=close.method_id,
            method_name=method_name(close.class_id, close.method_id),
        )
        self._answer(channel.CloseOk())
        # First the number, so that whoever learns of the end can open a channel with it.
        self._forget_if_free()
        self._end(error)

    def _close_ok(self) -> None:
        assert self._closing is not None
        self._forget_if_free()
        self._end(self._closing)

    def _forget_if_free(self) -> None:
        """Free the number, unless our own close is still unanswered (both sides closed at once)."""
        if self._wire.channel_state(self.channel_number) is ChannelState.CLOSED:
            self.connection.forget_channel(self.channel_number)

    def connection_closing(self, reason: BaseException) -> None:
        """For the connection: nothing new may begin on this channel."""
        if self._state in (State.OPEN, State.OPENING) and isinstance(reason, TxmsgError):
            self._stop_settling(reason)
            self._state = State.CLOSING
            self._reason_of_connection(reason)

    def _stop_settling(self, reason: BaseException) -> None:
        """Write the acks given so far; from now on what is unsettled goes back to its queue."""
        if self._settlements.has_unwritten_acks:
            self.flush_acks()
        self._settlements.close(reason)

    def _reason_of_connection(self, reason: TxmsgError) -> None:
        self._closing = ChannelClosed(
            str(reason), getattr(reason, "reply_code", 0), initiator=getattr(reason, "initiator", "client"), cause=None
        )

    def _end(self, reason: BaseException) -> None:
        if self.learn_end(reason):
            self.tell_end(reason)

    def learn_end(self, reason: BaseException) -> bool:
        """The one place where a channel learns why it ends; the first reason stays.  True: `tell_end` is to follow.

        Two steps, because the end of a connection is the end of all its channels: each of them knows before
        the first one tells its users, who may turn to the others.
        """
        if self._reason is not None:
            return False
        self._reason = reason
        self._state = State.CLOSED
        self._settlements.close(reason)
        return True

    def tell_end(self, reason: BaseException) -> None:
        """Let everything that waits on this channel fail with the reason."""
        if self._close_timer is not None:
            timer, self._close_timer = self._close_timer, None
            if timer.active():
                timer.cancel()
        self._pending.fail_all(reason)
        self._end_publishing(reason)
        self._end_consuming(reason)
        waiters, self._closed_waiters = self._closed_waiters, []
        self.closed.callback(reason)
        for waiter in waiters:
            waiter.callback(reason)

    def drop_held(self, reason: BaseException) -> None:
        """Fail the publishes that are still held."""
        raise NotImplementedError

    def _end_publishing(self, reason: BaseException) -> None:
        raise NotImplementedError

    def _end_consuming(self, reason: BaseException) -> None:
        raise NotImplementedError
