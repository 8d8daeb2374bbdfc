"""pika's Twisted adapter.

The adapter's `basic_publish` has no back-pressure, so publishing returns to the reactor after each chunk,
which is what keeps the transport's buffer short and the sends large (a return after each message costs more
than twice the CPU at 100 bytes; none at all, six times at 64 KiB).  Consuming is the adapter's queue object:
`get()` in a loop and one ack each.
"""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet import defer, task
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from benchmarks.plan import IN_FLIGHT, REFILL
from benchmarks.task import Stopwatch, Task, read_task

PROPERTIES = pika.BasicProperties(delivery_mode=1)

#: Bytes published in one turn of the reactor.
CHUNK_BYTES = 32 * 1024


async def publish(clock: Any, channel: Any, job: Task) -> None:
    """Publish chunk by chunk."""
    body, chunk = job.body, max(1, CHUNK_BYTES // job.size)
    for number in range(1, job.count + 1):
        channel.basic_publish("", job.queue, body, PROPERTIES)
        if number % chunk == 0:
            await task.deferLater(clock, 0)


async def publish_confirmed(clock: Any, channel: Any, job: Task) -> None:
    """Publish chunk by chunk; whenever IN_FLIGHT are unconfirmed, wait for the REFILL oldest."""
    body, chunk = job.body, max(1, CHUNK_BYTES // job.size)
    unconfirmed: deque[defer.Deferred[object]] = deque()
    for number in range(1, job.count + 1):
        if len(unconfirmed) == IN_FLIGHT:
            await unconfirmed[REFILL - 1]
            for _ in range(REFILL):
                await unconfirmed.popleft()
        unconfirmed.append(channel.basic_publish("", job.queue, body, PROPERTIES))
        if number % chunk == 0:
            await task.deferLater(clock, 0)
    while unconfirmed:
        await unconfirmed.popleft()


async def consume(channel: Any, job: Task) -> int:
    """Take `job.count` messages from the adapter's queue, and give back how many bytes they held."""
    received_bytes, no_ack = 0, job.operation.no_ack
    queue_object, _tag = await channel.basic_consume(job.queue, auto_ack=no_ack)
    for _ in range(job.count):
        _channel, method, _properties, body = await queue_object.get()
        received_bytes += len(body)
        if not no_ack:
            channel.basic_ack(method.delivery_tag)
    return received_bytes


async def run(clock: Any, job: Task) -> None:
    parameters = pika.URLParameters(job.url)
    parameters.heartbeat = 0
    protocol = TwistedProtocolConnection(parameters)
    endpoint = HostnameEndpoint(clock, parameters.host, parameters.port)
    await connectProtocol(endpoint, cast(Any, protocol))
    await protocol.ready
    channel = await protocol.channel()
    operation, watch, received_bytes = job.operation, Stopwatch(), 0
    if operation.is_confirmed:
        await channel.confirm_delivery()
    if operation.prefetch_count:
        await channel.basic_qos(prefetch_count=operation.prefetch_count)
    watch.start()
    if operation.consumes:
        received_bytes = await consume(channel, job)
    elif operation.is_confirmed:
        await publish_confirmed(clock, channel, job)
    else:
        await publish(clock, channel, job)
    messages = -1
    while messages != job.expected_messages:
        messages = (await channel.queue_declare(job.queue, passive=True)).method.message_count
    watch.stop()
    watch.print_result(received_bytes=received_bytes)
    await protocol.close()


def main(clock: Any, job: Task) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(run(clock, job))


if __name__ == "__main__":
    task.react(main, [read_task()])
