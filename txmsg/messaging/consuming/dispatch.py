"""MessageDispatch: from a delivery to the callbacks of a consumer, and what becomes of their errors.

The rules (kombu H8, H9): what cannot be opened or decoded is for `on_decode_error`, what a callback raises (or
what its Deferred fails with) is for `on_error`; neither stops the next message, and neither settles this one.

Hot path: no coroutine, no Deferred and no generator for a message, unless a callback returns one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.messaging.consuming.message import Message, received
from txmsg.messaging.consuming.stream import UNFETCHED, MessageStream, hand_out, watchers
from txmsg.messaging.consuming.trust import Trust

if TYPE_CHECKING:
    from txmsg.messaging.connection.channel import Channel

__all__ = ["Callback", "MessageDispatch", "maybe_awaited"]

#: What a consumer calls with (body, message); it may return an awaitable.
Callback = Callable[[Any, Message], object]


class MessageDispatch:
    """The part of a Consumer that hands messages over.

    callbacks: list -- called in order with (body, message); one that returns an awaitable is waited for.
    on_message -- called with (message) in place of the callbacks; the body is decompressed, not decoded.
    on_decode_error -- called with (message, error).   on_error -- called with (message, error).
    """

    _log = Logger(namespace="txmsg.messaging.consumer")

    channel: Channel | None

    def __init__(
        self,
        trust: Trust,
        callbacks: list[Callback],
        on_message: Callable[[Message], object] | None,
        on_decode_error: Callable[[Message, Exception], object] | None,
        on_error: Callable[[Message, BaseException], object] | None,
    ) -> None:
        self.callbacks = callbacks
        self.on_message = on_message
        self.on_decode_error = on_decode_error
        self.on_error = on_error
        self._trust = trust
        self._stream = MessageStream()
        self._running = 0
        self._idle_waiters: list[Deferred[None]] = []
        #: A subclass with a `receive` of its own needs no callbacks.
        self._receives = type(self).receive is not MessageDispatch.receive

    # -- for the user ------------------------------------------------------------------------------

    def register_callback(self, callback: Callback) -> None:
        """Add one to the end of `callbacks`.  The first one is called with what came before it and was not fetched."""
        was_streaming = self._is_streaming
        self.callbacks.append(callback)
        while was_streaming and (message := self._stream.pop()) is not None:
            self._handle(message)

    def receive(self, body: Any, message: Message) -> object:
        """Call the callbacks in order; returns what has to be awaited, if anything.

        NotImplementedError if there are none.  A subclass may have another one.
        """
        callbacks = self.callbacks
        if len(callbacks) == 1:
            return callbacks[0](body, message)
        if not callbacks:
            raise NotImplementedError("the consumer has no callbacks")
        for index, callback in enumerate(callbacks):
            result = callback(body, message)
            if result is not None and isinstance(result, Awaitable):
                return _one_by_one(result, callbacks[index + 1 :], body, message)
        return None

    @property
    def handlers_running(self) -> int:
        """How many awaitables of callbacks have not ended yet."""
        return self._running

    def when_idle(self) -> Deferred[None]:
        """A new Deferred that fires when no awaitable of a callback runs; at once if none does."""
        if not self._running:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._idle_waiters.remove)
        self._idle_waiters.append(waiter)
        return waiter

    # -- for the transport ---------------------------------------------------------------------------

    @property
    def _is_streaming(self) -> bool:
        """Whether messages wait to be fetched, because nobody is called with them."""
        return self.on_message is None and not self.callbacks and not self._receives

    def _receiver(self, channel: Channel, no_ack: bool, settles: bool = False) -> Callable[[Any], None]:
        """What a transport calls with each delivery of one subscription.

        settles: in place of `no_ack`, messages are settled when they are fetched.
        """
        trust = self._trust
        handle = self._handle

        def receive(delivery: Any) -> None:
            handle(received(delivery, channel, trust, no_ack))

        def receive_and_settle(delivery: Any) -> None:
            message = received(delivery, channel, trust)
            message.state = UNFETCHED
            if self._is_streaming or hand_out(message):
                handle(message)

        return receive_and_settle if settles else receive

    def _handle(self, message: Message) -> None:
        try:
            on_message = self.on_message
            if on_message is not None:
                # Without properties they may be such that nobody can tell what the body is.
                if not message.properties or message.is_compressed:
                    try:
                        message.open()
                    except Exception as error:
                        self._undecodable(message, error)
                        return
                result = on_message(message)
            elif self.callbacks or self._receives:
                try:
                    body = message.payload
                except Exception as error:
                    self._undecodable(message, error)
                    return
                result = self.receive(body, message)
            else:
                self._stream.put(message)
                result = None
        except Exception as error:
            self._failed(message, error)
        else:
            if result is not None:
                self._run(result, message)
        if watchers:
            self._tell_watchers()

    def _run(self, result: object, message: Message) -> None:
        if not isinstance(result, Awaitable):
            if isinstance(result, Generator | AsyncGenerator):
                why = f"a {type(result).__name__} of a callback, of which nothing has run: is @inlineCallbacks missing?"
                self._failed(message, TypeError(why))
            return
        self._running += 1
        _deferred(result).addErrback(self._failed_later, message).addBoth(self._ended_one)

    def _failed_later(self, failure: Failure, message: Message) -> None:
        assert failure.value is not None
        self._failed(message, failure.value)

    def _ended_one(self, result: object) -> None:
        self._running -= 1
        if isinstance(result, Failure):
            self._log.failure("what came after a handler failed", failure=result)
        if not self._running and self._idle_waiters:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def _undecodable(self, message: Message, error: Exception) -> None:
        on_decode_error = self.on_decode_error
        if on_decode_error is None:
            self._failed(message, error)
        else:
            try:
                result = on_decode_error(message, error)
            except Exception as another:
                self._failed(message, another)
            else:
                if result is not None:
                    self._run(result, message)
        if watchers:
            self._tell_watchers()

    def _failed(self, message: Message, error: BaseException) -> None:
        """A callback has failed, or nobody takes care of a message that cannot be decoded."""
        on_error = self.on_error
        if on_error is not None:
            try:
                result = on_error(message, error)
                if isinstance(result, Awaitable):
                    self._running += 1
                    _deferred(result).addErrback(self._on_error_failed, message).addBoth(self._ended_one)
                return
            except Exception:
                self._on_error_failed(Failure(), message)
                return
        failure = Failure(error, type(error), error.__traceback__)
        self._log.failure("{message!r} could not be handled, and stays as it is", failure=failure, message=message)

    def _on_error_failed(self, failure: Failure, message: Message) -> None:
        self._log.failure("on_error failed with {message!r}", failure=failure, message=message)

    def _tell_watchers(self) -> None:
        channel = self.channel
        for callback in list(watchers.get(None if channel is None else channel.connection, ())):
            callback()


def maybe_awaited(result: object) -> Deferred[Any]:
    """What a hook of the application has returned, to be waited for where it is an awaitable."""
    return _deferred(result) if isinstance(result, Awaitable) else succeed(result)


async def _one_by_one(first: Awaitable[Any], callbacks: list[Callback], body: Any, message: Message) -> None:
    await first
    for callback in callbacks:
        result = callback(body, message)
        if isinstance(result, Awaitable):
            await result


def _deferred(awaitable: Awaitable[Any]) -> Deferred[Any]:
    if isinstance(awaitable, Deferred):
        return awaitable
    if asyncio.isfuture(awaitable):
        return Deferred.fromFuture(awaitable)
    return Deferred.fromCoroutine(_await(awaitable))


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
