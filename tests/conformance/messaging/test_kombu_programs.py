"""The real Kombu on the other side: simple queues, broadcasting, replies, and mailboxes of processes, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu as untyped_kombu
import kombu.common as untyped_common
import kombu.pidbox as untyped_pidbox

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverRabbitMQ
from txmsg.messaging import Broadcast, Consumer, Message, Queue, send_reply
from txmsg.messaging.pidbox import Mailbox

kombu: Any = untyped_kombu
common: Any = untyped_common
pidbox: Any = untyped_pidbox


def with_kombu(url: str, use: Callable[[Any], Any]) -> Any:
    """Call `use(connection)`, which must not wait for long."""
    with kombu.Connection(url) as connection:
        return use(connection)


class KombuProgramCases(MessagingCase):
    """Both ways."""

    __test__ = False

    async def kombu(self, use: Callable[[Any], Any]) -> Any:
        """Call `use(Kombu's connection)` in a thread."""
        return await self.in_thread(with_kombu, self.url(), use)

    async def test_simple_queues(self) -> None:
        """Kombu M1, M4, M5, M7: one puts, the other gets; both declare it alike."""
        name = self.name("simple")

        def put(connection: Any) -> None:
            with connection.SimpleQueue(name) as queue:
                queue.put({"from": "kombu"}, headers={"n": 1}, compression="zlib")

        await self.kombu(put)
        connection = self.connection()
        async with connection.SimpleQueue(name) as queue:
            message = await queue.get(timeout=10)
            self.assertEqual((message.payload, message.headers["n"]), ({"from": "kombu"}, 1))
            message.ack()
            await queue.put({"from": "txmsg"}, headers={"n": 2}, compression="zlib")

        def get(connection: Any) -> Any:
            with connection.SimpleQueue(name) as queue:
                message = queue.get(timeout=10)
                message.ack()
                return message.payload, message.headers["n"]

        self.assertEqual(await self.kombu(get), ({"from": "txmsg"}, 2))
        await Queue(name)(connection).delete()

    async def test_broadcast(self) -> None:
        """Kombu O1: who is on a fanout of one hears the other."""
        name, got = self.name("cast"), list[Any]()
        connection = self.connection()

        def tell(connection: Any) -> None:
            connection.Producer().publish("hear", exchange=kombu.Exchange(name, "fanout"))

        async with connection.Consumer(Broadcast(name), no_ack=True, callbacks=[lambda body, _: got.append(body)]):
            await self.kombu(tell)
            await self.until(lambda: got)

        def hear(connection: Any) -> Any:
            heard: list[Any] = []
            with connection.Consumer(common.Broadcast(name), no_ack=True, callbacks=[lambda b, m: heard.append(b)]):
                connection.Producer().publish("ready", routing_key=f"{name}.ready")
                for _ in range(10):
                    if not heard:
                        connection.drain_events(timeout=10)
            return heard

        ready = Queue(f"{name}.ready", auto_delete=True)

        def on_ready(body: Any, message: Message) -> Any:
            message.ack()
            return connection.Producer().publish("here", exchange=name)

        async with connection.Consumer(ready, callbacks=[on_ready]):
            self.assertEqual(await self.kombu(hear), ["here"])
        self.assertEqual(got, ["hear"])

    async def test_our_reply(self) -> None:
        """Kombu O8, O15: Kombu asks, we answer with its correlation_id, and its serializer."""
        name, connection = self.name("q"), self.connection()

        def on_request(body: Any, message: Message) -> Any:
            message.ack()
            return send_reply("", message, {"n": body["n"] * 2}, connection.Producer())

        def ask(connection: Any) -> Any:
            replies = kombu.Queue(f"{name}.replies", exclusive=True)(connection)
            replies.declare()
            connection.Producer().publish(
                {"n": 2}, routing_key=name, reply_to=replies.name, correlation_id="c-1", serializer="yaml"
            )
            messages = common.itermessages(connection, connection.default_channel, replies, timeout=10, accept=["yaml"])
            body, message = next(messages)
            return body, message.properties["correlation_id"], message.content_type

        async with connection.Consumer(Queue(name, auto_delete=True), callbacks=[on_request], accept=["yaml"]):
            self.assertEqual(await self.kombu(ask), ({"n": 4}, "c-1", "application/x-yaml"))

    async def test_their_node(self) -> None:
        """Kombu P3, P5, P10: we call a node that Kombu runs."""
        namespace = self.name("ns")[-60:]
        client = Mailbox(namespace)(self.connection())

        def serve(connection: Any) -> None:
            mailbox = pidbox.Mailbox(namespace)
            with connection.channel() as channel:
                node = mailbox(connection).Node("theirs", state={"n": 1}, channel=channel)
                node.handlers["double"] = lambda state, n, **_: state["n"] + 2 * n
                with node.listen(callback=node.handle_message):
                    connection.Producer().publish("ready", routing_key=f"{namespace}.ready")
                    connection.drain_events(timeout=10)

        replies: list[Any] = []

        async def on_ready(body: Any, message: Message) -> None:
            message.ack()
            replies.extend(await client.call(["theirs"], "double", {"n": 3}, timeout=10))

        ready = Queue(f"{namespace}.ready", auto_delete=True)
        async with Consumer(self.connection(), ready, callbacks=[on_ready]):
            await self.kombu(serve)
            await self.until(lambda: replies)
        self.assertEqual(replies, [{"theirs": 7}])
        await client.close()

    async def test_our_node(self) -> None:
        """Kombu P3, P5, P10: Kombu calls a node that we run."""
        namespace = self.name("ns")[-60:]
        node = Mailbox(namespace)(self.connection()).Node("ours", state={"n": 1})

        @node.handler
        def double(state: Any, n: int, **_: Any) -> int:
            return int(state["n"]) + 2 * n

        await node.listen()

        def call(connection: Any) -> Any:
            return pidbox.Mailbox(namespace)(connection).call(["ours"], "double", {"n": 3}, timeout=10)

        self.assertEqual(await self.kombu(call), [{"ours": 7}])
        await node.close()


class KombuProgramsOverBroker(OverBroker, KombuProgramCases):
    """On our own broker."""


class KombuProgramsOverRabbitMQ(OverRabbitMQ, KombuProgramCases):
    """On RabbitMQ."""
