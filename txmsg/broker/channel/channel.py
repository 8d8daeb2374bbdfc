"""ServerChannel: a channel from open-ok to its last close-ok, and the order of what happens on it.

AMQP 0-9-1 sections 1.5 and 2.2.4; https://www.rabbitmq.com/docs/channels.  The invariants:

* Events are worked off in the order in which they came.  While a reply waits until what it says is on disk reading is
  paused, and the connection gives no further event to any channel.
* A :class:`~txmsg.broker.faults.Fault` of the model becomes channel.close or connection.close, with the ids of the
  method that is the cause; after it nothing of the channel has an effect any more.
* When the channel is over its consumers are gone, and what was not settled is back in the queues, in its place.

The wire's states run ahead of the events: it may know already of a channel.close that comes later in the same bytes.
What may not be sent then is dropped; the client would discard it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from txmsg.broker.channel.confirms import Confirms
from txmsg.broker.channel.consuming import Consuming
from txmsg.broker.channel.credit import Credit
from txmsg.broker.channel.patience import Patience
from txmsg.broker.channel.publishing import Publishing
from txmsg.broker.channel.settling import Settling
from txmsg.broker.channel.topology import Topology
from txmsg.broker.channel.transaction import Transactions
from txmsg.broker.faults import Fault, not_implemented, not_kept
from txmsg.errors import LocalProtocolError, TxmsgError
from txmsg.wire.connection import ChannelState, ConnectionState
from txmsg.wire.events import ACK, PUBLISH, ContentEvent
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection

__all__ = ["Handlers", "ServerChannel"]

#: Method -> what is done about it.  A Fault it raises closes the channel or the connection.
Handlers = dict[type[Method], Callable[[Any], None]]

#: The method to name in a close because of a content event, by the event's kind.
_CAUSES: Final[dict[int, type[Method]]] = {PUBLISH: basic.Publish, ACK: basic.Ack}


class ServerChannel:
    """A channel of a client's connection; made when channel.open has come.

    connection: BrokerConnection.  number: int.
    """

    _log = Logger(namespace="txmsg.broker.channel")

    def __init__(self, connection: BrokerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.wire = connection.wire
        self.vhost = connection.vhost
        #: The name that an empty queue name stands for; "" before the first declare.
        self.last_queue = ""
        self.credit = Credit(connection, self.vhost.limits.unacked_per_channel)
        self.confirms = Confirms(self)
        self.transactions = Transactions(self)
        self.publishing = Publishing(self)
        self.settling = Settling(self)
        self.patience = Patience(self, self.vhost.limits.acknowledgement_timeout)
        self.consuming = Consuming(self)
        self._publish = self.publishing.publish
        self._ack = self.settling.ack
        self._handlers: Handlers = {
            channel.Flow: self._flow,
            channel.FlowOk: self._nothing,
            channel.Close: self._close,
            **Topology(self).handlers,
            **self.confirms.handlers,
            **self.transactions.handlers,
            **self.settling.handlers,
            **self.consuming.handlers,
        }
        self._is_over = False
        #: A reply waits for the journal.
        self._is_waiting = False
        self._awaits_close_ok = False
        self._coming_fault: tuple[Fault, type[Method]] | None = None

    def __repr__(self) -> str:
        state = "over" if self._is_over else "waiting for the journal" if self._is_waiting else "open"
        return (
            f"<ServerChannel {self.number}: {state}, {len(self.consuming.consumers)} consumers, "
            f"{len(self.settling.unacked)} unacked>"
        )

    @property
    def is_open(self) -> bool:
        """Whether something may be sent on it."""
        wire = self.wire
        # The client's connection.close may be further down in the same chunk: then it listens to nothing any more.
        return (
            not self._is_over
            and wire.state is ConnectionState.OPEN
            and wire.channel_state(self.number) is ChannelState.OPEN
        )

    # -- events in ----------------------------------------------------------------------------------------

    def content_received(self, event: ContentEvent) -> None:
        """A publish, an ack or a nack: a tuple event of `txmsg.wire.events`."""
        if self._is_over:
            return
        kind = event[0]
        try:
            if kind == PUBLISH:
                self._publish(event)
            elif kind == ACK:
                self._ack(event[2], event[3])
            else:
                self.settling.nack(event[2], event[3], event[4])
        except Fault as refusal:
            self.refuse(refusal, _CAUSES.get(kind, basic.Nack))

    def method_received(self, method: Method) -> None:
        """Any other method on this channel, except channel.open."""
        if self._is_over:
            self._received_after_the_end(method)
            return
        handler = self._handlers.get(type(method))
        try:
            if handler is None:
                raise not_implemented(method.NAME)
            handler(method)
            self.consuming.tell_cancelled()
        except Fault as refusal:
            self.refuse(refusal, type(method))

    # -- replies out --------------------------------------------------------------------------------------

    def send(self, method: Method) -> None:
        """Write a method without content, if the state allows it."""
        if self.is_open:
            self.connection.write(self.wire.send_method(self.number, method))

    def reply_when_kept(self, reply: Method, cause: type[Method]) -> None:
        """Write `reply` to `cause` once all that was done until now is safe; what comes later waits.

        If the journal could not keep it the connection is closed with 541.
        """
        if not self.vhost.journal.is_durable:
            self.send(reply)
            return
        self._is_waiting = True
        self.vhost.journal.after_commit(lambda: self._kept(reply), lambda error: self._not_kept(error, cause))
        if self._is_waiting:
            self.connection.pause_reading(self)

    def _kept(self, reply: Method) -> None:
        self.send(reply)
        self._end_waiting()

    def _not_kept(self, error: TxmsgError, cause: type[Method]) -> None:
        if not self._is_over:
            self._log.error("what {cause} did could not be kept: {error}", cause=cause.NAME, error=error)
            self.refuse(not_kept(), cause)
        self._end_waiting()

    def _end_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            # Before this returns the connection may have given us what it held.
            self.connection.resume_reading(self)

    # -- the end of a turn --------------------------------------------------------------------------------

    def flush_acks(self) -> None:
        """The connection, at the end of a turn in which `flush_soon` was called: write this turn's confirms."""
        if self._is_over:
            return
        self.confirms.flush()
        self.consuming.tell_cancelled()
        if self._coming_fault is not None:
            self.refuse(*self._coming_fault)

    def refuse_soon(self, refusal: Fault, cause: type[Method]) -> None:
        """Like :meth:`refuse`, at the end of this turn: for whoever may not close anything now."""
        if self._coming_fault is None and not self._is_over:
            self._coming_fault = (refusal, cause)
            self.connection.flush_soon(self)

    def writable_again(self) -> None:
        """The connection: the socket takes more; the consumers go on."""
        if not self._is_over:
            self.credit.update()

    # -- the end ------------------------------------------------------------------------------------------

    def refuse(self, refusal: Fault, cause: type[Method] | None) -> None:
        """Close the channel, or the connection, because of what `cause` asked for; None if no method did."""
        if refusal.closes_connection:
            self.connection.close_with(refusal, cause)
            return
        if self._is_over:
            return
        # What was accepted before is confirmed before.
        self.confirms.flush()
        self.closed()
        self._awaits_close_ok = True
        class_id, method_id = (0, 0) if cause is None else (cause.CLASS_ID, cause.METHOD_ID)
        close = channel.Close(refusal.reply_code, refusal.reply_text, class_id, method_id)
        try:
            self.connection.write(self.wire.send_method(self.number, close))
        except LocalProtocolError:  # the connection is closing
            self._awaits_close_ok = False

    def closed(self) -> None:
        """The channel, or its connection, is over: consumers go, unsettled deliveries return to their queues."""
        if self._is_over:
            return
        self._is_over = True
        self.patience.stop()
        self.credit.close()
        left = self.consuming.close()
        self.transactions.close()
        self.settling.close()
        for queue in left:
            queue.go_on()
        self._end_waiting()

    def _close(self, method: channel.Close) -> None:
        """The client ends the channel."""
        self.closed()
        self._answer_close()

    def _answer_close(self) -> None:
        try:
            self.connection.write(self.wire.send_method(self.number, channel.CloseOk()))
        except LocalProtocolError:  # the connection is closing
            return
        if not self._awaits_close_ok:
            self.connection.channel_ended(self.number)

    def _received_after_the_end(self, method: Method) -> None:
        """Whatever was on its way is ignored, except what ends the number's use.

        The client's own close may have crossed ours; both are answered, and its close-ok is the last there is.
        """
        if isinstance(method, channel.Close):
            self._answer_close()
        elif isinstance(method, channel.CloseOk) and self._awaits_close_ok:
            self._awaits_close_ok = False
            self.connection.channel_ended(self.number)

    # -- channel.flow -------------------------------------------------------------------------------------

    def _flow(self, method: channel.Flow) -> None:
        if not method.active:
            raise not_implemented("active=false")
        self.send(channel.FlowOk(True))

    def _nothing(self, method: Method) -> None:
        """An answer to something that is never asked."""
