"""Producer: values in, confirmed messages out.

The pipeline (kombu G8 to G21): encode, compress, say so in the headers, resolve delivery_mode, expiration and
reply_to, declare, send.  Encoding is done once, however often the message is sent.  The caller's mappings and lists
are copied where something is added to them.

The outcomes of a publish are those of R2; each is a fact of its own.  Messages that are published one
after the other without waiting leave in that order, also where the first of them has to wait for the channel.

The hot path: nothing to open, nothing to declare, no time limit -- then the transport's own Deferred is returned, and
nothing was made for the message but its octets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Self

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from txmsg.errors import (
    ConfigurationError,
    NotBoundError,
    NotImplementedByPeer,
    NotSent,
    PublishReturned,
    TxmsgError,
    clip,
)
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.entities import Exchange, Queue, maybe_declare
from txmsg.messaging.entities.exchange import delivery_mode_of
from txmsg.messaging.entities.fields import milliseconds, seconds
from txmsg.messaging.publishing.outbox import Outbox
from txmsg.messaging.publishing.publication import Publication
from txmsg.messaging.retrying.retrying import RetryIntervals
from txmsg.messaging.serialization import encode_body, serializers

if TYPE_CHECKING:
    from types import TracebackType

    from txmsg.abc import MessagingChannel
    from txmsg.messaging.connection.channel import Channel
    from txmsg.messaging.connection.connection import Connection
    from txmsg.messaging.entities.entity import MaybeChannelBound
    from txmsg.messaging.lending import Lender

__all__ = ["Producer"]

#: What kombu's `ensure` has as its defaults.
_INTERVALS: Final = RetryIntervals(interval_start=1.0, interval_step=1.0, interval_max=1.0)
#: What a retry_policy can hold besides the intervals.
_HOOKS: Final = frozenset({"errback", "on_revive"})

OnReturn = Callable[[PublishReturned, str, str, Message], object]


class Producer:
    """Publishes messages.

    channel -- a Channel; a Connection, whose default channel is taken when it is needed; or None until `revive`.
    exchange: Exchange | str | None -- where to publish to by default; None: the default exchange of the broker.
    routing_key: str -- the default.
    serializer: str | None -- the name of one; None: JSON, but text as text and octets as they are.
    auto_declare: bool = True -- declare `exchange` before the first publish over a connection.
    compression: str | None -- the name of one; None: off.
    on_return(error, exchange, routing_key, message) -- also called when a mandatory message came back; `message` is a
        Message with what was sent.
    max_waiting, max_waiting_bytes: int -- how much may wait here for the channel or the connection; beyond that a
        publish fails with Overloaded.

    Nothing is opened before the first publish.
    """

    _log = Logger(namespace="txmsg.messaging.producer")

    def __init__(
        self,
        channel: Channel | Connection | None = None,
        exchange: Exchange | str | None = None,
        routing_key: str | None = None,
        serializer: str | None = None,
        auto_declare: bool | None = None,
        compression: str | None = None,
        on_return: OnReturn | None = None,
        *,
        max_waiting: int = 10_000,
        max_waiting_bytes: int = 64 * 2**20,
    ) -> None:
        self.exchange = exchange if isinstance(exchange, Exchange) else Exchange(exchange or "")
        self.routing_key = routing_key or ""
        self.serializer = serializer
        self.auto_declare = True if auto_declare is None else auto_declare
        self.compression = compression
        self.on_return = on_return
        #: The pool it belongs to.
        self.lender: Lender[Any] | None = None
        self._outbox = Outbox(self, max_waiting, max_waiting_bytes)
        self._sequence = count()
        self._message_ids = count()
        self._id_prefix = token_hex(8)
        self._properties: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._is_closed = False
        #: A Channel, or a Connection whose default channel is meant.
        self._channel: Any = None
        self._is_on_connection = False
        #: The channel of the transport over which the exchange was declared.
        self._ready_on: MessagingChannel | None = None
        if channel is not None:
            self.revive(channel)

    # -- where it is

    @property
    def channel(self) -> Channel:
        """The channel it publishes on; raises NotBoundError without one.  Asking for it opens nothing."""
        channel = self._channel
        if channel is None:
            raise NotBoundError("the producer has no channel: give it one, or a connection, with revive()")
        found: Channel = channel.default_channel if self._is_on_connection else channel
        return found

    @channel.setter
    def channel(self, channel: Channel | Connection) -> None:
        self.revive(channel)

    @property
    def connection(self) -> Connection | None:
        """The connection it publishes over; None without a channel."""
        channel = self._channel
        if channel is None:
            return None
        found: Connection = channel if self._is_on_connection else channel.connection
        return found

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, and no `revive` since."""
        return self._is_closed

    def revive(self, channel: Channel | Connection) -> None:
        """Publish on another channel, or on the present one after its connection came back: the exchange is bound to
        it, and declared again before the next publish if need be.  `on_return` stays.
        """
        is_present = self._channel is not None and channel is self.channel
        if not is_present:
            self._is_on_connection = hasattr(type(channel), "default_channel")
            self._channel = channel
        self._is_closed = False
        self._ready_on = None
        self.exchange = self.exchange.bind(channel)
        if not is_present:
            self._outbox.moved(self.channel.connection)

    # -- declaring

    def declare(self) -> Deferred[bool]:
        """Declare the exchange, unless that is done; fires with whether it was declared now."""
        return self.maybe_declare(self.exchange)

    def maybe_declare(
        self, entity: MaybeChannelBound | None, retry: bool = False, **retry_policy: Any
    ) -> Deferred[bool]:
        """Declare an exchange or queue unless that is done over this connection; None: nothing.

        As :func:`txmsg.messaging.maybe_declare`.
        """
        if not entity:
            return succeed(False)
        try:
            channel = self.channel
        except NotBoundError:
            return fail()
        return maybe_declare(entity, channel, retry, **retry_policy)

    def is_ready(self, declare: Sequence[Any]) -> bool:
        """For the outbox: whether a message can be sent at once."""
        channel = self.channel
        transport = channel.transport_channel
        if transport is None:
            return False
        if transport is not self._ready_on:
            if self.auto_declare and self.exchange.is_declarable:
                return False
            self._ready_on = transport
        if not declare:
            return True
        known = channel.connection.declared_entities
        return all(not entity or not entity.is_declarable or entity in known for entity in declare)

    async def make_ready(self, declare: Sequence[Any]) -> None:
        """For the outbox: declare what a message needs; the channel is open."""
        channel = self.channel
        transport = channel.transport_channel
        if self.auto_declare and transport is not self._ready_on:
            await maybe_declare(self.exchange, channel)
        for entity in declare:
            if entity:
                await maybe_declare(entity, channel)
        self._ready_on = transport

    # -- publishing

    def publish(
        self,
        body: Any,
        routing_key: str | None = None,
        delivery_mode: int | str | None = None,
        mandatory: bool = False,
        immediate: bool = False,
        priority: int | None = 0,
        content_type: str | None = None,
        content_encoding: str | None = None,
        serializer: str | None = None,
        headers: Mapping[str, Any] | None = None,
        compression: str | None = None,
        exchange: Exchange | str | None = None,
        retry: bool = False,
        retry_policy: RetryIntervals | Mapping[str, Any] | None = None,
        declare: Iterable[Any] = (),
        expiration: float | None = None,
        timeout: float | None = None,
        **properties: Any,
    ) -> Deferred[None]:
        """Publish one message; fires when the broker has confirmed it.

        body -- any value that the serializer takes; text goes as text/plain, octets as application/data.
        routing_key: str | None -- None: the producer's; "" is a key.
        delivery_mode -- 1, 2, "transient" or "persistent"; None: the exchange's, or else 2.
        mandatory: bool -- fail with PublishReturned where no queue gets the message.
        immediate: bool -- no broker has it any more (RabbitMQ closes the connection): NotImplementedByPeer.
        priority: int | None -- 0 to 9; None: not sent.
        content_type, content_encoding -- the body is encoded already: octets, or text that becomes `content_encoding`;
            no serializer is used.
        serializer: str | None -- one for this message, also for text and octets.
        headers -- the message's own.   compression: str | None -- one for this message; "" for none.
        exchange: Exchange | str | None -- one for this message; it has to be there, or in `declare`.
        retry: bool -- send it again when the connection is lost, or cannot be made.  All copies carry the same
            message_id, which is made if there is none (but with message_id=None, none is).  Others published after it
            wait behind it.
        retry_policy -- RetryIntervals, or a mapping with some of their fields and with errback(exc, interval) and
            on_revive(channel); default: for ever, with a wait of 1 s.
        declare -- exchanges and queues that are declared before, each time where that is not known to be done.
        expiration: float | None -- seconds after which the broker drops it.
        timeout: float | None -- seconds for all of it: then it fails with NotSent, or PublishTimeout if it may have
            arrived.
        properties -- the other properties of AMQP (:data:`txmsg.abc.PROPERTY_NAMES`); None: not sent.  reply_to may be
            a Queue.

        Fails with PublishReturned, PublishNacked, PublishUnconfirmed, PublishTimeout, NotSent, Overloaded; with
        ChannelClosed or ConnectionClosed where the broker has closed it; with EncodeError, SerializerNotInstalled,
        CodecNotInstalled, ConfigurationError, NotBoundError, and nothing was sent; and as declaring fails.  With
        `retry`, an error that may pass is an OperationalError, with the last one as its cause.

        Cancelling takes the message back if it has not left yet.  At least once: a message whose confirm was lost is
        there twice with `retry`.
        """
        try:
            if self._is_closed:
                raise NotSent("the producer is closed")
            channel = self.channel
            if compression is None:
                compression = self.compression
            if content_type or compression:
                kind, encoding, body, compression = encode_body(
                    body,
                    serializer=serializer or self.serializer,
                    compression=compression,
                    content_type=content_type,
                    content_encoding=content_encoding,
                )
            else:  # as encode_body() does it, with less around it
                kind, encoding, body = serializers.dumps(body, serializer or self.serializer)
            if exchange is None:
                exchange = self.exchange
            if isinstance(exchange, Exchange):
                mode = exchange.delivery_mode if delivery_mode is None else delivery_mode
                exchange = exchange.name
            else:
                mode = self.exchange.delivery_mode if delivery_mode is None else delivery_mode
            # The mapping repeats from message to message, unless there is something of its own.
            key = (kind, encoding, mode, priority)
            made = self._properties.get(key)
            if made is None:
                made = self._repeated(key)
            reply_queue = None
            if properties or headers is not None or compression or expiration is not None or retry:
                made, reply_queue = self._own(
                    made, headers, compression, seconds("expiration", expiration), properties, retry
                )
            if routing_key is None:
                routing_key = self.routing_key
            if immediate:
                raise NotImplementedByPeer("immediate is not supported by any broker", initiator="client")
        except (TxmsgError, TypeError, AttributeError) as error:
            return fail(_typed(error))
        is_plain = not retry and not (mandatory and self.on_return is not None) and reply_queue is None
        if is_plain and timeout is None and not declare and not self._outbox.waiting:
            transport = channel.transport_channel
            if transport is not None and transport is self._ready_on:
                return transport.publish(exchange, routing_key, body, made, mandatory=mandatory)
        publication = Publication(next(self._sequence), exchange, routing_key, body, made, mandatory)
        try:
            publication.declare = _entities(declare)
            publication.timeout = seconds("timeout", timeout)
            if retry:
                _set_policy(publication, retry_policy)
        except TxmsgError as error:
            return fail(error)
        publication.reply_queue = reply_queue
        return self._send(publication)

    def _send(self, publication: Publication) -> Deferred[None]:
        """Past the outbox where nothing waits there, or else through it."""
        policy = publication.intervals
        has_limit = publication.timeout is not None or (policy is not None and policy.timeout is not None)
        outbox = self._outbox
        if outbox.waiting or has_limit or publication.reply_queue is not None or not self.is_ready(publication.declare):
            return outbox.add(publication)
        transport = self.channel.transport_channel
        assert transport is not None  # is_ready()
        sent = transport.publish(
            publication.exchange,
            publication.routing_key,
            publication.body,
            publication.properties,
            mandatory=publication.mandatory,
        )
        return sent.addErrback(outbox.send_again, publication)

    def _repeated(self, key: tuple[Any, ...]) -> dict[str, Any]:
        content_type, content_encoding, mode, priority = key
        made = {
            "content_type": content_type,
            "content_encoding": content_encoding,
            "delivery_mode": delivery_mode_of(mode) or 2,
        }
        if priority is not None:
            made["priority"] = priority
        if len(self._properties) >= _MAX_REPEATED:
            self._properties.clear()
        self._properties[key] = made
        return made

    def _own(
        self,
        made: dict[str, Any],
        headers: Mapping[str, Any] | None,
        compression: str | None,
        expiration: float | None,
        properties: Mapping[str, Any],
        retry: bool,
    ) -> tuple[dict[str, Any], Any]:
        """The properties of one message; and the queue that is still without the name for reply_to, or None."""
        made = {**made, **{name: value for name, value in properties.items() if value is not None}}
        if headers is not None or compression:
            if headers is not None and not isinstance(headers, Mapping):
                raise ConfigurationError(f"headers are a mapping, not a {clip(type(headers).__name__)}")
            own = made["headers"] = dict(headers or {})
            if compression:
                own["compression"] = compression
        if expiration is not None:
            made["expiration"] = str(milliseconds(expiration))
        if retry and "message_id" not in made and "message_id" not in properties:
            made["message_id"] = f"{self._id_prefix}.{next(self._message_ids)}"
        reply_to = made.get("reply_to")
        if isinstance(reply_to, Queue):
            made["reply_to"] = reply_to.name
            if not reply_to.name:
                return made, reply_to
        return made, None

    def ended(self, publication: Publication, error: BaseException) -> None:
        """For the outbox: a publish has failed for good."""
        if self.on_return is None or not isinstance(error, PublishReturned):
            return
        message = Message(
            body=publication.body,
            properties=publication.properties,
            delivery_info={"exchange": error.exchange, "routing_key": error.routing_key},
        )
        try:
            self.on_return(error, error.exchange, error.routing_key, message)
        except Exception:
            self._log.failure("on_return failed")

    # -- ending

    def close(self) -> Deferred[None]:
        """Publish no more: what still waits here fails with NotSent, what was sent is confirmed as it comes.

        The channel stays open.  Closing twice is fine; `revive` makes it usable again.
        """
        self._is_closed = True
        self._outbox.fail_all("the producer was closed")
        return succeed(None)

    def release(self) -> Deferred[None]:
        """Done with it: back to its pool, or closed if it has none."""
        return self.close() if self.lender is None else self.lender.release(self)

    async def __aenter__(self) -> Self:
        """Leaving the block releases it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.release()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "no channel" if self._channel is None else repr(self._channel)
        return f"<Producer of {clip(self.exchange.name, 60)!r}, {state}>"


#: How many different mappings of properties a producer keeps; they repeat, where somebody does not use random types.
_MAX_REPEATED: Final = 64


def _typed(error: Exception) -> TxmsgError:
    """For an argument of the wrong type that was not looked at in particular, as that would cost each publish."""
    if isinstance(error, TxmsgError):
        return error
    return ConfigurationError(f"publish() has an argument of the wrong type: {clip(str(error))}")


def _entities(declare: object) -> tuple[Any, ...]:
    entities = () if declare is None else tuple(declare) if isinstance(declare, Iterable) else (declare,)
    for entity in entities:
        if entity and not hasattr(entity, "is_declarable"):
            raise ConfigurationError(f"declare holds exchanges and queues, not {clip(type(entity).__name__)}")
    return entities


def _set_policy(publication: Publication, policy: RetryIntervals | Mapping[str, Any] | None) -> None:
    if policy is None or isinstance(policy, RetryIntervals):
        publication.intervals = policy or _INTERVALS
        return
    if not isinstance(policy, Mapping):
        raise ConfigurationError(f"a retry policy is a mapping or RetryIntervals, not {clip(type(policy).__name__)}")
    publication.intervals = _INTERVALS.changed({name: policy[name] for name in policy if name not in _HOOKS})
    publication.errback = policy.get("errback")
    publication.on_revive = policy.get("on_revive")
