"""connection.tune: what is proposed, wished for and agreed on, and that it is kept to."""

from __future__ import annotations

from typing import Any

from tests.conformance.base import BrokerCase, OverPeer, reactor
from txmsg.amqp import BasicProperties, ConnectionParameters, connect
from txmsg.errors import EncodeError, RemoteProtocolError, TxmsgError


class TuningCases(OverPeer, BrokerCase):
    async def test_table(self) -> None:
        """G-04, G-05, G-07, G-08, W-05, W-26, B-05 to B-07, F39, item 11: never above the offer, 0 is no limit."""
        table: list[tuple[tuple[int, int, int], dict[str, Any], tuple[int, int, int]]] = [
            ((2047, 131072, 60), {"channel_max": 65535}, (2047, 131072, 60)),
            ((2047, 131072, 60), {}, (2047, 131072, 60)),
            ((2047, 131072, 60), {"heartbeat": 0}, (2047, 131072, 0)),
            ((2047, 131072, 60), {"heartbeat": 600}, (2047, 131072, 600)),
            ((2047, 131072, 0), {}, (2047, 131072, 0)),
            ((2047, 131072, 0), {"heartbeat": 30}, (2047, 131072, 30)),
            ((2047, 131072, 0), {"heartbeat": 0}, (2047, 131072, 0)),
            ((2047, 131072, 60), {"heartbeat": lambda proposed: proposed // 3}, (2047, 131072, 20)),
            ((2047, 131072, 60), {"channel_max": 10, "frame_max": 8192}, (10, 8192, 60)),
            ((5, 4096, 60), {}, (5, 4096, 60)),
            ((1, 131072, 1), {}, (1, 131072, 1)),
            ((0, 0, 0), {}, (2047, 131072, 0)),
            ((0, 0, 65535), {"channel_max": 7, "frame_max": 4096}, (7, 4096, 65535)),
            ((0, 2**31, 0), {}, (2047, 131072, 0)),
            ((65535, 2**32 - 1, 0), {}, (2047, 131072, 0)),
        ]
        for offer, wish, answer in table:
            self.broker.tune = offer
            connection = await self.connect(**wish)
            self.assertEqual(self.session.tuned, answer, (offer, wish))
            negotiated = connection.negotiated
            assert negotiated is not None
            self.assertEqual((negotiated.channel_max, negotiated.frame_max, negotiated.heartbeat), answer)
            await connection.close()

    async def test_frame_sizes_below_the_minimum(self) -> None:
        """R19, F39: frame_max 1 to 4095 is refused, typed."""
        for frame_max in (1, 4095):
            self.broker.tune = (2047, frame_max, 0)
            error = await self.failure(connect(self.parameters()), RemoteProtocolError)
            self.assertIn(str(frame_max), str(error))

    async def test_parameters_are_not_changed(self) -> None:
        """B-21: two connections from one object: the second starts from the original wishes."""
        parameters: ConnectionParameters = self.parameters()
        for offer in [(5, 4096, 7), (2047, 131072, 60)]:
            self.broker.tune = offer
            connection = await connect(parameters)
            self.assertEqual(self.session.tuned, offer)
            await connection.close()

    async def test_a_callable_that_answers_nonsense(self) -> None:
        """B-07: a heartbeat callable must return a non-negative int."""
        for answer in (None, -1, 70000, "5", True):
            parameters = self.parameters(heartbeat=lambda proposed, answer=answer: answer)
            await self.failure(connect(parameters), TxmsgError, TypeError)

    async def test_frames_stay_below_the_agreed_size(self) -> None:
        """G-11, G-10, R21: what does not fit one frame is refused here; bodies are split."""
        self.broker.tune = (2047, 4096, 0)
        channel = await (await self.connect()).channel()
        await self.failure(channel.queue_declare("q", arguments={"x": "y" * 5000}), EncodeError)
        wide = BasicProperties(headers={"x": "y" * 5000})
        await self.failure(channel.basic_publish("", "q", b"", wide), EncodeError)
        channel.basic_publish("", "q", bytes(50_000))
        await channel.basic_qos(1)
        self.assertTrue(channel.is_open)

    async def test_no_timer_without_heartbeats(self) -> None:
        """H-04: heartbeat 0: nothing is scheduled while the connection is idle."""
        before = set(reactor.getDelayedCalls())
        await self.connect(heartbeat=0)
        new = [c for c in set(reactor.getDelayedCalls()) - before if "txmsg" in repr(c.func)]
        self.assertEqual(new, [])
