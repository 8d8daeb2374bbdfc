"""AMQClient over RabbitMQ and over the embedded broker: logging in, and how a connection ends."""

from __future__ import annotations

from typing import Any

from twisted.internet import error as twisted_error
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.compat.txamqp.cases import OverBroker, OverRabbitMQ, TxAMQPCase, outcomes, pause, reactor, settle
from txmsg.compat.txamqp.client import (
    AlreadyFiredError,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    TwistedDelegate,
    TwistedEvent,
)
from txmsg.compat.txamqp.protocol import AMQClient
from txmsg.compat.txamqp.queue import Closed as QueueClosed
from txmsg.errors import ChannelNumberInUse, EncodeError


class Noting(TwistedDelegate):
    """Notes what it is told, as programs' delegates do."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.server_properties: dict[str, Any] = {}

    def connection_start(self, ch: Any, msg: Any) -> None:
        self.server_properties = msg.server_properties
        super().connection_start(ch, msg)

    def connection_close(self, ch: Any, msg: Any) -> None:
        self.notes.append(f"connection_close {ch.id} {msg.reply_code}")
        super().connection_close(ch, msg)

    def channel_close(self, ch: Any, msg: Any) -> None:
        self.notes.append(f"channel_close {ch.id} {msg.reply_code}")

    def close(self, reason: Any) -> None:
        self.notes.append("close")
        super().close(reason)


class Tuning(TwistedDelegate):
    """Answers connection.tune by itself."""

    def connection_tune(self, ch: Any, msg: Any) -> None:
        self.client.MAX_LENGTH = 8192
        ch.connection_tune_ok(channel_max=7, frame_max=8192, heartbeat=5)
        self.client.started.fire()


class Stubborn(TwistedDelegate):
    """Overrides what it should call, and does not."""

    def connection_close(self, ch: Any, msg: Any) -> None:
        raise RuntimeError("a bug of the program's")

    def close(self, reason: Any) -> None:
        return


class ClientCases(TxAMQPCase):
    async def test_logs_in(self) -> None:
        """authenticate: AMQPLAIN and PLAIN, by start() too; the delegate sees connection.start, the events fire."""
        for login in (
            lambda client: client.authenticate("guest", "guest"),
            lambda client: client.authenticate("guest", "guest", mechanism="PLAIN"),
            lambda client: client.start({"LOGIN": "guest", "PASSWORD": "guest"}),
            lambda client: client.start("\0guest\0guest", "PLAIN"),
        ):
            delegate = Noting()
            client = await self.tx_transport(delegate)
            started = client.started.wait()
            reply = await login(client)
            self.assertEqual((reply.method.klass.name, reply.method.name), ("connection", "open-ok"))
            self.assertTrue(await started)
            self.assertIn("product", delegate.server_properties)
            self.assertEqual(client.MAX_LENGTH, 131072)
            self.assertIsNone(client.response, "the password is not kept")
            await client.close()

    async def test_logs_in_with_bytes(self) -> None:
        """As programs of Python 2's time do."""
        for mechanism in ("AMQPLAIN", "PLAIN"):
            client = await self.tx_transport()
            await client.authenticate(b"guest", b"guest", mechanism)

    async def test_response_that_cannot_be_sent(self) -> None:
        """It ends the opening at once, also when it comes behind connection.start; nothing is logged."""
        for is_late in (False, True):
            client = await self.tx_transport()
            if is_late:
                await self.until(lambda client=client: client._login)
            error = await self.failure(client.start({"LOGIN": "guest", "PASSWORD": None}), Closed)
            self.assertIn("password", str(error))
            self.assertTrue(client.closed)

    async def test_logs_in_late(self) -> None:
        """connection.start may come before authenticate is called (txamqp: AttributeError, and nothing for ever)."""
        client = await self.tx_transport()
        await self.until(lambda: client.native.server_properties or client._login)
        await client.authenticate("guest", "guest")

    async def test_tunes_by_itself(self) -> None:
        """A delegate that overrides connection_tune decides on the limits."""
        client = await self.tx_connect(Tuning())
        negotiated = client.native.negotiated
        assert negotiated is not None
        self.assertEqual((negotiated.channel_max, negotiated.frame_max, negotiated.heartbeat), (7, 8192, 5))

    async def test_heartbeat(self) -> None:
        """0 asks for none; what the client is made with is agreed on."""
        for wish in (0, 30):
            client = await self.tx_connect(heartbeat=wish)
            assert client.native.negotiated is not None
            self.assertEqual(client.native.negotiated.heartbeat, wish)

    async def test_wrong_password(self) -> None:
        """The broker's words arrive, in `started` and in the login (txamqp: Closed without them)."""
        client = await self.tx_transport()
        started = client.started.wait()
        error = await self.failure(client.authenticate("guest", "wrong"), ConnectionClosed)
        self.assertEqual(error.args[0].reply_code, 403)
        self.assertIn("ACCESS_REFUSED", error.args[0].reply_text)
        self.assertIsInstance(await settle(started), Closed)
        self.assertNotIn("wrong", str(error))

    async def test_wrong_vhost(self) -> None:
        client = await self.tx_transport(vhost="there is none")
        error = await self.failure(client.authenticate("guest", "guest"), ConnectionClosed)
        self.assertEqual(error.args[0].reply_code, 530)

    async def test_unknown_mechanism(self) -> None:
        client = await self.tx_transport()
        await self.failure(client.authenticate("guest", "guest", mechanism="KERBEROS"), ValueError)

    async def test_close(self) -> None:
        """close(): channels and queues at once, whoever waits is told, and the broker too."""
        delegate = Noting()
        client = await self.tx_connect(delegate)
        channel = await self.tx_channel(client)
        queue = await self.tx_consume(channel, await self.tx_queue(channel))
        waiting = queue.get()
        returned = client.basic_return_queue.get()
        closing = client.close()
        self.assertTrue(client.closed)
        self.assertTrue(channel.closed)
        await self.failure(waiting, QueueClosed)
        await self.failure(returned, QueueClosed)
        await self.failure(channel.queue_declare(queue="late"), Closed)
        await closing
        self.assertTrue(await client.disconnected.wait())
        self.assertEqual(delegate.notes, ["close"])
        await client.close()
        await self.failure((await client.queue("another")).get(), QueueClosed)
        await self.failure((await self.channel_of(client, 9)).channel_open(), Closed)

    async def test_close_that_is_cancelled(self) -> None:
        """The connection ends all the same, and its limit with it."""
        client = await self.tx_connect()
        closing = client.close(within=300)
        closing.cancel()
        self.assertIsInstance(await settle(closing), CancelledError)
        self.assertTrue(await client.disconnected.wait())
        self.assertEqual([call for call in reactor.getDelayedCalls() if call.func == client.native.abort], [])

    async def test_close_with_unfetched_deliveries(self) -> None:
        """What the broker delivers again is not handed out any more; with no_ack, where it does not, it is."""
        client = await self.tx_connect()
        channel = await self.tx_channel(client)
        queues = [
            await self.tx_consume(channel, await self.tx_queue(channel, "one"), no_ack=no_ack)
            for no_ack in (False, True)
        ]
        await self.until(lambda: all(queue.pending for queue in queues))
        await client.close()
        await self.failure(queues[0].get(), QueueClosed)
        self.assertEqual((await queues[1].get()).content.body, "one")

    async def channel_of(self, client: AMQClient, number: int) -> Any:
        return await client.channel(number)

    async def test_close_within(self) -> None:
        """close(within=): nothing is closed before the broker agrees; the reason is the program's."""
        client = await self.tx_connect()
        queue = await client.queue("tag")
        waiting = outcomes([queue.get()])
        closing = client.close(RuntimeError("enough"), within=5)
        self.assertFalse(client.closed)
        self.assertEqual(waiting, [])
        await closing
        self.assertTrue(client.closed)
        self.assertEqual(str(waiting[0][1].args[0]), "enough")

    async def test_connection_close_on_channel_0(self) -> None:
        """The way of txamqp's examples."""
        client = await self.tx_connect()
        zero: Any = await client.channel(0)
        reply = await zero.connection_close()
        self.assertEqual(reply.method.name, "close-ok")
        self.assertTrue(client.closed)
        self.assertTrue(await client.disconnected.wait())

    async def test_closed_by_the_broker(self) -> None:
        """connection_close: every wait ends, with one Message for all (txamqp leaves the readers of queues waiting)."""
        delegate = Noting()
        client = await self.tx_connect(delegate)
        channel = await self.tx_channel(client)
        queue = await self.tx_consume(channel, await self.tx_queue(channel))
        waiting = queue.get()
        exchange = self.name("ex")[-200:]
        calls = outcomes([channel.exchange_declare(exchange=exchange, type="no such type"), channel.tx_select()])
        error = await self.failure(waiting, QueueClosed)
        await self.until(lambda: len(calls) == 2)
        for _, each in calls:
            self.assertIsInstance(each, ConnectionClosed)
            self.assertIs(each.args[0], error.args[0])
        self.assertIn(error.args[0].reply_code, (503, 541))
        self.assertEqual(delegate.notes, [f"connection_close 0 {error.args[0].reply_code}", "close"])
        later = await self.failure(channel.queue_declare(queue="late"), ConnectionClosed)
        self.assertIs(later.args[0], error.args[0])
        self.assertTrue(await client.disconnected.wait())

    async def test_a_delegate_that_fails(self) -> None:
        """Whatever its handlers do, the end of the connection is the end."""
        client = await self.tx_connect(Stubborn())
        channel = await self.tx_channel(client)
        await self.failure(channel.exchange_declare(exchange=self.name("ex")[-200:], type="none"), ConnectionClosed)
        self.assertTrue(client.closed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        refused = await self.tx_transport(Stubborn())
        await self.failure(refused.authenticate("guest", "wrong"), ConnectionClosed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_channel_closed_by_the_broker(self) -> None:
        """R17: channel_close: this channel alone, its consumers' queues too; its number can be opened again."""
        delegate = Noting()
        client = await self.tx_connect(delegate)
        channel, other = await self.tx_channel(client), await self.tx_channel(client, 2)
        queue = await self.tx_consume(channel, await self.tx_queue(channel))
        waiting = queue.get()
        calls = outcomes([channel.queue_bind(queue="no such queue", exchange="amq.direct"), channel.tx_select()])
        error = await self.failure(waiting, QueueClosed)
        await self.until(lambda: len(calls) == 2)
        self.assertEqual([type(each) for _, each in calls], [ChannelClosed, ChannelClosed])
        self.assertIs(calls[1][1].args[0], error.args[0])
        message = error.args[0]
        self.assertEqual((message.reply_code, message.method.klass.name), (404, "channel"))
        self.assertEqual((message.class_id, message.method_id), (50, 20))
        self.assertTrue(channel.closed)
        self.assertEqual(delegate.notes, ["channel_close 1 404"])
        await other.tx_select()
        again = await self.tx_channel(client)
        self.assertIsNot(again, channel)
        await again.tx_select()

    async def test_methods_on_channel_0(self) -> None:
        """connection_open and the replies are done already; the rest of the protocol is not for this channel."""
        client = await self.tx_connect(None)
        zero = await self.channel_of(client, 0)
        self.assertEqual((await zero.connection_open("/")).method.name, "open-ok")
        self.assertIsNone(await zero.connection_close_ok())
        self.assertEqual((await zero.connection_update_secret("guest", "why not")).method.name, "update-secret-ok")
        await self.failure(zero.connection_blocked(), EncodeError)
        await self.failure(zero.queue_declare(), EncodeError)

    async def test_a_delegate_that_fails_to_answer(self) -> None:
        """connection.start that cannot be answered ends the opening at once."""

        class Broken(TwistedDelegate):
            def connection_start(self, ch: Any, msg: Any) -> None:
                raise RuntimeError("a bug of the program's")

        client = await self.tx_transport(Broken())
        error = await self.failure(client.authenticate("guest", "guest"), Closed)
        self.assertIn("a bug of the program's", str(error.args[0]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_channel_numbers(self) -> None:
        """One that there is not fails by itself."""
        client = await self.tx_connect(Tuning())
        channel = await self.channel_of(client, 8)
        await self.failure(channel.channel_open(), ChannelNumberInUse)
        await self.failure((await self.channel_of(client, 8)).tx_select(), ChannelClosed)
        early = AMQClient(TwistedDelegate(), "/")
        await self.failure((await self.channel_of(early, 1)).channel_open(), Closed)
        await early.close()

    async def test_a_channel_regarded_as_closed(self) -> None:
        """channel.close(reason): nothing is sent any more, and its calls fail with the program's reason."""
        channel = await self.tx_channel()
        channel.close("mine")
        self.assertEqual((await self.failure(channel.tx_select(), Closed)).args, ("mine",))
        self.assertIsNone(await channel.channel_close_ok())

    async def test_socket_lost(self) -> None:
        """Closed carries Twisted's reason."""
        client = await self.tx_connect()
        channel = await self.tx_channel(client)
        transport: Any = client.transport
        transport.abortConnection()
        error = await self.failure(channel.tx_select(), Closed)
        self.assertIsInstance(error.args[0], Failure)
        self.assertIsInstance(error.args[0].value, twisted_error.ConnectionLost | twisted_error.ConnectionDone)
        self.assertTrue(await client.disconnected.wait())


class ClientOverRabbitMQ(OverRabbitMQ, ClientCases):
    __test__ = True


class ClientOverBroker(OverBroker, ClientCases):
    __test__ = True

    async def test_blocked(self) -> None:
        """connection.blocked reaches a delegate that asks for it."""

        class Blocked(TwistedDelegate):
            reasons: list[str] = []

            def connection_blocked(self, ch: Any, msg: Any) -> None:
                self.reasons.append(msg.reason)

        client = await self.tx_connect(Blocked())
        client.native._method_received(_blocked("low on memory"))
        self.assertEqual(Blocked.reasons, ["low on memory"])
        await pause(0)


def _blocked(reason: str) -> Any:
    from txmsg.wire.methods.connection import Blocked

    return Blocked(reason)


class SilentBrokerTests(SynchronousTestCase):
    """What has no broker, or one that says nothing."""

    def test_silent_broker(self) -> None:
        """R11: a broker that never begins ends the wait (txamqp waits for ever), and no timer stays."""
        clock = Clock()
        client = AMQClient(TwistedDelegate(), "/", clock=clock)
        client.makeConnection(StringTransport())
        d = client.authenticate("guest", "guest")
        clock.advance(29)
        self.assertNoResult(d)
        clock.advance(2)
        self.failureResultOf(d, Closed)
        client.connectionLost(Failure(twisted_error.ConnectionLost()))
        self.successResultOf(client.disconnected.wait())
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_no_password(self) -> None:
        """What a program forgot to set is told at once, and not sent as "None"."""
        client = AMQClient(TwistedDelegate(), "/", clock=Clock())
        for mechanism in ("AMQPLAIN", "PLAIN"):
            self.failureResultOf(client.authenticate("guest", None, mechanism), TypeError)
        client.close()

    def test_close_before_there_is_a_connection(self) -> None:
        client = AMQClient(TwistedDelegate(), "/", clock=Clock())
        self.successResultOf(client.close())
        self.assertTrue(client.closed)
        self.failureResultOf(client.started.wait(), Closed)

    def test_no_secret_is_shown(self) -> None:
        """C3.1"""
        client = AMQClient(TwistedDelegate(), "/", clock=Clock())
        client.authenticate("guest", "hush").addErrback(lambda failure: None)
        self.assertNotIn("hush", repr(client))
        self.assertNotIn("hush", repr(client.native))
        client.close()


class EventTests(SynchronousTestCase):
    """TwistedEvent."""

    def test_fires(self) -> None:
        event = TwistedEvent()
        waiting = event.wait()
        given_up = event.wait()
        given_up.addErrback(lambda failure: None)
        given_up.cancel()
        event.fire()
        self.assertTrue(self.successResultOf(waiting))
        self.assertTrue(self.successResultOf(event.wait()))
        self.assertRaises(AlreadyFiredError, event.fire)
        self.assertRaises(AlreadyFiredError, event.fail, None)
        event.fail_if_not_fired(RuntimeError())

    def test_fails(self) -> None:
        event = TwistedEvent()
        waiting = event.wait()
        event.fail(RuntimeError("no"))
        self.failureResultOf(waiting, RuntimeError)
        self.failureResultOf(event.wait(), RuntimeError)
