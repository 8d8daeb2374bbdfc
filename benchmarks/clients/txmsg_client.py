"""txmsg: publishing by `basic_publish` with its back-pressure, consuming by a plain callable, one ack each.

An ack is given for each delivery, as by the other clients; that acks given in one turn of the reactor leave
as one is the library's doing.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet import defer, task

from benchmarks.plan import IN_FLIGHT, REFILL
from benchmarks.task import Stopwatch, Task, read_task
from txmsg.amqp import BasicProperties, Channel, ConnectionParameters, Delivery, connect

PROPERTIES = BasicProperties(delivery_mode=1)


async def publish(channel: Channel, job: Task) -> None:
    """Publish, and wait whenever the connection has enough to send."""
    body, queue, basic_publish = job.body, job.queue, channel.basic_publish
    for _ in range(job.count):
        written = basic_publish("", queue, body, PROPERTIES)
        if not written.called:
            await written


async def publish_confirmed(channel: Channel, job: Task) -> None:
    """Publish; whenever IN_FLIGHT are unconfirmed, wait for the REFILL oldest."""
    body, queue, basic_publish = job.body, job.queue, channel.basic_publish
    unconfirmed: deque[defer.Deferred[int | None]] = deque()
    for _ in range(job.count):
        if len(unconfirmed) == IN_FLIGHT:
            await unconfirmed[REFILL - 1]
            for _ in range(REFILL):
                await unconfirmed.popleft()
        unconfirmed.append(basic_publish("", queue, body, PROPERTIES))
    while unconfirmed:
        await unconfirmed.popleft()


class Consuming:
    """Count deliveries; `done` fires with the bytes received at the last one."""

    def __init__(self, job: Task) -> None:
        self.left, self.received_bytes = job.count, 0
        self.done: defer.Deferred[int] = defer.Deferred()

    def on_delivery(self, delivery: Delivery) -> None:
        self.received_bytes += len(delivery.body)
        delivery.ack()
        self.left -= 1
        if not self.left:
            self.done.callback(self.received_bytes)

    def on_delivery_no_ack(self, delivery: Delivery) -> None:
        self.received_bytes += len(delivery.body)
        self.left -= 1
        if not self.left:
            self.done.callback(self.received_bytes)


async def consume(channel: Channel, job: Task) -> int:
    """Take `job.count` messages, and give back how many bytes they held."""
    consuming, no_ack = Consuming(job), job.operation.no_ack
    callback = consuming.on_delivery_no_ack if no_ack else consuming.on_delivery
    await channel.basic_consume(job.queue, callback, no_ack=no_ack)
    return await consuming.done


async def run(job: Task) -> None:
    operation, watch, received_bytes = job.operation, Stopwatch(), 0
    connection = await connect(ConnectionParameters.from_url(job.url, heartbeat=0))
    channel = await connection.channel()
    if operation.is_confirmed:
        await channel.confirm_select()
    if operation.prefetch_count:
        await channel.basic_qos(operation.prefetch_count)
    watch.start()
    if operation.consumes:
        received_bytes = await consume(channel, job)
    elif operation.is_confirmed:
        await publish_confirmed(channel, job)
    else:
        await publish(channel, job)
    declared = None
    while declared is None or declared.message_count != job.expected_messages:
        declared = await channel.queue_declare(job.queue, passive=True)
    watch.stop()
    watch.print_result(received_bytes=received_bytes)
    await connection.close()


def main(_reactor: Any, job: Task) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(run(job))


if __name__ == "__main__":
    task.react(main, [read_task()])
