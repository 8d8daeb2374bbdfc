"""Test a program with a broker inside the test, which is looked into and made to fail.

python examples/08_testing_with_embedded_broker.py

These are tests for trial, pytest runs them as well: python -m twisted.trial examples/08_testing_with_embedded_broker.py
"""

from unittest import main

from twisted.internet.task import Clock
from twisted.trial import unittest

from txmsg.amqp import Channel, Delivery
from txmsg.errors import PublishNacked
from txmsg.testing import BrokerMixin, EmbeddedBroker

# What is tested:


async def send(channel: Channel, job: bytes) -> int:
    """Send a job, again if the broker refuses it; how often it had to be sent."""
    for attempt in (1, 2, 3):
        try:
            await channel.basic_publish("", "jobs", job)
        except PublishNacked:
            continue
        return attempt
    raise RuntimeError("the broker does not want it")


def work(delivery: Delivery) -> None:
    """Do a job; what cannot be done is refused."""
    if delivery.body == b"impossible":
        delivery.reject()
    else:
        delivery.ack()


# Its tests:


class JobTests(BrokerMixin, unittest.TestCase):
    """Each test has a broker of its own, reached without a socket."""

    timeout = 10

    async def channel(self) -> Channel:
        channel = await (await self.connect()).channel()
        await channel.confirm_select()
        await channel.queue_declare("refused")
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "refused"}
        await channel.queue_declare("jobs", arguments=arguments)
        return channel

    async def test_a_job_is_in_the_queue(self) -> None:
        assert await send(await self.channel(), b"dig") == 1
        assert self.broker.queue("jobs").bodies == [b"dig"]

    async def test_a_refused_job_is_sent_again(self) -> None:
        channel = await self.channel()
        self.broker.faults.nack(queue="jobs", times=2)
        assert await send(channel, b"dig") == 3
        assert self.broker.queue("jobs").bodies == [b"dig"]

    async def test_what_cannot_be_done_is_put_aside(self) -> None:
        channel = await self.channel()
        for job in (b"dig", b"impossible", b"dig"):
            self.broker.publish("", "jobs", job)
        await channel.basic_consume("jobs", work)
        await self.broker.wait_until_empty("jobs")
        [aside] = self.broker.queue("refused").messages
        assert (aside.body, aside.headers["x-death"][0]["reason"]) == (b"impossible", "rejected")


class TimeTests(unittest.SynchronousTestCase):
    """On a clock an hour takes no time, and no reactor runs."""

    def test_a_job_that_nobody_does_expires(self) -> None:
        clock = Clock()
        broker = EmbeddedBroker(reactor=clock)
        broker.start()
        broker.declare_queue("jobs", arguments={"x-message-ttl": 3_600_000})
        broker.publish("", "jobs", b"dig")
        clock.advance(3599)
        assert broker.queue("jobs").depth == 1
        clock.advance(2)
        assert broker.queue("jobs").depth == 0
        broker.stop()
        clock.advance(0)


if __name__ == "__main__":
    main(verbosity=2)
