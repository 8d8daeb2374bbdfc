"""AMQChannel: a channel by its number, on which every method of the protocol can be called by name.

Number 0 is the connection's own channel.  Any other has to be opened with `channel_open()` first; what is called
before the broker has agreed to that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from txmsg.amqp import Consumer, Delivery, ReturnedMessage
from txmsg.compat.txamqp.client import ChannelClosed, closed_error
from txmsg.compat.txamqp.content import Content, ContentReader, native_properties, received_content
from txmsg.compat.txamqp.message import Message, closing_message, message_of
from txmsg.compat.txamqp.methods import MethodsByName, values_of
from txmsg.compat.txamqp.native import NativeChannel
from txmsg.compat.txamqp.spec import Method, method_named
from txmsg.errors import ChannelClosed as NativeChannelClosed
from txmsg.errors import ConnectionClosed as NativeConnectionClosed
from txmsg.errors import (
    ConsumerCancelled,
    EncodeError,
    NotSent,
    PublishUnconfirmed,
    SettlementError,
    TxmsgError,
)
from txmsg.wire.methods import Method as WireMethod
from txmsg.wire.methods import basic

if TYPE_CHECKING:
    from txmsg.compat.txamqp.protocol import AMQClient

__all__ = ["AMQChannel"]

_DELIVER = method_named("basic.deliver")
_GET_OK = method_named("basic.get-ok")

Values = dict[str, Any]

#: The methods as they are made for all of the protocol.
_BY_NAME: Any = MethodsByName


def _reply(name: str, *fields: Any) -> Message:
    return Message(method_named(name), fields)


class AMQChannel(MethodsByName):
    """One channel; made by `AMQClient.channel(number)`.

    id: int.   client: AMQClient.
    closed: bool -- the broker has closed it, or the connection has ended; `reason` says why.  A new channel with its
        number comes from `client.channel(number)`.
    """

    def __init__(self, id: int, outgoing: Any, client: AMQClient) -> None:
        self.id = id
        self.client = client
        self.closed = False
        self.reason: Any = None
        self._native: NativeChannel | None = None
        #: What was called while the broker has not answered channel.open; None when it is not being opened.
        self._waiting: list[Deferred[None]] | None = None
        #: The last native reason of an end, and what became of it.
        self._known: tuple[BaseException, Message] | None = None
        self._read = ContentReader().read

    @property
    def native(self) -> NativeChannel | None:
        """The channel of txmsg below, for whoever moves on; None until it is opened."""
        return self._native

    def __repr__(self) -> str:
        return f"<AMQChannel {self.id}{' closed' if self.closed else ''}>"

    # -- calls -------------------------------------------------------------------------------------

    def invoke(self, method: Method, args: Any, content: Any = None) -> Deferred[Any]:
        """Send a method with all its values in order; fires with the reply as a Message, or with None.

        Fails with ChannelClosed, ConnectionClosed or Closed; with EncodeError for a value that the protocol cannot
        carry and OperationTimeout when no reply comes in time: the channel then goes on.
        """
        name = method.python_name
        if self.closed and not name.endswith("_ok"):
            return fail(closed_error(self.reason))
        if self.id == 0 or name.startswith("connection_"):
            return self.client.invoke(method, args)
        if self._waiting is not None and name != "channel_open":
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            return waiting.addCallback(lambda _: self.invoke(method, args, content))
        return maybeDeferred(self._invoke, method, args, content).addErrback(self._failed)

    def _invoke(self, method: Method, args: Any, content: Any) -> Any:
        name, values = method.python_name, values_of(method, args)
        special: Callable[..., Any] | None = getattr(self, f"_do_{name}", None)
        if special is not None:
            return special(values, content) if method.content else special(values)
        return self._open_native().call(self._made(method, values)).addCallback(self._replied)

    def _open_native(self) -> NativeChannel:
        native = self._native
        if native is None:
            number = f"channel {self.id} is not open: channel_open() comes first"
            raise ChannelClosed(closing_message("channel", 504, number))
        return native

    @staticmethod
    def _made(method: Method, values: Values) -> WireMethod:
        if method.made is None or method.response:
            raise EncodeError(f"a client has no use for {method.klass.name}.{method.name}")
        return method.made(**values)

    @staticmethod
    def _replied(reply: WireMethod | None) -> Message | None:
        return None if reply is None else message_of(reply)

    def _failed(self, failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, NativeChannelClosed | NativeConnectionClosed):
            return Failure(closed_error(self._why(error)))
        if isinstance(error, SettlementError | NotSent | PublishUnconfirmed):
            native = self._native
            reason = None if native is None else native.why_ended()
            if reason is not None:
                return Failure(closed_error(self._why(reason)))
        return failure

    def _why(self, error: BaseException) -> Any:
        """The reason of its end as txamqp's programs know it: one object, whoever asks."""
        if not isinstance(error, NativeChannelClosed) or (error.initiator != "server" and self.client.is_ending):
            return self.client.why(error)
        if self._known is None or self._known[0] is not error:
            message = closing_message("channel", error.reply_code, error.reply_text, error.class_id, error.method_id)
            self._known = error, message
        return self._known[1]

    # -- the channel's life ------------------------------------------------------------------------

    def _do_channel_open(self, values: Values) -> Deferred[Message]:
        if self._native is not None or self._waiting is not None:
            raise ChannelClosed(closing_message("channel", 504, f"channel {self.id} is open already"))
        self._waiting = []
        opening: Deferred[Any] = self.client.native.open_channel(self.id, self)
        return opening.addCallbacks(self._opened, self._not_opened)

    def _opened(self, native: NativeChannel) -> Message:
        self._native = native
        native.add_return_callback(self._returned)
        self._call_the_waiting()
        return _reply("channel.open-ok", "")

    def _not_opened(self, failure: Failure) -> Failure:
        self._call_the_waiting()
        return failure

    def _call_the_waiting(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for each in waiting:
            each.callback(None)

    def _do_channel_close(self, values: Values) -> Deferred[Message]:
        native = self._open_native()
        closing: Deferred[Any] = native.close(values["reply_code"] or 200, values["reply_text"] or "Normal shutdown")
        return closing.addCallback(lambda reason: _reply("channel.close-ok"))

    def ended(self, reason: BaseException) -> None:
        """For the channel below: it has ended, which its waiting calls and consumers hear of behind this."""
        native = self._native
        for tag in () if native is None else native.consumers:
            self.client.close_queue(tag, self._why(reason))
        if isinstance(reason, NativeChannelClosed) and reason.initiator == "server":
            message = self._why(reason)
            self.tell(message)
            self.do_close(message)  # should the delegate not have done it
        elif not self.client.is_ending:
            # The program's own close: the same object can be opened again.
            self._native = None

    def close(self, reason: Any) -> None:
        """Regard it as closed, for the whole connection is; `channel_close()` is how to close one with the broker."""
        if not self.closed:
            self.closed = True
            self.reason = reason

    def do_close(self, reason: Any) -> None:
        """For the delegate: the broker has closed it."""
        if not self.closed:
            self.close(reason)
            self.client.channel_failed(self, Failure(closed_error(reason)))

    def tell(self, message: Message | WireMethod) -> None:
        """Hand a message of the broker to the delegate."""
        self.client.tell(self, message)

    def _do_channel_close_ok(self, values: Values) -> None:
        """It has been sent already."""

    def _do_channel_flow_ok(self, values: Values) -> None:
        """It has been sent already."""

    def _do_channel_flow(self, values: Values) -> Deferred[Any]:
        return self._open_native().flow(values["active"]).addCallback(self._replied)

    def _do_access_request(self, values: Values) -> Message:
        """RabbitMQ has no access tickets, and 0 is a good one everywhere."""
        return _reply("access.request-ok", 0)

    # -- publishing --------------------------------------------------------------------------------

    def basic_publish(
        self,
        ticket: int = 0,
        exchange: Any = "",
        routing_key: Any = "",
        mandatory: Any = False,
        immediate: Any = False,
        content: Any = None,
        **more: Any,
    ) -> Deferred[Any]:
        """Send basic.publish with its content; fires with None, in confirm mode with the delivery tag.

        In confirm mode it fails with PublishReturned or PublishNacked.
        """
        native = self._native
        is_plain = type(exchange) is str and type(routing_key) is str and not immediate and not more
        if native is None or self.closed or self._waiting is not None or not is_plain or content is None:
            return _BY_NAME.basic_publish(self, ticket, exchange, routing_key, mandatory, immediate, content, **more)  # type: ignore[no-any-return]
        # The way of nearly all, without the steps that are the same for all methods.
        try:
            properties = native_properties(content)
        except EncodeError:
            return fail()
        publishing: Deferred[Any] = native.basic_publish(
            exchange, routing_key, content.body, properties, mandatory=bool(mandatory)
        )
        if publishing.called and not isinstance(publishing.result, Failure):
            return publishing
        return publishing.addErrback(self._failed)

    def basic_ack(self, delivery_tag: int = 0, multiple: Any = False) -> Deferred[Any]:
        """Send basic.ack; fires with None, or fails with SettlementError: nothing was sent then."""
        native = self._native
        if native is not None and not self.closed and self._waiting is None:
            try:
                native.basic_ack(delivery_tag, bool(multiple))
            except TxmsgError:
                return fail().addErrback(self._failed)
            return succeed(None)
        return _BY_NAME.basic_ack(self, delivery_tag, multiple)  # type: ignore[no-any-return]

    def _do_basic_publish(self, values: Values, content: Any) -> Deferred[Any]:
        native = self._open_native()
        if values["immediate"]:
            raise EncodeError("`immediate` is no more: brokers close the connection over it (540)")
        if content is None:
            content = Content()
        exchange, routing_key, mandatory = values["exchange"], values["routing_key"], values["mandatory"]
        return native.basic_publish(
            exchange, routing_key, content.body, native_properties(content), mandatory=mandatory
        )

    def _returned(self, returned: ReturnedMessage) -> None:
        made = basic.Return(returned.reply_code, returned.reply_text, returned.exchange, returned.routing_key)
        self.tell(message_of(made, received_content(returned.properties, returned.body)))

    def _do_confirm_select(self, values: Values) -> Deferred[Any]:
        selecting: Deferred[Any] = self._open_native().confirm_select(nowait=values["nowait"])
        return selecting.addCallback(lambda reply: None if values["nowait"] else _reply("confirm.select-ok"))

    def _do_tx_select(self, values: Values) -> Deferred[Any]:
        return self._open_native().tx_select().addCallback(self._replied)

    def _do_tx_commit(self, values: Values) -> Deferred[Any]:
        return self._open_native().tx_commit().addCallback(self._replied)

    def _do_tx_rollback(self, values: Values) -> Deferred[Any]:
        return self._open_native().tx_rollback().addCallback(self._replied)

    # -- consuming ---------------------------------------------------------------------------------

    def _do_basic_consume(self, values: Values) -> Deferred[Any]:
        native, tag = self._open_native(), values["consumer_tag"]
        del values["ticket"]
        if tag:
            self.client.prepare_queue(tag, not values["no_ack"])
        queue, nowait = values.pop("queue"), values["nowait"]
        starting: Deferred[Any] = native.basic_consume(queue, self._delivered, **values)
        return starting.addCallback(self._consuming, nowait)

    def _consuming(self, consumer: Consumer, nowait: bool) -> Message | None:
        self.client.prepare_queue(consumer.consumer_tag, not consumer.no_ack)
        consumer.when_ended().addCallback(self._consumer_ended, consumer.consumer_tag)
        return None if nowait else _reply("basic.consume-ok", consumer.consumer_tag)

    def _delivered(self, delivery: Delivery) -> Any:
        fields = (
            delivery.consumer_tag,
            delivery.delivery_tag,
            delivery.redelivered,
            delivery.exchange,
            delivery.routing_key,
        )
        content = self._read(delivery.properties, delivery.body)
        return self.client.delegate.dispatch(self, Message(_DELIVER, fields, content))

    def _consumer_ended(self, reason: BaseException, tag: str) -> None:
        if isinstance(reason, ConsumerCancelled):
            if reason.initiator != "server":
                return  # what has come stays readable, and the queue is there for the next consumer of this name
            message = _reply("basic.cancel", tag, True)
            self.tell(message)
            self.client.close_queue(tag, message)
        else:
            self.client.close_queue(tag, self._why(reason))

    def _do_basic_cancel(self, values: Values) -> Deferred[Any]:
        tag = values["consumer_tag"]
        cancelling: Deferred[Any] = self._open_native().basic_cancel(tag)
        cancelling.addCallback(lambda _: _reply("basic.cancel-ok", tag))
        if values["nowait"]:
            cancelling.addErrback(lambda failure: None)
            return succeed(None)
        return cancelling

    def _do_basic_get(self, values: Values) -> Deferred[Any]:
        getting: Deferred[Any] = self._open_native().basic_get(values["queue"], no_ack=values["no_ack"])
        return getting.addCallback(self._got)

    def _got(self, delivery: Delivery | None) -> Message:
        if delivery is None:
            return _reply("basic.get-empty", "")
        fields = (
            delivery.delivery_tag,
            delivery.redelivered,
            delivery.exchange,
            delivery.routing_key,
            delivery.message_count,
        )
        return Message(_GET_OK, fields, received_content(delivery.properties, delivery.body))

    def _do_basic_qos(self, values: Values) -> Deferred[Any]:
        native, size, count = self._open_native(), values["prefetch_size"], values["prefetch_count"]
        asking: Deferred[Any] = native.basic_qos(count, prefetch_size=size, global_qos=values["global_"])
        return asking.addCallback(self._replied)

    def _do_basic_recover(self, values: Values) -> Deferred[Any]:
        recovering: Deferred[Any] = self._open_native().basic_recover(values["requeue"])
        return recovering.addCallback(self._replied)

    def _do_basic_recover_async(self, values: Values) -> Deferred[Any]:
        return self._do_basic_recover(values).addCallback(lambda reply: None)

    def _do_basic_ack(self, values: Values) -> None:
        self._open_native().basic_ack(values["delivery_tag"], values["multiple"])

    def _do_basic_nack(self, values: Values) -> None:
        self._open_native().basic_nack(values["delivery_tag"], values["multiple"], values["requeue"])

    def _do_basic_reject(self, values: Values) -> None:
        self._open_native().basic_reject(values["delivery_tag"], values["requeue"])
