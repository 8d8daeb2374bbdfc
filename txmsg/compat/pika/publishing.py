"""Publishing: basic_publish, confirms, returned messages.

What pika gets wrong here is right below (txmsg.amqp.confirms): a return belongs to its own publish, numbers begin with
Confirm.Select and not with its reply, a multiple ack answers all it covers.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from pika import exceptions, spec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txmsg.amqp import BasicProperties, Channel, ReturnedMessage
from txmsg.compat.pika.channel_core import ChannelCore
from txmsg.compat.pika.messages import PropertiesReader, PropertiesWriter, ReceivedMessage, return_method
from txmsg.errors import PublishNacked, PublishReturned, TxmsgError

__all__ = ["Confirmed", "Publishing"]


_NO_PROPERTIES = BasicProperties()
_Ack = spec.Basic.Ack
_callback = Deferred.callback


class Confirmed(Deferred[Any]):
    """Who waits for one confirm: is given a delivery tag or our error, and fires with pika's.

    As a callback on the native channel's Deferred that would cost half as much again as the whole publish.
    """

    translate: Callable[[Failure], Failure]

    def callback(self, result: Any) -> None:
        """The broker has it: the delivery tag."""
        _callback(self, _Ack(result))

    def errback(self, fail: Any = None) -> None:
        """It has not, or nobody knows, or nobody waits any more (CancelledError)."""
        super().errback(self.translate(fail))


class Publishing(ChannelCore):
    """The part of a channel that publishes."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._publish = channel.basic_publish
        self._writer = PropertiesWriter()
        self._reader = PropertiesReader()
        self._publish_encoded = channel.publish_encoded
        self._thread_id = channel.connection.thread_id
        self._is_confirming = False
        #: What makes a publish's result of its delivery tag; in confirm mode that is pika's class itself.
        self._published: Callable[[Any], Any] = _nothing
        self._fail_publish = self._not_published

    def basic_publish(
        self,
        exchange: str | bytes,
        routing_key: str | bytes,
        body: bytes | str,
        properties: Any = None,
        mandatory: bool = False,
    ) -> Deferred[Any]:
        """Publish one message; properties are pika's BasicProperties.

        After `confirm_delivery()` it fires with the broker's Basic.Ack, or fails with UnroutableError, NackError, or
        what ended the channel or connection (then the message may have arrived).  Without, it fires with None, as a
        rule at once; while the socket or the broker takes no more, later: wait for it, and a slow broker slows you
        down.

        A mandatory message without a message id gets one on a channel in confirm mode: see docs/moving-from-pika.md.
        """
        try:
            writer = self._writer
            if properties is None:
                native = None
            elif properties.__dict__ == writer.last:
                native = writer.made
            else:
                native = writer.write(properties)
        except (TxmsgError, TypeError, AttributeError, KeyError, ValueError) as error:
            return fail(TypeError(f"these are no properties that AMQP can carry: {error}"))
        if isinstance(routing_key, bytes):  # pika takes both
            routing_key = routing_key.decode("utf-8", "surrogateescape")
        if isinstance(exchange, bytes):
            exchange = exchange.decode("utf-8", "surrogateescape")
        if self._is_confirming and not mandatory and type(body) is bytes and self._channel.takes_publishes:
            confirmed = Confirmed()
            confirmed.translate = self._fail_publish
            try:
                if get_ident() == self._thread_id and self._publish_encoded(
                    confirmed, exchange, routing_key, _NO_PROPERTIES if native is None else native, body, None
                ):
                    return confirmed
            except (TxmsgError, TypeError, AttributeError):
                pass  # met again below, and told there
        publishing: Any = self._publish(exchange, routing_key, body, native, mandatory=bool(mandatory))
        if not publishing.called:
            return publishing.addCallbacks(self._published, self._fail_publish)  # type: ignore[no-any-return]
        if publishing.result is not None:
            publishing.addErrback(self._fail_publish, exchange, routing_key)
        return publishing  # type: ignore[no-any-return]

    def _not_published(self, failure: Failure, *given: object) -> Failure:
        error = failure.value
        if isinstance(error, PublishReturned):
            return Failure(exceptions.UnroutableError([self._returned(error.returned)]))
        if isinstance(error, PublishNacked):
            # A message that came back and was then refused as well.
            returned = error.returned
            return Failure(exceptions.NackError([] if returned is None else [self._returned(returned)]))
        return self._failed(failure, *given)

    def _returned(self, returned: ReturnedMessage) -> ReceivedMessage:
        properties = self._reader.read(returned.properties)
        return ReceivedMessage(self, return_method(returned), properties, returned.body)

    def add_on_return_callback(self, callback: Callable[[ReceivedMessage], object]) -> None:
        """Call `callback(message)` for each message that comes back, before its publish fails.

        message: ReceivedMessage -- channel (this one), method (Basic.Return), properties, body.
        """
        self._channel.add_return_callback(lambda returned: callback(self._returned(returned)))

    def confirm_delivery(self) -> Deferred[Any]:
        """Put the channel in confirm mode; fires with the SelectOk frame, or with None the second time.

        Publishes made after this call are confirmed, also those made before the reply is here.
        """
        refused = self._refused()
        if refused is not None:
            return refused
        if not self.connection.publisher_confirms:
            return fail(exceptions.MethodNotImplemented("Confirm.Select not Supported by Server"))
        if self._channel.is_confirming:
            return succeed(None)
        selecting = self._framed(self._channel.confirm_select)
        if self._channel.is_confirming:
            self._published, self._is_confirming = spec.Basic.Ack, True
        return selecting

    def tx_select(self) -> Deferred[Any]:
        """Make the channel transactional; fires with the SelectOk frame."""
        return self._framed(self._channel.tx_select)

    def tx_commit(self) -> Deferred[Any]:
        """Let what was published and acked since the last commit take effect; fires with the CommitOk frame."""
        return self._framed(self._channel.tx_commit)

    def tx_rollback(self) -> Deferred[Any]:
        """Forget what was published and acked since the last commit; fires with the RollbackOk frame."""
        return self._framed(self._channel.tx_rollback)


def _nothing(tag: None) -> None:
    """Without confirms a publish has no result."""
