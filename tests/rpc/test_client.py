"""RPCClient over memory://, and a server by hand."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionForced,
    ConsumerCancelled,
    EncodeError,
    NoResponder,
    NotFound,
    Overloaded,
    RemoteError,
    RPCTimeout,
    SerializerNotInstalled,
)
from txmsg.messaging import Connection
from txmsg.rpc import ReplyCounts, RPCClient, reply_channel

NOW = 1_000_000.0


class ClientCase(MemoryCase):
    """A queue "server", whose requests the test answers."""

    def setUp(self) -> None:
        super().setUp()
        self.requests: list[Any] = []
        self.done(self.channel.queue_declare("server"))
        self.done(self.channel.consume("server", self.requests.append, no_ack=True))
        self.client = self.make()

    def make(self, **settings: Any) -> RPCClient:
        client = RPCClient(self.connect(), wall_clock=lambda: NOW + self.clock.seconds(), **settings)
        self.addCleanup(lambda: client.close().addErrback(lambda failure: None))
        return client

    def call(self, *args: Any, **settings: Any) -> Deferred[Any]:
        """Call "add" of "server"; the request has arrived."""
        deferred = self.client.request("server", "add", args, **settings)
        self.turn()
        return deferred

    def answer(self, request: Any, body: Any, **properties: Any) -> None:
        """Reply to a request as a server does, but for what is given."""
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        made = {"content_type": "application/json", "correlation_id": request.properties["correlation_id"]}
        self.done(self.channel.publish("", request.properties["reply_to"], octets, {**made, **properties}))
        self.turn()


class OutcomeTests(ClientCase):
    """R27: a call ends once, with one of these."""

    def test_result(self) -> None:
        """R27: what the server has sent; calls may be answered in any order."""
        one, two = self.call(1), self.call(2)
        self.answer(self.requests[1], {"result": "two"})
        self.answer(self.requests[0], {"result": None})
        self.assertIsNone(self.successResultOf(one))
        self.assertEqual(self.successResultOf(two), "two")
        self.assertEqual(self.client.pending, 0)

    def test_the_request(self) -> None:
        """What a server is told: see docs/rpc.md.  It is dropped by the broker when its time is up."""
        self.call(1, "b", kwargs={"c": 2}, timeout=2.5).addErrback(lambda failure: None)
        request = self.requests[0]
        self.assertEqual(
            json.loads(request.body), {"method": "add", "args": [1, "b"], "kwargs": {"c": 2}, "deadline": NOW + 2.5}
        )
        properties = dict(request.properties)
        self.assertTrue(properties.pop("reply_to").startswith("amq.rabbitmq.reply-to."))
        self.assertEqual(len(properties.pop("correlation_id")), 32)
        self.assertEqual(
            properties, {"content_type": "application/json", "content_encoding": "utf-8", "expiration": "2500"}
        )

    def test_a_long_time(self) -> None:
        """The broker is told as much as it takes: a longer expiration would end the channel."""
        self.call(timeout=2.0**31).addErrback(lambda failure: None)
        self.assertEqual(self.requests[0].properties["expiration"], "4294967295")

    def test_remote_error(self) -> None:
        """R27, and no class is built."""
        call = self.call()
        self.answer(self.requests[0], {"error": {"exc_type": "SystemExit", "exc_message": "no"}})
        self.assertIs(type(self.failureResultOf(call).value), RemoteError)

    def test_no_responder(self) -> None:
        """R27: there is no such queue."""
        error = self.failureResultOf(self.done_with(self.client.call("nowhere", "add")), NoResponder).value
        self.assertIn("'nowhere'", str(error))

    def done_with(self, deferred: Deferred[Any]) -> Deferred[Any]:
        self.turn()
        return deferred

    def test_timeout(self) -> None:
        """R27: that of the call, or of the client; with progress, too: it is the time in all.  peers 49."""
        call, other = self.call(timeout=1.0), self.call()
        self.turn(0.9)
        self.answer(self.requests[0], {"progress": 1})
        self.turn(0.2)
        self.failureResultOf(call, RPCTimeout)
        self.assertNoResult(other)
        self.turn(28.9)
        self.failureResultOf(other, RPCTimeout)

    def test_cancel(self) -> None:
        """The wait ends at once; the reply is dropped."""
        call = self.call()
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.answer(self.requests[0], {"result": 1})
        self.assertEqual(self.client.counts, ReplyCounts(late=1))

    def test_progress(self) -> None:
        """Each state, in order, and then the result."""
        seen: list[Any] = []
        call = self.call(on_progress=seen.append)
        for state in (10, {"done": 0.5}):
            self.answer(self.requests[0], {"progress": state})
        self.assertNoResult(call)
        self.answer(self.requests[0], {"result": "end"})
        self.answer(self.requests[0], {"progress": "late"})
        self.assertEqual(self.successResultOf(call), "end")
        self.assertEqual(seen, [10, {"done": 0.5}])
        self.assertEqual(self.client.counts, ReplyCounts(duplicate=1))

    def test_what_cannot_be_sent(self) -> None:
        """EncodeError, ConfigurationError; nothing waits then."""
        self.failureResultOf(self.call(object()), EncodeError)
        self.failureResultOf(self.call(timeout=0), ConfigurationError)
        self.failureResultOf(self.client.request("x" * 300, "add"), EncodeError)
        self.failureResultOf(self.call(timeout=10**400), ConfigurationError)
        self.failureResultOf(self.call(on_progress=5), ConfigurationError)
        self.assertEqual((self.client.pending, self.requests), (0, []))

    def test_settings(self) -> None:
        """What is wrong is refused at once."""
        for settings in ({"reply": "none"}, {"timeout": 0}, {"timeout": None}, {"timeout": 1e10}, {"max_in_flight": 0}):
            self.assertRaises(ConfigurationError, self.make, **settings)
        self.assertRaises(SerializerNotInstalled, self.make, serializer="jsom")


class DroppingTests(ClientCase):
    """Replies that are no call's: dropped, counted, and never given to another call."""

    def test_late_and_duplicate(self) -> None:
        """R27, peers 49: after the timeout, and a second one."""
        late, answered = self.call(timeout=1.0), self.call()
        self.turn(1.0)
        self.failureResultOf(late, RPCTimeout)
        for request in self.requests:
            self.answer(request, {"result": 1})
        self.answer(self.requests[1], {"result": 2})
        self.assertEqual(self.successResultOf(answered), 1)
        self.assertEqual(self.client.counts, ReplyCounts(late=1, duplicate=1))

    def test_forged(self) -> None:
        """C6.3: an id that was never given, or none; what waits goes on waiting."""
        call = self.call()
        for correlation_id in ("0" * 32, "", "1"):
            self.answer(self.requests[0], {"result": "forged"}, correlation_id=correlation_id)
        self.done(self.channel.publish("", self.requests[0].properties["reply_to"], b'{"result": 1}'))
        self.turn()
        self.assertNoResult(call)
        self.assertEqual(self.client.counts, ReplyCounts(unknown=4))
        self.answer(self.requests[0], {"result": "true"})
        self.assertEqual(self.successResultOf(call), "true")

    def test_for_another_client(self) -> None:
        """C6.3: the id of one client's call is nothing to another client."""
        call = self.call()
        other = self.make()
        self.done(other.open())
        waiting = other.request("server", "add")
        self.turn()
        self.answer(self.requests[0], {"result": 1}, correlation_id=self.requests[1].properties["correlation_id"])
        self.assertNoResult(call)
        self.assertNoResult(waiting)
        self.assertEqual(self.client.counts, ReplyCounts(unknown=1))
        waiting.addErrback(lambda failure: None)
        call.addErrback(lambda failure: None)

    def test_undecodable(self) -> None:
        """No JSON, no reply, a type that is not accepted: the call waits for a better one, and ends in time."""
        call = self.call(timeout=1.0)
        self.answer(self.requests[0], b"{")
        self.answer(self.requests[0], [1])
        self.answer(self.requests[0], b"\x80\x04N.", content_type="application/x-python-serialize")
        self.assertEqual(self.client.counts, ReplyCounts(undecodable=3))
        self.assertNoResult(call)
        self.turn(1.0)
        self.assertIn("not accepted", str(self.failureResultOf(call, RPCTimeout).value))


class LossTests(ClientCase):
    """The connection ends: nobody waits for what cannot come."""

    def test_lost(self) -> None:
        """R27: all calls fail with the error of the connection; the next one works."""
        calls = [self.call(n) for n in range(3)]
        self.cut()
        self.turn()
        for call in calls:
            self.failureResultOf(call, ConnectionForced)
        self.assertEqual(self.client.pending, 0)
        self.channel = self.done(self.connection.channel())
        self.done(self.channel.consume("server", self.requests.append, no_ack=True))
        again = self.call()
        self.answer(self.requests[-1], {"result": "again"})
        self.assertEqual(self.successResultOf(again), "again")

    def test_an_answer_to_a_lost_channel(self) -> None:
        """Goes nowhere: the next channel has another name."""
        call = self.call()
        request = self.requests[0]
        assert self.client._channel is not None
        self.done(self.client._channel.channel.close())
        self.failureResultOf(call)
        waiting = self.call()
        self.answer(request, {"result": "to the old one"}, correlation_id=self.requests[1].properties["correlation_id"])
        self.assertNoResult(waiting)
        self.assertNotEqual(request.properties["reply_to"], self.requests[1].properties["reply_to"])
        self.answer(self.requests[1], {"result": 1})
        self.assertEqual(self.successResultOf(waiting), 1)

    def test_the_reply_queue_is_deleted(self) -> None:
        """By an operator: the calls fail with that, and the next one has another queue."""
        self.client = self.make(reply="queue")
        call = self.call()
        name = self.client.reply_to
        self.assertTrue(name.startswith("amq.gen-"))
        vhost = self.transport.vhost(self.url)
        vhost.delete_queue(name, owner=vhost.queues[name].owner)
        self.turn()
        self.failureResultOf(call, ConsumerCancelled)
        again = self.call()
        self.assertNotIn(self.client.reply_to, ("", name))
        self.answer(self.requests[1], {"result": 1})
        self.assertEqual(self.successResultOf(again), 1)

    def test_close(self) -> None:
        """Ends all calls; the connection that was given stays; nothing is left."""
        call = self.call()
        connection = self.client.connection
        self.done(self.client.close())
        self.failureResultOf(call, ConnectionClosed)
        self.failureResultOf(self.client.call("server", "add"), ConnectionClosed)
        self.failureResultOf(self.client.open(), ConnectionClosed)
        self.assertTrue(connection.connected)
        self.done(self.client.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(connection._callbacks, [])
        self.assertIn("closed", repr(self.client))

    def test_a_closed_connection(self) -> None:
        """The application closes the connection itself: the calls end, and so do later ones."""
        call = self.call()
        self.done(self.client.connection.close())
        self.turn()
        self.failureResultOf(call, ConnectionClosed)
        self.failureResultOf(self.call(), ConnectionClosed)


class OpeningTests(ClientCase):
    """Calls before there is a channel."""

    def test_many_at_once(self) -> None:
        """They share one channel, and leave in order."""
        calls = [self.client.call("server", "add", n) for n in range(50)]
        self.turn()
        self.assertEqual([json.loads(request.body)["args"] for request in self.requests], [[n] for n in range(50)])
        self.assertEqual(len({request.properties["reply_to"] for request in self.requests}), 1)
        for request in self.requests:
            self.answer(request, {"result": 1})
        self.assertEqual([self.successResultOf(call) for call in calls], [1] * 50)

    def test_a_broker_that_cannot_be_reached(self) -> None:
        """Each call fails with the error of connecting, and the next tries again."""
        client = self.make()
        refused: list[Deferred[Any]] = []

        def transport_connection() -> Deferred[Any]:
            refused.append(Deferred())
            return refused[-1]

        self.patch(client.connection, "transport_connection", transport_connection)
        calls = [client.call("server", "add"), client.call("server", "add")]
        given_up = client.call("server", "add")
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.assertEqual(len(refused), 1)
        refused[0].errback(ConnectionForced("no"))
        for call in calls:
            self.failureResultOf(call, ConnectionForced)
        opening = client.open()
        self.assertEqual(len(refused), 2)
        refused[1].errback(ConnectionForced("no"))
        self.failureResultOf(opening, ConnectionForced)

    def test_a_channel_that_ends_as_soon_as_it_is_open(self) -> None:
        """Calls that it was to carry fail with its reason; no other call takes it for one that lives."""
        reason = ConnectionForced("gone")

        async def opened(*args: Any) -> Any:
            plain: Any = self.done(self.connection.channel()).transport_channel
            channel = reply_channel.ReplyChannel(plain, args[-1])
            channel.end(reason)
            return channel

        self.patch(reply_channel.ReplyChannel, "open", opened)
        self.assertIs(self.failureResultOf(self.call(), ConnectionForced).value, reason)
        self.assertEqual(self.client.reply_to, "")

    def test_a_channel_that_ends_in_the_middle(self) -> None:
        """While the calls that have waited for it leave: the others wait for the next one."""
        calls = [self.client.call("server", "add", n) for n in range(3)]
        original = self.client._send

        def send(channel: Any, *args: Any) -> None:
            original(channel, *args)
            if len(sent) == 1:
                channel.end(ConnectionForced("gone"))
            sent.append(channel)

        sent: list[Any] = []
        self.client = self.make()
        original = self.client._send
        self.patch(self.client, "_send", send)
        for call in calls:
            call.cancel()
            self.failureResultOf(call, CancelledError)
        calls = [self.client.call("server", "add", n) for n in range(3)]
        self.turn()
        self.assertEqual(len(set(sent)), 2)
        for call in calls[:2]:
            self.failureResultOf(call, ConnectionForced)
        self.answer(self.requests[-1], {"result": "by the next"})
        self.assertEqual(self.successResultOf(calls[2]), "by the next")

    def never_ready(self, **settings: Any) -> tuple[RPCClient, Deferred[Any]]:
        """A client, and what its channel waits for."""
        client, ready = self.make(**settings), Deferred[Any]()
        original = client.connection.transport_connection
        self.patch(client.connection, "transport_connection", lambda: ready.addCallback(lambda _: original()))
        return client, ready

    def test_one_who_waits_ends_the_waiting_of_another(self) -> None:
        """Which is as if the other had done so himself."""
        client, ready = self.never_ready()
        one, two, three = client.open(), client.open(), client.open()
        one.addCallback(lambda _: two.cancel())
        ready.callback(None)
        self.turn()
        self.successResultOf(one)
        self.failureResultOf(two, CancelledError)
        self.successResultOf(three)

    def test_close_before_it_is_open(self) -> None:
        """R28: nobody waits for the channel any more, neither callers nor the client."""
        client, ready = self.never_ready()
        opening, call = client.open(), client.call("server", "add")
        self.done(client.close())
        self.failureResultOf(opening, ConnectionClosed)
        self.failureResultOf(call, ConnectionClosed)
        self.assertTrue(ready.called)
        self.assertIsNone(client._opening)

    def test_close_twice(self) -> None:
        """R29: both fire when it is over."""
        self.done(self.client.open())
        closed: Deferred[None] = Deferred()
        self.patch(reply_channel.ReplyChannel, "close", lambda channel: closed)
        one, two = self.client.close(), self.client.close()
        self.assertNoResult(one)
        self.assertNoResult(two)
        closed.callback(None)
        self.successResultOf(one)
        self.successResultOf(two)
        self.successResultOf(self.client.close())

    def test_a_context_that_cannot_be_entered(self) -> None:
        """It leaves no connection behind."""
        client = self.make(reply="direct")
        self.patch(reply_channel, "DIRECT_REPLY_TO", "what the broker does not know")

        async def run() -> None:
            async with client:
                raise AssertionError("entered")

        self.failureResultOf(Deferred.fromCoroutine(run()), NotFound)
        self.assertIn("closed", repr(client))

    def test_timeout_before_it_is_open(self) -> None:
        """R27: the time counts from the call; what has timed out is not sent."""
        client = self.make()
        ready: Deferred[Any] = Deferred()
        original = client.connection.transport_connection
        self.patch(client.connection, "transport_connection", lambda: ready.addCallback(lambda _: original()))
        call, other = client.request("server", "add", timeout=1.0), client.request("server", "add", timeout=3.0)
        self.turn(1.0)
        self.failureResultOf(call, RPCTimeout)
        ready.callback(None)
        self.turn()
        self.assertEqual(len(self.requests), 1)
        self.assertEqual(self.requests[0].properties["expiration"], "2000")
        self.answer(self.requests[0], {"result": 1})
        self.assertEqual(self.successResultOf(other), 1)

    def test_limit(self) -> None:
        """Thousands in flight, and not more than the limit: Overloaded."""
        self.client = self.make(max_in_flight=5000)
        self.done(self.client.open())
        calls = [self.client.call("server", "add", n) for n in range(5000)]
        self.failureResultOf(self.client.call("server", "add"), Overloaded)
        for _ in range(60):
            self.turn()
        self.assertEqual(len(self.requests), 5000)
        for n, request in enumerate(self.requests):
            self.channel.publish(
                "",
                request.properties["reply_to"],
                json.dumps({"result": n}).encode(),
                {"content_type": "application/json", "correlation_id": request.properties["correlation_id"]},
            )
        for _ in range(60):
            self.turn()
        self.assertEqual([self.successResultOf(call) for call in calls], list(range(5000)))

    def test_a_url(self) -> None:
        """The connection is the client's own, and closed with it."""
        client = RPCClient(self.url)
        client.connection._reactor = self.clock
        self.done(client.open())
        self.assertTrue(client.connection.connected)
        self.done(client.close())
        self.assertFalse(client.connection.connected)
        self.assertIsInstance(client.connection, Connection)

    def test_a_broker_without_direct_replies(self) -> None:
        """A queue of the client's own, or, where direct replies were asked for, what the broker says."""
        self.patch(reply_channel, "DIRECT_REPLY_TO", "what the broker does not know")
        self.client = self.make()
        call = self.call()
        self.assertTrue(self.client.reply_to.startswith("amq.gen-"))
        self.answer(self.requests[0], {"result": 1})
        self.assertEqual(self.successResultOf(call), 1)
        self.client = self.make(reply="direct")
        self.failureResultOf(self.call(), NotFound)
        self.failureResultOf(self.client.open(), NotFound)

    def test_as_a_context(self) -> None:
        """`async with`."""

        async def run() -> str:
            async with self.make() as client:
                return client.reply_to

        self.assertEqual(self.run_async(run()), "amq.rabbitmq.reply-to")
