"""Tests of Channel: opened at its first use, and revived with what lives on it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from tests.messaging.connection.scripted_transport import ScriptedChannel, ScriptedConnectionCase, ScriptedRecovering
from txmsg.errors import (
    AuthenticationFailed,
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    EncodeError,
    NotFound,
    OperationalError,
    OperationTimeout,
)
from txmsg.messaging import Channel, Connection


class Member:
    """What lives on a channel, and writes down what happens to it."""

    def __init__(self, *outcomes: BaseException | Deferred[Any]) -> None:
        self.outcomes = list(outcomes)
        self.revived: list[ScriptedChannel | Any] = []
        self.reasons: list[BaseException] = []

    def revive(self, channel: Channel) -> Deferred[Any] | None:
        """The next outcome."""
        self.revived.append(channel.transport_channel)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        return fail(outcome) if isinstance(outcome, BaseException) else outcome

    def lost(self, reason: BaseException) -> None:
        """It is over."""
        self.reasons.append(reason)


class LazyTests(ScriptedConnectionCase):
    """Opening and closing."""

    def test_every_call_opens_it(self) -> None:
        """kombu A1: each connects and opens the channel, and is then the call on the channel of the transport."""
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("exchange_declare", ("e", "topic")),
            ("exchange_delete", ("e",)),
            ("exchange_bind", ("e", "f", "k")),
            ("exchange_unbind", ("e", "f", "k")),
            ("queue_declare", ("q",)),
            ("queue_delete", ("q",)),
            ("queue_purge", ("q",)),
            ("queue_bind", ("q", "e", "k")),
            ("queue_unbind", ("q", "e", "k")),
            ("publish", ("e", "k", b"body", {"priority": 1})),
            ("qos", (5,)),
            ("consume", ("q", [].append)),
            ("get", ("q",)),
            ("recover", ()),
        ]
        for name, arguments in calls:
            with self.subTest(call=name):
                channel = self.connection().default_channel
                for _ in range(2):  # the first one opens it
                    self.successResultOf(getattr(channel, name)(*arguments))
                made = self.transport.made[-1].channels
                self.assertEqual(len(made), 1)
                self.assertEqual([call[0] for call in made[0].calls], [name] * 2)
                shown = [argument for argument in arguments if not callable(argument)]
                self.assertEqual(list(made[0].calls[0][1 : 1 + len(shown)]), shown)

    def test_open_is_shared(self) -> None:
        """Calls that come while it is being opened wait for one channel, in their order."""
        attempt: Deferred[Any] = Deferred()
        channel = self.connection(attempt).default_channel
        waiting: list[Deferred[Any]] = [channel.queue_declare("q"), channel.publish("", "q", b""), channel.open()]
        made = ScriptedRecovering()
        attempt.callback(made)
        for each in waiting:
            self.successResultOf(each)
        self.assertEqual([call[0] for call in made.channels[0].calls], ["queue_declare", "publish"])

    def test_error_of_connecting(self) -> None:
        """It is the error of the call, and the next call tries again."""
        channel = self.connection(AuthenticationFailed("no")).default_channel
        self.failureResultOf(channel.publish("", "q", b""), AuthenticationFailed)
        self.successResultOf(channel.publish("", "q", b""))

    def test_cancel_of_what_is_no_tag(self) -> None:
        """It fails, and is not raised."""
        tags: list[Any] = [None, 5, [], {}]
        for tag in tags:
            self.failureResultOf(self.connection().default_channel.cancel(tag), EncodeError)

    def test_close(self) -> None:
        """It ends the channel of the transport; calls fail; open() makes another; twice is fine."""
        channel = self.connection().default_channel
        self.successResultOf(channel.close())
        self.successResultOf(channel.open())
        self.successResultOf(channel.close())
        self.successResultOf(channel.close())
        (made,) = self.transport.made[0].channels
        self.assertFalse(made.is_open)
        for call in (channel.publish("", "q", b""), channel.queue_declare("q")):
            self.assertEqual(self.failureResultOf(call, ChannelClosed).value.initiator, "client")
        self.successResultOf(channel.cancel("tag"))
        self.successResultOf(channel.open())
        self.successResultOf(channel.publish("", "q", b""))
        self.transport.made[0].channels[1].lose(ChannelClosed())
        self.successResultOf(channel.publish("", "q", b""))
        self.assertEqual(len(self.transport.made[0].channels), 3)

    def test_close_while_it_opens(self) -> None:
        """Who waits is told why."""
        channel = self.connection(Deferred()).default_channel
        opening, publishing = channel.open(), channel.publish("", "q", b"")
        self.successResultOf(channel.close())
        self.failureResultOf(opening, ChannelClosed)
        self.failureResultOf(publishing, ChannelClosed)

    def test_release(self) -> None:
        """kombu A5: to its lender; one without is closed."""
        returned: list[object] = []

        class Pool:
            def release(self, resource: object) -> Deferred[None]:
                returned.append(resource)
                return succeed(None)

        channel = self.successResultOf(self.connection().channel())
        channel.lender = Pool()
        self.successResultOf(channel.release())
        self.assertEqual((returned, channel.is_open), ([channel], True))
        channel.lender = None
        self.successResultOf(channel.release())
        self.assertFalse(channel.is_open)

    def test_no_ack_consumers(self) -> None:
        """The tags of consumers without acks are known as long as these are there."""
        channel = self.connection().default_channel
        self.successResultOf(channel.consume("q", [].append, no_ack=True, consumer_tag="a"))
        self.successResultOf(channel.consume("q", [].append, no_ack=True, consumer_tag="b"))
        self.successResultOf(channel.consume("q", [].append, consumer_tag="c"))
        self.assertEqual(channel.no_ack_consumers, {"a", "b"})
        self.successResultOf(channel.cancel("a"))
        self.assertEqual(channel.no_ack_consumers, {"b"})
        self.transport.made[0].channels[0].lose(ChannelClosed())
        self.assertEqual(channel.no_ack_consumers, set())


class RevivalTests(ScriptedConnectionCase):
    """What comes back with a channel on a plain transport."""

    def opened(self, *members: Member, **settings: Any) -> tuple[Connection, Channel]:
        """A channel with members."""
        connection = self.connection(**settings)
        channel = self.successResultOf(connection.channel())
        for member in members:
            channel.add_member(member)
        return connection, channel

    def test_channel_error(self) -> None:
        """kombu B10: another channel on the same connection, at once, with all that lived on the lost one."""
        first, second, left = Member(), Member(), Member()
        _, channel = self.opened(first, second, left)
        channel.remove_member(left)
        channel.remove_member(left)
        self.transport.made[0].channels[0].lose(NotFound("no queue", 404))
        self.assertFalse(channel.is_open)
        self.clock.advance(0)
        made = self.transport.made[0].channels
        self.assertEqual(len(made), 2)
        self.assertIs(channel.transport_channel, made[1])
        self.assertEqual((first.revived, second.revived, left.revived), ([made[1]], [made[1]], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_lives_on_it(self) -> None:
        """Then it is opened by the next call."""
        _, channel = self.opened()
        self.transport.made[0].channels[0].lose(ChannelClosed())
        self.clock.advance(100)
        self.assertEqual(len(self.transport.made[0].channels), 1)
        self.successResultOf(channel.publish("", "q", b""))
        self.assertEqual(len(self.transport.made[0].channels), 2)

    def test_nothing_keeps_it(self) -> None:
        """R31: one that the broker closed and that is not used again goes; one that is used is closed in the end."""
        connection = self.connection()
        gone = []
        for _ in range(3):
            channel = self.successResultOf(connection.channel())
            self.failureResultOf(channel.queue_declare("none", passive=True), NotFound)
            gone.append(weakref.ref(channel))
        self.successResultOf(channel.queue_declare("q"))
        used = channel
        del channel
        self.flushLoggedErrors()
        gc.collect()
        self.assertEqual([each() for each in gone], [None, None, used])
        self.successResultOf(connection.close())
        self.assertIsNone(used.transport_channel)

    def test_connection_lost(self) -> None:
        """kombu B23: it connects again, with the waits of ensure_connection, and then revives."""
        member = Member()
        _, channel = self.opened(member)
        self.transport.outcomes = [ConnectFailed("no"), ConnectFailed("no")]
        self.transport.made[0].lose(self.transport.lost())
        self.clock.pump([0, 2, 3.9])
        self.assertEqual((len(self.transport.attempts), member.revived), (3, []))
        self.clock.advance(0.1)
        self.assertEqual(member.revived, [self.transport.made[1].channels[0]])
        self.assertTrue(channel.is_open)
        self.assertEqual((member.reasons, self.clock.getDelayedCalls()), ([], []))

    def test_two_channels_of_a_lost_connection(self) -> None:
        """Both come back, over one connection."""
        first, second = Member(), Member()
        connection, _ = self.opened(first)
        self.successResultOf(connection.channel()).add_member(second)
        self.transport.made[0].lose(self.transport.lost())
        self.clock.advance(0)
        self.assertEqual((len(self.transport.attempts), len(first.revived), len(second.revived)), (2, 1, 1))

    def test_refused(self) -> None:
        """A member that cannot come back is told why, and is a member no more; the others come back."""
        error = NotFound("no queue", 404)
        gone, other = Member(error), Member()
        _, channel = self.opened(gone, other)
        for _ in range(2):
            self.transport.made[0].channels[-1].lose(ChannelClosed())
            self.clock.advance(0)
        self.assertEqual((gone.reasons, len(gone.revived), len(other.revived)), ([error], 1, 2))
        self.assertTrue(channel.is_open)

    def test_refusal_that_ends_the_channel(self) -> None:
        """As the broker does it: the others are revived on a third one."""
        gone, other = Member(), Member()

        def revive(channel: Channel) -> Deferred[Any]:
            return channel.queue_declare("q", passive=True)

        gone.revive = revive  # type: ignore[method-assign]
        _, channel = self.opened(gone, other)
        self.transport.made[0].channels[0].lose(ChannelClosed())
        self.clock.pump([0, 1])
        self.assertEqual((type(gone.reasons[0]), channel.is_open), (NotFound, True))
        self.assertEqual(other.revived, [self.transport.made[0].channels[2]])

    def test_again_later(self) -> None:
        """An error that can pass: tried again after a second, as often as that takes."""
        member = Member(OperationTimeout("no reply"), OperationTimeout("no reply"))
        self.opened(member)
        self.transport.made[0].channels[0].lose(ChannelClosed())
        self.clock.pump([0, 0.9])
        self.assertEqual(len(member.revived), 1)
        self.clock.pump([0.1, 1])
        self.assertEqual((len(member.revived), member.reasons), (3, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannot_connect_again(self) -> None:
        """kombu B9: a refused login ends it, at once, and so does the end of the retry policy (kombu B20)."""
        for settings, outcomes, expected in (
            ({}, [AuthenticationFailed("no")], AuthenticationFailed),
            ({"transport_options": {"max_retries": 0}}, [ConnectFailed("no")], OperationalError),
        ):
            member = Member()
            _, channel = self.opened(member, **settings)
            self.transport.outcomes = list(outcomes)
            self.transport.made[-1].lose(self.transport.lost())
            self.clock.advance(0)
            self.assertEqual([type(reason) for reason in member.reasons], [expected])
            self.assertFalse(channel.is_open)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """Members are told when the channel or the connection is closed, and nothing is revived."""
        for ends, expected in ((True, ConnectionClosed), (False, ChannelClosed)):
            for is_away in (True, False):
                member = Member()
                connection, channel = self.opened(member)
                if is_away:
                    self.transport.made[-1].lose(self.transport.lost())
                self.successResultOf(connection.close() if ends else channel.close())
                self.assertEqual([type(reason) for reason in member.reasons], [expected])
                made = len(self.transport.made)
                self.clock.advance(1000)
                self.assertEqual((len(self.transport.made), member.revived), (made, []))
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_while_it_cannot_connect(self) -> None:
        """When nothing lives on a channel any more, nobody tries to connect for it."""
        _, channel = self.opened(Member())
        self.transport.outcomes = [ConnectFailed("no")] * 9
        self.transport.made[0].lose(self.transport.lost())
        self.clock.pump([0, 2])
        self.assertEqual(len(self.transport.attempts), 3)
        self.successResultOf(channel.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_member_that_cannot_be_told(self) -> None:
        """It is logged, and the others are told."""
        bad, good = Member(), Member()

        def lost(reason: BaseException) -> None:
            raise KeyError("in lost")

        bad.lost = lost  # type: ignore[method-assign]
        _, channel = self.opened(bad, good)
        self.successResultOf(channel.close())
        self.assertEqual(len(good.reasons), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_recovering_transport(self) -> None:
        """There nothing is revived: the transport does that."""
        member = Member()
        connection = self.connection(made := ScriptedRecovering())
        self.successResultOf(connection.channel()).add_member(member)
        made.away(ConnectionLost(), None)
        self.clock.advance(100)
        made.back()
        self.clock.advance(100)
        self.assertEqual((member.revived, member.reasons, len(made.channels)), ([], [], 1))


class DrainTests(ScriptedConnectionCase):
    """drain_events, for code that was written around it."""

    def test_event(self) -> None:
        """kombu A34: it fires after the next delivery was handed over, on any channel, and without a delay."""
        connection = self.connection()
        channel = self.successResultOf(connection.channel())
        handled: list[object] = []
        self.successResultOf(channel.consume("q", handled.append))
        waiting = connection.drain_events()
        self.assertNoResult(waiting)
        self.transport.made[0].channels[0].deliver("delivery")
        self.successResultOf(waiting)
        self.assertEqual(handled, ["delivery"])

    def test_timeout(self) -> None:
        """kombu A34: OperationTimeout after the time given; never without one."""
        connection = self.connection()
        limited, unlimited = connection.drain_events(timeout=2), connection.drain_events()
        self.clock.advance(1.9)
        self.assertNoResult(limited)
        self.clock.advance(0.2)
        self.failureResultOf(limited, OperationTimeout)
        self.clock.advance(10_000)
        self.assertNoResult(unlimited)
        self.successResultOf(connection.close())
        self.failureResultOf(unlimited, ConnectionClosed)


class DefaultChannelTests(ScriptedConnectionCase):
    """The channel that stands for the connection."""

    def test_one(self) -> None:
        """kombu A7, A8: always the same one; channel() makes new ones, each with a number."""
        connection = self.connection()
        default = connection.default_channel
        first, second = (self.successResultOf(connection.channel()) for _ in range(2))
        self.assertIs(connection.default_channel, default)
        self.assertEqual([default.channel_id, first.channel_id, second.channel_id], [1, 2, 3])
        self.assertEqual(len(self.transport.made), 1)

    def test_closed(self) -> None:
        """kombu A7: one that was closed is not given again."""
        connection = self.connection()
        default = connection.default_channel
        self.successResultOf(default.close())
        self.assertIsNot(connection.default_channel, default)

    def test_revive(self) -> None:
        """kombu B18: a default channel that is another than the new one is closed."""
        connection = self.connection()
        default = self.successResultOf(connection.default_channel.open())
        self.successResultOf(connection.revive(default))
        self.assertTrue(default.is_open)
        self.successResultOf(connection.revive(self.successResultOf(connection.channel())))
        self.assertFalse(default.is_open)

    def test_maybe_close_channel(self) -> None:
        """kombu A43: errors of the channel and the connection are none; others are."""
        connection = self.connection()

        class Closing:
            def __init__(self, error: Exception) -> None:
                self.error = error

            def close(self) -> Deferred[None]:
                closing: Deferred[None] = Deferred()
                closing.errback(self.error)
                return closing

        self.successResultOf(connection.maybe_close_channel(self.successResultOf(connection.channel())))
        for error in (ConnectionLost(), ChannelClosed()):
            self.successResultOf(connection.maybe_close_channel(Closing(error)))  # type: ignore[arg-type]
        self.failureResultOf(connection.maybe_close_channel(Closing(KeyError())), KeyError)  # type: ignore[arg-type]
