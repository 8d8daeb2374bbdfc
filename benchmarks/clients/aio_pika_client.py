"""aio-pika on asyncio's own loop.

Without confirms one task publishes (more tasks made it slower); with confirms 1,000 tasks do, so that as many
messages are in flight.  Consuming is a callback.
"""

from __future__ import annotations

import asyncio

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage, AbstractQueue

from benchmarks.plan import IN_FLIGHT
from benchmarks.task import Stopwatch, Task, read_task


async def publish(exchange: AbstractExchange, job: Task, workers: int) -> None:
    """Let `workers` tasks publish until `job.count` messages are out (and, if so opened, confirmed)."""
    message = aio_pika.Message(job.body, delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT)
    left = job.count

    async def worker() -> None:
        nonlocal left
        while left:
            left -= 1
            await exchange.publish(message, job.queue, mandatory=False)

    await asyncio.gather(*(worker() for _ in range(workers)))


async def consume(queue: AbstractQueue, job: Task) -> int:
    """Take `job.count` messages, and give back how many bytes they held."""
    left = job.count
    received_bytes = 0
    no_ack = job.operation.no_ack
    done = asyncio.Event()

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal left, received_bytes
        received_bytes += len(message.body)
        if not no_ack:
            await message.ack()
        left -= 1
        if not left:
            done.set()

    await queue.consume(on_message, no_ack=no_ack)
    await done.wait()
    return received_bytes


async def run(job: Task) -> None:
    operation, watch, received_bytes = job.operation, Stopwatch(), 0
    connection = await aio_pika.connect(job.url, heartbeat=0)
    channel = await connection.channel(publisher_confirms=operation.is_confirmed)
    if operation.prefetch_count:
        await channel.set_qos(prefetch_count=operation.prefetch_count)
    queue = await channel.declare_queue(job.queue, passive=True)
    watch.start()
    if operation.consumes:
        received_bytes = await consume(queue, job)
    else:
        await publish(channel.default_exchange, job, IN_FLIGHT if operation.is_confirmed else 1)
    messages: int | None = -1
    while messages != job.expected_messages:
        messages = (await channel.declare_queue(job.queue, passive=True)).declaration_result.message_count
    watch.stop()
    watch.print_result(received_bytes=received_bytes)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(run(read_task()))
