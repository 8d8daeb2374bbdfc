"""The whole service under twistd, in child processes, on a real RabbitMQ, with messages of another client."""

from __future__ import annotations

import signal
import time
from typing import Any

import pika

from tests.certificates import shared_authority
from tests.service.children import Child, ChildTestCase


class HandlerTests(ChildTestCase):
    def test_the_kinds_of_handlers(self) -> None:
        """peers 39: function, Deferred, async def, threads; each publishes; SIGTERM ends with 0.

        Two of them by the service's publisher.
        """
        self.declare(name="answers")
        kinds: dict[str, list[str]] = {
            "plain": [],
            "deferred": [],
            "coroutine": ["--concurrency", "3"],
            "threaded": ["--threads", "2"],
            "publishing": [],
            "publishing_thread": ["--threads", "2"],
        }
        children: dict[str, Child] = {}
        for kind, options in kinds.items():
            self.queue = self.name(kind)
            children[kind] = self.consumer(kind, "--declare", *options)
            children[kind].until_consuming()
            self.publish("a", "b", "c")
        for kind, child in children.items():
            child.until_seen_so_many(3)
            self.assertEqual(sorted(child.seen), [f"{kind} {body}" for body in "abc"])
            child.signal()
        for child in children.values():
            self.assertEqual(child.wait(), 0, child.output)
            self.assertEqual(child.errors, [])
            self.assertIn("3 handled, 0 failed", child.output)
        with self.pika() as channel:
            bodies = [channel.basic_get("answers", auto_ack=True)[2] for _ in range(18)]
            self.assertEqual(sorted(bodies), sorted([b"A", b"B", b"C"] * 6))
            self.assertEqual(channel.basic_get("answers")[0], None)
        for child in children.values():
            self.assertEqual(self.ready(child.queue), 0)

    def test_a_handler_may_settle_itself(self) -> None:
        """R23: and the service leaves it alone."""
        self.declare()
        self.publish("no", "yes")
        child = self.consumer("own_settlement")
        child.until_seen_so_many(2)
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
        self.assertEqual(self.ready(), 0)
        self.assertNotIn("not settled", child.output)

    def test_a_failing_message_is_tried_twice_then_dead_lettered(self) -> None:
        """R26, R22: one second apart; good messages pass meanwhile; traceback without body and password (C3)."""
        dead = self.name("dead")
        self.declare(name=dead)
        self.declare(**{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
        self.node.add_user("canary", "c4n4ry-p4ss")
        self.addCleanup(self.node.delete_user, "canary")
        child = self.consumer(
            "failing",
            TXMSG_URL=f"amqp://{self.node.host}:{self.node.port}",
            TXMSG_USERNAME="canary",
            TXMSG_PASSWORD="c4n4ry-p4ss",
        )
        self.publish("bad apple", "good1", "good2", message_id="id-1", headers={"token": "h34der"})
        child.until(lambda: self.ready(dead) == 1)
        attempts = [line.split() for line in child.seen if line.startswith("attempt bad")]
        self.assertEqual([attempt[3] for attempt in attempts], ["False", "True"])
        self.assertGreater(float(attempts[1][4]) - float(attempts[0][4]), 0.9)
        self.assertLess(child.seen.index(" ".join(attempts[0])), 2)
        child.signal()
        self.assertEqual(child.wait(), 0)
        self.assertIn("Traceback", child.output)
        self.assertIn("message id 'id-1'", child.output)
        self.assertIn("2 handled, 2 failed, 1 requeued, 1 rejected", child.output)
        for secret in ("apple", "c4n4ry", "h34der"):
            self.assertNotIn(secret, child.output)

    def test_delayed_retries(self) -> None:
        """Issue, R26: on classic and quorum queues, without a plug-in; then the dead letter queue."""
        for kind in ("classic", "quorum"):
            self.queue = self.name(kind)
            child = self.consumer(
                "failing",
                *("--declare", "--queue-argument", f"x-queue-type={kind}"),
                *("--retry-delay", "0.3", "--retry-delay", "0.6"),
            )
            child.until_consuming()
            self.publish("bad apple", "good", message_id="id-1")
            child.until(lambda: "for the last time" in child.output)  # noqa: B023 - it is waited for here
            attempts = [line.split() for line in child.seen if line.startswith("attempt bad")]
            moments = [float(attempt[4]) for attempt in attempts]
            self.assertEqual(len(moments), 3)
            self.assertGreater(moments[1] - moments[0], 0.25)
            self.assertGreater(moments[2] - moments[1], 0.55)
            child.signal()
            self.assertEqual(child.wait(), 0, child.output)
            self.assertEqual((self.ready(), self.ready(f"{self.queue}.dead")), (0, 1))
            self.assertIn("1 handled, 3 failed, 0 requeued, 0 rejected, 2 to be retried, 1 dead", child.output)
            self.assertNotIn("apple", child.output)

    def test_undecodable_properties(self) -> None:
        """R20: headers nested too deep are the end of that message only."""
        nested: Any = {}
        for _ in range(60):
            nested = {"n": nested}
        child = self.consumer("plain", "--declare")
        child.until_consuming()
        self.declare(name="answers")
        self.publish("deep", headers=nested)
        self.publish("flat")
        child.until_seen("plain flat")
        child.signal()
        self.assertEqual(child.wait(), 0)
        self.assertIn("its properties cannot be decoded", child.output)
        self.assertEqual(self.ready(), 0)


class StopTests(ChildTestCase):
    def test_a_signal_drains(self) -> None:
        """R30, R33, A-06: handlers at work finish and their messages are acked; the rest goes back; exit 0, not -15."""
        children = []
        for number in (signal.SIGTERM, signal.SIGINT):
            self.queue = self.name(signal.Signals(number).name)
            self.declare()
            self.publish("1", "2", "3")
            child = self.consumer("slow", "--concurrency", "2")
            children.append(child)
            child.until_seen_so_many(2)
            child.signal(number)
        for child in children:
            self.assertEqual(child.wait(), 0, child.output)
            self.assertEqual(sorted(child.seen), ["atexit", "begin 1", "begin 2", "end 1", "end 2"])
            self.assertIn("waiting up to 30 s for 2 running handler(s)", child.output)
            self.assertIn("2 handled, 0 failed, 1 requeued, 0 rejected; 1 not begun", child.output)
            self.assertEqual(self.ready(child.queue), 1)

    def test_the_deadline(self) -> None:
        """R30: 75, for a Deferred and for a thread; the message goes back; exit functions have run."""
        children = []
        for handler, options in (("never", []), ("blocked", ["--threads", "1"])):
            self.queue = self.name(handler)
            self.declare()
            self.publish("1")
            child = self.consumer(handler, "--drain", "0.3", *options)
            children.append(child)
        for child in children:
            child.until_seen("begin 1")
            begin = time.monotonic()
            child.signal()
            self.assertEqual(child.wait(), 75, child.output)
            self.assertLess(time.monotonic() - begin, 15)
            (line,) = child.errors
            self.assertIn("1 handler(s) did not finish in time", line)
            self.assertEqual(self.ready(child.queue), 1)
            self.assertEqual(child.seen, ["begin 1", "atexit"])

    def test_three_signals_end_it_even_if_the_reactor_is_blocked(self) -> None:
        """The third stops now."""
        self.declare()
        self.publish("1")
        child = self.consumer("blocked")
        child.until_seen("begin 1")
        for _ in range(3):
            child.signal()
            time.sleep(0.2)
        self.assertEqual(child.wait(15), 75)

    def test_a_signal_while_connecting(self) -> None:
        """A host that accepts and is silent: the attempt is given up, and that is no failure."""
        self.node.pause()
        self.addCleanup(self.node.resume)
        child = self.consumer("plain")
        child.until(lambda: "starting up" in child.output and "reactor class" in child.output)
        time.sleep(0.3)
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)

    def test_a_broker_that_does_not_answer(self) -> None:
        """R30: closing is bounded, so the service ends."""
        child = self.consumer("plain", "--declare", TXMSG_URL=self.node.url + "?close_timeout=0.5")
        child.until_consuming()
        self.node.pause()
        self.addCleanup(self.node.resume)
        begin = time.monotonic()
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
        self.assertLess(time.monotonic() - begin, 10)

    def test_other_reactors(self) -> None:
        """peers 2, V-03: signals and exit code do not depend on the reactor."""
        children = []
        for reactor in ("asyncio", "poll", "select"):
            self.queue = self.name(reactor)
            self.declare()
            self.publish("1")
            children.append(self.consumer("slow", reactor=reactor))
        for child in children:
            child.until_seen("begin 1")
            child.signal()
        for child in children:
            self.assertEqual(child.wait(), 0, child.output)
            self.assertEqual(child.seen, ["begin 1", "end 1", "atexit"])


class EndTests(ChildTestCase):
    def test_a_lost_connection_is_made_again(self) -> None:
        """R9: closed by an operator; another message, and the end is 0."""
        child = self.consumer("slow", "--declare")
        child.until_consuming()
        self.node.close_all_connections("maintenance tonight")
        child.until(lambda: child.output.count("connected to ") == 2)
        self.assertIn("maintenance tonight", child.output)
        self.publish("1")
        child.until_seen("begin 1", "end 1")
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)

    def test_a_deleted_queue(self) -> None:
        """R25, X-12: declared again with --declare; waited for without, and then it is 12."""
        child = self.consumer("plain", "--declare")
        child.until_consuming()
        with self.pika() as channel:
            channel.queue_delete(self.queue)
        child.until(lambda: "consumer resumed" in child.output)
        other = self.consumer("plain", "--resubscribe-limit", "2")
        other.until_consuming()
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
        with self.pika() as channel:
            channel.queue_delete(self.queue)
        self.assertEqual(other.wait(), 12, other.output)
        (line,) = other.errors
        self.assertIn("no queue", line)

    def test_giving_up_is_14(self) -> None:
        """R33: the host is there, but nobody answers."""
        child = self.consumer("plain", "--declare", "--recovery-limit", "1", "--attempt-timeout", "0.5")
        child.until_consuming()
        self.node.close_all_connections("maintenance tonight")
        self.node.pause()
        self.addCleanup(self.node.resume)
        self.assertEqual(child.wait(), 14, child.output)
        (line,) = child.errors
        self.assertIn("gave up connecting", line)

    def test_halt(self) -> None:
        """peers 41: the handler's exit code; its message is back in the queue."""
        self.declare()
        self.publish("1")
        child = self.consumer("halting")
        self.assertEqual(child.wait(), 42, child.output)
        self.assertEqual(child.seen, ["halt", "atexit"])
        self.assertEqual(
            child.errors, ["txmsg-consumer: the handler halted the service: enough is enough (exit code 42)"]
        )
        self.assertEqual(self.ready(), 1)


class RunTests(ChildTestCase):
    def test_a_file_for_everything(self) -> None:
        """Issue: the same from TOML; bindings; the password from a file, and a warning when others can read it."""
        exchange = self.name("events")
        with self.pika() as channel:
            channel.exchange_declare(exchange, "topic")
        settings = f"""
            url = "amqp://{self.node.host}:{self.node.port}"
            username = "guest"
            password_file = "secret"
            queue = "{self.queue}"
            declare = true
            bind = ["{exchange}:order.*"]
            prefetch = 7
            handler = "handlers:rejecting"
            [queue_arguments]
            x-max-length = 10
            """
        files = {"consumer.toml": settings, "secret": "guest\n"}
        child = self.twistd("--config", "consumer.toml", "--prefetch", "3", files=files, TXMSG_URL="")
        child.until_consuming()
        self.assertIn("prefetch 3, concurrency 1", child.output)
        self.assertIn("secret can be read by others", child.output)
        with self.pika() as channel:
            channel.basic_publish(exchange, "order.new", b"one", pika.BasicProperties(message_id="m1"))
        child.until(lambda: "message rejected by the handler: not wanted (message id 'm1'" in child.output)
        child.signal()
        self.assertEqual(child.wait(), 0)

    def test_tls_with_a_client_certificate(self) -> None:
        """Issue: --tls-ca, --tls-cert, --tls-key; the login is EXTERNAL, the user the certificate's common name."""
        authority = shared_authority()
        client = authority.issue("service-user", dns=["service-user"])
        self.node.add_user("service-user")
        self.addCleanup(self.node.delete_user, "service-user")
        self.declare(name="answers")
        child = self.consumer(
            "plain",
            *("--declare", "--tls-ca", str(authority.certificate_file)),
            *("--tls-cert", str(client.certificate_file), "--tls-key", str(client.key_file)),
            TXMSG_URL=f"amqps://localhost:{self.node.mtls_port}",
        )
        child.until_consuming()
        self.publish("x")
        child.until_seen("plain x")
        child.signal()
        self.assertEqual(child.wait(), 0)

    def test_as_a_daemon(self) -> None:
        """Without -n: the parent ends with 0 once the daemon runs; the log and the pid file are twistd's own."""
        child = self.twistd(
            "--queue", self.queue, "--handler", "handlers:slow", "--declare", "--bind", "none:key", daemon=True
        )
        self.assertEqual(child.wait(), 0)
        log = child.directory / "log"
        pid_file = child.directory / "twistd.pid"
        deadline = time.monotonic() + 40
        while "Server Shut Down" not in (log.read_text() if log.exists() else ""):
            self.assertLess(time.monotonic(), deadline, child.output)
            time.sleep(0.05)
        self.assertIn("create the exchange named in --bind first", log.read_text())
        while pid_file.exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
