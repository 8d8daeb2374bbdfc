"""The embedded broker as users' tests see it."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.cases import ReactorTestCase
from tests.certificates import shared_authority
from txmsg.amqp import BasicProperties, TLSOptions, connect
from txmsg.broker.faults import Fault
from txmsg.broker.tls import ServerTLS
from txmsg.errors import AccessRefused, AuthenticationFailed, ConfigurationError, ConnectionForced, VirtualHostRefused
from txmsg.testing import EmbeddedBroker, NoSuchEntity, WaitTimeout


class LifeTests(ReactorTestCase):
    """Starting, connecting, stopping; that nothing is left in the reactor is checked by trial."""

    async def test_in_one_line(self) -> None:
        """R34: a broker, a client without a socket, a message, and a look at it."""
        async with EmbeddedBroker() as broker:
            connection = await broker.connect()
            channel = await connection.channel()
            await channel.confirm_select()
            await channel.queue_declare("jobs")
            await channel.basic_publish("", "jobs", b"first", BasicProperties(type="job", headers={"n": 1}))
            [message] = broker.queue("jobs").messages
            self.assertEqual((message.body, message.properties["type"], message.headers), (b"first", "job", {"n": 1}))
            self.assertIn("1 connections", repr(broker))
        self.assertFalse(connection.is_open)

    async def test_on_a_port(self) -> None:
        """For any client: below the ephemeral ports, on loopback, user guest."""
        async with EmbeddedBroker(listen=True) as broker:
            self.assertLess(broker.port, 32768)
            self.assertEqual(broker.url, f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F")
            connection = await connect(broker.url)
            [seen] = broker.connections
            self.assertEqual((seen.user, seen.vhost, seen.state), ("guest", "/", "running"))
            await connection.close()
            self.assertIn(f"port {broker.port}", repr(broker))

    async def test_a_url_for_somebody_else(self) -> None:
        """Names and passwords are given as they are, whatever is in them."""
        async with EmbeddedBroker(listen=True) as broker:
            broker.add_vhost("jobs/1 %2F")
            broker.add_user("a@b", "se/cr:et%", virtual_host="jobs/1 %2F")
            connection = await connect(broker.url_for(user="a@b", password="se/cr:et%", virtual_host="jobs/1 %2F"))
            [seen] = broker.connections
            self.assertEqual((seen.user, seen.vhost), ("a@b", "jobs/1 %2F"))
            await connection.close()

    async def test_over_tls(self) -> None:
        """The server's certificate is verified, as ever."""
        authority = shared_authority()
        issued = authority.issue("broker", dns=["localhost"], ip=["127.0.0.1"])
        async with EmbeddedBroker() as broker:
            listener = await broker.listen(
                tls=ServerTLS(cert_file=issued.certificate_file, key_file=issued.key_file),
            )
            parameters = broker.parameters(tls=TLSOptions(ca_file=str(authority.certificate_file)))
            self.assertEqual(parameters.port, listener.port)
            connection = await connect(parameters)
            self.assertTrue(connection.is_open)
            self.assertRaises(ConfigurationError, lambda: broker.port)
            await connection.close()

    async def test_without_a_port_there_is_no_url(self) -> None:
        """And the error says what to do."""
        async with EmbeddedBroker() as broker:
            self.assertIn("listen=True", str(self.assertRaises(ConfigurationError, lambda: broker.url)))

    async def test_stop_closes_everybody(self) -> None:
        """Clients of connect() are closed in good order, others are told why; stopping twice is fine."""
        broker = await EmbeddedBroker(listen=True).start()
        ours = await broker.connect()
        other = await connect(broker.url)
        await broker.stop()
        await broker.stop()
        self.assertEqual(getattr(await ours.when_closed(), "reply_code", 0), 200)
        self.assertIsInstance(await other.when_closed(), ConnectionForced)

    async def test_timers_end_with_it(self) -> None:
        """Queues with times to live leave nothing in the reactor."""
        async with EmbeddedBroker() as broker:
            broker.declare_queue("q", arguments={"x-message-ttl": 60000, "x-expires": 60000})
            self.assertTrue(broker.publish("", "q", b"x"))

    async def test_users_and_virtual_hosts(self) -> None:
        """With permissions, as RabbitMQ has them; a wrong password is answered at once."""
        async with EmbeddedBroker() as broker:
            broker.add_vhost("jobs")
            broker.add_user("worker", "secret", virtual_host="jobs", configure="^$", write="^$")
            started = broker.reactor.seconds()
            with self.assertRaises(AuthenticationFailed):
                await broker.connect(user="worker", password="wrong")
            self.assertLess(broker.reactor.seconds() - started, 0.5)
            with self.assertRaises(VirtualHostRefused):
                await broker.connect(user="worker", password="secret")
            connection = await broker.connect(user="worker", password="secret", virtual_host="jobs")
            channel = await connection.channel()
            with self.assertRaises(AccessRefused):
                await channel.queue_declare("q")
            await (await broker.connect(virtual_host="jobs")).channel()

    async def test_durable_things_survive(self) -> None:
        """With a data_dir: another broker finds what the first one left."""
        folder = self.mktemp()
        async with EmbeddedBroker(data_dir=folder) as broker:
            broker.declare_queue("q", durable=True)
            connection = await broker.connect()
            channel = await connection.channel()
            await channel.confirm_select()
            await channel.basic_publish("", "q", b"kept", BasicProperties(delivery_mode=2))
        async with EmbeddedBroker(data_dir=folder) as again:
            self.assertEqual(again.queue("q").bodies, [b"kept"])


class LookingTests(ReactorTestCase):
    """What can be seen."""

    async def test_queue(self) -> None:
        """Depth, unacked, consumers, and how it was declared; looking takes nothing away."""
        async with EmbeddedBroker() as broker:
            queue = broker.queue("q")
            self.assertFalse(queue.exists)
            self.assertIn("not there", repr(queue))
            connection = await broker.connect()
            channel = await connection.channel()
            await channel.queue_declare("q", auto_delete=True, arguments={"x-max-length": 5})
            for n in range(3):
                broker.publish("", "q", b"%d" % n)
            await channel.basic_get("q")
            self.assertTrue(queue.exists)
            self.assertEqual((queue.depth, queue.unacked, queue.bodies), (2, 1, [b"1", b"2"]))
            self.assertEqual((queue.durable, queue.exclusive, queue.auto_delete), (False, False, True))
            self.assertEqual(queue.arguments, {"x-max-length": 5})
            self.assertIn("2 ready, 1 unacked", repr(queue))
            await channel.basic_consume("q", print, consumer_tag="c", arguments={"x-priority": 3})
            [consumer] = queue.consumers
            self.assertEqual((consumer.tag, consumer.no_ack, consumer.priority), ("c", False, 3))
            self.assertEqual(list(broker.queues()), ["q"])
            await channel.close()

    async def test_redelivered(self) -> None:
        """A message that was given back says so."""
        async with EmbeddedBroker() as broker:
            broker.declare_queue("q")
            broker.publish("", "q", b"x")
            channel = await (await broker.connect()).channel()
            delivery = await channel.basic_get("q")
            assert delivery is not None
            delivery.nack()
            await broker.wait_for_depth("q", 1)
            self.assertTrue(broker.queue("q").messages[0].redelivered)

    async def test_exchanges_and_bindings(self) -> None:
        """Without those that are always there, unless they are asked for."""
        async with EmbeddedBroker() as broker:
            channel = await (await broker.connect()).channel()
            await channel.exchange_declare("logs", "topic", durable=True, arguments={"alternate-exchange": "other"})
            await channel.queue_declare("q")
            await channel.queue_bind("q", "logs", "a.#", arguments={"x": 1})
            logs = broker.exchange("logs")
            self.assertEqual(
                (logs.type, logs.durable, logs.arguments), ("topic", True, {"alternate-exchange": "other"})
            )
            [binding] = broker.bindings()
            self.assertEqual(logs.bindings, [binding])
            self.assertEqual(
                (binding.source, binding.destination, binding.destination_type, binding.routing_key, binding.arguments),
                ("logs", "q", "queue", "a.#", {"x": 1}),
            )
            self.assertEqual(list(broker.exchanges()), ["logs"])
            self.assertIn("amq.topic", broker.exchanges(standard=True))

    async def test_connections(self) -> None:
        """By the name that the client gave itself."""
        async with EmbeddedBroker() as broker:
            client = await broker.connect(connection_name="mine")
            channel = await client.channel()
            [seen] = broker.connections
            self.assertEqual((seen.connection_name, seen.channels), ("mine", [channel.channel_number]))
            self.assertIn("127.0.0.1", seen.name)
            self.assertIn("running", repr(seen))

    async def test_published(self) -> None:
        """What clients have published, routed or not, also in virtual hosts that come later."""
        async with EmbeddedBroker(record_published=True) as broker:
            broker.add_vhost("late")
            broker.declare_queue("q", virtual_host="late")
            for vhost in ("/", "late"):
                channel = await (await broker.connect(virtual_host=vhost)).channel()
                await channel.confirm_select()
                await channel.basic_publish("", "q", b"x", BasicProperties(app_id=vhost))
            self.assertEqual(
                [(m.routing_key, m.properties["app_id"], m.routed) for m in broker.published],
                [("q", "/", False), ("q", "late", True)],
            )

    async def test_what_is_not_there(self) -> None:
        """NoSuchEntity, which is a LookupError, names what there is."""
        async with EmbeddedBroker() as broker:
            broker.declare_queue("jobs")
            self.assertIn("'jobs'", str(self.assertRaises(NoSuchEntity, lambda: broker.queue("job").depth)))
            self.assertIn("amq.topic", str(self.assertRaises(LookupError, broker.exchange, "log")))
            self.assertIn("there are: /", str(self.assertRaises(NoSuchEntity, broker.queue, "q", virtual_host="x")))

    async def test_publishing_without_a_client(self) -> None:
        """False for a message that no queue took; a Fault for an exchange that is not there."""
        async with EmbeddedBroker() as broker:
            self.assertFalse(broker.publish("", "q", b""))
            self.assertRaises(Fault, broker.publish, "nowhere", "q", b"")
            queue = broker.declare_queue("q", durable=True)
            self.assertTrue(broker.publish("", "q", b"x", {"message_id": "1"}))
            self.assertEqual(queue.messages[0].properties, {"message_id": "1"})


class WaitingTests(ReactorTestCase):
    """Waiting for something to be so."""

    async def test_for_a_depth(self) -> None:
        """Of a queue that is not there yet; at once if it is so already."""
        async with EmbeddedBroker() as broker:
            waiting = broker.wait_for_depth("q", 2)
            broker.declare_queue("q")
            broker.publish("", "q", b"1")
            self.assertNoResult(waiting)
            broker.publish("", "q", b"2")
            self.assertEqual((await waiting).bodies, [b"1", b"2"])
            self.assertEqual(self.successResultOf(broker.wait_for_depth("q", 2)).depth, 2)

    async def test_for_consumers_and_for_the_end(self) -> None:
        """A consumer comes, and handles everything."""
        async with EmbeddedBroker() as broker:
            broker.declare_queue("q")
            broker.publish("", "q", b"1")
            channel = await (await broker.connect()).channel()
            await channel.basic_consume("q", lambda delivery: delivery.ack())
            await broker.wait_for_consumers("q", 1)
            await broker.wait_until_empty("q")

    async def test_in_vain(self) -> None:
        """WaitTimeout, an AssertionError, says how it was at the end."""
        async with EmbeddedBroker() as broker:
            broker.declare_queue("q")
            with self.assertRaises(WaitTimeout) as caught:
                await broker.wait_for_depth("q", 2, timeout=0.02)
            self.assertEqual(
                str(caught.exception), "not within 0.02 s: 2 messages in queue 'q'; it has 0, and 0 unacked"
            )
            with self.assertRaises(AssertionError) as other:
                await broker.wait_for_depth("missing", 2, timeout=0.01)
            self.assertIn("it is not there", str(other.exception))
            broker.publish("", "q", b"x")
            with self.assertRaises(WaitTimeout) as third:
                await broker.wait_until_empty("q", timeout=0.01)
            self.assertIn("it has 1 ready and 0 unacked", str(third.exception))


class ClockTests(SynchronousTestCase):
    """On a clock nothing needs time or a running reactor."""

    def test_everything_on_a_clock(self) -> None:
        """Login, publish, ten minutes of TTL, the end; nothing is left on the clock."""
        clock = Clock()
        broker = EmbeddedBroker(reactor=clock)
        self.successResultOf(broker.start())

        def result(deferred: Deferred[Any]) -> Any:
            clock.advance(0)
            return self.successResultOf(deferred)

        connection = result(broker.connect(heartbeat=0))
        channel = result(connection.channel())
        result(channel.queue_declare("q", arguments={"x-message-ttl": 600_000}))
        result(channel.confirm_select())
        result(channel.basic_publish("", "q", b"x"))
        clock.advance(599)
        self.assertEqual(broker.queue("q").depth, 1)
        clock.advance(2)
        self.assertEqual(broker.queue("q").depth, 0)
        stopped = broker.stop()
        clock.pump([0, 0, 0])
        self.successResultOf(stopped)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_the_same_events_each_time(self) -> None:
        """Two runs give the same, delivery by delivery."""
        assert self.run_once() == self.run_once()

    def run_once(self) -> list[tuple[str, int, bytes]]:
        """Two consumers that share a queue."""
        clock = Clock()
        broker = EmbeddedBroker(reactor=clock)
        broker.start()
        seen: list[tuple[str, int, bytes]] = []
        connecting = [broker.connect(heartbeat=0) for _ in range(2)]
        clock.advance(0)
        broker.declare_queue("q")
        for name, each in zip("ab", connecting, strict=True):
            opening = self.successResultOf(each).channel()
            clock.advance(0)
            channel = self.successResultOf(opening)
            channel.basic_qos(2)

            def handle(delivery: Any, name: str = name) -> None:
                seen.append((name, delivery.delivery_tag, delivery.body))
                if delivery.delivery_tag % 3:
                    delivery.ack()
                else:
                    delivery.nack()

            channel.basic_consume("q", handle)
        for n in range(20):
            broker.publish("", "q", b"%d" % n)
        for _ in range(3):
            clock.advance(0)
        stopped = broker.stop()
        clock.pump([0, 0, 0])
        self.successResultOf(stopped)
        return seen


def test_the_reactor_is_imported_when_it_is_needed() -> None:
    """A broker without a reactor of its own takes the installed one."""
    assert EmbeddedBroker().reactor is reactor
