"""How publishes end, the life of a producer, and what is made for a message when nothing has to be waited for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.publishing.plain_transport import HOLD
from tests.messaging.publishing.producer_case import ProducerCase
from txmsg.errors import (
    NotBoundError,
    NotSent,
    PublishNacked,
    PublishReturned,
    TxmsgError,
)
from txmsg.messaging.connection.connection import Connection
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.entities import Exchange
from txmsg.messaging.publishing.producer import Producer


class WrongArgumentTests(ProducerCase):
    """kombu G8: an argument of the wrong type is the failure of this publish, typed, and is never raised."""

    def test_each(self) -> None:
        """Nothing is sent, and the next one is."""
        no_list: list[Any] = []
        no_mapping: dict[str, Any] = {}
        wrong: list[dict[str, Any]] = [
            *({"compression": value} for value in (5, b"zlib", ["zlib"])),
            *({"retry_policy": value, "retry": True} for value in (5, b"x", "1", ["max_retries"])),
            *({"declare": value} for value in (5, b"q", "queue", [5])),
            *({"delivery_mode": value} for value in (no_list, no_mapping, "sometimes")),
            *({"priority": value} for value in (no_list, no_mapping)),
            *({"headers": value} for value in (5, ["a"])),
            *({"expiration": value} for value in ("5", -1)),
            *({"timeout": value} for value in ("5", -1)),
        ]
        for arguments in wrong:
            with self.subTest(arguments=arguments):
                self.refused(TxmsgError, "x", **arguments)
        self.successResultOf(self.producer.publish("x", declare=None))  # type: ignore[arg-type]


class OutcomesTests(ProducerCase):
    """kombu G6, G23, G30; R1, R2."""

    def test_fires_at_the_confirm(self) -> None:
        """kombu G30: every publish is confirmed."""
        self.transport.publishes.extend([HOLD, HOLD])
        slow = [self.producer.publish(1), self.producer.publish(2)]
        self.assertNoResult(slow[0])
        unconfirmed = self.transport.made[0].channels[0].unconfirmed
        unconfirmed[1].callback(None)
        self.assertNoResult(slow[0])
        self.successResultOf(slow[1])
        unconfirmed[0].callback(None)
        self.successResultOf(slow[0])

    def test_nacked_and_returned(self) -> None:
        """kombu T4: typed, on the first publish and on later ones."""
        for _ in range(2):
            self.transport.publishes.extend([PublishNacked("full"), PublishReturned(312, "NO_ROUTE", "", "k")])
            self.failureResultOf(self.producer.publish(1), PublishNacked)
            self.failureResultOf(self.producer.publish(1, "k", mandatory=True), PublishReturned)

    def test_on_return(self) -> None:
        """kombu G6, G24, celery C-06: called too, with what was sent; kept when it is revived."""
        got: list[tuple[PublishReturned, str, str, Message]] = []
        producer = Producer(self.on, on_return=lambda *args: got.append(args))
        for retry in (False, True):
            producer.revive(self.on)
            self.transport.publishes.append(PublishReturned(312, "NO_ROUTE", "ex", "k"))
            sent = producer.publish({"a": 1}, "k", exchange="ex", mandatory=True, headers={"h": 1}, retry=retry)
            self.failureResultOf(sent, PublishReturned)
        for error, exchange, routing_key, message in got:
            self.assertIsInstance(error, PublishReturned)
            self.assertEqual((exchange, routing_key), ("ex", "k"))
            self.assertEqual((message.payload, message.headers), ({"a": 1}, {"h": 1}))
        self.assertEqual(len(got), 2)

    def test_on_return_that_fails(self) -> None:
        """kombu G6: logged; the outcome is the same."""

        def on_return(*args: Any) -> None:
            raise ZeroDivisionError

        self.transport.publishes.append(PublishReturned(312, "NO_ROUTE", "", "k"))
        self.failureResultOf(Producer(self.on, on_return=on_return).publish(1, mandatory=True), PublishReturned)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled_while_it_waits(self) -> None:
        """It is not sent."""
        self.transport.connects.append(HOLD)
        waiting = [self.producer.publish(1), self.producer.publish(2)]
        for published in waiting:
            published.addErrback(lambda _: None).cancel()
        self.assertEqual(self.transport.sent, [])
        self.publish(3)
        self.assertEqual(self.transport.bodies(), ["3"])

    def test_one_of_several_is_cancelled(self) -> None:
        """R8: the others keep their order and their outcomes."""
        held: Deferred[Any] = Deferred()
        self.transport.connects.append(held)
        waiting = [self.producer.publish(number) for number in range(4)]
        waiting[0].addErrback(lambda _: None).cancel()
        waiting[2].addErrback(lambda _: None).cancel()
        held.callback(None)
        self.assertEqual(self.transport.bodies(), ["1", "3"])
        self.successResultOf(waiting[1])
        self.successResultOf(waiting[3])


class LifeTests(ProducerCase):
    """kombu G1, G24 to G27."""

    def test_nothing_is_opened(self) -> None:
        """kombu G1, G26, G27, celery C-06: not by making it, asking for its channel, or showing it."""
        producer = self.producer
        self.assertIs(producer.connection, self.on)
        self.assertIs(producer.channel, self.on.default_channel)
        self.assertIn("Producer", repr(producer))
        self.assertEqual(self.transport.attempts, [])

    def test_without_a_channel(self) -> None:
        """kombu G1: until it is revived."""
        producer = Producer(None, Exchange("mine"))
        self.assertIsNone(producer.connection)
        self.assertIn("no channel", repr(producer))
        self.failureResultOf(producer.publish(1), NotBoundError)
        with self.assertRaises(NotBoundError):
            _ = producer.channel
        producer.revive(self.on)
        self.successResultOf(producer.publish(1))
        self.assertEqual(self.transport.log, ["exchange mine", "publish 1"])

    def test_on_a_channel(self) -> None:
        """kombu G1."""
        channel = self.successResultOf(self.on.channel())
        producer = Producer(channel)
        self.assertIs(producer.channel, channel)
        self.assertIs(producer.connection, self.on)
        self.successResultOf(producer.publish(1))
        self.assertFalse(self.on.default_channel.is_open)

    def test_the_exchange_is_bound_on_a_copy(self) -> None:
        """kombu G24: and bound again by `revive`, and by setting the channel."""
        exchange = Exchange("mine")
        producer = Producer(self.on, exchange)
        self.assertFalse(exchange.is_bound)
        self.assertIs(producer.exchange.channel, self.on.default_channel)
        other = self.successResultOf(self.on.channel())
        producer.channel = other
        self.assertIs(producer.exchange.channel, other)

    def test_another_connection(self) -> None:
        """kombu G24: the exchange is declared there, too."""
        self.producer = Producer(self.on, Exchange("mine"))
        self.publish(1)
        self.producer.revive(self.connection("scripted://b"))
        self.publish(2)
        self.assertEqual(self.transport.log, ["exchange mine", "publish 1", "exchange mine", "publish 2"])
        self.assertEqual(self.transport.attempts, ["a", "b"])

    def test_a_connection_that_was_closed_and_is_there_again(self) -> None:
        """kombu G24: the default channel is another one then."""
        self.publish(1)
        self.successResultOf(self.on.close())
        self.failureResultOf(self.producer.publish(2))
        self.successResultOf(self.on.connect())
        self.publish(3)
        self.assertEqual(self.transport.bodies(), ["1", "3"])

    def test_after_a_loss(self) -> None:
        """kombu G24, celery C-09: without a policy the next publish connects again, and declares."""
        self.producer = Producer(self.on, Exchange("mine"))
        self.publish(1)
        self.transport.made[0].lose()
        self.publish(2)
        self.assertEqual(self.transport.log, ["exchange mine", "publish 1"] * 1 + ["exchange mine", "publish 2"])

    def test_closed(self) -> None:
        """kombu G25: typed; the channel stays open; `revive` makes it usable again."""
        self.publish(1)
        self.transport.connects.append(HOLD)
        waiting = Producer(self.connection("scripted://b"))
        published = waiting.publish(2)
        self.successResultOf(waiting.close())
        self.failureResultOf(published, NotSent)
        self.successResultOf(self.producer.close())
        self.successResultOf(self.producer.close())
        self.assertTrue(self.producer.is_closed)
        self.refused(NotSent, 3)
        self.assertTrue(self.on.default_channel.is_open)
        self.producer.revive(self.on)
        self.publish(4)
        self.assert_nothing_is_left()

    def test_released(self) -> None:
        """kombu G25: to its pool; without one it is closed."""
        returned: list[Producer] = []

        class Pool:
            def release(self, producer: Producer) -> Deferred[None]:
                returned.append(producer)
                return Deferred.fromCoroutine(nothing())

        async def nothing() -> None:
            return None

        async def use() -> None:
            async with self.producer as entered:
                self.assertIs(entered, self.producer)

        self.producer.lender = Pool()
        self.successResultOf(Deferred.fromCoroutine(use()))
        self.successResultOf(self.producer.release())
        self.assertEqual(returned, [self.producer] * 2)
        self.assertFalse(self.producer.is_closed)
        self.producer.lender = None
        self.successResultOf(Deferred.fromCoroutine(use()))
        self.assertTrue(self.producer.is_closed)


class _Untouched(Deferred[Any]):
    """Nobody may add anything to it."""

    def addCallbacks(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses."""
        raise AssertionError("a callback was added")

    addCallback = addErrback = addBoth = addCallbacks


class HotPathTests(ProducerCase):
    """kombu G28: what is made for a message when there is nothing to wait for."""

    def test_the_deferred_is_the_transports(self) -> None:
        """Nothing stands between, and nothing is added to it."""
        self.publish(1)
        sent = _Untouched()
        self.transport.publishes.append(sent)
        self.assertIs(self.producer.publish(2), sent)

    def test_on_a_channel_that_is_open(self) -> None:
        """From the second publish on."""
        self.successResultOf(self.on.default_channel.open())
        self.publish(1)
        sent = _Untouched()
        self.transport.publishes.append(sent)
        self.assertIs(self.producer.publish(2), sent)

    def test_the_properties_are_shared(self) -> None:
        """One mapping for all messages that have the same."""
        seen: list[Any] = []
        self.publish(1)
        channel = self.transport.made[0].channels[0]
        publish: Callable[..., Any] = channel.publish

        def spy(
            exchange: str, routing_key: str, body: bytes, properties: Any = None, *, mandatory: bool = False
        ) -> Any:
            seen.append(properties)
            return publish(exchange, routing_key, body, properties, mandatory=mandatory)

        channel.publish = spy  # type: ignore[method-assign]
        for number in range(3):
            self.publish(number)
        self.publish(1, delivery_mode=1)
        self.assertIs(seen[0], seen[2])
        self.assertIsNot(seen[0], seen[3])
        self.assertEqual(json.loads(self.transport.sent[-1][2]), 1)

    def test_they_are_bounded(self) -> None:
        """A thousand content types do not stay."""
        for number in range(200):
            self.publish("x", content_type=f"text/x-{number}")
        self.assertLessEqual(len(self.producer._properties), 64)


def test_a_connection_has_a_shortcut() -> None:
    """kombu G1: `connection.Producer()`."""
    connection = Connection("memory://shortcut")
    producer = connection.Producer(serializer="json")
    assert producer.connection is connection
    assert producer.serializer == "json"
