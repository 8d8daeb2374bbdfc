"""Mailbox: commands for processes, and their replies, by the protocol of Kombu's pidbox.

The wire format is Kombu 5's, so that both kinds of processes control each other: exchanges `<namespace>.pidbox` and
`reply.<namespace>.pidbox`, queues `<hostname>.<namespace>.pidbox` and `<id>.reply.<namespace>.pidbox`; a request is a
mapping of method, arguments, destination, pattern, matcher, and with replies wanted ticket and reply_to; a reply is a
mapping of the node's name to what its handler returned, with the ticket in its headers.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred

from txmsg.errors import ChannelClosed, ConfigurationError, NotBoundError, clip
from txmsg.messaging.clocks import LamportClock
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.entities import Exchange, Queue
from txmsg.messaging.entities.fields import count, name, seconds
from txmsg.messaging.pidbox.addressing import MATCHERS, Matcher, destination_of, pattern_of
from txmsg.messaging.pidbox.node import Handler, Node
from txmsg.messaging.pidbox.replies import Replies
from txmsg.messaging.publishing.producer import Producer

if TYPE_CHECKING:
    from txmsg.messaging.connection.connection import Connection
    from txmsg.messaging.serialization import Accept

__all__ = ["REPLY_QUEUE_EXPIRES", "Mailbox"]

_H = TypeVar("_H", bound=Handler)

#: Seconds after which a reply queue that nobody uses is deleted.
REPLY_QUEUE_EXPIRES = 10.0

#: In place of a list of nodes; nothing that a caller could give by mistake.
_EVERYBODY = object()


class Mailbox:
    """Where the processes of an application are told what to do.

    namespace: str -- the application's name.
    type: str -- of the exchange: "direct" (the default) or "fanout"; it has to be the same for everybody.
    connection: Connection | None -- what it is bound to; None: call the mailbox with a connection for a bound copy.
    clock: LamportClock | None -- the logical clock that goes with each message; None: one of its own.
    accept -- content types that are decoded; JSON by default.   serializer: str | None -- None: JSON.
    producer_pool -- a pool, or something that returns one, to take producers from; None: a producer of its own.
    queue_ttl, queue_expires: float | None -- message_ttl and expires of nodes' queues, in seconds.
    queue_durable: bool = False, queue_exclusive: bool = True -- of all its queues; not both.
    reply_queue_ttl: float | None, reply_queue_expires: float | None = 10 -- of the reply queue, in seconds.
    matchers -- what patterns may name; by default "glob" and "pcre" (:data:`MATCHERS`).
    """

    node_cls: ClassVar[type[Node]] = Node
    exchange_fmt: ClassVar[str] = "%s.pidbox"
    reply_exchange_fmt: ClassVar[str] = "reply.%s.pidbox"

    def __init__(
        self,
        namespace: str,
        type: str = "direct",
        connection: Connection | None = None,
        clock: LamportClock | None = None,
        accept: Accept = None,
        serializer: str | None = None,
        producer_pool: Any = None,
        queue_ttl: float | None = None,
        queue_expires: float | None = None,
        queue_durable: bool = False,
        queue_exclusive: bool = True,
        reply_queue_ttl: float | None = None,
        reply_queue_expires: float | None = REPLY_QUEUE_EXPIRES,
        *,
        matchers: Mapping[str, Matcher] = MATCHERS,
    ) -> None:
        if queue_durable and queue_exclusive:
            raise ConfigurationError("queue_durable and queue_exclusive: an exclusive queue outlives nothing, give one")
        self.namespace = name("namespace", namespace)
        self.type = type
        self.connection = _checked(connection)
        self.clock = LamportClock() if clock is None else clock
        self.accept: Accept = ["json"] if accept is None else accept
        self.serializer = serializer
        self.producer_pool = producer_pool
        self.queue_ttl = queue_ttl
        self.queue_expires = queue_expires
        self.queue_durable = queue_durable
        self.queue_exclusive = queue_exclusive
        self.reply_queue_ttl = reply_queue_ttl
        self.reply_queue_expires = reply_queue_expires
        self.matchers = dict(matchers)
        #: What nodes made by this mailbox begin with.
        self.handlers: dict[str, Handler] = {}
        self.exchange = self._transient(self.exchange_fmt, type)
        self.reply_exchange = self._transient(self.reply_exchange_fmt, "direct")
        self._unbound_parts()

    def _unbound_parts(self) -> None:
        #: Which of all mailboxes of the application this is: where replies come to.
        self.oid = str(uuid4())
        self._channel: Channel | None = None
        self._producer: Producer | None = None
        self._replies: Replies | None = None
        #: Its reply queue.
        self.reply_queue = self.get_reply_queue()

    def _transient(self, form: str, kind: str) -> Exchange:
        return Exchange(form % self.namespace, kind, durable=False, delivery_mode="transient")

    def __call__(self, connection: Connection) -> Self:
        """A copy that is bound to a connection; it has a reply queue of its own, and the same clock."""
        bound = copy.copy(self)
        bound.connection = _checked(connection)
        bound.handlers = dict(self.handlers)
        bound._unbound_parts()
        return bound

    # -- what it is made of

    def get_queue(self, hostname: str) -> Queue:
        """The queue of a node."""
        return self._queue(f"{hostname}.{self.namespace}.pidbox", self.exchange, "", self.queue_expires, self.queue_ttl)

    def get_reply_queue(self) -> Queue:
        """The queue for replies to this mailbox."""
        return self._queue(
            f"{self.oid}.{self.reply_exchange.name}",
            self.reply_exchange,
            self.oid,
            self.reply_queue_expires,
            self.reply_queue_ttl,
        )

    def _queue(self, queue: str, exchange: Exchange, key: str, expires: float | None, ttl: float | None) -> Queue:
        return Queue(
            queue,
            exchange,
            key,
            durable=self.queue_durable,
            exclusive=self.queue_exclusive,
            auto_delete=not self.queue_durable,
            expires=expires,
            message_ttl=ttl,
        )

    @property
    def bound_connection(self) -> Connection:
        """The connection it is bound to; raises NotBoundError if there is none."""
        if self.connection is None:
            what = clip(self.namespace)
            raise NotBoundError(f"the mailbox {what!r} is bound to no connection: call it with one")
        found: Connection = self.connection
        return found

    @property
    def reactor(self) -> Any:
        """The reactor of its connection."""
        return self.bound_connection.reactor

    def _own_channel(self) -> Channel:
        """For replies and publishing; the default channel is the application's."""
        if self._channel is None:
            self._channel = Channel(self.bound_connection)
        return self._channel

    # -- nodes

    def Node(
        self,
        hostname: str | None = None,
        state: Any = None,
        channel: Any = None,
        handlers: Mapping[str, Handler] | None = None,
    ) -> Node:
        """A node of this mailbox.  hostname: None: the machine's name."""
        return self.node_cls(
            hostname or socket.gethostname(), state, channel, {**self.handlers, **(handlers or {})}, mailbox=self
        )

    def handler(self, function: _H) -> _H:
        """Decorator: a command that every node made from now on has, named as the function."""
        self.handlers[function.__name__] = function
        return function

    # -- requests

    def call(
        self,
        destination: Any,
        command: str,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        callback: Callable[[Any], object] | None = None,
        *,
        limit: int | None = None,
    ) -> Deferred[list[Any]]:
        """Ask the nodes that are listed; fires with a list of their replies, each {hostname: what it returned}.

        timeout: float | None -- seconds from when the request has left until it fires with what has come by then;
            None or 0: it waits for all replies.
        callback -- called with each reply as it comes; if it raises, the call fails with that.
        limit: int | None -- how many replies are enough; None: as many as there are destinations.

        Fails as a publish does, and with the reason when the connection was closed.  May be cancelled.
        """
        return Deferred.fromCoroutine(self._ask(command, kwargs, destination, timeout, limit, callback))

    def cast(self, destination: Any, command: str, kwargs: Mapping[str, Any] | None = None) -> Deferred[None]:
        """Tell the nodes that are listed; fires when the broker has the request."""
        return Deferred.fromCoroutine(self._tell(command, kwargs, destination))

    def abcast(
        self,
        command: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        pattern: str | None = None,
        matcher: str = "glob",
    ) -> Deferred[None]:
        """Tell all nodes, or those whose names match `pattern`; fires when the broker has the request.

        matcher: "glob" (`*`, `?`, `[...]`; the whole name) or "pcre" (a regular expression, from the name's beginning).
        """
        return Deferred.fromCoroutine(self._tell(command, kwargs, _EVERYBODY, pattern=pattern, matcher=matcher))

    def multi_call(
        self,
        command: str,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = 1,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
        *,
        pattern: str | None = None,
        matcher: str = "glob",
    ) -> Deferred[list[Any]]:
        """Ask all nodes, or those whose names match `pattern`; fires with the replies that came in time.

        timeout: float | None -- as in :meth:`call`; None needs a limit.   limit: int | None -- so many are enough.
        """
        return Deferred.fromCoroutine(
            self._ask(command, kwargs, _EVERYBODY, timeout, limit, callback, pattern=pattern, matcher=matcher)
        )

    async def _tell(self, command: str, kwargs: Any, destination: Any, **pattern: Any) -> None:
        await self._publish(self._request(command, kwargs, destination, **pattern), None)

    async def _ask(
        self,
        command: str,
        kwargs: Any,
        destination: Any,
        timeout: float | None,
        limit: int | None,
        callback: Callable[[Any], object] | None,
        **pattern: Any,
    ) -> list[Any]:
        request = self._request(command, kwargs, destination, **pattern)
        timeout = seconds("timeout", timeout) or None
        if limit is None and request["destination"]:
            limit = len(request["destination"])
        if count("limit", limit) == 0 or (limit is None and timeout is None):
            raise ConfigurationError("nobody would know when all replies are there: give a timeout, or a limit from 1")
        if self._replies is None:
            self._replies = Replies(self, self._own_channel())
        replies = self._replies
        await replies.listen()
        if replies is not self._replies:
            raise ChannelClosed("the mailbox was closed by the application", 200, initiator="client")
        ticket = str(uuid4())
        request["ticket"] = ticket
        request["reply_to"] = {"exchange": self.reply_exchange.name, "routing_key": self.oid}
        waiting = replies.expect(ticket, limit, callback)
        try:
            await self._publish(request, timeout)
            return await waiting.wait(timeout, self.reactor)
        except BaseException:
            # Closed before it was sent: what is raised says so, and nobody reads the other.
            waiting.done.addErrback(lambda failure: None)
            raise
        finally:
            waiting.end()

    def _request(
        self, command: Any, kwargs: Any, destination: Any, pattern: Any = None, matcher: Any = "glob"
    ) -> dict[str, Any]:
        if not isinstance(command, str) or not command:
            raise ConfigurationError(f"command is {clip(repr(command))}: give the name of a handler")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise ConfigurationError(f"kwargs is {clip(repr(kwargs))}: give the handler's arguments by name")
        pattern, matcher = pattern_of(pattern, matcher, self.matchers)
        return {
            "method": command,
            "arguments": dict(kwargs or {}),
            "destination": None if destination is _EVERYBODY else destination_of(destination),
            "pattern": pattern,
            "matcher": matcher,
        }

    # -- on the wire

    async def _publish(self, request: dict[str, Any], timeout: float | None) -> None:
        self._own_channel()  # NotBoundError
        declare: list[Any] = [self.exchange]
        if "reply_to" in request and self.producer_pool is None and not self.bound_connection.is_recovering:
            # After a loss the request may leave before the reply queue is consumed again: it has to be there.
            declare.append(self.reply_queue)
        await self._send(
            request,
            exchange=self.exchange,
            declare=declare,
            routing_key="",
            headers={
                "clock": self.clock.forward(),
                "expires": 0 if timeout is None else self.reactor.seconds() + timeout,
            },
            timeout=timeout,
        )

    def publish_reply(self, reply: Any, exchange: str, routing_key: str, ticket: Any) -> Deferred[None]:
        """For nodes: send a reply to where the request wants it; fires when the broker has it.

        ConfigurationError for another exchange than this application's.
        """
        return Deferred.fromCoroutine(self._publish_reply(reply, exchange, routing_key, ticket))

    async def _publish_reply(self, reply: Any, exchange: str, routing_key: str, ticket: Any) -> None:
        if exchange != self.reply_exchange.name:
            raise ConfigurationError(
                f"replies go to {clip(self.reply_exchange.name)!r}, not to {clip(str(exchange))!r}"
            )
        headers = {"clock": self.clock.forward()}
        if ticket is not None:
            headers["ticket"] = ticket
        await self._send(
            reply,
            exchange=self.reply_exchange,
            declare=[self.reply_exchange],
            routing_key=name("routing_key", routing_key),
            headers=headers,
            timeout=self.reply_queue_expires or REPLY_QUEUE_EXPIRES,
        )

    async def _send(self, body: Any, **options: Any) -> None:
        options.update(serializer=self.serializer, retry=True)
        pool = self.producer_pool
        if pool is not None:
            if not hasattr(pool, "acquire"):
                pool = self.producer_pool = pool()
            async with pool.acquire(block=True) as producer:
                await producer.publish(body, **options)
            return
        if self._producer is None:
            self._producer = Producer(self._own_channel(), serializer=self.serializer)
        await self._producer.publish(body, **options)

    def close(self) -> Deferred[None]:
        """Give up the reply queue and the channel; requests that wait for replies fail.  The connection stays open."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        replies, self._replies = self._replies, None
        if replies is not None:
            await replies.close()
        channel, self._channel, self._producer = self._channel, None, None
        if channel is not None:
            await channel.close()

    def __repr__(self) -> str:
        where = "unbound" if self.connection is None else f"bound to {self.connection!r}"
        return f"<Mailbox {clip(self.namespace)!r} ({clip(self.type)}), {where}>"


def _checked(connection: Any) -> Any:
    if connection is not None and not hasattr(type(connection), "default_channel"):
        raise ConfigurationError(f"a mailbox is bound to a connection, not to a {type(connection).__name__}")
    return connection
