"""What the service does when the broker, the network, its channel, its consumer or its queue goes."""

from __future__ import annotations

from typing import Any

from tests.service.logs import Logged
from tests.service.simulated import CANARY, ServiceCase
from txmsg.amqp.secret import Secret


class StartTests(ServiceCase):
    """The first connect follows the rules of every other one."""

    def test_the_broker_comes_later(self) -> None:
        """R9, R11: the service is first; one line for each failed attempt."""
        self.simulation.run_until(self.simulation.broker.stop())
        self.start()
        self.assertFalse(self.service.is_consuming)
        self.assertEqual(repr(self.service), "<ConsumerService queue='work' starting, connection lost>")
        self.simulation.advance(19)
        self.simulation.run_until(self.simulation.broker.start())
        self.simulation.advance(2)
        self.assertTrue(self.service.is_consuming)
        self.assertIn("the connection to localhost:5672 cannot be made: ", self.logged.text)
        self.simulation.advance(100)
        self.stopped()

    def test_it_never_comes(self) -> None:
        """R33: after `start_limit` it is 14, with the last reason."""
        self.simulation.run_until(self.simulation.broker.stop())
        self.start(start_limit=20.0)
        self.simulation.advance(18)
        self.assertEqual(self.ended, [])
        self.simulation.advance(2)
        line = self.ended_with(14)
        self.assertTrue(line.startswith("cannot connect to amqp://localhost:5672/%2F: "), line)
        self.assertIn("check the host and port", line)

    def test_one_attempt(self) -> None:
        """`start_limit` 0: each host once."""
        self.simulation.run_until(self.simulation.broker.stop())
        self.start(start_limit=0.0)
        self.ended_with(14)
        self.assertEqual(sum("cannot be made" in line for line in self.logged.lines), 1)

    def test_for_ever(self) -> None:
        self.simulation.run_until(self.simulation.broker.stop())
        self.start(start_limit=None)
        self.simulation.advance(3600)
        self.simulation.run_until(self.simulation.broker.start())
        self.simulation.advance(31)
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_cut_at_each_moment_of_the_start(self) -> None:
        """R9, F2, Z2: it consumes all the same."""
        for octets in range(1, 700, 20):
            with self.subTest(octets=octets):
                self.ended.clear()
                self.simulation.cut("rst", "to_broker", after_bytes=octets)
                self.start(declare=True, bind=(("amq.topic", "k"),))
                self.simulation.advance(2)
                self.assertTrue(self.service.is_consuming)
                self.assertEqual(len(self.queue.consumers), 1)
                self.stopped()

    def test_a_broker_that_accepts_and_says_nothing(self) -> None:
        """R11: then speaks."""
        self.simulation.broker.is_silent = True
        self.start()
        self.simulation.advance(30)
        self.simulation.broker.is_silent = False
        self.simulation.advance(15)
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_nothing_answers_after_the_login(self) -> None:
        """A call may wait 30 s for its answer, the service 60: it connects anew."""
        self.simulation.cut("blackhole", "to_broker", after_bytes=430)
        self.start(url="amqp://localhost?heartbeat=0")
        self.simulation.advance(29)
        self.assertFalse(self.service.is_consuming)
        self.simulation.advance(5)
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_the_node_of_the_queue_is_down(self) -> None:
        """RabbitMQ says 404 for a while, of a queue that is there."""
        down = "NOT_FOUND - home node 'b@b' of durable queue 'work' in vhost '/' is down or inaccessible"
        fault = self.broker.faults.close_channel(404, down, on="queue.declare", times=None)
        self.start(start_limit=90.0)
        self.simulation.advance(30)
        self.assertEqual(self.ended, [])
        fault.stop()
        self.simulation.advance(30)  # the channel, which the broker closes each time, waits longer and longer
        self.assertTrue(self.service.is_consuming)
        self.stopped()
        self.ended.clear()
        with self.broker.faults.close_channel(404, down, on="queue.declare", times=None):
            self.start(start_limit=20.0)
            self.simulation.advance(20)
            self.assertIn("not consuming within 20 s", self.ended_with(14))

    def test_a_refusal_at_the_start_is_final(self) -> None:
        """R12, R33: nothing says that it was ever right; but there is patience for the asking."""
        self.start(username="nobody", password=Secret(CANARY))
        self.assertIn("check the user name and password", self.ended_with(17))
        self.ended.clear()
        self.start(username="nobody", password=Secret(CANARY), refused_limit=120.0, start_limit=300.0)
        self.simulation.advance(60)
        self.assertEqual(self.ended, [])
        self.broker.add_user("nobody", CANARY)
        self.simulation.advance(60)
        self.assertTrue(self.service.is_consuming)
        self.stopped()


class OutageTests(ServiceCase):
    def test_restarts_under_load(self) -> None:
        """R9, R22, F1, peers 14: killed again and again; nothing is lost, and it goes on consuming."""
        handled: list[bytes] = []

        def handler(delivery: Any) -> Any:
            handled.append(delivery.body)
            return None

        self.start(handler)
        for number in range(20):
            for index in range(50):
                body = b"%d.%d" % (number, index)
                self.publish(body)
                if index == 25:
                    self.simulation.broker.restart(after=0.3)
                    self.simulation.advance(0.5)
            self.simulation.advance(2)
        # The waits have grown, as no connection was stable.
        self.simulation.advance(60)
        self.assertEqual(set(handled), {b"%d.%d" % (n, i) for n in range(20) for i in range(50)})
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.stopped()

    def test_the_log(self) -> None:
        """One line for each change of state; Twisted's ClientService does not tell the same once more."""
        twice = Logged(self, "twisted.application", "txmsg.amqp.recovery.loop")
        self.start()
        del self.logged.events[:]
        self.simulation.broker.crash()
        self.simulation.advance(0.001)
        self.simulation.run_until(self.simulation.broker.start())
        self.simulation.advance(3)
        first, *failed, last = self.logged.lines
        self.assertRegex(first, r"^the connection to localhost:5672 is lost: .*; next attempt in \d\.\d s$")
        self.assertEqual(last, "connected to amqp://localhost:5672/%2F")
        self.assertEqual(failed, [])
        self.stopped()
        self.assertEqual(twice.lines, [])

    def test_what_no_handler_had_begun_is_dropped(self) -> None:
        """R23, R24: the broker delivers it again; what had been begun goes on, and its ack harms nobody."""
        self.start(concurrency=1)
        self.publish(b"1", b"2", b"3")
        self.simulation.broker.restart(after=0.1)
        self.simulation.advance(5)
        self.assertIn("2 messages were waiting; the broker will deliver them again", self.logged.text)
        first = self.results[b"1"]
        self.assertEqual(self.begun, [b"1"])
        first.callback(None)
        self.assertIn("message not settled, the broker will deliver it again", self.logged.text)
        self.assertEqual(self.begun, [b"1", b"1"])
        for body in (b"1", b"2", b"3"):
            self.results[body].callback(None)
        self.simulation.advance(1)
        self.assertEqual(self.begun, [b"1", b"1", b"2", b"3"])
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.stopped()

    def test_a_handler_that_ends_with_the_connection(self) -> None:
        """R24: the next one does not begin with a message of the connection that is going."""

        def handler(delivery: Any) -> Any:
            self.begun.append(delivery.body)
            return delivery.channel.queue_declare("work", passive=True)

        self.start(handler, concurrency=1, on_failure="reject")
        (link,) = self.simulation.open_links("service")
        link.swallow(("to_broker",))
        self.publish(b"1", b"2", b"3")
        self.assertEqual(self.begun, [b"1"])
        link.reset()
        self.simulation.advance(5)
        self.assertEqual(self.begun, [b"1", b"1", b"2", b"3"])
        self.stopped()

    def test_what_was_held_is_dropped(self) -> None:
        self.start(requeue_delay=100.0)
        self.publish(b"1")
        self.results[b"1"].errback(ValueError())
        self.simulation.broker.restart(after=0.1)
        self.simulation.advance(5)
        self.assertEqual(self.begun, [b"1", b"1"])
        self.results[b"1"].callback(None)
        self.stopped()
        self.assertNotIn("not settled", self.logged.text)

    def test_copies_are_kept_from_the_handler(self) -> None:
        """R7: with `dedupe_window`, what was handled just when the connection went is not handled twice."""
        self.start(dedupe_window=100)
        self.publish(b"1", message_id="m1")
        self.simulation.broker.restart(after=0.1)
        self.simulation.advance(0.05)
        self.results[b"1"].callback(None)
        self.simulation.advance(5)
        self.assertEqual(self.begun, [b"1"])
        self.assertEqual(self.queue.depth + self.queue.unacked, 0)
        self.stopped()

    def test_giving_up(self) -> None:
        """R33: `recovery_limit` is for each outage, and counts from its beginning; 14 says that it gave up."""
        self.start(recovery_limit=60.0)
        for _ in range(3):
            self.simulation.broker.restart(after=20)
            self.simulation.advance(59)
            self.assertTrue(self.service.is_consuming)
        self.simulation.broker.crash()
        self.simulation.advance(59)
        self.assertEqual(self.ended, [])
        self.simulation.advance(2)
        line = self.ended_with(14)
        self.assertTrue(line.startswith("gave up connecting to amqp://localhost:5672/%2F again: "), line)

    def test_it_does_not_give_up_by_itself(self) -> None:
        self.start()
        self.simulation.broker.crash()
        self.simulation.advance(4 * 3600)
        self.assertEqual(self.ended, [])
        self.simulation.run_until(self.simulation.broker.start())
        self.simulation.advance(31)
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_a_refused_login_later(self) -> None:
        """R12, R33: borne for `refused_limit`, 300 s by default, as passwords are changed in two places."""
        self.broker.add_user("bob", CANARY)
        self.start(username="bob", password=Secret(CANARY))
        self.broker.broker.delete_user("bob")
        self.simulation.advance(200)
        self.broker.add_user("bob", CANARY)
        self.simulation.advance(60)
        self.assertTrue(self.service.is_consuming)
        self.broker.broker.delete_user("bob")
        self.simulation.advance(290)
        self.assertEqual(self.ended, [])
        self.simulation.advance(100)
        self.assertIn("check the user name and password", self.ended_with(17))

    def test_a_closed_channel(self) -> None:
        """R25, F42: such as by the acknowledgement timeout; consumed from again, and the message delivered again."""
        self.start(concurrency=2)
        self.publish(b"1", b"2", b"3", b"4")
        fault = self.broker.faults.close_channel(406, "delivery acknowledgement on channel 1 timed out")
        self.results[b"1"].callback(None)
        self.simulation.advance(1)
        fault.stop()
        self.simulation.advance(5)
        self.assertTrue(self.service.is_consuming)
        self.assertEqual(self.begun, [b"1", b"2", b"3"])  # and what comes again waits for a place
        self.assertIn("channel reopened", self.logged.text)
        self.assertIn("messages were waiting; the broker will deliver them again", self.logged.text)
        self.service.stopService()
        self.service.stop_now()
        self.simulation.advance(5)

    def test_stop_while_disconnected(self) -> None:
        """R30: at once when no handler runs; with 0."""
        self.start()
        self.simulation.broker.crash()
        self.simulation.advance(10)
        self.stopped(0, limit=0.01)

    def test_stop_while_disconnected_with_a_handler_at_work(self) -> None:
        """R30: it may finish, but no longer than `drain`."""
        self.start(drain=10.0)
        self.publish(b"1")
        self.simulation.broker.crash()
        self.simulation.advance(5)
        stopped = self.service.stopService()
        self.simulation.advance(3)
        self.assertNoResult(stopped)
        self.results[b"1"].callback(None)
        self.simulation.run_until(stopped, 0.01)
        self.ended_with(0)
        self.simulation.run_until(self.simulation.broker.start())
        self.ended.clear()
        self.start(drain=10.0)
        self.simulation.broker.crash()
        self.simulation.advance(5)
        self.stopped(75, limit=10.01)

    def test_stop_at_each_moment_of_coming_back(self) -> None:
        """R29, R30, Z2."""
        for octets in range(1, 700, 20):
            with self.subTest(octets=octets):
                self.ended.clear()
                self.start()
                stopping: list[Any] = []

                def stop(link: Any, stopping: list[Any] = stopping) -> None:
                    stopping.append(self.service.stopService())

                cut = self.simulation.cut(stop, "to_broker", after_bytes=octets)
                for link in self.simulation.open_links("service"):
                    link.reset()
                self.simulation.advance(5)
                cut.stop()
                if not stopping:
                    stop(None)
                self.simulation.run_until(stopping[0], 5)
                self.ended_with(0)

    def test_stop_while_blocked(self) -> None:
        """R16, R30: the handler has published on the consuming connection, which an alarm holds now."""
        self.start(lambda delivery: delivery.channel.basic_publish("", "nobody", b"x"))
        with self.broker.faults.block():
            self.publish(b"1", b"2")
            self.simulation.advance(1)
            self.assertIn("the connection is blocked, the broker takes no publishes", self.logged.text)
            self.stopped(0, limit=self.service.stop_limit)
        self.simulation.advance(1)


class QueueTests(ServiceCase):
    """R25: the consumer and its queue."""

    def delete(self) -> None:
        self.ask(lambda channel: channel.queue_delete("work"))

    def test_a_deleted_queue_is_declared_again(self) -> None:
        """F36: with `declare`, with its bindings."""
        self.start(declare=True, bind=(("amq.topic", "order.*"),))
        self.delete()
        self.simulation.advance(5)
        self.assertTrue(self.service.is_consuming)
        self.broker.publish("amq.topic", "order.new", b"1")
        self.simulation.advance(1)
        self.assertEqual(self.begun, [b"1"])
        self.results[b"1"].callback(None)
        self.assertIn("consumer resumed", self.logged.text)
        self.stopped()

    def test_a_deleted_queue_that_is_somebody_elses(self) -> None:
        """Without `declare` it waits for it, and never makes it."""
        self.start()
        self.delete()
        self.simulation.advance(100)
        self.assertFalse(self.service.is_consuming)
        self.assertFalse(self.queue.exists)
        self.broker.declare_queue("work", durable=True)
        self.simulation.advance(31)
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_a_queue_that_does_not_come_back(self) -> None:
        """12, after `resubscribe_limit`."""
        self.start(resubscribe_limit=50.0)
        self.delete()
        self.simulation.advance(49)
        self.assertEqual(self.ended, [])
        self.simulation.advance(32)
        line = self.ended_with(12)
        self.assertIn("no queue 'work'", line)
        self.assertIn("must exist before the service is started again", line)

    def test_the_queue_has_gone_with_the_broker(self) -> None:
        """R10: a queue that is not durable, declared by the service."""
        self.start(queue="passing", declare=True, durable=False)
        self.simulation.broker.restart(after=1)
        self.simulation.advance(5)
        self.assertTrue(self.service.is_consuming)
        self.assertEqual(len(self.broker.queue("passing").consumers), 1)
        self.stopped()

    def test_a_permission_that_was_taken_away(self) -> None:
        """15, and not 12: the last refusal says more than the cancel."""
        self.broker.add_user("bob", CANARY)
        self.start(username="bob", password=Secret(CANARY), resubscribe_limit=10.0)
        self.broker.broker.users.set_permissions("bob", "/", "", "", "")
        for link in self.simulation.open_links("service"):
            link.reset()
        self.simulation.advance(60)
        self.assertIn("rabbitmqctl set_permissions", self.ended_with(15))


class HostTests(ServiceCase):
    """R11: several hosts."""

    brokers = ("one", "two")

    def test_the_other_one(self) -> None:
        """Failover in one attempt, and back; the log names the host."""
        self.start(url="amqp://localhost:5672;amqp://localhost:5673", host_order="listed")
        self.assertIn("connected to amqp://localhost:5672/%2F", self.logged.lines[-2])
        self.simulation.brokers["one"].crash()
        self.simulation.advance(2)
        self.assertIn("connected to amqp://localhost:5673/%2F", self.logged.lines[-1])
        self.simulation.run_until(self.simulation.brokers["one"].start())
        self.simulation.brokers["two"].crash()
        self.simulation.advance(2)
        self.assertIn("connected to amqp://localhost:5672/%2F", self.logged.lines[-1])
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_one_of_them_refuses(self) -> None:
        """R12: that is no reason to end."""
        self.simulation.brokers["two"].embedded.add_user("bob", CANARY)
        url = f"amqp://bob:{CANARY}@localhost:5672;amqp://bob:{CANARY}@localhost:5673"
        self.start(url=url, host_order="listed")
        self.assertTrue(self.service.is_consuming)
        self.stopped()

    def test_all_of_them_refuse(self) -> None:
        url = f"amqp://bob:{CANARY}@localhost:5672;amqp://bob:{CANARY}@localhost:5673"
        self.start(url=url)
        line = self.ended_with(17)
        self.assertIn("amqp://bob:***@localhost:5672/%2F; amqp://bob:***@localhost:5673/%2F", line)
