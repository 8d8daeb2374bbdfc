"""Declaring a topology again, and a second fault at every step of that (R9, R10, F15)."""

from __future__ import annotations

from typing import Any

from tests.amqp.recovery.site import Site, SiteTestCase
from txmsg.amqp.recovery import replay as replaying
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.amqp.recovery.consumer import RecoveringConsumer
from txmsg.amqp.recovery.events import ENTITY_FAILED, QUEUE_RENAMED
from txmsg.amqp.recovery.topology import QueueRecord
from txmsg.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLocked


def declare_all(site: Site) -> tuple[RecoveringChannel, list[RecoveringConsumer], str]:
    """A topology with something of everything; the channel, its consumers, and the server-named queue's first name."""
    channel = site.channel(prefetch_count=5, confirm=True)
    site.result(channel.exchange_declare("first", "topic", durable=True))
    site.result(channel.exchange_declare("second", "fanout", auto_delete=True))
    site.result(channel.exchange_bind("second", "first", "k.#"))
    site.result(channel.queue_declare("jobs", durable=True, arguments={"x-max-length": 9}))
    site.result(channel.queue_bind("jobs", "second"))
    site.result(channel.queue_declare("mine", exclusive=True))
    site.result(channel.queue_bind("mine", "first", "k.m"))
    named = site.result(channel.queue_declare("", exclusive=True, auto_delete=True)).queue
    site.result(channel.queue_bind("", "second"))
    consumers = [site.result(channel.basic_consume(queue)) for queue in ("jobs", "mine", named)]
    return channel, consumers, named


class ReplayTest(SiteTestCase):
    """R10: what is declared again, and what happens when something is refused."""

    def test_everything_comes_back(self) -> None:
        """Also on a broker that has forgotten everything: types, flags, arguments, bindings."""
        declare_all(self.site)
        before = self.site.entities()
        renamed: list[tuple[str, str]] = []
        self.site.connection.topology.add_renamed_callback(lambda old, new: renamed.append((old, new)))
        self.site.wipe()
        self.site.ready(2)
        [(old, new)] = renamed
        self.assertEqual(self.site.entities(), {text.replace(old, new) for text in before})
        self.assertEqual(self.site.subscribed(), sorted(["jobs", "mine", new]))
        jobs = self.site.broker.queue("jobs")
        self.assertTrue(jobs.durable)
        self.assertEqual(jobs.arguments, {"x-max-length": 9})
        self.assertTrue(self.site.broker.exchange("second").auto_delete)
        self.assertEqual(self.site.kinds(), [QUEUE_RENAMED])

    def test_what_was_deleted_stays_away(self) -> None:
        """So do unbound bindings, and queues that went with their last consumer."""
        channel, consumers, _ = declare_all(self.site)
        self.site.result(consumers[2].cancel())
        self.site.result(channel.queue_delete("jobs"))
        self.site.result(channel.queue_unbind("mine", "first", "k.m"))
        self.site.wipe()
        self.site.ready(2)
        self.assertEqual(self.site.entities(), {"exchange 'first'", "queue 'mine'"})

    def test_server_named_queue_that_has_survived(self) -> None:
        """It is not exclusive, and the broker still has it: it keeps its name and its messages."""
        channel = self.site.channel()
        named = self.site.result(channel.queue_declare("")).queue
        self.site.result(channel.basic_publish("", named, b"kept"))
        self.site.settle()
        self.site.reconnect()
        self.assertEqual(self.site.connection.topology.current_name(named), named)
        self.assertEqual(self.site.result(channel.basic_get(named)).body, b"kept")
        self.assertEqual(self.site.kinds(), [])

    def test_inequivalent_queue_is_reported_and_skipped(self) -> None:
        """Somebody has declared it otherwise: its bindings and its consumers go on with what is there."""
        _, consumers, _ = declare_all(self.site)
        self.site.broker.faults.cut()
        self.site.broker.broker.delete_vhost("/")
        self.site.broker.add_vhost("/")
        self.site.broker.declare_queue("jobs")
        self.site.ready(2)
        [failed] = [event for event in self.site.events if event.kind == ENTITY_FAILED]
        self.assertEqual(failed.subject, "queue 'jobs'")
        self.assertIsInstance(failed.error, PreconditionFailed)
        self.assertIn("binding of queue 'jobs' to exchange 'second' with 'jobs'", self.site.entities())
        self.assertIn("jobs", self.site.subscribed())
        self.assertTrue(all(consumer.is_subscribed for consumer in consumers))

    def test_each_entity_may_fail(self) -> None:
        """Whatever is refused is reported once, and all the rest is there; at the next recovery it is tried again."""
        channel = self.site.channel()
        for number in range(4):
            self.site.result(channel.queue_declare(f"q{number}"))
            self.site.result(channel.exchange_declare(f"x{number}"))
            self.site.result(channel.queue_bind(f"q{number}", f"x{number}", "k"))
        complete = self.site.entities()
        for number in range(4):
            with self.subTest(number=number):
                self.site.events.clear()
                self.site.broker.faults.close_channel(403, on="queue.declare", queue=f"q{number}")
                self.site.wipe()
                self.site.ready()
                failed = [(event.kind, event.subject) for event in self.site.events]
                self.assertEqual(
                    failed,
                    [
                        (ENTITY_FAILED, f"queue 'q{number}'"),
                        (ENTITY_FAILED, f"binding of queue 'q{number}' to exchange 'x{number}' with 'k'"),
                    ],
                )
                self.assertIsInstance(self.site.events[0].error, AccessRefused)
                self.assertIsInstance(self.site.events[1].error, NotFound)
                self.assertEqual(len(complete - self.site.entities()), 2)
                self.site.wipe()
                self.site.ready()
                self.assertEqual(self.site.entities(), complete)

    def test_everything_is_refused(self) -> None:
        """Each is reported once, and it ends."""
        channel = self.site.channel()
        for number in range(30):
            self.site.result(channel.queue_declare(f"q{number}"))
        self.site.broker.faults.close_channel(405, on="queue.declare", times=None)
        self.site.wipe()
        self.site.ready()
        self.assertEqual(self.site.kinds(), [ENTITY_FAILED] * 30)
        self.assertTrue(all(isinstance(event.error, ResourceLocked) for event in self.site.events))
        self.assertEqual(len(self.site.connection.topology.queues), 30)

    def test_many_refusals_cost_few_declarations(self) -> None:
        """Each costs a new channel, and what came after it goes out again: not all of that each time."""
        for number in range(300):
            self.site.connection.topology.queue_declared(QueueRecord(f"q{number}"))
        declare, count = replaying._declare, [0]

        def counted(*args: Any) -> Any:
            count[0] += 1
            return declare(*args)

        self.patch(replaying, "_declare", counted)
        self.site.broker.faults.close_channel(405, on="queue.declare", times=None)
        self.site.wipe()
        self.site.ready()
        self.assertEqual(self.site.kinds(), [ENTITY_FAILED] * 300)
        self.assertLess(count[0], 1500)

    def test_entity_that_ends_the_connection(self) -> None:
        """R10, peers 63, 72: it is reported and left out, or there would be no connection; it is tried at the next."""
        for code, on, attempts in (
            (503, {"on": "exchange.declare", "exchange": "second"}, 2),
            (530, {"on": "queue.bind", "queue": "jobs"}, 2),
            (541, {"on": "exchange.declare", "exchange": "second"}, 3),
        ):
            with self.subTest(code=code):
                site = self.make_site()
                site.start()
                channel, consumers, _ = declare_all(site)
                fault = site.broker.faults.close_connection(code, times=None, **on)
                site.wipe()
                site.ready(2, seconds=3)
                self.assertEqual(site.connection.attempts, attempts)
                site.settle(1)
                self.assertIn(ENTITY_FAILED, site.kinds())
                self.assertIn("mine", site.subscribed())
                self.assertTrue(channel.is_open)
                fault.stop()
                site.reconnect()
                site.settle(60)
                self.assertEqual(len(site.subscribed()), len(consumers))
                self.assertIn("binding of queue 'jobs' to exchange 'second' with 'jobs'", site.entities())
                self.assertTrue(site.broker.exchange("second").auto_delete)

    def test_many_entities_cost_few_round_trips(self) -> None:
        """They are written without waiting for each other: 1,200 of them take as many chunks as windows."""
        channel = self.site.channel()
        for number in range(1200):
            self.site.connection.topology.queue_declared(QueueRecord(f"q{number}"))
        self.site.broker.faults.delay(0.1)
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        began = self.site.clock.seconds()
        self.site.ready()
        self.assertEqual(len(self.site.broker.queues()), 1200)
        self.assertLess(self.site.clock.seconds() - began, 5)
        self.assertTrue(channel.is_open)


class SecondFaultTest(SiteTestCase):
    """R9, F15: the connection, or a channel, is lost once more at each step of the recovery."""

    def check(self, site: Site, channel: RecoveringChannel, consumers: list[RecoveringConsumer], named: str) -> None:
        """Everything is there, and works."""
        now = site.connection.topology.current_name(named)
        self.assertEqual(site.subscribed(), sorted(["jobs", "mine", now]))
        self.assertEqual(len(site.broker.connections), 1)
        self.assertEqual(len(site.broker.queues()), 3)
        site.result(channel.basic_publish("first", "k.m", b"after"))
        for consumer in consumers:
            delivery = site.result(consumer.get())
            self.assertEqual(delivery.body, b"after")
            delivery.ack()
        site.settle()
        self.assertEqual([site.broker.queue(name).unacked for name in ("jobs", "mine", now)], [0, 0, 0])

    def sweep(self, fault: Any, most: int) -> int:
        """Put a fault to the k-th step for each k, until recovery has no such step; how many there were."""
        for step in range(1, most):
            with self.subTest(step=step):
                site = self.make_site()
                site.start()
                channel, consumers, named = declare_all(site)
                scripted = fault(site, step)
                site.wipe()
                site.ready(2, seconds=200)
                site.settle(2)
                site.ready(2, seconds=200)
                count = scripted.count
                site.broker.faults.clear()
                self.check(site, channel, consumers, named)
                if not count:
                    return step
        raise AssertionError("there is no end to it")

    def test_cut_after_each_frame_we_send(self) -> None:
        """The broker has got k frames, and the network fails."""
        steps = self.sweep(lambda site, step: site.broker.faults.cut(after_frames=step), 60)
        self.assertGreater(steps, 20)

    def test_cut_after_each_frame_we_get(self) -> None:
        """We have got k frames, and the network fails."""
        steps = self.sweep(lambda site, step: site.broker.faults.cut(after_frames=step, of="sent"), 60)
        self.assertGreater(steps, 20)

    def test_three_cuts_in_a_row(self) -> None:
        """Each of the first three attempts is cut at the same step."""
        self.sweep(lambda site, step: site.broker.faults.cut(after_frames=step, times=3), 60)

    def test_channel_closed_by_each_method(self) -> None:
        """The broker refuses one method of the recovery, once; what that was comes back at the next one."""
        for method in (
            "exchange.declare",
            "exchange.bind",
            "queue.declare",
            "queue.bind",
            "basic.consume",
            "basic.qos",
        ):
            with self.subTest(method=method):
                site = self.make_site()
                site.start()
                channel, consumers, named = declare_all(site)
                site.broker.faults.close_channel(403, on=method)
                site.wipe()
                site.ready(2)
                site.settle(5)
                if method not in ("basic.consume", "basic.qos"):
                    self.assertIn(ENTITY_FAILED, site.kinds())
                    site.wipe()
                    site.ready(3)
                    site.settle(5)
                self.check(site, channel, consumers, named)

    def test_connection_closed_by_each_method(self) -> None:
        """An operator closes the connection in the middle of it (320)."""
        for method in (
            "exchange.declare",
            "exchange.bind",
            "queue.declare",
            "queue.bind",
            "basic.consume",
            "basic.qos",
        ):
            with self.subTest(method=method):
                site = self.make_site()
                site.start()
                channel, consumers, named = declare_all(site)
                site.broker.faults.close_connection(320, on=method, times=2)
                site.wipe()
                site.ready(2)
                site.settle(5)
                self.check(site, channel, consumers, named)
