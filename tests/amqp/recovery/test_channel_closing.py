"""The end of a recovering channel, in any state (R28, R29, R30), and what cannot be done with one."""

from __future__ import annotations

from typing import Any

from tests.amqp.recovery.site import SiteTestCase, ends
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.errors import (
    AccessRefused,
    ChannelClosed,
    ChannelError,
    ConfigurationError,
    DuplicateConsumerTag,
    EncodeError,
)


class ClosingTest(SiteTestCase):
    """R29, R30: close() in any state."""

    def test_close(self) -> None:
        """Consumers end, waiting calls fail; twice is the same; nothing comes back."""
        channel = self.site.channel()
        self.site.result(channel.queue_declare("jobs", durable=True))
        consumer = self.site.result(channel.basic_consume("jobs"))
        getting = ends(consumer.get())
        reason = self.site.outcome(channel.close())
        self.assertIs(self.site.outcome(channel.close()), reason)
        self.assertIsInstance(getting[0], ChannelClosed)
        self.assertEqual(reason.initiator, "client")
        self.assertIn("closed", repr(channel))
        self.site.reconnect()
        self.assertEqual(self.site.subscribed(), [])
        self.assertEqual([len(view.channels) for view in self.site.broker.connections], [0])

    def test_close_while_there_is_no_connection(self) -> None:
        """It ends at once."""
        channel = self.site.channel()
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        waiting = ends(channel.queue_declare("jobs"))
        self.assertEqual(len(ends(channel.close())), 1)
        self.assertIsInstance(waiting[0], ChannelClosed)
        self.site.ready(2)

    def test_close_at_each_step_of_a_recovery(self) -> None:
        """In the middle of coming back: the connection goes on without it."""
        for step in range(1, 40):
            with self.subTest(step=step):
                site = self.make_site()
                site.start()
                channel = site.channel(confirm=True, prefetch_count=1)
                site.result(channel.queue_declare("jobs", durable=True))
                site.result(channel.basic_consume("jobs"))
                other = site.channel()
                site.broker.faults.cut()
                for _ in range(step):
                    site.clock.advance(0.01)
                self.assertTrue(site.outcome(channel.close()))
                site.ready(2)
                site.settle(1)
                self.assertEqual(site.subscribed(), [])
                self.assertTrue(other.is_open)
                self.assertEqual([len(view.channels) for view in site.broker.connections], [1])
                self.assertEqual(site.connection.epoch, 2)

    def test_close_while_it_waits_to_be_reopened(self) -> None:
        """The broker has closed it again and again."""
        channel = self.site.channel(confirm=True)
        self.site.broker.faults.close_channel(403, on="confirm.select", times=None)
        self.site.broker.faults.close_channel(406)
        self.site.settle(1)
        self.site.outcome(channel.close())
        self.site.settle(5)
        self.assertEqual([len(view.channels) for view in self.site.broker.connections], [0])

    def test_stop(self) -> None:
        """What the connection does with it when it is closed."""
        channel: RecoveringChannel = self.site.channel()
        self.site.result(channel.stop())
        self.assertTrue(channel.is_closed)


class MisuseTest(SiteTestCase):
    """What cannot be done here says so."""

    def test_refused_by_us(self) -> None:
        """Nothing is sent, and the text says what to do instead."""
        channel = self.site.channel()
        self.site.result(channel.queue_declare("jobs"))
        consumer = self.site.result(channel.basic_consume("jobs", consumer_tag="mine"))
        misused: Any = channel
        for call, error in (
            (channel.tx_select(), ConfigurationError),
            (misused.basic_consume("jobs", consumer_tag=b"x"), EncodeError),
            (misused.basic_consume("jobs", "not callable"), ConfigurationError),
            (misused.basic_consume("jobs", on_loss="explode"), ConfigurationError),
            (channel.basic_consume("jobs", consumer_tag="mine"), DuplicateConsumerTag),
            (misused.basic_cancel(7), EncodeError),
            (self.site.channel().basic_cancel(consumer), ChannelError),
            (channel.basic_qos(70000), EncodeError),
            (self.site.connection.channel(prefetch_count=70000), ConfigurationError),
            (channel.queue_declare("x" * 300), EncodeError),
        ):
            self.assertIsInstance(self.site.outcome(call), error)
        for settle in (misused.basic_ack, misused.basic_nack, misused.basic_reject):
            with self.assertRaises(ConfigurationError):
                settle(1)
        self.assertEqual(self.channels(), [1, 1])
        self.site.result(channel.basic_cancel("unknown"))
        self.site.result(channel.basic_cancel("mine"))

    def channels(self) -> list[int]:
        """How many plain channels each of the open ones has had."""
        return [member.epoch for member in self.site.connection._members._members.values() if hasattr(member, "epoch")]

    def test_of_the_wrong_type(self) -> None:
        """It fails and does not raise; while there is no connection, it waits and then hurts no other call."""
        channel: Any = self.site.channel()
        self.site.result(channel.queue_declare("", exclusive=True))
        self.site.reconnect()
        for is_there in (True, False):
            if not is_there:
                self.site.cut()
            calls = [
                call(name)
                for name in (["x"], 7)
                for call in (
                    channel.queue_declare,
                    channel.queue_delete,
                    channel.queue_purge,
                    channel.basic_consume,
                    channel.basic_get,
                    lambda name: channel.queue_bind(name, "amq.topic"),
                    lambda name: channel.queue_unbind(name, "amq.topic"),
                    lambda name: channel.basic_publish("", name, b"", wait=True),
                )
            ]
            good = channel.queue_declare("jobs")
            for call in calls:
                self.assertIsInstance(self.site.outcome(call), EncodeError)
            self.assertEqual(self.site.result(good).queue, "jobs")
        self.assertEqual(self.site.kinds(), ["queue renamed"] * 2)
        for count in ("1", True, 1.5):
            self.assertIsInstance(
                self.site.outcome(self.site.connection.channel(prefetch_count=count)),  # type: ignore[arg-type]
                ConfigurationError,
            )

    def test_two_of_the_same_tag_at_once(self) -> None:
        """Before the first one is there, too."""
        channel = self.site.channel()
        self.site.result(channel.queue_declare("jobs"))
        first = channel.basic_consume("jobs", consumer_tag="mine")
        second = channel.basic_consume("jobs", consumer_tag="mine")
        self.assertIsInstance(self.site.outcome(second), DuplicateConsumerTag)
        self.site.result(first)

    def test_settle_by_the_channel(self) -> None:
        """With the delivery itself."""
        channel = self.site.channel()
        self.site.result(channel.queue_declare("jobs"))
        for settle in (channel.basic_ack, channel.basic_nack, channel.basic_reject):
            self.site.result(channel.basic_publish("", "jobs", b"x"))
            settle(self.site.result(channel.basic_get("jobs")))
        self.site.settle()
        self.assertEqual(self.site.broker.queue("jobs").unacked, 0)
        self.assertEqual(self.site.broker.queue("jobs").depth, 2)

    def test_flow(self) -> None:
        """It is passed on."""
        self.site.result(self.site.channel().flow(True))

    def test_access_refused(self) -> None:
        """A permission that is missing is an error like others."""
        channel = self.site.channel()
        self.assertIsInstance(self.site.outcome(channel.queue_declare("amq.mine")), AccessRefused)
