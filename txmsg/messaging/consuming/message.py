"""Message: what a consumer is handed; a transport's delivery, and the value in it.

Everything is looked at when it is asked for, and once: the properties, the body, the value.  The trust decision falls
before any octet of the body is read (kombu H10, I3): on the content type, by the accept list of the consumer.

Invariant: a message is settled once.  What the transport refuses (the channel is gone, it was settled before) changes
nothing here, and nothing is on the wire (kombu I4 to I7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.logger import Logger

from txmsg.abc import PROPERTY_NAMES
from txmsg.errors import AlreadySettled, ConfigurationError, DecodeError, MessageStateError, StaleDelivery, clip
from txmsg.messaging.consuming.handmade import HandMadeDelivery
from txmsg.messaging.consuming.trust import DEFAULT_TRUST, Trust
from txmsg.messaging.serialization import Accept, AcceptList, open_body, serializers

if TYPE_CHECKING:
    from txmsg.abc import MessagingDelivery
    from txmsg.messaging.connection.channel import Channel

__all__ = ["ACKED", "NO_ACK", "RECEIVED", "REJECTED", "REQUEUED", "Message", "received"]

#: Values of :attr:`Message.state`.  NO_ACK: settled when it was handed over.
RECEIVED: Final = "received"
ACKED: Final = "acked"
REJECTED: Final = "rejected"
REQUEUED: Final = "requeued"
NO_ACK: Final = "no_ack"


class _Missing:
    """Not there yet, where None is a value."""

    __slots__ = ()


_MISSING: Final = _Missing()


class Message:
    """One message: its value, what came with it, and the means to settle it.

    delivery: MessagingDelivery -- what the transport handed over.
    channel: Channel | None -- where it came from; None for one made by hand.
    state: str -- "received", "acked", "rejected", "requeued", or "no_ack": settled when it was handed over.

    The sender's words (content type, headers, reply_to ...) are claims; `redelivered` is the broker's.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_delivery_info",
        "_errors",
        "_payload",
        "_properties",
        "_trust",
        "channel",
        "delivery",
        "state",
    )

    delivery: MessagingDelivery
    channel: Channel | None
    state: str

    #: What a second settlement raises.
    MessageStateError: ClassVar[type[AlreadySettled]] = MessageStateError

    def __init__(
        self,
        body: bytes | str | None = None,
        delivery_tag: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        delivery_info: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        accept: Accept = None,
        channel: Channel | None = None,
    ) -> None:
        """Make one by hand, for a test or a transport of your own; consumers make theirs by :func:`received`.

        body: bytes, or a str, which is encoded as `content_encoding` (UTF-8).   delivery_tag: int.
        delivery_info -- exchange, routing_key, redelivered, consumer_tag; what is missing is "" or False.
        properties -- by AMQP's names; the four arguments that are properties too win over them.
        accept -- as for a Consumer.
        channel -- where it can be settled, if the transport's channels settle by tag, as those of ``memory://`` do;
            otherwise, and without one, settling is a MessageStateError.
        """
        made: dict[str, Any] = dict(properties or {})
        if content_type is not None:
            made["content_type"] = content_type
        if content_encoding is not None:
            made["content_encoding"] = content_encoding
        if headers is not None:
            made["headers"] = dict(headers)
        unknown = sorted(set(made) - set(PROPERTY_NAMES))
        if unknown:
            raise ConfigurationError(f"a message has no property {clip(', '.join(map(str, unknown)))}")
        if isinstance(body, str):
            body = body.encode(content_encoding or "utf-8")
        self.delivery = HandMadeDelivery(
            bytes(body or b""), made, dict(delivery_info or {}), delivery_tag or 0, channel
        )
        self.channel = channel
        self.state = RECEIVED
        self._trust = Trust.of(accept)
        self._properties: Mapping[str, Any] | None = made
        self._body: bytes | None = None
        self._payload: Any = _MISSING
        self._errors: list[BaseException] | None = None
        self._delivery_info: dict[str, Any] | None = None

    # -- what came ---------------------------------------------------------------------------------

    @property
    def properties(self) -> Mapping[str, Any]:
        """The properties that are present, by AMQP's names; headers too."""
        found = self._properties
        if found is None:
            found = self._properties = self.delivery.properties
        return found

    @property
    def headers(self) -> dict[str, Any]:
        """The headers, {} if there are none; yours to change."""
        properties = self.properties
        found = properties.get("headers")
        if found is None:
            found = {}
            self._properties = {**properties, "headers": found}
        return found

    @property
    def content_type(self) -> str | None:
        """As the sender says; None is raw octets."""
        return self.properties.get("content_type")

    @property
    def content_encoding(self) -> str | None:
        """The charset, or "binary", as the sender says."""
        return self.properties.get("content_encoding")

    @property
    def delivery_tag(self) -> int:
        """Its number on the channel, counting from 1."""
        return self.delivery.delivery_tag

    @property
    def redelivered(self) -> bool:
        """False: nobody has seen it before.  True: somebody may have."""
        return self.delivery.redelivered

    @property
    def delivery_info(self) -> dict[str, Any]:
        """exchange, routing_key, redelivered, consumer_tag ("" from `get`) and delivery_tag; a dict of its own."""
        found = self._delivery_info
        if found is None:
            delivery = self.delivery
            found = self._delivery_info = {
                "exchange": delivery.exchange,
                "routing_key": delivery.routing_key,
                "redelivered": delivery.redelivered,
                "consumer_tag": delivery.consumer_tag,
                "delivery_tag": delivery.delivery_tag,
            }
        return found

    @property
    def accept(self) -> AcceptList | None:
        """The content types that may be decoded; None: the default."""
        return self._trust.accept

    @accept.setter
    def accept(self, names: Accept) -> None:
        self._trust = self._trust._replace(accept=serializers.accept(names))
        self._errors = None

    @property
    def errors(self) -> list[BaseException]:
        """What went wrong in opening and decoding it, so far."""
        return list(self._errors or ())

    # -- the body ----------------------------------------------------------------------------------

    @property
    def raw_body(self) -> bytes:
        """The octets as they came, compressed if they are."""
        return self.delivery.body

    @property
    def body(self) -> bytes:
        """The octets, decompressed.

        If they cannot be, or may not be, they are as they came, and `errors` says why: whoever logs a bad message
        looks here.
        """
        try:
            return self.open()
        except Exception:
            return self.delivery.body

    def open(self) -> bytes:
        """The octets, decompressed; ContentDisallowed, DecodeError, CodecNotInstalled where that fails.

        The value is not decoded, but a content type that is not accepted is not decompressed.
        """
        if self._body is not None:
            return self._body
        self._raise_again()
        headers = self.properties.get("headers")
        compression = headers.get("compression") if headers else None
        if not compression:
            self._check_properties()
            self._body = self.delivery.body
            return self._body
        trust = self._trust
        try:
            self._body = open_body(
                self.delivery.body,
                content_type=self.content_type,
                compression=_text(compression, "compression"),
                accept=trust.accept,
                accept_compression=trust.accept_compression,
                limits=trust.limits,
            )
        except Exception as error:
            raise self._failed(error) from error.__cause__
        return self._body

    @property
    def payload(self) -> Any:
        """The value; decoded when it is asked for first.

        ContentDisallowed, DecodeError, SerializerNotInstalled, CodecNotInstalled; the same one each time.
        """
        value = self._payload
        return self.decode() if value is _MISSING else value

    def decode(self) -> Any:
        """The same as `payload`."""
        if self._payload is not _MISSING:
            return self._payload
        if self._errors is not None:
            self._raise_again()
        properties = self.properties
        get = properties.get
        headers = get("headers")
        try:
            if headers and headers.get("compression"):
                body = self.open()
            else:
                if not properties:
                    self._check_properties()
                body = self.delivery.body
            value = serializers.loads(body, get("content_type"), get("content_encoding"), self._trust.accept)
        except Exception as error:
            raise self._failed(error) from error.__cause__
        self._payload = value
        return value

    @property
    def is_compressed(self) -> bool:
        """Whether the sender says so."""
        headers = self.properties.get("headers")
        return bool(headers and headers.get("compression"))

    def _check_properties(self) -> None:
        """A property list that could not be decoded says nothing of the body: it is not raw octets."""
        error = self.delivery.properties_error
        if error is not None:
            raise self._failed(DecodeError(f"the properties of the message cannot be decoded: {clip(str(error))}"))

    def _failed(self, error: Exception) -> Exception:
        if self._errors is None:
            self._errors = []
        if error not in self._errors:
            self._errors.append(error)
        return error

    def _raise_again(self) -> None:
        for error in self._errors or ():
            raise error.with_traceback(None)

    # -- settling ----------------------------------------------------------------------------------

    def ack(self, multiple: bool = False) -> None:
        """It is done with; `multiple`: and so are all earlier ones of the channel.

        Does nothing for a message that came with `no_ack`.  MessageStateError: it is settled already, or was made by
        hand.  StaleDelivery: its channel is gone, and the broker delivers it again.
        """
        if self.state is not RECEIVED:
            if self.state is NO_ACK:
                return
            raise self._settled_already()
        try:
            self.delivery.ack(multiple)
        except AlreadySettled as error:
            raise self._as_state_error(error) from error
        self.state = ACKED

    def reject(self, requeue: bool = False) -> None:
        """Refuse it: to the dead-letter exchange of its queue, or nowhere; `requeue`: as :meth:`requeue`.

        MessageStateError, also for one that came with `no_ack` (the broker has forgotten it); StaleDelivery.
        """
        if self.state is not RECEIVED:
            raise self._settled_already()
        try:
            self.delivery.reject(requeue)
        except AlreadySettled as error:
            raise self._as_state_error(error) from error
        self.state = REQUEUED if requeue else REJECTED

    def requeue(self) -> None:
        """Give it back to its queue, where it is the next one again.  Not for filtering: it would come back for ever.

        Raises as :meth:`reject`.
        """
        self.reject(True)

    @property
    def acknowledged(self) -> bool:
        """Whether it is settled: acked, rejected or requeued, also by a later one's `multiple`; or came with no_ack.

        False where its channel is gone, for then it comes again.
        """
        if self.state is not RECEIVED:
            return True
        if not self.delivery.is_settled:
            return False
        try:
            # Nothing can be sent for it any more; the refusal says which of the two it is.
            self.delivery.ack()
        except StaleDelivery:
            return False
        except AlreadySettled:
            return True
        return False

    def ack_log_error(
        self,
        logger: Any = None,
        errors: type[BaseException] | tuple[type[BaseException], ...] = (),
        multiple: bool = False,
    ) -> None:
        """:meth:`ack`; the `errors` listed are logged as critical instead of raised.

        logger -- a twisted.logger.Logger or one of the standard library; None: one of txmsg's own.
        errors -- StaleDelivery in any case: the message comes again.
        """
        self._log_error("ack", logger, errors, multiple)

    def reject_log_error(
        self,
        logger: Any = None,
        errors: type[BaseException] | tuple[type[BaseException], ...] = (),
        requeue: bool = False,
    ) -> None:
        """:meth:`reject`, as :meth:`ack_log_error`."""
        self._log_error("reject", logger, errors, requeue)

    def _log_error(
        self, what: str, logger: Any, errors: type[BaseException] | tuple[type[BaseException], ...], flag: bool
    ) -> None:
        listed = errors if isinstance(errors, tuple) else (errors,)
        kinds: tuple[type[BaseException], ...] = (StaleDelivery, *listed)
        try:
            getattr(self, what)(flag)
        except kinds as error:
            text = f"could not {what} delivery {self.delivery_tag}: {clip(str(error))}"
            if logger is None or isinstance(logger, Logger):
                (logger or _log).critical("{text}", text=text, error=error)
            else:
                logger.critical("%s", text)

    def _settled_already(self) -> AlreadySettled:
        how = "settled when it was handed over (no_ack)" if self.state is NO_ACK else f"{self.state} already"
        return MessageStateError(f"delivery {self.delivery_tag} is {how}")

    def _as_state_error(self, error: AlreadySettled) -> AlreadySettled:
        return error if isinstance(error, MessageStateError) else MessageStateError(str(error))

    def __repr__(self) -> str:
        delivery = self.delivery
        correlation_id = self.properties.get("correlation_id")
        return (
            f"<{type(self).__name__} {self.state} {delivery.delivery_tag}, {len(delivery.body)} bytes"
            f"{'' if correlation_id is None else f' correlation_id={clip(str(correlation_id), 60)!r}'} "
            f"exchange={clip(delivery.exchange, 60)!r} routing_key={clip(delivery.routing_key, 60)!r}>"
        )


_log = Logger(namespace="txmsg.messaging.message")

_new = Message.__new__


def received(
    delivery: MessagingDelivery,
    channel: Channel | None,
    trust: Trust = DEFAULT_TRUST,
    no_ack: bool = False,
) -> Message:
    """The message around what a transport has delivered, by a consumer or by `get`.

    no_ack: bool -- it was settled when it was handed over.
    """
    message = _new(Message)
    message.delivery = delivery
    message.channel = channel
    message.state = NO_ACK if no_ack else RECEIVED
    message._trust = trust
    message._properties = message._body = message._errors = message._delivery_info = None
    message._payload = _MISSING
    return message


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"the header {what} is a str, not {type(value).__name__}")
    return value
