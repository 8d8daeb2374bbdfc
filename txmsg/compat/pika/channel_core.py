"""ChannelCore: what the parts of a TwistedChannel share: its state, its end, and calls with a reply.

Every method with a reply returns a Deferred that fires with pika's frame.  When the channel ends, all that waits fails
with one exception: first the calls, then the publishes, then the consumers' queues; then `on_closed` fires with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pika import exceptions
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from txmsg.amqp import Channel
from txmsg.compat.pika.connection import Connection, NativeConnection
from txmsg.compat.pika.errors import call_error, channel_reason
from txmsg.compat.pika.messages import event_frame, method_frame
from txmsg.errors import NotSent, PublishUnconfirmed, TxmsgError

__all__ = ["ChannelCore"]

#: The keywords of native calls that are more than true or false.
_NO_FLAGS = frozenset({"arguments", "consumer_tag", "prefetch_size"})


class ChannelCore:
    """State, end and calls; see :class:`txmsg.compat.pika.TwistedChannel`.

    on_closed: Deferred -- fires (never fails) with the reason when the channel has ended.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reason: BaseException | None = None
        self._taps: list[tuple[Deferred[Any], set[type]]] = []
        self._close_callbacks: list[Callable[[Any, BaseException], object]] = []
        self.on_closed: Deferred[Any] = Deferred()
        channel.closed.addCallback(self._channel_ended)

    # -- attributes --------------------------------------------------------------------------------

    @property
    def channel_number(self) -> int:
        """Its number."""
        return self._channel.channel_number

    @property
    def connection(self) -> Connection:
        """The connection it is on: not the protocol but what is below it, as in pika."""
        native = self._channel.connection
        assert isinstance(native, NativeConnection)
        return native.face

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._channel.is_open

    @property
    def is_closing(self) -> bool:
        """While our own close is on its way."""
        return self._channel.is_closing

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._channel.is_closed

    @property
    def flow_active(self) -> bool:
        """False while the broker has stopped our publishes on this channel (channel.flow)."""
        return self._channel.flow_active

    @property
    def consumer_tags(self) -> list[str]:
        """The tags of its consumers."""
        return list(self._channel.consumers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} channel={self._channel!r}>"

    # -- the end -----------------------------------------------------------------------------------

    def _why(self) -> BaseException:
        """Why the channel has ended; one object, whoever asks."""
        if self._reason is None:
            reason = self._channel.close_reason
            assert reason is not None
            connection = self.connection
            of_connection = connection.why(reason) if reason is connection.native.close_reason else None
            self._reason = channel_reason(reason, of_connection)
        return self._reason.with_traceback(None)

    @property
    def _closed(self) -> BaseException | None:
        return self._why() if self._channel.is_closed else None

    def _channel_ended(self, reason: BaseException) -> None:
        error = self._why()
        self._taps.clear()
        callbacks, self._close_callbacks = self._close_callbacks, []
        for callback in callbacks:
            self._channel.connection.guarded(callback, self, error)
        self.on_closed.callback(error)

    def add_on_close_callback(self, callback: Callable[[Any, BaseException], object]) -> None:
        """Call `callback(channel, reason)` when the channel has ended, before `on_closed` fires."""
        self._close_callbacks.append(callback)

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> Deferred[Any]:
        """End the channel.  Fires with the reason when the broker has agreed; pika returns None.

        Raises ChannelWrongStateError when it is closing or closed already.
        """
        if not self._channel.is_open:
            raise self._wrong_state()
        closing = self._channel.close(reply_code=reply_code, reply_text=reply_text)
        return closing.addCallback(lambda reason: self._why())

    def open(self) -> None:
        """Nothing to do: a TwistedChannel is open when the program gets it."""

    # -- calls -------------------------------------------------------------------------------------

    def _wrong_state(self) -> BaseException:
        state = "closed" if self._channel.is_closed else "closing"
        return exceptions.ChannelWrongStateError(f"Channel is {state}.")  # type: ignore[no-any-return]

    def _refused(self) -> Deferred[Any] | None:
        """What a call on a channel that is not open returns; None for an open one."""
        channel = self._channel
        if channel.is_open:
            return None
        return fail(self._why() if channel.is_closed else self._wrong_state())

    def _framed(self, method: Callable[..., Deferred[Any]], *given: object, **options: Any) -> Deferred[Any]:
        """A native call, with pika's frame and pika's errors."""
        return self._called(method, *given, **options).addCallback(self._frame)

    def _called(self, method: Callable[..., Deferred[Any]], *given: object, **options: Any) -> Deferred[Any]:
        """A native call, with pika's errors, also for what it raises.

        options: `arguments`, and flags: pika takes anything for those that is true or false.
        """
        for name, value in options.items():
            if name not in _NO_FLAGS and type(value) is not bool:
                options[name] = bool(value)
        try:
            calling = method(*given, **options)
        except Exception:
            calling = fail()
        return calling.addErrback(self._failed, *given, *options.values())

    def _frame(self, reply: Any) -> Any:
        return method_frame(self._channel.channel_number, reply)

    def _failed(self, failure: Failure, *given: object) -> Failure:
        error = failure.value
        if error is None or isinstance(error, CancelledError):
            return failure
        return Failure(self._error(error, given))

    def _error(self, error: BaseException, given: tuple[object, ...] = ()) -> BaseException:
        """An error of a native call as pika's."""
        cause: BaseException | None = error
        if isinstance(error, (PublishUnconfirmed, NotSent)) and error.cause is not None:
            cause = error.cause
        channel = self._channel
        if channel.is_closed and (cause is channel.close_reason or cause is not error):
            return self._why()
        if cause is channel.close_reason or cause is not error:
            return self._wrong_state()
        return call_error(error, given) if isinstance(error, TxmsgError) else error

    # -- frames that come in -----------------------------------------------------------------------

    def callback_deferred(self, deferred: Deferred[Any], replies: Iterable[type]) -> None:
        """Fire `deferred` with the frame of the next incoming method that is one of `replies`, classes of pika.spec.

        Once: pika fires it again for another one, which is an error then.
        """
        if not self._taps:
            self._listen()
        self._taps.append((deferred, set(replies)))

    def _listen(self) -> None:
        """Look at what the channel receives, from now on; the channel itself comes first."""
        channel = self._channel
        if "method_received" in vars(channel):
            return
        method_received, content_received = channel.method_received, channel.content_received

        def method(method: Any) -> None:
            frame = method_frame(channel.channel_number, method)
            taps = self._taps_for(type(frame.method))
            method_received(method)
            self._fire(taps, frame)

        def content(event: tuple[Any, ...]) -> None:
            frame = event_frame(event)
            taps = self._taps_for(type(frame.method))
            content_received(event)
            self._fire(taps, frame)

        vars(channel).update(method_received=method, content_received=content)

    def _taps_for(self, kind: type) -> list[Deferred[Any]]:
        """Take out whoever waits for such a method."""
        found = [deferred for deferred, replies in self._taps if kind in replies]
        if found:
            self._taps = [tap for tap in self._taps if kind not in tap[1]]
        return found

    def _fire(self, deferreds: list[Deferred[Any]], frame: Any) -> None:
        for deferred in deferreds:
            if not deferred.called:
                deferred.callback(frame)
