"""basic.get: one message or none, several at once, on queues that are not there."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ
from txmsg.amqp import BasicProperties
from txmsg.errors import AlreadySettled, NotFound


class GetCases(BrokerCase):
    async def test_get_and_empty(self) -> None:
        """K-27, X-05: the delivery says how many are left; None when there is none (kombu D16)."""
        channel = await self.channel()
        name = await self.queue(channel)
        self.assertIsNone(await channel.basic_get(name))
        properties = BasicProperties(content_type="text/plain", correlation_id="c")
        for body in (b"1", b"2"):
            channel.basic_publish("", name, body, properties)
        await self.until_depth(channel, name, 2)
        first = await self.get(channel, name, no_ack=False)
        self.assertEqual((first.body, first.message_count, first.redelivered), (b"1", 1, False))
        self.assertEqual((first.exchange, first.routing_key, first.consumer_tag), ("", name, ""))
        self.assertEqual(first.properties, properties)
        second = await self.get(channel, name)
        self.assertEqual((second.body, second.message_count, second.delivery_tag), (b"2", 0, 2))
        self.assertTrue(second.is_settled)
        self.assertRaises(AlreadySettled, second.ack)
        first.ack()
        self.assertIsNone(await channel.basic_get(name))

    async def test_many_gets_at_once(self) -> None:
        """K-28, K-30, W-49: each has its own answer, in order; the one too many gets None."""
        channel = await self.channel()
        bodies = [b"%d" % n for n in range(20)]
        name = await self.queue(channel, *bodies)
        results = await gatherResults([channel.basic_get(name) for _ in range(21)])
        self.assertIsNone(results.pop())
        self.assertEqual([delivery and delivery.body for delivery in results], bodies)
        for delivery in results:
            assert delivery is not None
            delivery.ack()
        await channel.close()

    async def test_gets_on_two_queues_at_once(self) -> None:
        """K-28: answers do not change places."""
        channel = await self.channel()
        full, empty = await self.queue(channel, b"x", b"y"), await self.queue(channel)
        results = await gatherResults([channel.basic_get(q, no_ack=True) for q in (empty, full, empty, full, empty)])
        self.assertEqual([r and r.body for r in results], [None, b"x", None, b"y", None])

    async def test_get_from_a_missing_queue(self) -> None:
        """K-29: it fails with NotFound, and so does every later one."""
        channel = await self.channel()
        error = await self.failure(channel.basic_get(self.name("missing")), NotFound)
        for _ in range(3):
            self.assertIs(await self.failure(channel.basic_get("q"), NotFound), error)

    async def test_unsettled_goes_back_when_the_channel_closes(self) -> None:
        """R22: delivered again, and marked so."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel, b"1")
        assert await channel.basic_get(name) is not None
        await channel.close()
        other = await connection.channel()
        await self.until_depth(other, name, 1)
        again = await self.get(other, name, no_ack=False)
        self.assertTrue(again.redelivered)
        again.ack()

    async def test_empty_body_and_bodies_around_the_frame_size(self) -> None:
        """item 12, K-33, K-34, W-75: with frame_max 4096, in and out, byte for byte (kombu D37)."""
        connection = await self.connect(frame_max=4096)
        channel = await connection.channel()
        sizes = [0, 1, 4087, 4088, 4089, 8175, 8176, 8177, 100_000]
        bodies = [bytes(n % 251 for n in range(size)) for size in sizes]
        name = await self.queue(channel, *bodies)
        results = await self.get_all(channel, name, len(sizes))
        self.assertEqual([delivery.body for delivery in results], bodies)

    async def test_messages_of_two_channels_do_not_mix(self) -> None:
        """W-33, J-18, W-21: many frames a message, two channels, one reactor turn."""
        connection = await self.connect(frame_max=4096)
        channels = await gatherResults([connection.channel() for _ in range(2)])
        names = [await self.queue(channel) for channel in channels]
        bodies = [bytes([65 + n]) * (20_000 + n) for n in range(10)]
        for body in bodies:
            for channel, name in zip(channels, names, strict=True):
                channel.basic_publish("", name, body)
        for channel, name in zip(channels, names, strict=True):
            await self.until_depth(channel, name, len(bodies))
            results = await self.get_all(channel, name, len(bodies))
            self.assertEqual([delivery.body for delivery in results], bodies)


class GetOverRabbitMQ(OverRabbitMQ, GetCases):
    pass


class GetOverBroker(OverBroker, GetCases):
    pass


class GetOverPeer(OverPeer, GetCases):
    async def test_frames_of_a_body(self) -> None:
        """item 12: 0, 1, 4087, 4088, 4089, 8176, 8177 bytes make 0, 1, 1, 1, 2, 2, 3 body frames (kombu D37)."""
        channel = await self.channel(frame_max=4096)
        name = await self.queue(channel)
        frames: list[int] = []
        session = self.session
        received = session.content_received

        def count(kind: int, number: int, payload: bytes) -> None:
            frames.append(kind)
            received(kind, number, payload)

        session.content_received = count  # type: ignore[method-assign]
        for size, expected in [(0, 0), (1, 1), (4087, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3)]:
            frames.clear()
            channel.basic_publish("", name, bytes(size))
            await channel.basic_qos(0)
            self.assertEqual(frames, [2] + [3] * expected, size)
