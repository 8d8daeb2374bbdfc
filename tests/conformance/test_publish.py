"""Publishing: confirms, returns and whose they are, refusals, transactions, order, cancelling."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults

from tests.conformance.base import ConfirmCase, OverBroker, OverPeer, OverRabbitMQ, outcomes, pause, settle
from txmsg.amqp import BasicProperties, ReturnedMessage
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    NotFound,
    NotSent,
    PreconditionFailed,
    PublishNacked,
    PublishReturned,
)


class PublishCases(ConfirmCase):
    async def test_confirmed(self) -> None:
        """R1, N-03, X-10, peers 9: fires at the broker's ack, with the number; the message is there then.

        kombu D9, D10
        """
        channel = await self.confirming()
        self.assertTrue(channel.is_confirming)
        name = await self.queue(channel)
        self.assertEqual([await channel.basic_publish("", name, b"%d" % n) for n in range(3)], [1, 2, 3])
        self.assertEqual(await self.depth(channel, name), 3)

    async def test_without_confirms(self) -> None:
        """K-31: fires with None at once while the socket takes it."""
        channel = await self.channel()
        name = await self.queue(channel)
        published = channel.basic_publish("", name, b"1")
        self.assertTrue(published.called)
        self.assertIsNone(await published)
        await self.until_depth(channel, name, 1)

    async def test_numbering_starts_when_select_is_written(self) -> None:
        """N-01, N-02, 24.3: publishes made before select-ok are counted; each has its own answer."""
        channel = await self.channel()
        name = await self.queue(channel)
        before = channel.basic_publish("", name, b"not counted")
        selected = channel.confirm_select()
        early = [channel.basic_publish("", name, b"x") for _ in range(2)]
        self.assertIsNone(await before)
        await selected
        late = channel.basic_publish("", name, b"x")
        self.assertEqual(await gatherResults([*early, late]), [1, 2, 3])
        await channel.confirm_select()
        self.assertEqual(await channel.basic_publish("", name, b"x"), 4)

    async def test_returns_find_their_publish(self) -> None:
        """R5, N-07, N-09, N-10, 24.4, U-14, S-23: 400 in one turn, every seventh unroutable: none is misreported.

        kombu D11
        """
        channel = await self.confirming()
        name = await self.queue(channel)
        lost = self.name("nobody")
        published = [
            channel.basic_publish("", lost if n % 7 == 3 else name, b"%d" % n, mandatory=True) for n in range(400)
        ]
        results = await DeferredList(published, consumeErrors=True)
        for number, (succeeded, result) in enumerate(results):
            if number % 7 == 3:
                assert not succeeded
                error: Any = result.value  # type: ignore[union-attr]
                self.assertIsInstance(error, PublishReturned)
                self.assertEqual((error.reply_code, error.routing_key), (312, lost))
                self.assertEqual(error.returned.body, b"%d" % number)
            else:
                self.assertEqual((succeeded, result), (True, number + 1))
        self.assertEqual(await self.depth(channel, name), 400 - len([n for n in range(400) if n % 7 == 3]))

    async def test_returns_with_equal_ids_and_bodies(self) -> None:
        """R5: identical message ids, keys and bodies, routable and not: the numbers are right."""
        channel = await self.confirming()
        name = await self.queue(channel)
        lost = self.name("nobody")
        same = BasicProperties(message_id="always the same")
        published = [
            channel.basic_publish("", lost if n % 2 else name, b"same", same, mandatory=True) for n in range(100)
        ]
        results = await DeferredList(published, consumeErrors=True)
        self.assertEqual([succeeded for succeeded, _ in results], [True, False] * 50)

    async def test_returned_message(self) -> None:
        """N-12, N-13, K-13, W-35, peers 77, M-06: all fields, also of an empty body; callback before errback.

        kombu D11
        """
        channel = await self.confirming()
        events: list[Any] = []
        channel.add_return_callback(events.append)
        lost = self.name("nobody")
        properties = BasicProperties(headers={"a": 1}, message_id="m")
        for body in (b"", b"content"):
            published = channel.basic_publish("", lost, body, properties, mandatory=True)
            published.addErrback(lambda failure: events.append(failure.value))
            await published
            returned, error = events
            assert isinstance(returned, ReturnedMessage)
            self.assertIs(error.returned, returned)
            self.assertEqual((returned.reply_code, returned.reply_text), (312, "NO_ROUTE"))
            self.assertEqual((returned.exchange, returned.routing_key), ("", lost))
            self.assertEqual((returned.properties, returned.body), (properties, body))
            events.clear()
        channel.remove_return_callback(events.append)

    async def test_returns_without_confirms(self) -> None:
        """N-11: the callback is all there is; publishing has long succeeded."""
        channel = await self.channel()
        returned: list[ReturnedMessage] = []
        channel.add_return_callback(returned.append)
        published = channel.basic_publish("", self.name("nobody"), b"x", mandatory=True)
        self.assertIsNone(await published)
        await self.until(lambda: len(returned) == 1)
        self.assertEqual(returned[0].body, b"x")

    async def test_a_failing_return_callback(self) -> None:
        """F-22: it is logged, and the publish fails as it should."""
        channel = await self.confirming()

        def fails(message: ReturnedMessage) -> None:
            raise ValueError("callback")

        channel.add_return_callback(fails)
        published = channel.basic_publish("", self.name("nobody"), b"x", mandatory=True)
        await self.failure(published, PublishReturned)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_publish_to_a_missing_exchange(self) -> None:
        """N-14, 24.6, R17: the publish and the calls behind it fail with 404; others go on; the number is reusable.

        kombu D9, W12
        """
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        await gatherResults([channel.confirm_select(), other.confirm_select()])
        name = await self.queue(other)
        failing: list[Deferred[Any]] = [
            channel.basic_publish(self.name("missing"), "k", b"x"),
            channel.queue_declare(self.name("q"), exclusive=True),
            channel.queue_declare(self.name("q"), exclusive=True),
        ]
        elsewhere = [other.basic_publish("", name, b"x") for _ in range(20)]
        errors = [await self.failure(deferred, NotFound) for deferred in failing]
        self.assertEqual(len({id(error) for error in errors}), 1)
        self.assertEqual((errors[0].reply_code, errors[0].method_name), (404, "basic.publish"))
        await gatherResults(elsewhere)
        self.assertEqual((await connection.channel()).channel_number, channel.channel_number)

    async def test_thousands_in_flight(self) -> None:
        """N-23, N-04: 5,000 publishes, 5,000 answers, in ascending order (kombu D10)."""
        channel = await self.confirming()
        name = await self.queue(channel)
        published = [channel.basic_publish("", name, b"x" * 100) for _ in range(5000)]
        seen = outcomes(published)
        await gatherResults(published)
        self.assertEqual(sorted(tag for _, tag in seen), list(range(1, 5001)))
        self.assertEqual(await self.depth(channel, name), 5000)

    async def test_order(self) -> None:
        """R4, K-09, W-89: messages of many sizes published in one turn arrive in that order."""
        channel = await self.confirming(frame_max=8192)
        name = await self.queue(channel)
        bodies = [b"%d|" % n + bytes(n * 97 % 20_000) for n in range(100)]
        await gatherResults([channel.basic_publish("", name, body) for body in bodies])
        got = await self.get_all(channel, name, len(bodies))
        self.assertEqual([d.body for d in got], bodies)

    async def test_cancelling_a_publish(self) -> None:
        """R8, N-22: the number keeps its place; later answers go to their own publish."""
        channel = await self.confirming()
        name = await self.queue(channel)
        published = [channel.basic_publish("", name, b"%d" % n) for n in range(10)]
        for deferred in published[::2]:
            deferred.cancel()
        for number, deferred in enumerate(published, 1):
            result = await settle(deferred)
            if number % 2:
                self.assertIsInstance(result, CancelledError)
            else:
                self.assertEqual(result, number)
        self.assertEqual(await channel.basic_publish("", name, b"x"), 11)
        lost = channel.basic_publish("", self.name("nobody"), b"x", mandatory=True)
        lost.cancel()
        await self.failure(lost, CancelledError)
        self.assertEqual(await channel.basic_publish("", name, b"x"), 13)

    async def test_kinds_of_body(self) -> None:
        """K-33, W-58, W-61, W-75: str is sent as UTF-8; bytearray and memoryview are taken when published."""
        channel = await self.confirming()
        name = await self.queue(channel)
        changing = bytearray(b"as it was")
        published = [channel.basic_publish("", name, body) for body in ("é", b"", changing, memoryview(b"abcdef")[1:3])]
        changing[:] = b"changed!!"
        await gatherResults(published)
        got = await self.get_all(channel, name, 4)
        self.assertEqual([d.body for d in got], ["é".encode(), b"", b"as it was", b"bc"])

    async def test_ten_thousand_publishes_in_a_chain(self) -> None:
        """W-20, W-43, X-09: one publish after the other, 10,000 times, awaited or in a callback: no recursion."""
        channel = await self.channel()
        name = await self.queue(channel)
        for _ in range(10_000):
            await channel.basic_publish("", name, b"x")
        await self.until_depth(channel, name, 10_000)
        await channel.confirm_select()
        finished: Deferred[None] = Deferred()
        left = 2_000

        def step(result: object) -> None:
            nonlocal left
            left -= 1
            if left:
                channel.basic_publish("", name, b"x").addCallback(step)
            else:
                finished.callback(None)

        step(None)
        await finished
        await self.until_depth(channel, name, 11_999)

    async def test_publishing_from_a_consumer_callback(self) -> None:
        """W-20, U-02, R32: 10,000 deliveries, each publishing the next from its callback."""
        channel = await self.channel()
        name = await self.queue(channel)
        finished: list[int] = []

        def handle(delivery: Any) -> None:
            number = int(delivery.body)
            delivery.ack()
            if number < 500:
                channel.basic_publish("", name, b"%d" % (number + 1))
            else:
                finished.append(number)

        await channel.basic_consume(name, handle)
        for _ in range(20):
            channel.basic_publish("", name, b"1")
        await self.until(lambda: len(finished) == 20, 20.0)

    async def test_transactions(self) -> None:
        """P-01 to P-03, N-17, K-51: commit publishes and settles, rollback forgets; not together with confirms.

        kombu D30
        """
        connection = await self.connect()
        channel, checker = await connection.channel(), await connection.channel()
        name = await self.queue(checker)
        await channel.tx_select()
        channel.basic_publish("", name, b"1")
        await channel.tx_rollback()
        channel.basic_publish("", name, b"2")
        self.assertEqual(await self.depth(checker, name), 0)
        await channel.tx_commit()
        self.assertEqual(await self.depth(checker, name), 1)
        delivery = await self.get(channel, name, no_ack=False)
        delivery.ack()
        await channel.tx_rollback()
        delivery.ack()
        await channel.tx_commit()
        await channel.close()
        await pause(0.05)
        self.assertEqual(await self.depth(checker, name), 0)
        other = await connection.channel()
        await other.tx_select()
        await self.failure(other.confirm_select(), PreconditionFailed)
        third = await connection.channel()
        await self.failure(third.tx_commit(), PreconditionFailed)

    async def test_publish_on_a_closed_connection(self) -> None:
        """F-18, W-40, W-77, peers 46, S-10: it fails at once with the reason, and it was not sent."""
        connection = await self.connect()
        channel = await connection.channel()
        await channel.confirm_select()
        await connection.close()
        published = channel.basic_publish("", "q", b"x")
        self.assertTrue(published.called)
        error = await self.failure(published, ConnectionClosed, ChannelClosed, NotSent)
        self.assertIn("client", str(error))

    async def test_close_waits_for_confirms(self) -> None:
        """R30: publishes under way at close() get their answer."""
        connection = await self.connect()
        channel = await connection.channel()
        checker = await self.channel()
        name = self.name("q")
        await checker.queue_declare(name)
        await channel.confirm_select()
        published = [channel.basic_publish("", name, b"x") for _ in range(200)]
        closed = connection.close()
        self.assertEqual(await gatherResults(published), list(range(1, 201)))
        await closed
        self.assertEqual(await self.depth(checker, name), 200)
        await checker.queue_delete(name)


class PublishServerCases(PublishCases):
    async def test_refused_by_a_full_queue(self) -> None:
        """N-06, U-14, S-24: reject-publish on a full queue nacks: PublishNacked, and nothing of the others.

        kombu D10
        """
        channel = await self.confirming()
        name = self.name("q")
        full = {"x-max-length": 2, "x-overflow": "reject-publish"}
        await channel.queue_declare(name, exclusive=True, arguments=full)
        results = await DeferredList([channel.basic_publish("", name, b"x") for _ in range(5)], consumeErrors=True)
        failed = [result.value for succeeded, result in results if not succeeded]  # type: ignore[union-attr]
        self.assertGreaterEqual(len(failed), 2)
        for error in failed:
            self.assertIsInstance(error, PublishNacked)
        self.assertTrue(channel.is_open)

    async def test_user_id_must_be_ours(self) -> None:
        """Q-12: the broker refuses another user's id with 406."""
        channel = await self.confirming()
        name = await self.queue(channel)
        await channel.basic_publish("", name, b"x", BasicProperties(user_id="guest"))
        wrong = channel.basic_publish("", name, b"x", BasicProperties(user_id="somebody"))
        await self.failure(wrong, PreconditionFailed)


class PublishOverRabbitMQ(OverRabbitMQ, PublishServerCases):
    pass


class PublishOverBroker(OverBroker, PublishServerCases):
    pass


class PublishOverPeer(OverPeer, PublishCases):
    pass
