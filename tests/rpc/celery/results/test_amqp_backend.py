"""AMQPBackend: a queue for each task."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import fail

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import BacklogLimitExceeded, ConfigurationError, ConnectionClosed, NotFound, RemoteError, RPCTimeout
from txmsg.messaging import Exchange, Producer, Queue
from txmsg.rpc.celery.results import AMQPBackend, AsyncResult, amqp_backend


class AMQPBackendTests(MemoryCase):
    """celery B-01 to B-18, P-09."""

    def setUp(self) -> None:
        """A client and a worker."""
        super().setUp()
        self.client = AMQPBackend(self.connection, timeout=10.0)
        self.worker = AMQPBackend(self.connect())
        self.addCleanup(self.turn)
        self.addCleanup(self.worker.connection.close)
        self.addCleanup(self.connection.close)

    def store(self, task_id: str, result: Any, state: str = "SUCCESS") -> None:
        """Send one state, and let it arrive."""
        self.assertEqual(self.done(self.worker.store_result(task_id, result, state)), state)
        self.turn()

    def queues(self) -> list[str]:
        """Which there are."""
        return list(self.transport.vhost(self.url).queues)

    def test_declarations(self) -> None:
        """celery B-02 to B-05: the names and flags of Celery 3.1."""
        exchange = Exchange("celeryresults", "direct", durable=True, delivery_mode=2)
        expected = Queue("ab", exchange, "ab", durable=True, auto_delete=True, expires=86400.0)
        self.assertEqual(self.client.queue_for("a-b"), expected)
        self.assertEqual(self.client.destination_for("a-b", None), ("ab", "a-b"))
        self.assertEqual((self.client.as_uri(), self.client.reply_to), ("amqp://", ""))
        transient = AMQPBackend(self.connection, persistent=False, exchange="mine")
        self.assertEqual((transient.queue_for("a").durable, transient.exchange.name), (False, "mine"))

    def test_stored_before_anybody_waits(self) -> None:
        """celery B-06 to B-09: the sender declares the queue, so that nothing is dropped; no reply_to is needed."""
        self.store("a-b", 1, "MINE")
        self.store("a-b", 2)
        self.assertEqual(self.depth("ab"), (2, 0))
        got = self.done(self.channel.get("ab"))
        self.assertEqual((json.loads(got.body)["task_id"], got.properties["delivery_mode"]), ("a-b", 2))
        self.assertEqual((got.exchange, got.properties["correlation_id"]), ("celeryresults", "a-b"))
        got.nack()
        self.assertEqual(self.done(self.client.wait_for("a-b")).value, 2)
        self.turn()
        self.assertNotIn("ab", self.queues())

    def test_waiting(self) -> None:
        """celery B-10 to B-14: the queue is consumed while somebody waits; it goes with the final state."""
        self.done(self.client.ready())
        result = AsyncResult("t", self.client)
        states: list[str] = []
        waiting = result.get(on_state_change=lambda each: states.append(each.state))
        self.turn()
        self.assertIn("t", self.queues())
        self.store("t", 1, "MINE")
        self.store("t", ValueError("v"), "FAILURE")
        self.failureResultOf(waiting, RemoteError)
        self.assertEqual(states, ["MINE", "FAILURE"])
        self.turn()
        self.assertNotIn("t", self.queues())
        short = AsyncResult("u", self.client).get(1)
        self.turn(1)
        self.failureResultOf(short, RPCTimeout)
        self.store("u", 2)
        self.assertEqual(self.done(AsyncResult("u", self.client).get()), 2)

    def test_polling(self) -> None:
        """celery B-15, A-15, A-17: the newest; older ones are dropped, a final one is taken out, others stay."""
        result = AsyncResult("t", self.client)
        self.assertEqual(self.done(result.poll()), "PENDING")
        self.store("t", 1, "ONE")
        self.store("t", 2, "TWO")
        self.assertEqual(self.done(result.poll()), "TWO")
        self.assertEqual((self.depth("t"), result.result), ((1, 0), 2))
        self.assertEqual(self.done(result.poll()), "TWO")
        self.store("t", 3)
        self.store("t", 4)
        self.assertEqual(self.done(result.poll()), "SUCCESS")
        self.assertEqual((self.depth("t"), result.result), ((0, 0), 3))
        self.assertEqual(self.done(result.poll()), "SUCCESS")
        waiting = self.client.wait_for("w")
        self.turn()
        self.assertIsNone(self.done(self.client.poll("w")))
        self.store("w", 1)
        self.done(waiting)

    def test_backlog(self) -> None:
        """celery A-16, B-15: so many messages are looked at and no more; all are in the queue again."""
        for number in range(3):
            self.store("t", number, "MINE")
        self.failureResultOf(self.client.get_task_meta("t", 0), ConfigurationError)
        polling = self.client.get_task_meta("t", 2)
        self.turn()
        error = self.failureResultOf(polling, BacklogLimitExceeded).value
        self.assertEqual((error.task_id, error.limit, self.depth("t")), ("t", 2, (3, 0)))
        newest = self.done(self.client.get_task_meta("t", 3))
        assert newest is not None
        self.assertEqual(newest.value, 2)

    def test_forgetting(self) -> None:
        """Its queue goes, too; closing ends all of them."""
        result = AsyncResult("t", self.client)
        waiting = result.get()
        waiting.addErrback(lambda failure: None)
        other = AsyncResult("u", self.client).get()
        other.addErrback(lambda failure: None)
        self.turn()
        result.forget()
        self.turn()
        self.assertEqual([name for name in self.queues() if name in "tu"], ["u"])
        self.done(self.client.poll("p"))
        self.done(self.client.close())
        self.assertEqual([name for name in self.queues() if name in "tu"], [])

    def test_many(self) -> None:
        """Queues that are consumed with nobody waiting have a bound."""
        small = AMQPBackend(self.connection, max_waiting=2)
        for task_id in ("a", "b", "c"):
            waiting = small.wait_for(task_id, 1)
            self.turn(1)
            self.failureResultOf(waiting, RPCTimeout)
        self.turn()
        self.assertEqual([name for name in self.queues() if len(name) == 1], ["b", "c"])
        self.done(small.close())

    def test_channels(self) -> None:
        """Each queue has a channel: those with nobody waiting go before the broker has no more of them."""
        self.patch(amqp_backend, "_WATCHED", 2)
        for task_id in ("a", "b", "c"):
            waiting = self.client.wait_for(task_id, 1)
            self.turn(1)
            self.failureResultOf(waiting, RPCTimeout)
        self.turn()
        self.assertEqual([name for name in self.queues() if len(name) == 1], ["b", "c"])

    def test_the_connection_is_closed(self) -> None:
        """R27: whoever waits is told so at once."""
        waiting = self.client.wait_for("a", 300)
        self.turn()
        self.done(self.connection.close())
        self.turn(1)
        self.failureResultOf(waiting, ConnectionClosed)
        self.failureResultOf(self.client.poll(5), ConfigurationError)  # type: ignore[arg-type]

    def test_a_queue_that_goes_while_it_is_declared(self) -> None:
        """celery B-07: its last consumer leaves between the declaration and the binding: it is declared again."""
        failures = [NotFound("no queue", 404)] * 2
        publish = Producer.publish

        def unlucky(producer: Producer, *args: Any, **kwargs: Any) -> Any:
            return fail(failures.pop()) if failures else publish(producer, *args, **kwargs)

        self.patch(Producer, "publish", unlucky)
        self.store("t", 1)
        self.assertEqual(self.done(self.client.wait_for("t")).value, 1)
        failures = [NotFound("no queue", 404)] * 3
        self.assertIsNone(self.done(self.worker.store_result("t", 1, "SUCCESS")))
        self.assertEqual(self.worker.unsendable, 1)
