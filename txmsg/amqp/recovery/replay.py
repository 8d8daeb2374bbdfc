"""Declaring a topology again on a connection, and going on where one entity fails.

Everything of a stage is written without waiting for replies: a thousand bindings cost one round trip, not a thousand.
The broker answers a method that it refuses by closing the channel (AMQP 0-9-1 section 1.1).  Replies come in the order
of the calls, so the first call without a reply is the one that was refused: it is reported and left out, and what came
after it goes out again on a new channel.  Every round ends a connection, a stage, or an entity, so it ends.  How many
go out at a time shrinks with each refusal and grows again, so that a thousand refusals are not a million declarations.

Some refusals end the connection: an exchange type whose plugin is gone (503), or queues that a broker does not have any
more.  The entity is found in the same way, and left out on the next connection: else there never would be one.

A server-named queue that is exclusive has gone with its connection: it is declared with an empty name again.  Another
one may have survived: it is looked for (passive) first.  A name that begins with "amq." cannot be declared by a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, succeed

from txmsg.amqp.recovery.events import ENTITY_FAILED, QUEUE_RENAMED, RecoveryEvent
from txmsg.amqp.recovery.topology import BindingRecord, Entity, ExchangeRecord, QueueRecord, Topology
from txmsg.errors import ChannelClosed, ConnectionClosed, NotFound, clip
from txmsg.wire.methods import queue as queue_methods

if TYPE_CHECKING:
    from txmsg.amqp.channel import Channel
    from txmsg.amqp.client import AMQPProtocol

__all__ = ["Reporting", "TopologyReplay", "replay"]

#: How many declarations are under way at a time.
_WINDOW = 500
#: Reply codes of a connection.close that an entity itself is the reason of, and one that may also be a bad moment.
_IS_TO_BLAME = frozenset({501, 502, 503, 504, 505, 530, 540})
_INTERNAL_ERROR = 541


class Reporting(Protocol):
    """What the replay needs of its connection."""

    topology: Topology

    def report(self, event: RecoveryEvent) -> None:
        """Log it, and tell whoever wants to know."""


class TopologyReplay:
    """The member of a recovering connection that comes first: it declares the topology again."""

    order = 0

    def __init__(self, connection: Reporting) -> None:
        self._connection = connection
        self._has_recovered = False

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """Declare everything.  Fails only with the end of the connection: what is refused is reported."""
        connection, topology = self._connection, self._connection.topology
        if self._has_recovered:
            topology.left_out.clear()  # another try, now that there has been a connection in between
        self._has_recovered = False
        for entity, error in topology.left_out.items():
            connection.report(RecoveryEvent(ENTITY_FAILED, str(entity), error))
        return Deferred.fromCoroutine(replay(protocol, topology.plan(), connection)).addCallback(self._recovered)

    def _recovered(self, refused: list[Entity]) -> None:
        self._has_recovered = True

    def lost(self, reason: BaseException) -> None:
        """Nothing is kept from one connection to the next."""

    def closed(self, reason: BaseException) -> None:
        """Nobody waits."""

    def stop(self) -> Deferred[None]:
        """There is nothing to bring to an end."""
        return succeed(None)

    def __repr__(self) -> str:
        return f"<TopologyReplay of {self._connection.topology!r}>"


async def replay(protocol: AMQPProtocol, stages: list[list[Entity]], connection: Reporting) -> list[Entity]:
    """Declare the stages, one after the other; returns what was refused, each reported to `connection`.

    Fails with the end of the connection, or of a channel for a reason that no entity has given.
    """
    refused: list[Entity] = []
    channel: Channel | None = None
    window = _WINDOW
    try:
        for stage in stages:
            waiting: Sequence[Entity] = await _missing(protocol, stage)
            while waiting:
                if channel is None or not channel.is_open:
                    channel = await protocol.channel()
                batch = waiting[:window]
                agreed, error = await _declare_all(channel, batch, connection)
                if error is None:
                    waiting = waiting[agreed:]
                    window = min(2 * window, _WINDOW)
                    continue
                guilty = batch[agreed]
                if not _is_refusal(error, protocol):
                    _blame(guilty, error, connection.topology)
                    raise error
                window = max(window // 4, 1)
                waiting = waiting[agreed + 1 :]
                refused.append(guilty)
                connection.report(RecoveryEvent(ENTITY_FAILED, str(guilty), error))
    finally:
        if channel is not None and channel.is_open:
            channel.close()
    return refused


def _is_refusal(error: BaseException, protocol: AMQPProtocol) -> bool:
    """Whether the broker did not want an entity, and the connection lives on."""
    return isinstance(error, ChannelClosed) and error.initiator == "server" and protocol.is_open


def _blame(entity: Entity, error: BaseException, topology: Topology) -> None:
    """Leave an entity out next time, if the broker has ended the connection because of it."""
    if isinstance(entity, BindingRecord):
        method = f"{entity.kind}.bind"
    else:
        method = "exchange.declare" if isinstance(entity, ExchangeRecord) else "queue.declare"
    if not isinstance(error, ConnectionClosed) or error.initiator != "server" or error.method_name != method:
        return
    was_suspect, topology.suspect = topology.suspect is entity, entity
    if error.reply_code in _IS_TO_BLAME or (error.reply_code == _INTERNAL_ERROR and was_suspect):
        topology.left_out[entity] = error


async def _missing(protocol: AMQPProtocol, stage: Sequence[Entity]) -> list[Entity]:
    """The stage, without the server-named queues that are still there."""
    missing: list[Entity] = []
    for entity in stage:
        may_live = isinstance(entity, QueueRecord) and entity.is_server_named and not entity.exclusive
        if not may_live or not await _exists(protocol, entity.current):  # type: ignore[union-attr]
            missing.append(entity)
    return missing


async def _exists(protocol: AMQPProtocol, queue: str) -> bool:
    """Whether there is such a queue: asked on a channel of its own, which a "no" closes."""
    channel = await protocol.channel()
    try:
        await channel.queue_declare(queue, passive=True)
    except NotFound:
        return False
    except ChannelClosed:  # it is there, but not for us: declaring it says why
        if not protocol.is_open:
            raise
        return False
    channel.close()
    return True


async def _declare_all(
    channel: Channel, entities: Sequence[Entity], connection: Reporting
) -> tuple[int, BaseException | None]:
    """Declare them at once; how many were agreed to from the first one on, and what then went wrong."""
    calls = [_declare(channel, entity, connection) for entity in entities]
    results: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
    for index, (success, result) in enumerate(results):
        if not success:
            return index, result.value
    return len(calls), None


def _declare(channel: Channel, entity: Entity, connection: Reporting) -> Deferred[Any]:
    if isinstance(entity, ExchangeRecord):
        return channel.exchange_declare(
            entity.name,
            entity.exchange_type,
            durable=entity.durable,
            auto_delete=entity.auto_delete,
            internal=entity.internal,
            arguments=entity.arguments,
        )
    if isinstance(entity, BindingRecord):
        if entity.kind == "exchange":
            return channel.exchange_bind(
                entity.destination, entity.source, entity.routing_key, arguments=entity.arguments
            )
        name = connection.topology.current_name(entity.destination)
        key = name if entity.routing_key == entity.destination else entity.routing_key
        return channel.queue_bind(name, entity.source, key, arguments=entity.arguments)
    declared = channel.queue_declare(
        "" if entity.is_server_named else entity.name,
        durable=entity.durable,
        exclusive=entity.exclusive,
        auto_delete=entity.auto_delete,
        arguments=entity.arguments,
    )
    if entity.is_server_named:
        declared.addCallback(_name_given, entity, connection)
    return declared


def _name_given(declared: queue_methods.DeclareOk, record: QueueRecord, connection: Reporting) -> None:
    old = record.current
    connection.topology.renamed(record, declared.queue)
    connection.report(RecoveryEvent(QUEUE_RENAMED, f"{clip(old)!r} is {clip(declared.queue)!r} now"))
