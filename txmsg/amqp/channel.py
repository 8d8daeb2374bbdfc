"""Channel: the client's end of one AMQP 0-9-1 channel.

A channel fails alone: when the broker closes it, everything that waits on it fails with the broker's
code and text, and the connection and its other channels go on.  What it does is in its parts:

- `channel_core`: its life, and how methods are written and replies found;
- `operations`: the methods that only wait for a reply (exchange, queue, tx, flow);
- `publishing`: basic.publish and publisher confirms;
- `consuming`: basic.consume, basic.get, and settling.

Here the broker's frames are handed to them.
Source: AMQP 0-9-1 sections 1.5 (class channel) and 1.8 (class basic), https://www.rabbitmq.com/docs/channels
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from txmsg.amqp.channel_core import State
from txmsg.amqp.consuming import Consuming
from txmsg.amqp.delivery import Delivery, ReturnedMessage
from txmsg.amqp.operations import SynchronousMethods
from txmsg.amqp.publishing import Publishing
from txmsg.errors import RemoteProtocolError, StaleDelivery
from txmsg.wire.events import ACK, DELIVER, GET_OK, NACK, RETURN
from txmsg.wire.methods import Method, basic, channel

__all__ = ["Channel"]

_OPEN = State.OPEN


class Channel(SynchronousMethods, Publishing, Consuming):
    """One channel of a connection; made by :meth:`AMQPProtocol.channel`.

    Every method that returns a Deferred fails it instead of raising, and the Deferred may be cancelled
    at any time: the channel stays usable.  Only settling (`basic_ack`, `basic_nack`, `basic_reject`)
    returns None and raises, because there is nothing to wait for.
    """

    def content_received(self, event: tuple[Any, ...]) -> None:
        """For the connection: a content event of this channel, the frequent ones first."""
        kind = event[0]
        if kind == DELIVER:
            _, _, consumer_tag, delivery_tag, redelivered, exchange, routing_key, properties, body = event
            consumer = self._consumers.get(consumer_tag)
            if consumer is None:
                self._delivered_to_nobody(event)
                return
            no_ack = consumer.no_ack
            if not no_ack:
                if self._state is not _OPEN:
                    return  # the broker requeues it when the channel is closed
                self._settlements.delivered(delivery_tag)
            consumer.deliver(
                Delivery(self, consumer_tag, delivery_tag, redelivered, exchange, routing_key, properties, body, no_ack)
            )
        elif kind == ACK:
            if self._confirms is None:
                self._violated("the broker confirmed a publish on a channel that is not in confirm mode")
            else:
                try:
                    self._confirms.acked(event[2], event[3])
                except RemoteProtocolError as error:
                    self.connection.protocol_violated(error)
        elif kind == NACK:
            if self._confirms is None:
                self._violated("the broker refused a publish on a channel that is not in confirm mode")
            else:
                try:
                    self._confirms.nacked(event[2], event[3])
                except RemoteProtocolError as error:
                    self.connection.protocol_violated(error)
        elif kind == GET_OK:
            if not self._pending.resolve(basic.GetOk, event):
                self._violated("basic.get-ok without a basic.get")
        elif kind == RETURN:
            self._returned(ReturnedMessage(*event[2:]))

    def _delivered_to_nobody(self, event: tuple[Any, ...]) -> None:
        """A delivery for a consumer tag that is not known: give it back, so that it is not lost here."""
        if self._state is _OPEN:
            self._settlements.delivered(event[3])
            with suppress(StaleDelivery):
                self.basic_nack(event[3], requeue=True)

    def method_received(self, method: Method) -> None:
        """For the connection: any other method of this channel."""
        if isinstance(method, channel.Close):
            self._closed_by_server(method)
        elif isinstance(method, channel.CloseOk):
            self._close_ok()
        elif isinstance(method, channel.Flow):
            self._answer(channel.FlowOk(active=method.active))
            self.set_flow(method.active)
        elif isinstance(method, basic.Cancel):
            self._cancelled_by_server(method)
        else:
            tag = method.consumer_tag if isinstance(method, (basic.ConsumeOk, basic.CancelOk)) else None
            if not self._pending.resolve(type(method), method, tag):
                self._violated(f"{method.NAME} came without having been asked for")

    def _violated(self, what: str) -> None:
        self.connection.protocol_violated(RemoteProtocolError(what, 503))
