"""Workers as classes, and commands for processes."""

from __future__ import annotations

import warnings
from typing import Any

from twisted.application.service import MultiService

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory
from txmsg.messaging import Channel, Connection, Consumer, ConsumerMixin, Exchange, Message, Queue
from txmsg.messaging.pidbox import Mailbox


class MixinExamples(OverMemory, MessagingCase):
    """Over ``memory://``."""

    async def test_minimal(self) -> None:
        """Example 13: a consumer program; a service instead of a thread's `run`."""

        class C(ConsumerMixin):
            def __init__(self, connection: Connection) -> None:
                self.connection = connection
                self.bodies: list[Any] = []

            def get_consumers(self, Consumer: Any, channel: Any) -> Any:
                return [Consumer(Queue("q"), callbacks=[self.on_message], accept=["json"])]

            def on_message(self, body: Any, message: Message) -> None:
                self.bodies.append(body)
                message.ack()

        worker, application = C(self.connection()), MultiService()
        worker.setServiceParent(application)
        application.startService()
        connection = self.connection()
        await connection.Producer().publish({"n": 1}, routing_key="q", declare=[Queue("q")])
        await self.until(lambda: worker.bodies)
        await application.stopService()
        self.assertEqual(worker.bodies, [{"n": 1}])

    async def test_two_channels(self) -> None:
        """Example 13: consumers on a channel each; the hook is `on_consume_end`, and its misspelling is warned of."""

        class C(ConsumerMixin):
            channel2: Any = None
            bodies: list[Any]

            def __init__(self, connection: Connection) -> None:
                self.connection = connection
                self.bodies = []

            def get_consumers(self, _: Any, default_channel: Any) -> Any:
                self.channel2 = Channel(default_channel.connection)
                return [
                    Consumer(default_channel, Queue("a"), callbacks=[self.on_message], prefetch_count=10),
                    Consumer(self.channel2, Queue("b"), callbacks=[self.on_message], prefetch_count=1),
                ]

            def on_message(self, body: Any, message: Message) -> None:
                self.bodies.append(body)
                message.ack()
                self.should_stop = len(self.bodies) == 2

            async def on_consume_end(self, connection: Any, default_channel: Any) -> None:
                await self.channel2.close()

        connection = self.connection()
        for name in "ab":
            await connection.Producer().publish(name, routing_key=name, declare=[Queue(name)])
        worker = C(self.connection())
        await worker.run()
        self.assertEqual((sorted(worker.bodies), worker.channel2.is_open), (["a", "b"], False))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            type("Misspelt", (ConsumerMixin,), {"on_consumer_end": lambda *arguments: None})
        self.assertIn("the hook is on_consume_end", str(warned[0].message))


class MailboxExamples(OverBroker, MessagingCase):
    """Over our own broker: each process has a connection of its own."""

    async def test_mailbox(self) -> None:
        """Example 31: a node with a state and a command, and who asks it and tells it."""
        mailbox = Mailbox("testMailbox", type="direct")
        state = {"connections": 1}
        node = mailbox(self.connection()).Node("node1.example.com", state=state)

        @node.handler
        def reload_settings(state: dict[str, int], **arguments: Any) -> int:
            state["connections"] = arguments["connections"]
            return state["connections"]

        await node.listen()
        client = mailbox(self.connection())
        replies = await client.call(["node1.example.com"], "reload_settings", {"connections": 5}, timeout=10)
        self.assertEqual(replies, [{"node1.example.com": 5}])
        await client.cast(["node1.example.com"], "reload_settings", {"connections": 7})
        await self.until(lambda: state["connections"] == 7)
        await client.close()
        await node.close()


class UnroutableExamples(OverMemory, MessagingCase):
    """What nobody takes."""

    async def test_a_queue_for_the_unroutable(self) -> None:
        """Example 42: the exchange has another one for what it cannot route."""
        connection = self.connection()
        dead = Queue("ae.undeliver", Exchange("undeliverable", "fanout"))(connection)
        await dead.declare()
        tasks = Exchange("tasks", "direct", arguments={"alternate-exchange": "undeliverable"})
        await connection.Producer(exchange=tasks).publish("lost", routing_key="nowhere")
        message = await dead.get(no_ack=True)
        assert message is not None
        self.assertEqual((message.payload, message.delivery_info["routing_key"]), ("lost", "nowhere"))
