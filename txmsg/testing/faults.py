"""Faults: what an embedded broker is to do wrong, so that you see what your code does then.

    with broker.faults.nack(queue="jobs"):                 # the next publish to that queue is refused
        ...
    broker.faults.close_channel(404, on="basic.consume")   # somebody deleted the queue at the wrong moment
    broker.faults.cut(at_message=3)                        # the connection is lost as the third message comes
    stalled = broker.faults.stall()                        # the broker's host hangs ...
    stalled.stop()                                         # ... and goes on

Each call sets one fault and returns a :class:`~txmsg.testing.scripted.ScriptedFault`, which counts how often it has
happened and can be stopped.  Several may be set at once; for one event the oldest that applies counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from txmsg.broker.alarms import MEMORY
from txmsg.broker.faults import Fault, fault
from txmsg.errors import ConfigurationError, clip
from txmsg.testing.inspection import NoSuchEntity
from txmsg.testing.scripted import (
    Cut,
    Delay,
    PublishFault,
    Refusal,
    RefusedMethod,
    ScriptedFault,
    Stall,
)
from txmsg.wire.constants import CONNECTION_FORCED, NOT_FOUND
from txmsg.wire.methods import METHODS

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.server import Broker
    from txmsg.wire.methods import Method

__all__ = ["Faults"]

_PUBLISH: Final = "basic.publish"
#: Methods that the broker handles without asking: there are too many of them.
_UNASKED: Final = frozenset({"basic.ack", "basic.nack", "basic.reject"})


class Faults:
    """What goes wrong in `broker`; usually reached as `EmbeddedBroker.faults`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._active: list[ScriptedFault] = []

    @property
    def active(self) -> list[ScriptedFault]:
        """The faults that can still happen, the oldest first."""
        return [each for each in self._active if each.is_active]

    def clear(self) -> None:
        """Stop all of them; whatever was held back or blocked goes on."""
        for each in list(self._active):
            each.stop()
        self.unblock()

    # -- connections -------------------------------------------------------------------------------

    def refuse(self, times: int | None = None) -> ScriptedFault:
        """Turn clients away: the socket is closed before a word is said, as by a proxy without a broker behind it.

        times: how many connections; None: all, until it is stopped.
        """
        return self._set(Refusal(self._over, times))

    def cut(
        self,
        *,
        after_bytes: int | None = None,
        after_frames: int | None = None,
        at_message: int | None = None,
        of: Literal["received", "sent"] = "received",
        times: int | None = 1,
    ) -> ScriptedFault:
        """End connections without a word, as a failing network does.

        Without any number: all connections there are, now.  Else each connection, `times` connections in all, once

        after_bytes: so many bytes have gone, counted from now on; a frame may be cut in two;
        after_frames: so many whole frames have gone, counted from the beginning of connections made from now on;
        at_message: so many publishes have come; the last of these is lost, and so are confirms that have not left.

        of: whether the bytes or frames that the broker has "received" count, or those it has "sent".
        """
        limits = {"bytes": after_bytes, "frames": after_frames, "messages": at_message}
        given: dict[Any, int] = {unit: limit for unit, limit in limits.items() if limit is not None}
        if len(given) > 1 or any(limit < 1 for limit in given.values()):
            raise ConfigurationError("give one of after_bytes, after_frames and at_message, 1 or more; or none of them")
        if of not in ("received", "sent"):
            raise ConfigurationError(f'of is "received" or "sent", not {clip(repr(of), 40)}')
        for unit, limit in given.items():
            return self._set(Cut(self._over, times, limit=limit, unit=unit, of_sent=of == "sent"))
        done = ScriptedFault(self._over, None)
        for connection in list(self._broker.connections):
            done.count += 1
            connection.abort_transport()
        done.stop()
        return done

    def stall(self) -> ScriptedFault:
        """Freeze all connections, also new ones, like a host that hangs: nothing is read, nothing leaves.

        Clients notice by their heartbeats and time limits only.  When it is stopped, everything goes on where it was.
        """
        return self._set(Stall(self._over))

    def delay(self, seconds: float) -> ScriptedFault:
        """Let everything take `seconds` longer, in each direction, like a long way; order is kept."""
        if not seconds > 0:
            raise ConfigurationError("a delay is a number of seconds above 0")
        return self._set(Delay(self._over, seconds))

    def close_connection(
        self,
        reply_code: int = CONNECTION_FORCED,
        reply_text: str | None = None,
        *,
        on: str | None = None,
        queue: str | None = None,
        exchange: str | None = None,
        times: int | None = 1,
    ) -> ScriptedFault:
        """Close connections with an AMQP reply code, as an operator or a broker that shuts down does.

        on: None: all connections that are open, now.  Or the name of a method ("queue.declare", "basic.publish" ...):
        the connection that sends it, instead of doing it; `queue` and `exchange` narrow down which.
        reply_text: as it is sent; None: one that fits the code.
        """
        refusal = _fault(reply_code, reply_text, closes_connection=True)
        if on is not None:
            return self._on_method(on, refusal, queue, exchange, times)
        done = ScriptedFault(self._over, None)
        for connection in list(self._broker.connections):
            if connection.is_open:
                done.count += 1
                connection.close_with(refusal)
        done.stop()
        return done

    # -- channels ----------------------------------------------------------------------------------

    def close_channel(
        self,
        reply_code: int = NOT_FOUND,
        reply_text: str | None = None,
        *,
        on: str | None = None,
        queue: str | None = None,
        exchange: str | None = None,
        times: int | None = 1,
    ) -> ScriptedFault:
        """Close channels with an AMQP reply code.

        on: None: all channels that are open, now.  Or the name of a method: the channel it comes on, instead of doing
        it; `queue` and `exchange` narrow down which.   reply_text: as it is sent; None: one that fits the code.
        """
        refusal = _fault(reply_code, reply_text, closes_connection=False)
        if on is not None:
            return self._on_method(on, refusal, queue, exchange, times)
        done = ScriptedFault(self._over, None)
        nothing: Any = _NoMethod
        for connection in list(self._broker.connections):
            for channel in list(connection.channels.values()):
                if channel.is_open:
                    done.count += 1
                    channel.refuse(refusal, nothing)
        done.stop()
        return done

    def cancel_consumers(self, queue: str, *, virtual_host: str = "/") -> ScriptedFault:
        """Take their queue away from the consumers of `queue`: they are told basic.cancel, the queue stays.

        As when a node of a cluster fails (https://www.rabbitmq.com/docs/consumer-cancel).  NoSuchEntity.
        """
        vhost = self._broker.vhosts.get(virtual_host)
        found: Queue | None = None if vhost is None else vhost.queues.get(queue)
        if found is None:
            raise NoSuchEntity(f"there is no queue {clip(queue)!r} in virtual host {clip(virtual_host)!r}")
        done = ScriptedFault(self._over, None)
        for consumer in found.consumers:
            done.count += 1
            found.remove_consumer(consumer)
            consumer.cancelled(found)
        done.stop()
        return done

    # -- publishes ---------------------------------------------------------------------------------

    def nack(
        self,
        *,
        queue: str | None = None,
        exchange: str | None = None,
        routing_key: str | None = None,
        times: int | None = 1,
    ) -> ScriptedFault:
        """Refuse publishes: the message is not taken, and a publisher with confirms gets basic.nack.

        queue: those that would be routed to this queue (headers exchanges are not looked into).
        exchange, routing_key: those published with them.   times: how many; None: all.
        """
        return self._on_publish("nack", queue, exchange, routing_key, times)

    def lose(
        self,
        *,
        queue: str | None = None,
        exchange: str | None = None,
        routing_key: str | None = None,
        times: int | None = 1,
    ) -> ScriptedFault:
        """Lose publishes: the message is not taken, and no confirm ever comes.  Arguments as for :meth:`nack`."""
        return self._on_publish("drop", queue, exchange, routing_key, times)

    def block(self, source: str = MEMORY) -> ScriptedFault:
        """Block publishers, as a broker that is low on memory does (or on "disk"), until it is stopped.

        A client that publishes meanwhile is told connection.blocked, once, and not read any more.
        Source: https://www.rabbitmq.com/docs/connection-blocked
        """
        self._broker.block(source)
        blocked = ScriptedFault(lambda _: self._unblock(source, blocked), None)
        blocked.count = 1
        self._active.append(blocked)
        return blocked

    def unblock(self) -> None:
        """Stop whatever :meth:`block` has set."""
        for source in self._broker.alarms.sources:
            self._broker.unblock(source)

    def _unblock(self, source: str, blocked: ScriptedFault) -> None:
        self._over(blocked)
        self._broker.unblock(source)

    # -- inside ------------------------------------------------------------------------------------

    def _set(self, scripted: ScriptedFault) -> ScriptedFault:
        self._active.append(scripted)
        self._broker.script = self
        return scripted

    def _over(self, scripted: ScriptedFault) -> None:
        """A fault has ended.  A cut that is under way is still asked, until its connections are gone."""
        if scripted in self._active and not (isinstance(scripted, Cut) and scripted.has_work):
            self._active.remove(scripted)
        if not self._active and self._broker.script is self:
            self._broker.script = None

    def _on_method(
        self, name: str, refusal: Fault, queue: str | None, exchange: str | None, times: int | None
    ) -> ScriptedFault:
        if name == _PUBLISH:
            return self._on_publish(refusal, queue, exchange, None, times)
        known = {method.NAME for method in METHODS.values()} - _UNASKED
        if name not in known:
            raise ConfigurationError(f"{clip(repr(name), 60)} is no method that can be refused, such as queue.declare")
        wanted = {key: value for key, value in (("queue", queue), ("exchange", exchange)) if value is not None}
        return self._set(RefusedMethod(self._over, times, refusal, name, wanted))

    def _on_publish(
        self,
        answer: Literal["nack", "drop"] | Fault,
        queue: str | None,
        exchange: str | None,
        routing_key: str | None,
        times: int | None,
    ) -> ScriptedFault:
        def matches(connection: BrokerConnection, to: str, key: str) -> bool:
            if (exchange is not None and to != exchange) or (routing_key is not None and key != routing_key):
                return False
            return queue is None or _leads_to(connection, to, key, queue)

        return self._set(PublishFault(self._over, times, answer, matches))

    # -- what the broker asks ----------------------------------------------------------------------

    def accepted(self, connection: BrokerConnection) -> bool:
        """For the broker: a socket was accepted."""
        verdicts = [each.accepted(connection) for each in list(self._active)]  # each of them has to know
        return all(verdicts)

    def data_received(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """For the broker: octets came."""
        left: bytes | None = data
        for each in list(self._active):
            left = each.data_received(connection, left) if left else None
        return left

    def method_received(self, connection: BrokerConnection, channel_number: int, method: Method) -> Fault | None:
        """For the broker: a method came."""
        for each in list(self._active):
            refusal = each.method_received(connection, channel_number, method)
            if refusal is not None:
                return refusal
        return None

    def publish_received(
        self, connection: BrokerConnection, channel_number: int, exchange: str, routing_key: str
    ) -> Literal["nack", "drop"] | Fault | None:
        """For the broker: a publish came."""
        for each in list(self._active):
            answer = each.publish_received(connection, channel_number, exchange, routing_key)
            if answer is not None:
                return answer
        return None

    def sending(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """For the broker: octets are about to leave."""
        left: bytes | None = data
        for each in list(self._active):
            left = each.sending(connection, left) if left else None
        return left

    def connection_lost(self, connection: BrokerConnection) -> None:
        """For the broker: a socket is gone."""
        for each in list(self._active):
            each.connection_lost(connection)
            if not each.is_active:
                self._over(each)

    def __repr__(self) -> str:
        return f"<Faults: {', '.join(map(repr, self.active)) or 'none'}>"


class _NoMethod:
    """Stands for "no method caused it" in a close."""

    CLASS_ID = 0
    METHOD_ID = 0


def _fault(reply_code: int, reply_text: str | None, *, closes_connection: bool) -> Fault:
    if reply_text is None:
        return fault(reply_code, "a scripted fault", closes_connection=closes_connection)
    return Fault(reply_code, reply_text, closes_connection=closes_connection)


def _leads_to(connection: BrokerConnection, exchange: str, routing_key: str, queue: str) -> bool:
    """Whether what is published there reaches `queue`."""
    vhost = connection.vhost
    source = None if vhost is None else vhost.exchanges.get(exchange)
    if vhost is None or source is None:
        return False
    return any(found.name == queue for found in vhost.routes.find(source, [routing_key], None))
