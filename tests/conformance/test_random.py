"""Random sessions: whatever is called in whatever order, and however it ends, every Deferred fires once, typed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, pause
from tests.conformance.minibroker import Session, finish, ignore
from txmsg.amqp import AMQPProtocol, BasicProperties, Channel, Consumer, Delivery
from txmsg.errors import SettlementError, TxmsgError


class Player:
    """Makes random calls on one connection and keeps what they return."""

    def __init__(self, seed: int, connection: AMQPProtocol, queues: list[str]) -> None:
        self.random = random.Random(seed)
        self.connection = connection
        self.queues = queues
        self.channels: list[Channel] = []
        self.consumers: list[Consumer] = []
        self.deliveries: list[Delivery] = []
        self.deferreds: list[tuple[str, Deferred[Any]]] = []
        self.ended: dict[int, object] = {}
        self.problems: list[str] = []

    def keep(self, what: str, deferred: Deferred[Any], then: Callable[[Any], object] | None = None) -> None:
        """Note how it ends; it must end once, with a value or a typed error."""
        number = len(self.deferreds)
        self.deferreds.append((what, deferred))

        def end(result: Any) -> None:
            if number in self.ended:
                self.problems.append(f"{what} ended twice")
            self.ended[number] = result
            if isinstance(result, Failure):
                if not isinstance(result.value, (TxmsgError, CancelledError)):
                    self.problems.append(f"{what} failed with {result.value!r}")
            elif then is not None and result is not None:
                then(result)

        deferred.addBoth(end)

    def step(self) -> None:
        """One random call."""
        rng = self.random
        if len(self.channels) < 2 or rng.random() < 0.03:
            self.keep("channel", self.connection.channel(), self.channels.append)
            return
        channel = rng.choice(self.channels)
        queue = rng.choice(self.queues)
        kind = rng.randrange(16)
        if kind < 4:
            key = queue if rng.random() < 0.8 else "nobody"
            properties = BasicProperties(message_id="same") if rng.random() < 0.3 else None
            body = bytes(rng.choice([0, 1, 100, 9000]))
            self.keep("publish", channel.basic_publish("", key, body, properties, mandatory=rng.random() < 0.5))
        elif kind == 4:
            self.keep("get", channel.basic_get(queue, no_ack=rng.random() < 0.3), self.deliveries.append)
        elif kind == 5:
            callback = self.deliveries.append if rng.random() < 0.5 else None
            consume = channel.basic_consume(queue, callback, no_ack=rng.random() < 0.3)
            self.keep("consume", consume, self.consumers.append)
        elif kind == 6 and self.consumers:
            self.keep("cancel", rng.choice(self.consumers).cancel())
        elif kind == 7 and self.consumers:
            self.keep("consumer.get", rng.choice(self.consumers).get(), self.deliveries.append)
        elif kind in (8, 9) and self.deliveries:
            delivery = rng.choice(self.deliveries)
            settle = rng.choice(["ack", "nack", "reject"])
            with contextlib.suppress(SettlementError):
                getattr(delivery, settle)()
        elif kind == 10:
            self.keep("declare", channel.queue_declare(queue, passive=True))
        elif kind == 11:
            self.keep("qos", channel.basic_qos(rng.randrange(5)))
        elif kind == 12:
            self.keep("confirm", channel.confirm_select())
        elif kind == 13:
            waiting = [deferred for _, deferred in self.deferreds if not deferred.called]
            if waiting:
                rng.choice(waiting).cancel()
        elif kind == 14 and rng.random() < 0.3:
            self.channels.remove(channel)
            self.keep("close", channel.close())
        elif kind == 15 and rng.random() < 0.3:
            self.keep("missing", channel.queue_declare("missing." + queue, passive=True))

    def unfired(self) -> list[str]:
        """What still waits."""
        return [what for number, (what, _) in enumerate(self.deferreds) if number not in self.ended]


class RandomCases(BrokerCase):
    timeout = 60

    async def play(self, seed: int, steps: int, meddle: Callable[[Player], object] | None = None) -> Player:
        """A session of that many random calls, with pauses in between, when `meddle` may do something too."""
        keeper = await self.channel()
        queues = [self.name("q") for _ in range(3)]
        for queue in queues:
            await keeper.queue_declare(queue, auto_delete=False)
            self.addCleanup(self._delete, keeper, queue)
        connection = await self.connect(read_high_water_messages=20, close_timeout=0.6, frame_max=4096)
        player = Player(seed, connection, queues)
        for _ in range(steps):
            player.step()
            if player.random.random() < 0.1:
                if meddle is not None:
                    meddle(player)
                await pause(0)
        return player

    def _delete(self, channel: Channel, queue: str) -> Deferred[Any]:
        return channel.queue_delete(queue)

    async def check(self, player: Player, seed: int) -> None:
        """After the end of the connection nothing waits, and nothing failed untyped."""
        await player.connection.when_closed()
        await pause(0)
        self.assertEqual((player.problems, player.unfired()), ([], []), f"seed {seed}")
        for channel in player.channels:
            self.assertTrue(channel.is_closed)

    async def test_closed_in_good_order(self) -> None:
        """R2, R28, R30, peers 3, 6: close() at a random moment."""
        for seed in range(10):
            player = await self.play(seed, 300)
            player.connection.close()
            await self.check(player, seed)

    async def test_aborted(self) -> None:
        """R2, R28, peers 6: abort() at a random moment."""
        for seed in range(100, 105):
            player = await self.play(seed, 200)
            player.connection.abort()
            await self.check(player, seed)


class RandomOverRabbitMQ(OverRabbitMQ, RandomCases):
    pass


class RandomOverBroker(OverBroker, RandomCases):
    pass


class RandomOverPeer(OverPeer, RandomCases):
    def meddle(self, player: Player) -> None:
        """Something that a broker does of itself."""
        session, rng = self.session, player.random
        kind = rng.randrange(8)
        if kind == 0:
            session.send(0, commands.Connection.Blocked("random"))
        elif kind == 1:
            session.send(0, commands.Connection.Unblocked())
        elif session.channels:
            channel = rng.choice(list(session.channels.values()))
            if channel.closing:
                return
            if kind == 2:
                session.send(channel.number, commands.Channel.Flow(rng.random() < 0.6))
            elif kind == 3 and rng.random() < 0.3:
                session.close_channel(channel, 406, "PRECONDITION_FAILED - random")
            elif kind == 4 and channel.consumers:
                consumer = channel.consumers.pop(rng.choice(list(channel.consumers)))
                consumer.queue.consumers.remove(consumer)
                session.send(channel.number, commands.Basic.Cancel(consumer.tag, nowait=rng.random() < 0.5))

    async def test_with_a_broker_that_acts_of_itself(self) -> None:
        """A-02, R2, R16, R17, R28: blocked, flow, cancels and channel closes at random moments, then close()."""
        self.broker.on["Channel.FlowOk"] = ignore
        self.broker.on["Basic.CancelOk"] = ignore
        for seed in range(2000, 2015):
            player = await self.play(seed, 200, self.meddle)
            self.session.send(0, commands.Connection.Unblocked())
            player.connection.close()
            await self.check(player, seed)

    async def test_ended_by_the_peer(self) -> None:
        """R2, R18, R28, F4, F5, F30, peers 6: reset, FIN, connection.close or rubbish at a random moment."""
        endings: list[Callable[[Session], object]] = [
            Session.hang_up,
            finish,
            lambda session: session.close_connection(320, "CONNECTION_FORCED - random"),
            lambda session: session.write(b"\x04\x00\x01\x00\x00\x00\x00\xce"),
            lambda session: session.write(b"\x01\x00\x01\x00\x00"),
        ]
        for seed in range(1000, 1030):
            player = await self.play(seed, 150)
            session = self.session
            endings[seed % 5](session)
            if seed % 5 == 4:
                finish(session)
            await self.check(player, seed)
