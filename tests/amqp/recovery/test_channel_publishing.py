"""Publishing on a recovering channel in the moment in which the broker has closed it and another one is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from tests.amqp.recovery.site import SiteTestCase, ends
from txmsg.errors import ChannelClosed, NotFound, NotSent, Overloaded


class ReopeningTest(SiteTestCase):
    """There is a connection all the time: a publish waits for the channel (R2, R25)."""

    def setUp(self) -> None:
        """A queue, and a channel in confirm mode."""
        super().setUp()
        self.channel = self.site.channel(confirm=True)
        self.site.result(self.channel.queue_declare("jobs"))

    def closed(self, then: Callable[[], list[Any]]) -> list[Any]:
        """What `then` returns, called when the broker has just closed the channel."""
        made: list[Any] = []

        def refused(failure: Failure) -> None:
            failure.trap(NotFound)
            self.assertFalse(self.channel.is_open)
            made.append(then())

        self.site.result(self.channel.queue_declare("none", passive=True).addErrback(refused))
        [outcome] = made
        assert isinstance(outcome, list)
        return outcome

    def kept_closed(self) -> Any:
        """The broker has closed the channel, and closes those that follow."""
        fault = self.site.broker.faults.close_channel(403, on="confirm.select", times=None)
        self.site.outcome(self.channel.queue_declare("none", passive=True))
        self.site.settle(1)
        self.assertFalse(self.channel.is_open)
        return fault

    def publish(self, body: bytes | bytearray, wait: bool = False) -> list[Any]:
        """A list that gets the outcome."""
        return ends(self.channel.basic_publish("", "jobs", body, wait=wait))

    def test_it_waits(self) -> None:
        """It is sent on the next channel, and each call works as well."""
        published, *calls = self.closed(
            lambda: [
                self.publish(b"1"),
                ends(self.channel.queue_declare("jobs", passive=True)),
                ends(self.channel.basic_get("jobs", no_ack=True)),
                ends(self.channel.basic_qos(5)),
                ends(self.channel.basic_consume("jobs")),
            ]
        )
        self.site.settle(1)
        self.assertEqual(published, [1])
        for outcome in calls:
            self.assertEqual(len(outcome), 1)
            self.assertNotIsInstance(outcome[0], Exception)

    def test_order(self) -> None:
        """R4: in the order of the publishes, also where one of them comes while the channel is being fitted out."""
        buffer = bytearray(b"first")
        more: list[object] = []
        use = self.channel._calls.use

        def fitted_out(channel: object) -> None:
            use(channel)  # type: ignore[arg-type]
            buffer[:] = b"wrong"
            more.extend([self.publish(b"second")])

        with patch.object(self.channel._calls, "use", fitted_out):
            self.closed(lambda: self.publish(buffer))
            self.site.settle(1)
        self.publish(b"third")
        self.site.settle()
        self.assertEqual(len(more), 1)
        self.assertEqual(self.site.broker.queue("jobs").bodies, [b"first", b"second", b"third"])
        self.assertEqual((self.channel._publishes, self.channel._octets), (0, 0))

    def test_it_waits_in_vain(self) -> None:
        """NotSent when the time is up, and it says what the matter is."""
        self.kept_closed()
        waiting = self.publish(b"x")
        limit = self.site.connection.operation_timeout
        assert limit is not None
        self.site.settle(limit - 1)
        self.assertEqual(waiting, [])
        self.site.settle(2)
        [error] = waiting
        self.assertIsInstance(error, NotSent)
        self.assertIn("the channel is not open (", str(error))
        self.assertEqual((self.channel._publishes, self.channel._octets), (0, 0))

    def test_the_connection_goes_too(self) -> None:
        """NotSent at once, but for one that said it waits; the next connection has only that one."""
        fault = self.kept_closed()
        waiting = self.publish(b"x")
        patient = self.publish(b"patient", wait=True)
        self.site.broker.faults.cut()
        self.site.clock.advance(0)
        self.assertEqual([type(error) for error in waiting], [NotSent])
        self.assertEqual(patient, [])
        fault.stop()
        self.site.ready(2)
        self.site.settle(1)
        self.assertEqual(patient, [1])

    def test_it_is_closed(self) -> None:
        """NotSent: nothing has left."""
        self.kept_closed()
        waiting = self.publish(b"x")
        called = ends(self.channel.queue_declare("jobs"))
        self.channel.close()
        self.site.settle()
        self.assertEqual([type(error) for error in waiting], [NotSent])
        self.assertEqual([type(error) for error in called], [ChannelClosed])

    def test_cancelled(self) -> None:
        """It is not sent."""

        def publish_and_cancel() -> list[Any]:
            waiting = self.channel.basic_publish("", "jobs", b"x")
            outcome = ends(waiting)
            waiting.cancel()
            return outcome

        [error] = self.closed(publish_and_cancel)
        self.assertIsInstance(error, CancelledError)
        self.site.settle(1)
        self.assertEqual(self.site.broker.queue("jobs").bodies, [])
        self.assertEqual((self.channel._publishes, self.channel._octets), (0, 0))

    def test_not_too_many(self) -> None:
        """Overloaded beyond the limit, by number and by octets; one always has room."""
        self.kept_closed()
        with patch("txmsg.amqp.recovery.channel._MAX_WAITING_OCTETS", 10):
            waiting = [self.publish(b"x" * 11)]
            waiting.append(self.publish(b"x"))
        with patch("txmsg.amqp.recovery.channel._MAX_WAITING", 2):
            waiting.append(self.publish(b"x"))
            waiting.append(self.publish(b"x"))
        self.assertEqual([[type(error) for error in each] for each in waiting], [[], [Overloaded], [], [Overloaded]])
