"""Node: one process that hears requests, does what they ask for, and replies.

Invariant: whatever comes, the node goes on.  What a handler raises becomes a reply; what is malformed is logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmsg.errors import ConfigurationError, EncodeError, InconsistencyError, NotFound, ResourceLocked, TxmsgError, clip
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.consuming import consumer as consuming
from txmsg.messaging.pidbox.addressing import is_addressed
from txmsg.messaging.pidbox.times import clock_in

if TYPE_CHECKING:
    from txmsg.messaging.consuming.message import Message
    from txmsg.messaging.pidbox.mailbox import Mailbox

__all__ = ["Handler", "Node"]

#: Called with the state of the node and the arguments of the request by name; may return an awaitable.
Handler = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)

#: What a reply tells of an exception at most, in characters.
_LONGEST_ERROR = 1000


class Node:
    """One node of a mailbox; made by :meth:`Mailbox.Node`.

    hostname: str -- its name, which no other node of the mailbox may have.
    state -- handed to each handler first; whatever the application wants.
    channel -- a Channel to consume on; None: one of its own.
    handlers: dict[str, Handler] -- by the name of the command.   mailbox: Mailbox.
    """

    _log = Logger(namespace="txmsg.messaging.pidbox")

    def __init__(
        self,
        hostname: str,
        state: Any = None,
        channel: Any = None,
        handlers: Mapping[str, Handler] | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        if mailbox is None:
            raise ConfigurationError("a node needs its mailbox: make it with mailbox.Node()")
        if not isinstance(hostname, str) or not hostname:
            raise ConfigurationError(f"hostname is {clip(repr(hostname))}: give the node a name")
        self.hostname = hostname
        self.state = state
        self.channel = channel
        self.handlers: dict[str, Handler] = dict(handlers or {})
        self.mailbox = mailbox
        #: What :meth:`listen` has made.
        self.consumer: consuming.Consumer | None = None
        self._own: Channel | None = None

    # -- hearing

    def handler(self, function: _H) -> _H:
        """Decorator: a command of the function's name, which is called as `function(state, **arguments)`."""
        self.handlers[function.__name__] = function
        return function

    def Consumer(
        self, channel: Any = None, no_ack: bool = True, accept: Any = None, **options: Any
    ) -> consuming.Consumer:
        """A Consumer of the node's queue; the options are those of :class:`txmsg.messaging.Consumer`."""
        queue = self.mailbox.get_queue(self.hostname)
        queue.on_declared = self._declared
        channel = channel or self.channel
        if channel is None:
            self._own = self._own or Channel(self.mailbox.bound_connection)
            channel = self._own
        accept = self.mailbox.accept if accept is None else accept
        return consuming.Consumer(channel, [queue], no_ack=no_ack, accept=accept, **options)

    def _declared(self, name: str, messages: int, consumers: int) -> None:
        if consumers:
            self._log.warn("another node named {node} takes a part of the requests", node=clip(self.hostname))

    def listen(
        self, channel: Any = None, callback: Callable[[Any, Message], object] | None = None
    ) -> Deferred[consuming.Consumer]:
        """Hear requests from now on; fires with the consumer, which ends it.

        callback -- called with (body, message) in place of :meth:`handle_message`.

        InconsistencyError: another node of this name listens.  (Where the mailbox's queues are not exclusive, that is
        a warning in the log.)
        """
        return Deferred.fromCoroutine(self._listen(channel, callback))

    async def _listen(self, channel: Any, callback: Callable[[Any, Message], object] | None) -> consuming.Consumer:
        consumer = self.Consumer(
            channel, callbacks=[callback or self.handle_message], on_decode_error=self.on_decode_error
        )
        try:
            await consumer.consume()
        except ResourceLocked as error:
            raise InconsistencyError(
                f"a node named {clip(self.hostname)!r} listens already: end it, or give this one another name"
            ) from error
        self.consumer = consumer
        return consumer

    def close(self) -> Deferred[None]:
        """Hear no more requests; fires when the handlers under way are done, too."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            await consumer.close()
            await consumer.when_idle()
        channel, self._own = self._own, None
        if channel is not None:
            await channel.close()

    def on_decode_error(self, message: Message, error: Exception) -> None:
        """A request that cannot be read: it is logged, and dropped."""
        self._log.error("a request cannot be decoded and was dropped: {error}", error=error)

    # -- doing

    def handle_message(self, body: Any, message: Message | None = None) -> Deferred[Any] | None:
        """Do what a request asks for, if it is for this node; fires with the reply."""
        if message is not None:
            self.mailbox.clock.adjust(clock_in(message.headers))
        if not isinstance(body, Mapping):
            self._log.error("a request is {what}, not a mapping: it was dropped", what=type(body).__name__)
            return None
        if not is_addressed(self.hostname, body, self.mailbox.matchers):
            return None
        return self.dispatch(body.get("method"), body.get("arguments"), body.get("reply_to"), body.get("ticket"))

    dispatch_from_message = handle_message

    def dispatch(
        self, method: Any, arguments: Any = None, reply_to: Any = None, ticket: Any = None, **_others: Any
    ) -> Deferred[Any]:
        """Do one command, and reply where a reply is wanted; fires with the reply, and does not fail.

        An exception becomes ``{"error": repr(exception)}``, and is logged.
        """
        return Deferred.fromCoroutine(self._dispatch(method, arguments, reply_to, ticket))

    async def _dispatch(self, method: Any, arguments: Any, reply_to: Any, ticket: Any) -> Any:
        shown = clip(str(method))
        self._log.debug("received {method}", method=shown)
        handle = self.handle_call if reply_to else self.handle_cast
        try:
            reply = handle(method, arguments)
            if isinstance(reply, Awaitable):
                reply = await reply
        except Exception as error:
            if isinstance(method, str) and method in self.handlers:
                self._log.failure("the command {method} failed", method=shown)
            else:  # a line for what anybody may ask for
                self._log.warn("there is no command {method}", method=shown)
            reply = {"error": clip(repr(error), _LONGEST_ERROR)}
        if reply_to:
            await self._reply(shown, reply, reply_to, ticket)
        return reply

    async def _reply(self, method: str, reply: Any, reply_to: Any, ticket: Any) -> None:
        """What goes wrong here is logged: nobody waits for a reply that cannot be sent."""
        exchange = reply_to.get("exchange") if isinstance(reply_to, Mapping) else None
        if exchange != self.mailbox.reply_exchange.name or not isinstance(reply_to.get("routing_key"), str):
            # A request does not make a node publish just anywhere.
            self._log.warn("no reply to {method}: it was not asked for at the mailbox's own exchange", method=method)
            return
        where = (exchange, reply_to["routing_key"], ticket)
        try:
            try:
                await self.reply({self.hostname: reply}, *where)
            except EncodeError as error:
                await self.reply({self.hostname: {"error": clip(repr(error), _LONGEST_ERROR)}}, *where)
        except NotFound:
            self._log.debug("nobody waits for the reply to {method} any more", method=method)
        except TxmsgError as error:
            self._log.warn("the reply to {method} was not sent: {error}", method=method, error=error)

    def handle(self, method: Any, arguments: Any = None) -> Any:
        """Call the handler; LookupError: there is none of that name.  What it returns may be an awaitable."""
        handler = self.handlers.get(method) if isinstance(method, str) else None
        if handler is None:
            raise LookupError(f"no command {clip(str(method))!r}")
        if arguments is not None and not isinstance(arguments, Mapping):
            raise TypeError("the arguments of a command are a mapping")
        return handler(self.state, **(arguments or {}))

    def handle_call(self, method: Any, arguments: Any) -> Any:
        """A command whose reply is waited for; for subclasses."""
        return self.handle(method, arguments)

    def handle_cast(self, method: Any, arguments: Any) -> Any:
        """A command whose reply nobody wants; for subclasses."""
        return self.handle(method, arguments)

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: Any) -> Deferred[None]:
        """Send one reply; fires when the broker has it."""
        return self.mailbox.publish_reply(data, exchange, routing_key, ticket)

    def __repr__(self) -> str:
        state = "listening" if self.consumer is not None and self.consumer.is_consuming else "not listening"
        return f"<Node {clip(self.hostname)!r} of {clip(self.mailbox.namespace)!r}, {state}>"
