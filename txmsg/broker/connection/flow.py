"""ConnectionFlow: the octets of a client's connection, in and out, both kept in bounds.

In: events are worked off in order, one by one, and only while nothing pauses reading: after `pause_reading(who)` no
further event reaches any channel until `resume_reading(who)`, not even one that came in the same octets.  So whoever
waits needs no queue of its own, and what is held is never more than one read from the socket.

Contents that have come in part count like messages in queues, or else many large ones that never become complete would
be kept beyond every limit (R36, F33).

Out: see `txmsg.broker.connection.slow_reader`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.tcp import Connection
from twisted.logger import Logger

from txmsg.amqp.protocol import WireProtocol
from txmsg.broker import faults
from txmsg.broker.connection.slow_reader import SlowReader, forget_unsent, unsent
from txmsg.broker.faults import Fault
from txmsg.wire.connection import Limits, Role
from txmsg.wire.constants import CONNECTION_FORCED, FRAME_OVERHEAD, INTERNAL_ERROR, RESOURCE_ERROR
from txmsg.wire.events import PUBLISH, Event
from txmsg.wire.layout import Method

if TYPE_CHECKING:
    from txmsg.broker.server import Broker

__all__ = ["ConnectionFlow"]

#: How many of the largest messages one connection may have begun at once, on all its channels.
_UNFINISHED_MESSAGES: Final = 2

#: Seconds after which the events of one client wait until the reactor has looked after the others (R36).
TURN: Final = 0.05

#: Who pauses reading then.
_TURN_IS_OVER: Final = object()


class ConnectionFlow(WireProtocol):
    """The flow of one client's connection.

    broker: Broker.
    octets_received, octets_sent: int.
    """

    _log = Logger(namespace="txmsg.broker.connection.connection")

    name = "not connected"

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.limits = limits = broker.limits
        super().__init__(
            Role.SERVER,
            Limits(
                frame_max=limits.frame_max,
                max_message_size=limits.max_message_size,
                max_table_depth=limits.max_table_depth,
                max_table_items=limits.max_table_items,
                frame_excess=FRAME_OVERHEAD,  # as RabbitMQ (FRAME_SIZE_FUDGE)
            ),
            broker.reactor,
        )
        self.octets_received = self.octets_sent = 0
        self._slow_reader = SlowReader(
            self.clock,
            limits.write_buffer,
            left=lambda: unsent(self.transport),
            pause=lambda: self.pause_reading(self._slow_reader),
            resume=lambda: self.resume_reading(self._slow_reader),
            too_slow=self._too_slow,
        )
        #: Events that came in the same octets as what paused reading.
        self._held: list[Any] = []
        #: Reading was paused and resumed while events were worked off.
        self._must_read_again = False
        #: Octets of contents that are not whole, as the broker's usage knows them.
        self._unfinished = 0
        self._is_flow_released = False

    # -- for the subclass ----------------------------------------------------------------------------------

    def octets_in(self, data: bytes) -> bytes | None:
        """What of `data` the wire is to read; None for nothing."""
        return data

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and the end has not begun."""
        raise NotImplementedError

    def publishing_started(self) -> None:
        """There is a publish, or a part of one: reading is paused if an alarm is on and the connection is open."""

    def close_with(self, fault: Fault, cause: type[Method] | None = None) -> None:
        """Close the connection because of `fault`."""
        raise NotImplementedError

    def end_at_once(self, why: str) -> None:
        """Close the socket now."""
        raise NotImplementedError

    # -- in ------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Twisted: some octets, cut anywhere."""
        monitor = self.heartbeat
        if monitor is not None:
            monitor.last_received = monitor.now()
        self.octets_received += len(data)
        script = self.broker.script
        if script is not None:
            scripted = script.data_received(self, data)  # type: ignore[arg-type]
            if not scripted:
                return
            data = scripted
        wanted = self.octets_in(data)
        if not wanted:
            return
        events = self.wire.receive(wanted)
        if self._is_dispatching or self._held or self._reading_pauses:
            self._held += events
        elif events:
            self._dispatch(events)
        unfinished = self.wire.unfinished
        if unfinished != self._unfinished and not self._is_flow_released:
            self._unfinished_changed(unfinished)

    def _dispatch(self, events: list[Any]) -> None:
        """Work off events until there are no more, or something pauses reading."""
        channels = self.channels
        pauses = self._reading_pauses
        alarms = self.broker.alarms
        seconds = self.clock.seconds
        turn_ends = seconds() + TURN
        self._is_dispatching = True
        try:
            while events:
                publish = _first_publish(events) if alarms.are_on and self.is_open else None
                rest = iter(events if publish is None else events[:publish])
                for event in rest:
                    if type(event) is tuple:
                        receiver = channels.get(event[1])
                        if receiver is not None:
                            receiver.content_received(event)
                    else:
                        self.event_received(event)
                    if pauses or seconds() > turn_ends:
                        break
                left = [*rest]
                if publish is not None:
                    if not left and not pauses:
                        self.publishing_started()
                    left += events[publish:]
                events = left + self._held
                self._held = []
                if events and not pauses and seconds() > turn_ends:
                    # What one client can ask for in one read may take minutes: the others have their turn first.
                    self.pause_reading(_TURN_IS_OVER)
                    self.clock.callLater(0, self.resume_reading, _TURN_IS_OVER)
                if pauses:
                    self._held = events
                    break
        except Exception:
            self._log.failure(
                "{connection}: unexpected error while handling received data; it is closed", connection=self.name
            )
            self._held = []
            self._close_after_defect()
        finally:
            if self._to_flush:
                self._flush()
            self._is_dispatching = False
            if self._output:
                self.flush_output()
        if self._must_read_again:
            self._must_read_again = False
            self._read_again()

    def resume_reading(self, who: object) -> None:
        """`who` can take more: work off what was held, then read again, unless something pauses anew."""
        pauses = self._reading_pauses
        if who not in pauses:
            return
        pauses.discard(who)
        if not pauses:
            self._read_again()

    def _read_again(self) -> None:
        pauses = self._reading_pauses
        if pauses or not self._is_connected:
            return
        if self._is_dispatching:
            self._must_read_again = True
            return
        if self._held:
            held, self._held = self._held, []
            self._dispatch(held)
            if pauses or not self._is_connected:
                return
        if self.heartbeat is not None:
            self.heartbeat.reading_paused = False
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def _unfinished_changed(self, unfinished: int) -> None:
        """Contents that have come in part: they count like those in queues, and one client has only so many."""
        difference = unfinished - self._unfinished
        self._unfinished = unfinished
        if difference > 0:
            limit = self.limits.max_message_size * _UNFINISHED_MESSAGES
            if unfinished > limit:
                self.broker.usage.add(difference)
                self.broker.unfinished.add(self, difference)
                self.close_with(
                    faults.fault(RESOURCE_ERROR, f"more than {limit} bytes in contents that are not complete")
                )
                return
            refusal = self.hold_unfinished(difference)
            if refusal is not None:
                self.close_with(refusal)
            else:
                self.publishing_started()
        else:
            self.free_unfinished(-difference)

    def hold_unfinished(self, octets: int) -> Fault | None:
        """The client holds `octets` more in what it has not finished; a Fault if it is the one that has to go for it.

        Whoever holds most has to, which may be another.  See `txmsg.broker.connection.shares`.
        """
        self.broker.usage.add(octets)
        largest = self.broker.unfinished.add(self, octets)
        if largest is None:
            return None
        refusal = faults.unfinished_limit(self.broker.unfinished.limit)
        if largest is self:
            return refusal
        largest.close_with(refusal)
        return None

    def free_unfinished(self, octets: int) -> None:
        """It has finished, or given up, what it held `octets` in."""
        self.broker.usage.remove(octets)
        self.broker.unfinished.remove(self, octets)

    # -- out -----------------------------------------------------------------------------------------------

    def flush_output(self) -> None:
        """Hand what has gathered to the transport, and see whether the client takes it."""
        output, size = self._output, self._output_size
        if not output:
            return
        script = self.broker.script
        if script is not None and self._is_connected:
            scripted = script.sending(self, b"".join(output))  # type: ignore[arg-type]
            self._output, self._output_size = ([scripted], len(scripted)) if scripted else ([], 0)
            size = self._output_size
        self.octets_sent += size
        super().flush_output()
        if self._is_paused and self._is_connected:
            self._slow_reader.wrote(size)
            most = self.broker.unsent.add(self, size)
            if most is not None:
                # With connection.close it would still hold them for seconds.  Its share ends now: one message may go
                # to many connections before any of those that are dropped is gone.
                self.broker.unsent.remove(most)
                most.end_at_once(f"more than {self.broker.unsent.limit} bytes wait for all clients, most for this one")
                forget_unsent(most.transport)

    def resumeProducing(self) -> None:
        """Twisted: the transport's buffer is empty again."""
        super().resumeProducing()
        self.broker.unsent.remove(self)
        self._slow_reader.emptied()

    def _too_slow(self, why: str) -> None:
        self._log.warn("{connection}: dropped, {why}", connection=self.name, why=why)
        self.close_with(faults.fault(CONNECTION_FORCED, f"the client is dropped, {why}"))

    # -- the end -------------------------------------------------------------------------------------------

    def finish_writing(self) -> None:
        """Send what has been written and the end of it; what the client still sends is read, and dropped.

        Clients that interleave channels (npm's amqplib) have publishes of others behind their connection.close.  Were
        the socket closed with these unread, the operating system would answer with a reset, and the client might
        never see our close-ok.  RabbitMQ waits for the client to close, too.
        """
        transport = self.transport
        if not isinstance(transport, Connection) or transport.TLS:
            self.finish_transport()  # TLS has its own close, which is waited for
            return
        self.flush_output()
        self._is_connected = False
        self._unregister()
        transport.loseWriteConnection()

    def release_flow(self) -> None:
        """The connection ends: no timer is left, and nothing counts any more."""
        self._is_flow_released = True
        if not self._is_connected:
            forget_unsent(self.transport)
        self.release_timers()
        self._slow_reader.close()
        if self._unfinished:
            self.free_unfinished(self._unfinished)
            self._unfinished = 0

    def _close_after_defect(self) -> None:
        try:
            self.close_with(faults.fault(INTERNAL_ERROR, "an unexpected error in the broker"))
        except Exception:
            self._log.failure("{connection}: it could not even be closed", connection=self.name)
            self.abort_transport()


def _first_publish(events: list[Event]) -> int | None:
    """Where the first publish is."""
    return next((place for place, event in enumerate(events) if type(event) is tuple and event[0] == PUBLISH), None)
