"""The broker ends the connection or a channel, at any moment; both sides end it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import body, commands, frame, header
from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, outcomes, pause, settle
from tests.conformance.minibroker import Session, finish, ignore
from txmsg.amqp import Delivery
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    LocalProtocolError,
    NotFound,
    RemoteProtocolError,
    SettlementError,
    connection_error,
)


class ServerCloseCases(OverPeer, BrokerCase):
    async def test_the_reason_survives(self) -> None:
        """24.1, F-16, F-19, F-21, J-09, W-30, S-12: close-ok is written; one reason object reaches all who wait."""
        for code in (320, 501, 504, 505, 530, 541, 599):
            connection = await self.connect()
            channels = await gatherResults([connection.channel() for _ in range(3)])
            name = await self.queue(channels[0])
            consumer = await channels[0].basic_consume(name)
            self.broker.on["Queue.Purge"] = ignore
            self.broker.on["Channel.Open"] = ignore
            self.broker.on["content"] = ignore
            await channels[1].confirm_select()
            waiting: list[Deferred[Any]] = [
                consumer.get(),
                channels[1].queue_purge(name),
                connection.channel(),
                channels[1].basic_publish("", name, b"x"),
            ]
            await channels[2].basic_qos(1)
            session = self.session
            session.close_connection(code, f"SOMETHING - bye {code}", 50, 30)
            reason = await connection.closed
            assert isinstance(reason, ConnectionClosed)
            self.assertIs(type(reason), type(connection_error(code, "")))
            self.assertEqual((reason.reply_code, reason.reply_text), (code, f"SOMETHING - bye {code}"))
            self.assertEqual((reason.initiator, reason.method_name), ("server", "queue.purge"))
            for deferred in waiting:
                self.assertIs(await settle(deferred), reason)
            for channel in channels:
                self.assertIs(await channel.closed, reason)
                self.assertIs(await self.failure(channel.basic_qos(1), ConnectionClosed), reason)
            self.assertIs(await self.failure(connection.channel(), ConnectionClosed), reason)
            self.assertTrue(connection.is_closed)
            self.assertIs(await connection.close(), reason)
            await session.gone
            self.assertEqual(session.names()[-1], "Connection.CloseOk")
            self.broker.on.clear()

    async def test_the_socket_is_lost(self) -> None:
        """F-20, S-04, W-34, W-67, peers 6: reset or finished under fifty pending calls: ConnectionLost, each once."""
        for leave in (Session.hang_up, finish):
            connection = await self.connect()
            channel = await connection.channel()
            self.broker.on["Basic.Qos"] = ignore
            pending = [channel.basic_qos(n) for n in range(50)]
            seen = outcomes(pending)
            await self.until(lambda: self.session.names().count("Basic.Qos") == 50)
            leave(self.session)
            reason = await connection.closed
            self.assertIsInstance(reason, ConnectionLost)
            assert isinstance(reason, ConnectionLost)
            self.assertEqual((reason.initiator, reason.reply_code), ("transport", 0))
            self.assertIsNotNone(reason.cause)
            self.assertEqual([value for _, value in seen], [reason] * 50)
            self.assertNotIn("Channel.Close", self.session.names())
            self.broker.on.clear()

    async def test_in_the_middle_of_a_message(self) -> None:
        """F30, F5, J-19: half a delivery, then connection.close, or the end of the socket."""
        half = commands.Basic.Deliver("t", 1, False, "", "q")
        for ending, types in [
            (lambda s: s.close_connection(320, "CONNECTION_FORCED"), (ConnectionForced,)),
            (Session.hang_up, (ConnectionLost,)),
            (finish, (ConnectionLost,)),
        ]:
            connection = await self.connect()
            channel = await connection.channel()
            await channel.basic_consume(await self.queue(channel), consumer_tag="t")
            session = self.session
            session.send(channel.channel_number, half)
            session.write(b"\x02\x00\x01\x00\x00\x00\x0e" + b"\x00\x3c\0\0" + bytes(7) + b"\x09\0\0\xce")
            session.write(b"\x03\x00\x01\x00\x00\x00\x09abc"[: 10 if types == (ConnectionLost,) else 0])
            ending(session)
            self.assertIsInstance(await connection.closed, types)

    async def test_both_sides_close_the_connection(self) -> None:
        """F30, R29: the broker's close crosses ours: it ends, once, within a moment."""
        for answer_ours in (True, False):
            connection = await self.connect()

            def cross(session: Session, number: int, method: Any, answer_ours: bool = answer_ours) -> bool:
                session.close_connection(320, "CONNECTION_FORCED - crossing")
                return not answer_ours

            self.broker.on["Connection.Close"] = cross
            started = self.now()
            reason = await connection.close()
            self.assertLess(self.now() - started, 3.0)
            self.assertIsInstance(reason, ConnectionClosed)
            self.assertIs(await connection.closed, reason)
            self.assertIs(await connection.close(), reason)
            self.broker.on.clear()

    async def test_the_broker_closes_a_channel(self) -> None:
        """M-17, 24.6, F31: close-ok is answered, the number is free, frames still under way are ignored."""
        connection = await self.connect()
        channel = await connection.channel()
        await channel.basic_consume(await self.queue(channel), consumer_tag="t")
        session, number = self.session, channel.channel_number
        session.close_channel(session.channels[number], 406, "PRECONDITION_FAILED - because", 60, 80)
        reason = await channel.closed
        assert isinstance(reason, ChannelClosed)
        self.assertEqual((reason.reply_code, reason.method_name), (406, "basic.ack"))
        again = await connection.channel()
        self.assertEqual(again.channel_number, number)

    async def test_both_sides_close_a_channel(self) -> None:
        """M-15, W-16, 24.7: close-ok is answered; the reason is the broker's; the number waits for close-ok to ours."""
        connection = await self.connect()
        channel = await connection.channel()
        session = self.session

        def cross(session: Session, number: int, method: Any) -> bool:
            session.send(number, commands.Channel.Close(404, "NOT_FOUND - crossing", 50, 10))
            return True

        self.broker.on["Channel.Close"] = cross
        closed = channel.close()
        reason = await closed
        self.assertIsInstance(reason, NotFound)
        self.assertIs(await channel.closed, reason)
        await self.until(lambda: "Channel.CloseOk" in session.names())
        other = await connection.channel()
        self.assertNotEqual(other.channel_number, channel.channel_number)
        session.channels.pop(channel.channel_number, None)
        session.send(channel.channel_number, commands.Channel.CloseOk())
        await other.basic_qos(1)
        self.assertEqual((await connection.channel()).channel_number, channel.channel_number)

    async def test_frames_for_a_channel_that_we_are_closing(self) -> None:
        """R17, F31: deliveries and replies that arrive after our channel.close are discarded until close-ok."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel)
        delivered: list[Any] = []
        await channel.basic_consume(name, delivered.append, consumer_tag="t")

        def late(session: Session, number: int, method: Any) -> bool:
            for tag in (1, 2, 3):
                session.send_content(number, commands.Basic.Deliver("t", tag, False, "", name), b"\0\0", b"late")
            session.send(number, commands.Basic.Cancel("t", nowait=False))
            return False

        self.broker.on["Channel.Close"] = late
        await channel.close()
        self.assertEqual(delivered, [])
        self.assertTrue(connection.is_open)
        self.assertEqual((await connection.channel()).channel_number, channel.channel_number)

    async def test_close_crosses_a_pending_call(self) -> None:
        """M-16, W-14: the broker closes the channel while a call and our close are under way."""
        connection = await self.connect()
        channel = await connection.channel()

        def refuse(session: Session, number: int, method: Any) -> bool:
            session.close_channel(session.channels[number], 403, "ACCESS_REFUSED - no", 50, 10)
            return True

        self.broker.on["Queue.Declare"] = refuse
        declared = channel.queue_declare("q")
        closed = channel.close()
        error = await self.failure(declared, ChannelClosed)
        self.assertEqual(error.reply_code, 403)
        self.assertIs(await closed, error)
        await self.until(lambda: "Channel.CloseOk" in self.session.names())

    async def test_broken_bytes_while_open(self) -> None:
        """R18, F32, F33, S-26, W-85: one typed error with an AMQP code, a connection.close, the socket closed within a
        second.
        """
        header = b"\x02\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x00" + bytes(8) + b"\x00\x00\xce"
        for name, data in {
            "bad end octet": b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x0b\x00",
            "unknown frame type": b"\x04\x00\x01\x00\x00\x00\x00\xce",
            "frame too large": b"\x01\x00\x01\x7f\xff\xff\xff",
            "unknown method": b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x03\xe8\xce",
            "heartbeat on a channel": b"\x08\x00\x01\x00\x00\x00\x00\xce",
            "channel that is not open": b"\x01\x00\x63\x00\x00\x00\x04\x00\x3c\x00\x0b\xce",
            "header without method": header,
            "body without header": b"\x03\x00\x01\x00\x00\x00\x01x\xce",
            "reply nobody asked for": b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x0b\xce",
            "client's method": b"\x01\x00\x01\x00\x00\x00\x07\x00\x3c\x00\x46\x00\x00\x00\xce",
        }.items():
            connection = await self.connect()
            channel = await connection.channel()
            waiting = channel.when_closed()
            session = self.session
            started = self.now()
            session.write(data)
            reason = await connection.closed
            self.assertLess(self.now() - started, 1.5, name)
            self.assertIsInstance(reason, RemoteProtocolError, name)
            assert isinstance(reason, RemoteProtocolError)
            self.assertIn(reason.reply_code, (501, 502, 503, 504, 505, 540), name)
            self.assertIs(await waiting, reason)
            await session.gone
            self.assertEqual(session.last("Connection.Close").reply_code, reason.reply_code, name)

    async def test_nothing_is_handled_after_the_violation(self) -> None:
        """R18: what follows the broken frame is not looked at, and the close-ok to it is not needed."""
        connection = await self.connect()
        channel = await connection.channel()
        delivered: list[Any] = []
        await channel.basic_consume(await self.queue(channel), delivered.append, consumer_tag="t")
        self.session.write(b"\x04\x00\x01\x00\x00\x00\x00\xce")
        self.session.send_content(1, commands.Basic.Deliver("t", 1, False, "", "q"), b"\0\0", b"x")
        await connection.closed
        await pause(0.05)
        self.assertEqual(delivered, [])

    async def test_calls_between_a_delivery_and_the_close_behind_it(self) -> None:
        """R23, F31, F-18: delivery and close come in one chunk: what the callback calls ends typed, with the reason."""

        def ack_and_nack(delivery: Delivery) -> None:
            delivery.ack()
            delivery.channel.basic_nack(0, multiple=True)

        calls: dict[str, Callable[[Delivery], Any]] = {
            "ack": lambda delivery: delivery.ack(),
            "ack multiple": lambda delivery: delivery.ack(multiple=True),
            "nack": lambda delivery: delivery.nack(),
            "nack multiple": lambda delivery: delivery.nack(multiple=True),
            "reject": lambda delivery: delivery.reject(),
            "ack and nack": ack_and_nack,
            "publish": lambda delivery: delivery.channel.basic_publish("", "q", b""),
            "declare": lambda delivery: delivery.channel.queue_declare("q"),
            "consume": lambda delivery: delivery.channel.basic_consume("q"),
            "cancel": lambda delivery: delivery.channel.basic_cancel(delivery.consumer_tag),
            "confirm": lambda delivery: delivery.channel.confirm_select(),
            "close": lambda delivery: delivery.channel.close(),
            "channel": lambda delivery: delivery.channel.connection.channel(),
            "close all": lambda delivery: delivery.channel.connection.close(),
        }
        bad = b"\x04\x00\x01\x00\x00\x00\x00\xce"
        closes: list[tuple[bytes, type[BaseException]]] = [
            (frame.marshal(commands.Channel.Close(404, "NOT_FOUND", 0, 0), 1), NotFound),
            (frame.marshal(commands.Connection.Close(320, "FORCED", 0, 0), 0), ConnectionForced),
            (bad, RemoteProtocolError),
        ]
        self.broker.on["Channel.FlowOk"] = ignore
        for name, call in calls.items():
            for close, expected in closes:
                connection = await self.connect()
                channel = await connection.channel()
                results: list[Any] = []

                def handle(delivery: Delivery, results: list[Any] = results, call: Any = call) -> None:
                    try:
                        results.append(call(delivery))
                    except SettlementError as error:
                        results.append(error)

                await channel.basic_consume(await self.queue(channel), handle, consumer_tag="t")
                chunk = [
                    frame.marshal(commands.Basic.Deliver("t", tag, False, "", "q"), 1)
                    + frame.marshal(header.ContentHeader(0, 0), 1)
                    for tag in (1, 2)
                ]
                flow = frame.marshal(commands.Channel.Flow(True), 1)
                self.session.write(b"".join(chunk) + flow + close)
                reason = await channel.closed
                self.assertIsInstance(reason, expected, name)
                for result in results:
                    if isinstance(result, Deferred):
                        ended = await settle(result)
                        causes = (ended, getattr(ended, "cause", None), connection.close_reason)
                        exempt = ("cancel", "channel", "close all", "confirm")  # not of this channel, or twice
                        self.assertTrue(name in exempt or reason in causes, (name, ended))
                        self.assertNotIsInstance(ended, LocalProtocolError)
                await connection.close()

    async def test_server_methods_in_the_middle_of_a_call(self) -> None:
        """A-02: what the broker sends of itself while a call waits is not taken for its reply."""
        connection = await self.connect()
        channel = await connection.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        self.broker.on["Channel.FlowOk"] = ignore
        self.broker.on["Basic.CancelOk"] = ignore

        def chatter(session: Session, number: int, method: Any) -> bool:
            session.send(0, commands.Connection.Blocked("x"))
            session.send(number, commands.Channel.Flow(False), commands.Channel.Flow(True))
            session.send(number, commands.Basic.Cancel(consumer.consumer_tag, nowait=False))
            session.send(0, commands.Connection.Unblocked())
            return False

        self.broker.on["Queue.Declare"] = chatter
        declared = await channel.queue_declare("named", exclusive=True)
        self.assertEqual(declared.queue, "named")
        await consumer.when_ended()
        self.assertEqual([connection.is_blocked, channel.flow_active, channel.is_open], [False, True, True])

    async def test_contents_of_two_channels_interleaved(self) -> None:
        """M-21, A-01: their frames may alternate; each message is put together for itself."""
        connection = await self.connect()
        channels = await gatherResults([connection.channel() for _ in range(2)])
        consumers = [await c.basic_consume(await self.queue(c), no_ack=True, consumer_tag="t") for c in channels]
        rounds: list[list[bytes]] = []
        for number in (1, 2):
            deliver = frame.marshal(commands.Basic.Deliver("t", 1, False, "", "q"), number)
            head = frame.marshal(header.ContentHeader(0, 6), number)
            pieces = [frame.marshal(body.ContentBody(b"%d%c." % (number, 97 + n)), number) for n in range(2)]
            rounds.append([deliver, head, *pieces])
        for first, second in zip(*rounds, strict=True):
            self.session.write(first + second)
        self.assertEqual([(await c.get()).body for c in consumers], [b"1a.1b.", b"2a.2b."])

    async def test_flow(self) -> None:
        """F38, I-08, I-09: channel.flow is answered; publishes wait for flow on, in order."""
        channel = await self.channel()
        session, number = self.session, channel.channel_number
        bodies: list[bytes] = []

        def keep(session: Session, number: int, content: Any) -> bool:
            bodies.append(content[2])
            return False

        self.broker.on["content"] = keep
        self.broker.on["Channel.FlowOk"] = ignore
        name = await self.queue(channel)
        session.send(number, commands.Channel.Flow(False))
        await self.until(lambda: "Channel.FlowOk" in session.names())
        self.assertFalse(session.last("Channel.FlowOk").active)
        self.assertFalse(channel.flow_active)
        published = [channel.basic_publish("", name, b"%d" % n) for n in range(3)]
        await pause(0.05)
        self.assertEqual((bodies, [d.called for d in published]), ([], [False] * 3))
        session.send(number, commands.Channel.Flow(True))
        await gatherResults(published)
        await channel.basic_qos(1)
        self.assertEqual(bodies, [b"0", b"1", b"2"])


class ForcedCases(BrokerCase):
    async def test_an_operator_closes_all_connections(self) -> None:
        """24.1, J-09, F30: `rabbitmqctl close_all_connections`: 320 with the operator's text, everywhere."""
        connection = await self.connect()
        channel = await connection.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        get = consumer.get()
        await self.in_thread(self.node.close_all_connections, "maintenance")
        error = await self.failure(get, ConnectionForced)
        self.assertEqual(error.reply_code, 320)
        self.assertIn("maintenance", error.reply_text)
        self.assertTrue(error.recoverable)
        self.assertIs(await connection.closed, error)
        self.assertIs(await channel.closed, error)
        self.assertIs(await self.failure(connection.channel(), ConnectionForced), error)

    async def test_a_hard_error_of_ours(self) -> None:
        """F-16, I-08, K-50, S-33: flow(False) is refused with 540, which ends the connection with that reason."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        error = await self.failure(channel.flow(False), ConnectionClosed)
        self.assertEqual((error.reply_code, error.method_name), (540, "channel.flow"))
        self.assertIs(await other.closed, error)

    async def test_prefetch_size_is_refused(self) -> None:
        """K-36: 540, typed."""
        channel = await self.channel()
        error = await self.failure(channel.basic_qos(1, prefetch_size=100), ConnectionClosed)
        self.assertEqual(error.reply_code, 540)


class ForcedOverRabbitMQ(OverRabbitMQ, ForcedCases):
    pass


class ForcedOverBroker(OverBroker, ForcedCases):
    pass
