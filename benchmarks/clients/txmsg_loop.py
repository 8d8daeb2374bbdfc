"""The program of `pika_twisted` as it is with txmsg's own channel: chunks, `get()` in a loop and one ack each.

What the library offers besides (a callback for deliveries, back-pressure instead of chunks) is in `txmsg_client`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, task

from benchmarks.clients import pika_twisted
from benchmarks.task import Stopwatch, Task, read_task
from txmsg.amqp import BasicProperties, Channel, ConnectionParameters, connect


async def consume(channel: Channel, job: Task) -> int:
    """Take `job.count` messages from the consumer's queue, and give back how many bytes they held."""
    received_bytes, no_ack = 0, job.operation.no_ack
    consumer = await channel.basic_consume(job.queue, no_ack=no_ack)
    for _ in range(job.count):
        delivery = await consumer.get()
        received_bytes += len(delivery.body)
        if not no_ack:
            channel.basic_ack(delivery.delivery_tag)
    return received_bytes


async def run(clock: Any, job: Task) -> None:
    connection = await connect(ConnectionParameters.from_url(job.url, heartbeat=0))
    channel = await connection.channel()
    operation, watch, received_bytes = job.operation, Stopwatch(), 0
    if operation.is_confirmed:
        await channel.confirm_select()
    if operation.prefetch_count:
        await channel.basic_qos(operation.prefetch_count)
    watch.start()
    if operation.consumes:
        received_bytes = await consume(channel, job)
    elif operation.is_confirmed:
        await pika_twisted.publish_confirmed(clock, channel, job)
    else:
        await pika_twisted.publish(clock, channel, job)
    declared = None
    while declared is None or declared.message_count != job.expected_messages:
        declared = await channel.queue_declare(job.queue, passive=True)
    watch.stop()
    watch.print_result(received_bytes=received_bytes)
    await connection.close()


def main(clock: Any, job: Task) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(run(clock, job))


if __name__ == "__main__":
    changed: Any = pika_twisted
    changed.PROPERTIES = BasicProperties(delivery_mode=1)
    task.react(main, [read_task()])
