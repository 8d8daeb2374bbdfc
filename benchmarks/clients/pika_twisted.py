"""pika's Twisted adapter.

The adapter's `basic_publish` has no back-pressure, so publishing returns to the reactor after each chunk,
which is what keeps the transport's buffer short and the sends large (a return after each message costs more
than twice the CPU at 100 bytes; none at all, six times at 64 KiB).  Consuming is the adapter's queue object:
`get()` in a loop and one ack each.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet import defer, reactor, task
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from benchmarks.plan import IN_FLIGHT
from benchmarks.task import Stopwatch, Task, read_task

PROPERTIES = pika.BasicProperties(delivery_mode=1)

#: Bytes published in one turn of the reactor.
CHUNK_BYTES = 32 * 1024


class Publishing:
    """Publish chunk by chunk; `done` fires when every message was written, or confirmed if it is to be."""

    def __init__(self, clock: Any, channel: Any, job: Task) -> None:
        self.clock, self.channel, self.queue, self.body = clock, channel, job.queue, job.body
        self.chunk = max(1, CHUNK_BYTES // job.size)
        self.to_send = self.to_confirm = job.count
        self.is_confirmed = job.operation.is_confirmed
        self.is_scheduled = False
        self.done: defer.Deferred[None] = defer.Deferred()

    def publish_chunk(self) -> None:
        self.is_scheduled = False
        count = min(self.chunk, self.to_send)
        if self.is_confirmed:
            count = min(count, IN_FLIGHT - (self.to_confirm - self.to_send))
        self.to_send -= count
        publish, queue, body = self.channel.basic_publish, self.queue, self.body
        for _ in range(count):
            published = publish("", queue, body, PROPERTIES)
            if self.is_confirmed:
                published.addCallbacks(self.on_confirmed, self.done.errback)
        if count and self.to_send:
            self.schedule()
        elif not self.to_send and not self.is_confirmed:
            self.done.callback(None)

    def schedule(self) -> None:
        if not self.is_scheduled:
            self.is_scheduled = True
            self.clock.callLater(0, self.publish_chunk)

    def on_confirmed(self, _: object) -> None:
        self.to_confirm -= 1
        if self.to_send:
            self.schedule()
        elif not self.to_confirm:
            self.done.callback(None)


@defer.inlineCallbacks
def consume(queue_object: Any, job: Task) -> Generator[defer.Deferred[Any], Any, int]:
    received_bytes = 0
    no_ack = job.operation.no_ack
    for _ in range(job.count):
        channel, method, _properties, body = yield queue_object.get()
        received_bytes += len(body)
        if not no_ack:
            channel.basic_ack(method.delivery_tag)
    return received_bytes


@defer.inlineCallbacks
def run(clock: Any, job: Task) -> Generator[defer.Deferred[Any], Any, None]:
    parameters = pika.URLParameters(job.url)
    parameters.heartbeat = 0
    protocol = TwistedProtocolConnection(parameters)
    endpoint = HostnameEndpoint(clock, parameters.host, parameters.port)
    yield connectProtocol(endpoint, cast(Any, protocol))
    yield protocol.ready
    channel = yield protocol.channel()
    operation, watch, received_bytes = job.operation, Stopwatch(), 0
    if operation.is_confirmed:
        yield channel.confirm_delivery()
    if operation.prefetch_count:
        yield channel.basic_qos(prefetch_count=operation.prefetch_count)
    watch.start()
    if operation.consumes:
        queue_object, _tag = yield channel.basic_consume(job.queue, auto_ack=operation.no_ack)
        received_bytes = yield consume(queue_object, job)
    else:
        publishing = Publishing(clock, channel, job)
        publishing.publish_chunk()
        yield publishing.done
    messages = -1
    while messages != job.expected_messages:
        declared = yield channel.queue_declare(job.queue, passive=True)
        messages = declared.method.message_count
    watch.stop()
    watch.print_result(received_bytes=received_bytes)
    yield protocol.close()


if __name__ == "__main__":
    task.react(run, [read_task()], _reactor=cast(Any, reactor))
