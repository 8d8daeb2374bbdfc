"""The end of a ReconnectingConnection: legal in any state, bounded, and nothing is left (R28 to R30)."""

from __future__ import annotations

import gc
import random
from collections import Counter
from functools import partial
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from tests.amqp.recovery.world import MUTE, REFUSES, SILENT, FakeMember, World, WorldTestCase
from txmsg.amqp import (
    AMQPProtocol,
    Backoff,
    ConnectionParameters,
    PlainCredentials,
    ReconnectingConnection,
    StateChange,
)
from txmsg.errors import ConnectionClosed


class CloseTests(WorldTestCase):
    """close(), from everywhere."""

    def closes(self, connection: ReconnectingConnection, seconds: float) -> None:
        """Close it; it must be over after that time, with nothing left on the clock (R28)."""
        first, again, closed = connection.close(), connection.close(), connection.when_closed()
        self.world.run(seconds)
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNone(self.successResultOf(again))
        self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)
        self.assertIsNone(self.successResultOf(connection.close()))
        self.assertEqual(connection.state.value, "closed")
        self.assertIs(self.failed(connection.start()), connection.close_reason)
        self.assertIs(self.failed(connection.when_ready()), connection.close_reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """Before it was started."""
        self.closes(self.connection(), 0)

    def test_in_the_first_turn(self) -> None:
        """After start(), before the attempt has begun."""
        connection = self.connection()
        started = connection.start()
        self.closes(connection, 0)
        self.assertIs(self.failed(started), connection.close_reason)
        self.assertEqual(self.world.attempts, [])

    def test_while_connecting(self) -> None:
        """While a host is silent, in TCP or in the handshake."""
        for kind in (SILENT, MUTE):
            with self.subTest(kind=kind):
                self.world.hosts["a"] = kind
                connection = self.connection()
                started = connection.start()
                self.world.run(1)
                self.closes(connection, 0.1)
                self.assertIs(self.failed(started), connection.close_reason)

    def test_while_waiting(self) -> None:
        """Between two attempts."""
        self.world.hosts["a"] = REFUSES
        connection = self.connection(recovery_limit=100)
        started = connection.start()
        self.world.run(2)
        self.assertEqual(connection.state.value, "lost")
        self.closes(connection, 0)
        self.assertIs(self.failed(started), connection.close_reason)

    def test_while_recovering(self) -> None:
        """While a member comes back: it is cancelled and told; the socket goes."""
        broker = self.world.broker()
        connection = self.connection()
        calls: list[str] = []
        member = FakeMember("m", calls)
        hanging: Deferred[None] = Deferred()
        member.next = [hanging]
        connection.add_member(member)
        self.noErrors(connection.start())
        self.world.run(1)
        done = connection.close()
        done.addCallback(lambda result: [protocol.is_closed for protocol in member.protocols])
        self.world.run(0.1)
        self.assertEqual(self.successResultOf(done), [True])
        self.assertTrue(hanging.called)
        self.assertEqual((calls, broker.connections), (["recover m", "closed m"], []))
        self.closes(connection, 0)

    def test_ready(self) -> None:
        """Members stop, what consumes before what publishes; then the connection is closed in good order."""
        broker = self.world.broker()
        connection = self.started()
        calls: list[str] = []
        publisher, channel = FakeMember("publisher", calls, 20), FakeMember("channel", calls, 10)
        channel.stopping = Deferred()
        connection.add_member(publisher)
        connection.add_member(channel)
        done, protocol = connection.close(), connection._protocol
        self.world.run(1)
        self.assertEqual((calls, connection.state.value), (["stop channel"], "closing"))
        self.assertEqual(len(broker.connections), 1)
        channel.stopping.callback(None)
        self.world.run(0.2)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(calls, ["stop channel", "stop publisher", "closed publisher", "closed channel"])
        assert protocol is not None
        assert isinstance(protocol.close_reason, ConnectionClosed)
        self.assertEqual((protocol.close_reason.reply_code, broker.connections), (200, []))
        self.closes(connection, 0)

    def test_blocked(self) -> None:
        """R16, R30: a broker that reads nothing does not hold it up for longer than its limit."""
        broker = self.world.broker()
        connection = self.started()
        broker.faults.stall()
        began = self.clock.seconds()
        done = connection.close(3)
        self.world.run(2.9)
        self.assertNoResult(done)
        self.world.run(0.2)
        self.assertIsNone(self.successResultOf(done))
        self.assertLessEqual(self.steps[-1].at - began, 3.1)
        broker.faults.clear()

    def test_member_that_does_not_stop(self) -> None:
        """R30: it gets half of the time, then it is cancelled and reported; the rest is for the connection."""
        self.world.broker()
        connection = self.started()
        member = FakeMember("m", [])
        member.stopping = Deferred()
        connection.add_member(member)
        done = connection.close(4)
        self.world.run(2.2)
        self.assertIsNone(self.successResultOf(done))
        self.assertTrue(member.stopping.called)
        [event] = [str(event) for event in connection.history if hasattr(event, "kind")]
        self.assertRegex(event, "^member failed: .*it had not come to an end when")

    def test_lost_while_closing(self) -> None:
        """The connection goes while members stop: that is the end, there is no new attempt."""
        broker = self.world.broker()
        connection = self.started(recovery_limit=100)
        member = FakeMember("m", [])
        member.stopping = Deferred()
        connection.add_member(member)
        done = connection.close()
        protocol = connection._protocol
        assert protocol is not None
        protocol.abort()
        self.world.run(0.1)
        self.assertTrue(member.stopping.called, "nobody waits for what it cannot do any more")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual((len(self.world.attempts), broker.connections), (1, []))
        self.assertEqual(self.states()[-2:], ["closing", "closed"])

    def test_from_each_state_callback(self) -> None:
        """R29: close() from inside any callback, in each state."""
        for state in ("connecting", "recovering", "ready", "lost", "closing"):
            with self.subTest(state=state):
                broker = self.world.broker()
                connection = self.connection()
                done: list[Deferred[None]] = []
                connection.add_state_callback(partial(_close_at, state, connection, done))
                started = connection.start()
                self.noErrors(started)
                self.world.run(0.2)
                if state in ("lost", "closing"):
                    connection.reconnect() if state == "lost" else connection.close()
                self.world.run(1)
                self.assertEqual(connection.state.value, "closed")
                self.assertTrue(done)
                for each in done:
                    self.assertIsNone(self.successResultOf(each))
                self.assertEqual(broker.connections, [])
                self.closes(connection, 0)

    def test_from_one_of_several_waits(self) -> None:
        """Nobody is given a connection that another one who waited has closed already, or dropped."""
        for end in ("close", "reconnect"):
            with self.subTest(end=end):
                self.world.broker()
                connection = self.connection()

                def ended(ready: ReconnectingConnection, end: str = end) -> None:
                    if end == "close":
                        ready.close()
                    else:
                        ready.reconnect()

                self.noErrors(connection.start().addCallback(ended))
                states: list[str] = []
                other = connection.when_ready()
                other.addCallback(partial(_note_state, states))
                self.world.run(0.1)
                if end == "close":
                    self.assertIsInstance(self.failed(other), ConnectionClosed)
                else:
                    self.assertEqual(states, [])
                    self.world.run(3)
                    self.assertEqual(states, ["ready"])

    def test_when_an_attempt_begins(self) -> None:
        """R28, R29: close() from the callback that tells of an attempt, or from the endpoint's callable, ends it."""
        for where in ("callback", "endpoint"):
            with self.subTest(where=where):
                self.world.hosts["a"] = REFUSES
                done: list[Deferred[None]] = []

                def endpoint(
                    parameters: ConnectionParameters, where: str = where, done: list[Deferred[None]] = done
                ) -> IStreamClientEndpoint:
                    if where == "endpoint" and self.world.hosts["a"] == MUTE:
                        done.append(self._connections[-1].close())
                    return self.world.endpoint(parameters)

                connection = self.connection(endpoint=endpoint)
                self.noErrors(connection.start())
                self.world.run(0.1)
                self.world.hosts["a"] = MUTE
                if where == "callback":
                    connection.add_state_callback(partial(_close_at, "connecting", connection, done))
                self.world.run(1)
                self.assertIsNone(self.successResultOf(done[0]))
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_from_each_callback_of_a_member(self) -> None:
        """R29: close() from inside recover() and lost()."""
        for call in ("recover", "lost"):
            with self.subTest(call=call):
                broker = self.world.broker()
                connection = self.connection()
                member = _Closes("m", [])
                member.connection, member.call = connection, call
                connection.add_member(member)
                self.noErrors(connection.start())
                self.world.run(0.2)
                connection.reconnect()
                self.world.run(0.2)
                self.assertEqual(broker.connections, [])
                self.closes(connection, 0)

    def test_from_start(self) -> None:
        """R29: close() in the callback of start() is a good end, no abort."""
        self.world.broker()
        connection = self.connection()
        seen: list[AMQPProtocol | None] = []

        def close(ready: ReconnectingConnection) -> Deferred[None]:
            seen.append(ready.protocol)
            return ready.close()

        done = connection.start().addCallback(close)
        self.world.run(1)
        self.assertIsNone(self.successResultOf(done))
        (protocol,) = seen
        assert protocol is not None
        assert isinstance(protocol.close_reason, ConnectionClosed)
        self.assertEqual(protocol.close_reason.reply_code, 200)

    def test_context_manager(self) -> None:
        """`async with` starts and closes; what start() fails with comes out."""
        self.world.broker()

        async def use(connection: ReconnectingConnection) -> int:
            async with connection as same:
                assert same is connection
                assert connection.is_ready
                return connection.epoch

        connection = self.connection()
        used = Deferred.fromCoroutine(use(connection))
        self.world.run(1)
        self.assertEqual(self.successResultOf(used), 1)
        self.closes(connection, 0)
        failing = self.connection("amqp://nobody", max_attempts=1)
        used = Deferred.fromCoroutine(use(failing))
        self.world.run(1)
        self.assertIs(self.failed(used), failing.close_reason)
        cancelled = self.connection("amqp://nobody")
        used = Deferred.fromCoroutine(use(cancelled))
        self.world.run(1)
        used.cancel()
        self.failureResultOf(used)
        self.assertEqual(cancelled.state.value, "closed")

    def test_members_of_a_closed_connection(self) -> None:
        """One that is added after the end is told so at once."""
        connection = self.connection()
        connection.close()
        self.world.run(0)
        member = FakeMember("late", [])
        connection.add_member(member)
        self.assertEqual(member.calls, ["closed late"])

    def test_cancelled_close(self) -> None:
        """Cancelling the Deferred of close() only ends that wait."""
        self.world.broker()
        connection = self.started()
        done = connection.close()
        done.cancel()
        self.failureResultOf(done)
        self.closes(connection, 1)


class _Closes(FakeMember):
    """A member that closes the connection when it is called."""

    connection: ReconnectingConnection
    call = ""

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """Close, or not."""
        if self.call == "recover":
            self.connection.close()
        return succeed(None)

    def lost(self, reason: BaseException) -> None:
        """Close, or not."""
        if self.call == "lost":
            self.connection.close()


class LeakTests(WorldTestCase):
    """R31: reconnecting leaves nothing behind."""

    def test_a_thousand_reconnects(self) -> None:
        """R31, R28: 1,000 forced reconnects leave no object; of protocols and transports only the living ones."""
        self.world.broker()
        connection = self.started(backoff=Backoff(initial=0.001, maximum=0.001, jitter=False))
        member = FakeMember("m", [])
        connection.add_member(member)

        def reconnect(times: int) -> None:
            for _ in range(times):
                connection.reconnect()
                for _ in range(8):
                    self.clock.advance(0.002)
            member.protocols.clear()
            member.calls.clear()
            self.steps.clear()

        reconnect(120)  # the history is full then
        self.world.run(2)
        before = _alive()
        reconnect(880)
        self.assertEqual(connection.epoch, 1001)
        self.world.run(2)  # the broker waits for a second before it drops what the client has dropped
        after = _alive()
        self.assertEqual(after["AMQPProtocol"], 1)
        self.assertEqual(after, before)
        self.assertLessEqual(len(self.clock.getDelayedCalls()), 4)


class HerdTests(WorldTestCase):
    """R12, F27: many clients and one broker that restarts."""

    def test_a_hundred_clients(self) -> None:
        """F27: 100 clients stay below 300 attempts in any second of an outage, and below 10 in the long run."""
        world, peak = World(), 0
        world.hosts["a"] = REFUSES
        self.clock = world.clock
        connections = [self._started(world, number) for number in range(100)]
        world.run(120)
        times = sorted(time for time, _ in world.attempts if time > 0)
        for index, time in enumerate(times):
            end = next((n for n in range(index, len(times)) if times[n] >= time + 1), len(times))
            peak = max(peak, end - index)
        late = [time for time in times if time > 60]
        self.assertLess(peak, 300)
        self.assertLess(len(late) / 60, 10)
        for connection in connections:
            connection.close()
        world.run(0)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def _started(self, world: World, seed: int) -> ReconnectingConnection:
        backoff = Backoff(random=random.Random(seed).random)
        connection = ReconnectingConnection(
            "amqp://a", reactor=world.clock, endpoint=world.endpoint, credentials=_guest, backoff=backoff
        )
        self.noErrors(connection.start())
        return connection


def _alive() -> Counter[str]:
    """How many objects there are of the client's classes, and of Twisted's that it makes."""
    gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    ours = [kind for kind in kinds if str(kind.__module__).startswith("txmsg.amqp") or kind in (Deferred, DelayedCall)]
    return Counter(kind.__name__ for kind in ours)


def _note_state(states: list[str], ready: ReconnectingConnection) -> None:
    states.append(ready.state.value)


def _close_at(state: str, connection: ReconnectingConnection, done: list[Deferred[None]], step: StateChange) -> None:
    if step.new.value == state:
        done.append(connection.close())


def _guest() -> Any:
    return PlainCredentials("guest", "guest")
