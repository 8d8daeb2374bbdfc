"""Confirms and returns as only a scripted broker sends them: gaps, repetitions, nacks, silence, the end."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import ConfirmCase, OverPeer, outcomes
from tests.conformance.minibroker import Session, ignore
from txmsg.amqp import BasicProperties, Channel
from txmsg.errors import (
    ConnectionLost,
    NotFound,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
    RemoteProtocolError,
)


class ConfirmsOverPeer(OverPeer, ConfirmCase):
    async def scripted(self, count: int, **overrides: Any) -> tuple[Channel, list[Deferred[Any]], list[Any]]:
        """A confirm channel with `count` publishes that the peer has not answered, and their outcomes."""
        channel = await self.confirming(**overrides)
        self.broker.on["content"] = ignore
        published = [channel.basic_publish("", "q", b"%d" % n, mandatory=True) for n in range(count)]
        seen = outcomes(published)
        await channel.basic_qos(1)
        return channel, published, seen

    async def test_multiple_acks(self) -> None:
        """N-04, N-05, 24.5, F34: ascending; over gaps; on a tag that is not pending; twice; tag 0 for all."""
        channel, _, seen = await self.scripted(10)
        send = self.session.send
        for ack, expected in [
            (commands.Basic.Ack(3), [2]),
            (commands.Basic.Ack(5, multiple=True), [0, 1, 3, 4]),
            (commands.Basic.Ack(5), []),
            (commands.Basic.Ack(5, multiple=True), []),
            (commands.Basic.Ack(7), [6]),
            (commands.Basic.Ack(7, multiple=True), [5]),
            (commands.Basic.Nack(8, multiple=True), [7]),
            (commands.Basic.Ack(0, multiple=True), [8, 9]),
        ]:
            seen.clear()
            send(channel.channel_number, ack)
            await channel.basic_qos(1)
            self.assertEqual([index for index, _ in seen], expected, ack)
        self.assertTrue(channel.is_open)

    async def test_multiple_nack(self) -> None:
        """N-06, 24.5: all of them fail with PublishNacked; later ones are untouched."""
        channel, _, seen = await self.scripted(6)
        self.session.send(channel.channel_number, commands.Basic.Nack(4, multiple=True))
        self.session.send(channel.channel_number, commands.Basic.Ack(6, multiple=True))
        await channel.basic_qos(1)
        self.assertEqual([type(value) for _, value in seen], [PublishNacked] * 4 + [int] * 2)
        self.assertTrue(seen[0][1].recoverable)

    async def test_returns_around_the_ack(self) -> None:
        """N-08, F34: return then ack; return then nack; return without an ack stays open until there is one."""
        channel = await self.confirming()
        contents: list[tuple[Any, bytes, bytes]] = []

        def keep(session: Session, number: int, content: tuple[Any, bytes, bytes]) -> bool:
            contents.append(content)
            return True

        self.broker.on["content"] = keep
        seen = outcomes([channel.basic_publish("", "q", b"%d" % n, mandatory=True) for n in range(4)])
        await channel.basic_qos(1)
        number = channel.channel_number
        for index in (2, 0, 3):
            method, properties, body = contents[index]
            returned = commands.Basic.Return(312, "NO_ROUTE", "", method.routing_key)
            self.session.send_content(number, returned, properties, body)
        await channel.basic_qos(1)
        self.assertEqual(seen, [])
        self.session.send(number, commands.Basic.Nack(4), commands.Basic.Ack(3, multiple=True))
        await channel.basic_qos(1)
        by_index = dict(seen)
        self.assertIsInstance(by_index[3], PublishNacked)
        self.assertIsInstance(by_index[0], PublishReturned)
        self.assertEqual(by_index[0].returned.body, b"0")
        self.assertEqual(by_index[1], 2)
        self.assertIsInstance(by_index[2], PublishReturned)
        self.assertEqual([index for index, _ in seen], [3, 0, 1, 2])

    async def test_returns_of_equal_ids_with_different_bodies(self) -> None:
        """R5: the application repeats a message id; the body and the order of publishing decide whose return it is."""
        channel = await self.confirming()
        contents: list[tuple[Any, bytes, bytes]] = []

        def keep(session: Session, number: int, content: tuple[Any, bytes, bytes]) -> bool:
            contents.append(content)
            return True

        self.broker.on["content"] = keep
        same = BasicProperties(message_id="same")
        published = [channel.basic_publish("", "q", each, same, mandatory=True) for each in (b"a", b"b", b"c", b"b")]
        seen = outcomes(published)
        await channel.basic_qos(1)
        number = channel.channel_number
        _, properties, body = contents[1]
        self.session.send_content(number, commands.Basic.Return(312, "NO_ROUTE", "", "q"), properties, body)
        self.session.send(number, commands.Basic.Ack(4, multiple=True))
        await gatherResults(published)
        self.assertEqual([type(value) for _, value in seen], [int, PublishReturned, int, int])

    async def test_an_answer_to_a_number_that_was_not_given(self) -> None:
        """F34: both sides count differently: the connection ends, and no publish succeeds."""
        for answer in (commands.Basic.Ack(9), commands.Basic.Nack(9), commands.Basic.Ack(9, multiple=True)):
            channel, published, seen = await self.scripted(2)
            self.session.send(channel.channel_number, answer)
            reason = await channel.connection.when_closed()
            self.assertIsInstance(reason, RemoteProtocolError)
            await gatherResults(published)
            self.assertEqual([type(value) for _, value in seen], [PublishUnconfirmed] * 2)

    async def test_confirms_on_a_channel_without_them(self) -> None:
        """F34, R18: a violation: the connection ends with 503, typed."""
        channel = await self.channel()
        self.session.send(channel.channel_number, commands.Basic.Ack(1))
        reason = await channel.connection.when_closed()
        self.assertEqual(getattr(reason, "reply_code", None), 503)
        await self.until(lambda: "Connection.Close" in self.session.names())
        self.assertEqual(self.session.last("Connection.Close").reply_code, 503)

    async def test_no_answer(self) -> None:
        """R2, F19, peers 60: PublishTimeout after confirm_timeout; a late ack shifts nothing."""
        channel, published, seen = await self.scripted(2, confirm_timeout=0.3)
        for deferred in published:
            await deferred
        self.assertEqual([type(value) for _, value in seen], [PublishTimeout] * 2)
        later = channel.basic_publish("", "q", b"x")
        self.session.send(channel.channel_number, commands.Basic.Ack(2, multiple=True))
        await channel.basic_qos(1)
        self.assertFalse(later.called)
        self.session.send(channel.channel_number, commands.Basic.Ack(3))
        self.assertEqual(await later, 3)

    async def test_the_connection_is_lost(self) -> None:
        """R2, N-15, F-19: written and unanswered is PublishUnconfirmed, with the cause; each once."""
        channel, published, seen = await self.scripted(50)
        self.session.hang_up()
        await gatherResults(published)
        for _, error in seen:
            self.assertIsInstance(error, PublishUnconfirmed)
            self.assertIsInstance(error.cause, ConnectionLost)
        self.assertEqual([index for index, _ in seen], list(range(50)))
        self.assertIs(await channel.closed, seen[0][1].cause)

    async def test_the_broker_closes_the_channel(self) -> None:
        """F31, N-14: with confirms pending and deliveries still coming: all fail with the code."""
        channel, published, seen = await self.scripted(5)
        session, number = self.session, channel.channel_number
        session.close_channel(session.channels[number], 404, "NOT_FOUND - no exchange", 60, 40)
        session.send_content(number, commands.Basic.Deliver("t", 1, False, "", "q"), b"\0\0", b"x")
        await gatherResults(published)
        self.assertEqual({type(error) for _, error in seen}, {NotFound})
        await self.until(lambda: "Channel.CloseOk" in session.names())
        self.assertTrue(channel.connection.is_open)
