"""txmsg: publishing by `basic_publish` with its back-pressure, consuming by a plain callable, one ack each.

An ack is given for each delivery, as by the other clients; that acks given in one turn of the reactor leave
as one is the library's doing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, task

from benchmarks.plan import IN_FLIGHT
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


class ConfirmedPublishing:
    """Keep IN_FLIGHT messages unconfirmed; `done` fires when every message was confirmed."""

    def __init__(self, channel: Channel, job: Task) -> None:
        self.publish, self.queue, self.body = channel.basic_publish, job.queue, job.body
        self.to_send = self.to_confirm = job.count
        self.done: defer.Deferred[None] = defer.Deferred()

    def start(self) -> None:
        for _ in range(min(IN_FLIGHT, self.to_send)):
            self.publish_one()

    def publish_one(self) -> None:
        self.to_send -= 1
        self.publish("", self.queue, self.body, PROPERTIES).addCallbacks(self.on_confirmed, self.done.errback)

    def on_confirmed(self, _: object) -> None:
        self.to_confirm -= 1
        if self.to_send:
            self.publish_one()
        elif not self.to_confirm:
            self.done.callback(None)


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
        publishing = ConfirmedPublishing(channel, job)
        publishing.start()
        await publishing.done
    else:
        await publish(channel, job)
    messages = -1
    while messages != job.expected_messages:
        messages = (await channel.queue_declare(job.queue, passive=True)).message_count
    watch.stop()
    watch.print_result(received_bytes=received_bytes)
    await connection.close()


def main(_reactor: Any, job: Task) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(run(job))


if __name__ == "__main__":
    task.react(main, [read_task()])
