"""Channel: what exchanges, queues, producers and consumers stand on; opened at its first use.

It has the methods of :class:`txmsg.abc.MessagingChannel` and hands each to the channel of the transport that stands
behind it now.  On a transport whose connections come back by themselves that is always the same one.  On any other one
there is a new one after each loss: made at the next call, or at once where consumers live on the channel, which are
then revived (`add_member`).

The invariants: at most one attempt to open is under way; a call is never sent on a channel of the transport that has
ended; nothing is made after `close()`, but for `open()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmsg.abc import DeclaredQueue, MessagingChannel, Properties
from txmsg.errors import ChannelClosed, EncodeError, OperationalError
from txmsg.messaging.connection.failures import is_recoverable
from txmsg.messaging.connection.sharing import SharedAttempt
from txmsg.messaging.tracing import LoggedCalls, is_on

if TYPE_CHECKING:
    from txmsg.messaging.connection.connecting import ConnectionLife
    from txmsg.messaging.lending import Lender

__all__ = ["Channel", "ChannelMember"]

_T = TypeVar("_T")

_log = Logger(namespace="txmsg.messaging.channel")
Arguments = Mapping[str, Any] | None

#: Seconds before the channel is opened again when the last revival came to nothing.
_REVIVAL_DELAY = 1.0


class ChannelMember(Protocol):
    """What lives on a channel and comes back with it: a consumer."""

    def revive(self, channel: Channel) -> Deferred[Any] | None:
        """Another channel of the transport is behind `channel`: start again what ran on the lost one."""

    def lost(self, reason: BaseException) -> object:
        """It is over, for good: it is no member any more."""


class Channel:
    """One channel of a :class:`~txmsg.messaging.Connection`; nothing is opened before the first call.

    connection: Connection.   number: int -- counts the channels of the connection from 1.
    transport_channel: MessagingChannel | None -- what is behind it now.  Hot code may use it as long as its `is_open`.
    no_ack_consumers: set[str] -- tags of the consumers whose deliveries need no settling.
    lender: the pool it belongs to; None: it is nobody's.

    Every method that returns a Deferred fails it instead of raising: as :class:`txmsg.abc.MessagingChannel` says, and
    as `Connection.connect` where there is no connection.
    """

    def __init__(self, connection: ConnectionLife) -> None:
        self.connection: Any = connection
        self.number = connection.next_channel_number()
        self.lender: Lender[Any] | None = None
        self.transport_channel: MessagingChannel | None = None
        self.no_ack_consumers: set[str] = set()
        self._members: dict[ChannelMember, None] = {}
        self._opening: SharedAttempt[None] = SharedAttempt()
        self._reviving: Deferred[None] | None = None
        self._is_closed = False

    # -- life --------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it can be used without waiting."""
        channel = self.transport_channel
        return channel is not None and channel.is_open

    @property
    def is_closed(self) -> bool:
        """Whether the application closed it, and did not open it again."""
        return self._is_closed

    @property
    def channel_id(self) -> int:
        """The number, as Kombu calls it."""
        return self.number

    def open(self) -> Deferred[Channel]:
        """Connect and open it where needed; fires with the channel itself.  One that was closed is open again."""
        self._is_closed = False
        if self.transport_channel is not None:
            return succeed(self)
        return self._opening.join(self._begin_to_open).addCallback(lambda _: self)

    def when_usable(self) -> Deferred[Channel]:
        """As :meth:`open`, but one that the application closed stays so: ChannelClosed."""
        if self._is_closed:
            return fail(ChannelClosed("the channel was closed by the application", 200, initiator="client"))
        return self.open()

    def _begin_to_open(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._open())

    def close(self) -> Deferred[None]:
        """End it: its consumers are told, unsettled deliveries go back.  Closing twice is fine."""
        reason = ChannelClosed("closed by the application", 200, initiator="client")
        channel = self.transport_channel
        self._is_closed = True
        self.connection.remove_channel(self)
        self.end(reason)
        return succeed(None) if channel is None else channel.close()

    def release(self) -> Deferred[None]:
        """Done with it: back to the pool it belongs to; one that is nobody's is closed."""
        return self.close() if self.lender is None else self.lender.release(self)

    def end(self, reason: BaseException) -> None:
        """For the connection: forget the channel of the transport and tell the members why."""
        self.transport_channel = None
        self.no_ack_consumers.clear()
        if self._reviving is not None:
            self._reviving.cancel()
        self._opening.abandon(reason)
        for member in list(self._members):
            self._drop(member, reason)

    async def _open(self) -> None:
        connection = await self.connection.transport_connection()
        channel = await connection.channel()
        if is_on("CHANNEL"):
            channel = LoggedCalls(channel, f"channel {self.number}: ", _log)
        self.transport_channel = channel
        self.connection.add_channel(self)
        channel.when_closed().addCallback(self._ended, channel)

    def _ended(self, reason: BaseException, channel: MessagingChannel) -> None:
        if channel is not self.transport_channel:
            return
        self.transport_channel = None
        self.no_ack_consumers.clear()
        _log.debug("channel {number} was lost: {reason}", number=self.number, reason=str(reason))
        if not self._members:
            self.connection.forget_channel(self)  # until it is used again, which it may never be
        self._begin_revival()

    # -- members -----------------------------------------------------------------------------------

    def add_member(self, member: ChannelMember) -> None:
        """Revive `member` when another channel of the transport had to be made in place of a lost one."""
        self._members[member] = None

    def remove_member(self, member: ChannelMember) -> None:
        """Undo `add_member`; one that is not there is fine."""
        self._members.pop(member, None)

    def _drop(self, member: ChannelMember, reason: BaseException) -> None:
        if member not in self._members:
            return
        del self._members[member]
        try:
            member.lost(reason)
        except Exception:
            _log.failure("what lives on channel {number} could not be told of its end", number=self.number)

    def _begin_revival(self) -> None:
        if self._members and self._reviving is None:
            reviving = self._reviving = Deferred.fromCoroutine(self._revive())
            reviving.addBoth(self._revived)

    def _revived(self, outcome: object) -> None:
        self._reviving = None

    async def _revive(self) -> None:
        await deferLater(self.connection.reactor, 0)  # first, all that ends with the channel is told of it
        while self._members:
            try:
                await self.connection.come_back()
                await self.open()
            except Exception as error:
                if not is_recoverable(error) or isinstance(error, OperationalError):
                    for member in list(self._members):
                        self._drop(member, error)
                    return
            else:
                if await self._revive_members():
                    return
            await deferLater(self.connection.reactor, _REVIVAL_DELAY)

    async def _revive_members(self) -> bool:
        """Revive each; whether that is all there is to do.  One that is refused is told so, and is no member."""
        for member in list(self._members):
            if member not in self._members:
                continue
            try:
                await maybeDeferred(member.revive, self)
            except Exception as error:
                if is_recoverable(error):
                    return False
                self._drop(member, error)
            if self.transport_channel is None:
                return False
        return True

    # -- calls -------------------------------------------------------------------------------------

    def _on(self, call: Callable[[MessagingChannel], Deferred[_T]]) -> Deferred[_T]:
        """Call with the channel of the transport, opened first where needed."""
        channel = self.transport_channel
        if channel is not None:
            return call(channel)
        return self.when_usable().addCallback(self._then, call)

    def _then(self, opened: Channel, call: Callable[[MessagingChannel], Deferred[_T]]) -> Deferred[_T]:
        channel = self.transport_channel
        if channel is None:
            return fail(ChannelClosed("the channel was lost as soon as it was open", initiator="transport"))
        return call(channel)

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[None]:
        """Create an exchange, or check that it is there (`passive`)."""
        return self._on(
            lambda channel: channel.exchange_declare(
                exchange,
                exchange_type,
                passive=passive,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
            )
        )

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> Deferred[None]:
        """Delete an exchange."""
        deleting = self._on(lambda channel: channel.exchange_delete(exchange, if_unused=if_unused))
        return deleting.addCallback(self._forget, "exchange", exchange)

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from one exchange to another."""
        return self._on(lambda channel: channel.exchange_bind(destination, source, routing_key, arguments))

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away."""
        return self._on(lambda channel: channel.exchange_unbind(destination, source, routing_key, arguments))

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[DeclaredQueue]:
        """Create a queue, or check that it is there (`passive`)."""
        return self._on(
            lambda channel: channel.queue_declare(
                queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=arguments,
            )
        )

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        """Delete a queue; fires with how many messages went with it."""
        deleting = self._on(lambda channel: channel.queue_delete(queue, if_unused=if_unused, if_empty=if_empty))
        return deleting.addCallback(self._forget, "queue", queue)

    def _forget(self, reply: _T, kind: str, name: str) -> _T:
        """What is not as it was declared any more is declared anew when it is next asked for."""
        self.connection.declared_entities.forget(kind, name)
        return reply

    def queue_purge(self, queue: str) -> Deferred[int]:
        """Drop the messages that are ready; fires with how many."""
        return self._on(lambda channel: channel.queue_purge(queue))

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from an exchange to a queue."""
        return self._on(lambda channel: channel.queue_bind(queue, exchange, routing_key, arguments))

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away."""
        unbinding = self._on(lambda channel: channel.queue_unbind(queue, exchange, routing_key, arguments))
        return unbinding.addCallback(self._forget, "queue", queue)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[None]:
        """Publish one message; fires when the broker has taken it over."""
        channel = self.transport_channel
        if channel is not None:
            return channel.publish(exchange, routing_key, body, properties, mandatory=mandatory)
        return self._on(lambda opened: opened.publish(exchange, routing_key, body, properties, mandatory=mandatory))

    def qos(self, prefetch_count: int) -> Deferred[None]:
        """How many deliveries each consumer started from now on may have unsettled; 0: any number."""
        return self._on(lambda channel: channel.qos(prefetch_count))

    def consume(
        self,
        queue: str,
        callback: Callable[[Any], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Arguments = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each message of the queue to `callback(delivery)`; fires with the consumer tag."""
        drain = self.connection.drain

        def deliver(delivery: Any) -> object:
            outcome = callback(delivery)
            if drain:
                drain.happened()
            return outcome

        consuming = self._on(
            lambda channel: channel.consume(
                queue,
                deliver if callable(callback) else callback,
                no_ack=no_ack,
                exclusive=exclusive,
                consumer_tag=consumer_tag,
                arguments=arguments,
                on_cancel=on_cancel,
            )
        )
        return consuming.addCallback(self._consuming) if no_ack else consuming

    def _consuming(self, consumer_tag: str) -> str:
        self.no_ack_consumers.add(consumer_tag)
        return consumer_tag

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        """End a consumer; its unsettled deliveries stay to be settled."""
        if not isinstance(consumer_tag, str):
            return fail(EncodeError(f"a consumer tag is a str, not {type(consumer_tag).__name__}"))
        self.no_ack_consumers.discard(consumer_tag)
        channel = self.transport_channel
        return succeed(None) if channel is None else channel.cancel(consumer_tag)

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[Any]:
        """Take one message; fires with a delivery, or None if the queue is empty."""
        return self._on(lambda channel: channel.get(queue, no_ack=no_ack))

    def recover(self) -> Deferred[None]:
        """Give all unsettled deliveries back to their queues, to be delivered again."""
        return self._on(lambda channel: channel.recover())

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed" if self._is_closed else "not open"
        return f"<Channel {self.number} of {self.connection!r}, {state}>"
