"""Calls over memory://, the embedded broker and RabbitMQ, through cuts and a restart (R27, R30, C6.1, C6.3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.certificates import shared_authority
from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ, reactor
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    NoResponder,
    RemoteError,
    RPCError,
    RPCTimeout,
)
from txmsg.messaging import Queue
from txmsg.rpc import ReplyCounts, RPCClient, RPCServer, replies, reply_channel


class RPCCase(MessagingCase):
    """A server of a few functions, and clients."""

    async def serve(self, queue: Any = None, **settings: Any) -> RPCServer:
        """A server that runs; stopped at the end."""
        self.queue = f"rpc.{id(self):x}"
        server = RPCServer(self.connection(), queue or Queue(self.queue, auto_delete=True), **settings)

        @server.register
        def add(a: int, b: int) -> int:
            return a + b

        @server.register
        async def sleep(seconds: float) -> str:
            await deferLater(reactor, seconds)
            return "slept"

        @server.register(bind=True)
        def steps(call: Any, count: int) -> str:
            for n in range(count):
                call.progress(n)
            return "end"

        @server.register
        def fail(text: str) -> None:
            raise ValueError(text, 1)

        await server.start()
        self.addCleanup(server.stop)
        return server

    def client(self, **settings: Any) -> RPCClient:
        made = RPCClient(self.connection(), **settings)
        self.addCleanup(made.close)
        return made


class RPCCases(RPCCase):
    """Each outcome, with direct replies and with a queue."""

    async def test_outcomes(self) -> None:
        """R27: result, RemoteError, NoResponder, RPCTimeout; progress; cancelling."""
        await self.serve()
        for reply in ("auto", "direct", "queue"):
            client = self.client(reply=reply)
            self.assertEqual(await client.call(self.queue, "add", 1, b=2), 3)
            is_direct = client.reply_to == "amq.rabbitmq.reply-to"
            self.assertEqual(is_direct, reply != "queue")
            if not is_direct:
                self.assertTrue(client.reply_to.startswith("amq.gen-"))
            error = await self.failure(client.call(self.queue, "fail", "no"), RemoteError)
            self.assertEqual((error.exc_type, error.exc_args), ("ValueError", ("no", 1)))
            unanswered = await self.failure(client.call("rpc.nowhere", "add"), NoResponder)
            self.assertEqual(unanswered.routing_key, "rpc.nowhere")
            await self.failure(client.request(self.queue, "sleep", [0.3], timeout=0.1), RPCTimeout)
            cancelled = client.call(self.queue, "sleep", 0.3)
            cancelled.cancel()
            await self.failure(cancelled, CancelledError)
            seen: list[int] = []
            self.assertEqual(await client.request(self.queue, "steps", [3], on_progress=seen.append), "end")
            self.assertEqual(seen, [0, 1, 2])
            await self.until(lambda client=client: client.counts.late == 2)
            self.assertEqual(client.counts, ReplyCounts(late=2))
            await client.close()

    async def test_many(self) -> None:
        """Thousands in flight, each with its own answer; several clients of several servers on one queue."""
        await self.serve()
        other = RPCServer(self.connection(), Queue(self.queue, auto_delete=True))
        other.register(lambda a, b: a + b, "add")
        await other.start()
        self.addCleanup(other.stop)
        clients = [self.client(), self.client(reply="queue")]
        calls = [client.call(self.queue, "add", n, 1) for n in range(1500) for client in clients]
        self.assertEqual([client.pending for client in clients], [1500, 1500])
        self.assertEqual(await gatherResults(calls), [n + 1 for n in range(1500) for _ in clients])
        for client in clients:
            self.assertEqual((client.pending, client.counts), (0, ReplyCounts()))
        self.assertGreater(other.counts.succeeded, 0)

    async def test_forged(self) -> None:
        """C6.3, R27: wrong ids, what is no reply, a second reply: dropped, and the call has its own."""
        connection = self.connection()
        channel = await connection.channel()
        queue = (await channel.queue_declare("", exclusive=True)).name
        requests: list[Any] = []
        await channel.consume(queue, requests.append, no_ack=True)
        client = self.client()
        call = client.call(queue, "add", 1, 2)
        await self.until(lambda: requests)
        properties = requests[0].properties
        true = {"content_type": "application/json", "correlation_id": properties["correlation_id"]}
        for body, given in [
            (b'{"result": "forged"}', {**true, "correlation_id": "0" * 32}),
            (b'{"result": "forged"}', {"content_type": "application/json"}),
            (b'{"resul', true),
            (b"\x80\x04N.", {**true, "content_type": "application/x-python-serialize"}),
            (json.dumps({"result": "true"}).encode(), true),
            (json.dumps({"result": "again"}).encode(), true),
        ]:
            await channel.publish("", properties["reply_to"], body, given)
        self.assertEqual(await call, "true")
        await self.until(lambda: client.counts.duplicate)
        self.assertEqual(client.counts, ReplyCounts(unknown=2, undecodable=2, duplicate=1))

    async def test_reply_addresses(self) -> None:
        """C6.1: a server writes into no queue that a caller chooses."""
        server = await self.serve()
        channel = await self.connection().channel()
        await channel.queue_declare("rpc.orders", durable=True)
        self.addCleanup(channel.queue_delete, "rpc.orders")
        body = json.dumps({"method": "add", "args": [1, 2]}).encode()
        await channel.publish(
            "", self.queue, body, {"content_type": "application/json", "reply_to": "rpc.orders", "correlation_id": "1"}
        )
        await self.until(lambda: server.counts.refused)
        self.assertEqual((await channel.queue_declare("rpc.orders", passive=True)).message_count, 0)
        self.assertEqual(server.counts.succeeded, 0)

    async def test_cut(self) -> None:
        """R27: calls under way fail with the error of the connection; the next works; peers 55."""
        await self.serve(drain_timeout=0.1)
        for reply in ("direct", "queue"):
            client = self.client(reply=reply)
            await client.call(self.queue, "add", 1, 2)
            calls = [client.call(self.queue, "sleep", 5) for _ in range(3)]
            await self.pause(0.1)
            await self.cut()
            for call in calls:
                await self.failure(call, ConnectionClosed)
            # The server is not back yet, perhaps: nobody may answer for a moment.
            self.assertEqual(await self.answered(client, 20, 22), 42)
            self.assertEqual(client.pending, 0)
            await client.close()

    async def answered(self, client: RPCClient, *args: Any) -> Any:
        """What a call is answered, when it is."""
        for _ in range(100):
            try:
                return await client.request(self.queue, "add", args, timeout=5.0)
            except (RPCError, ConnectionClosed):
                await self.pause(0.1)
        raise self.failureException("no answer")

    async def test_the_channel_is_closed(self) -> None:
        """By the broker, for an exchange that is not there: the calls fail with that, the next one works."""
        await self.serve()
        client = self.client(exchange="rpc.missing")
        await self.failure(client.call(self.queue, "add", 1, 2), ChannelClosed)
        client.exchange = ""
        self.assertEqual(await client.call(self.queue, "add", 1, 2), 3)

    async def test_drain(self) -> None:
        """R30: what runs is answered, what was not begun waits for the next server."""
        server = await self.serve(Queue(f"rpc.{id(self):x}", durable=True), concurrency=1, prefetch_count=3)
        channel = await self.connection().channel()
        self.addCleanup(channel.queue_delete, self.queue)
        client = self.client()
        calls = [client.call(self.queue, "sleep", 0.3) for _ in range(3)]
        await self.until(lambda: server.counts.received == 3)
        await server.stop()
        self.assertEqual(await calls[0], "slept")
        self.assertEqual(server.counts.given_back, 2)
        again = await self.serve(Queue(self.queue, durable=True))
        self.assertEqual(await gatherResults(calls[1:]), ["slept", "slept"])
        self.assertEqual(again.counts.succeeded, 2)

    async def test_expired_in_the_queue(self) -> None:
        """A call that timed out before a server came is not run."""
        queue = Queue(f"rpc.{id(self):x}", durable=True)
        channel = await self.connection().channel()
        await channel.queue_declare(queue.name, durable=True)
        self.addCleanup(channel.queue_delete, queue.name)
        client = self.client()
        await self.failure(client.request(queue.name, "add", [1, 2], timeout=0.1), RPCTimeout)
        server = await self.serve(queue)
        self.assertEqual(await client.call(queue.name, "add", 2, 2), 4)
        self.assertEqual(server.counts.succeeded, 1)


class RPCOverMemory(OverMemory, RPCCases):
    """memory://."""


class RPCOverBroker(OverBroker, RPCCases):
    """Our own broker."""


class WithoutPlainChannels(OverBroker, RPCCases):
    """Our own broker, over channels with confirms that come back by themselves: what another transport may have."""

    def setUp(self) -> Any:
        """No plain channels."""

        def channel(connection: Any, on_return: Any = None) -> Any:
            return connection.channel()

        self.patch(reply_channel, "open_plain_channel", channel)
        self.patch(replies, "open_plain_channel", channel)
        return super().setUp()

    async def test_the_channel_is_closed(self) -> None:
        """It is open again before anybody knows, and the publish says what was wrong."""
        await self.serve()
        client = self.client(exchange="rpc.missing")
        await self.failure(client.call(self.queue, "add", 1, 2), ChannelClosed)
        client.exchange = ""
        self.assertEqual(await self.answered(client, 1, 2), 3)


class RPCOverRabbitMQ(OverRabbitMQ, RPCCases):
    """RabbitMQ."""


class OverTLS(OverBroker, RPCCase):
    """amqps://."""

    async def test_calls(self) -> None:
        """The same over TLS, alone and many at a time."""
        await self.node.listen_with_tls()
        self.tls_url = f"amqps://localhost:{self.node.tls_port}?ssl_ca_certs={shared_authority().certificate_file}"
        await self.serve()
        client = self.client()
        self.assertEqual(await client.call(self.queue, "add", 1, 2), 3)
        calls = [client.call(self.queue, "add", n, 1) for n in range(300)]
        self.assertEqual(await gatherResults(calls), [n + 1 for n in range(300)])

    def url(self) -> str:
        """Of the port for TLS."""
        return self.tls_url


class RestartCases(RPCCase):
    """The broker is killed and comes again."""

    async def test_restart(self) -> None:
        """R27, peers 55: calls end at once; a call made while it is away is answered when it is back."""
        await self.serve(Queue(f"rpc.{id(self):x}", durable=True), drain_timeout=0.1)
        client = self.client(timeout=60.0)
        await client.call(self.queue, "add", 1, 2)
        call = client.call(self.queue, "sleep", 30)
        await self.pause(0.1)
        restarting = Deferred.fromCoroutine(self.restart())
        await self.failure(call, ConnectionClosed)
        outcome: Any = None
        for _ in range(100):
            try:
                outcome = await client.call(self.queue, "add", 1, 2)
                break
            except ConnectionClosed:  # it waits for operation_timeout at most
                await self.pause(0.1)
        await restarting
        self.assertEqual(outcome, 3)


class RestartOverBroker(OverBroker, RestartCases):
    """Our own broker."""

    durable = True


@pytest.mark.long
class RestartOverRabbitMQ(OverRabbitMQ, RestartCases):
    """RabbitMQ."""
