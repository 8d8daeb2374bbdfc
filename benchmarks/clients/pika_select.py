"""pika's SelectConnection: callbacks on pika's own loop (epoll where there is one)."""

from __future__ import annotations

from typing import Any

import pika

from benchmarks.plan import IN_FLIGHT
from benchmarks.task import Stopwatch, Task, read_task

PROPERTIES = pika.BasicProperties(delivery_mode=1)

#: Messages published in one go before the loop may write; pika offers no back-pressure of its own.
CHUNK_BYTES = 64 * 1024


class Run:
    """One task, from the open connection to the closing queue.declare."""

    def __init__(self, job: Task) -> None:
        self.job, self.body, self.watch = job, job.body, Stopwatch()
        self.chunk = max(1, CHUNK_BYTES // job.size)
        self.to_send = self.to_confirm = self.to_receive = job.count
        self.confirmed_up_to = self.received_bytes = 0
        self.error: BaseException | None = None
        parameters = pika.URLParameters(job.url)
        parameters.heartbeat = 0
        self.connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self.on_channel),
            on_open_error_callback=lambda _connection, error: self.stop(error),
            on_close_callback=lambda _connection, error: self.stop(error),
        )
        self.channel: Any = None
        self.is_finished = False

    def stop(self, error: BaseException) -> None:
        if not self.is_finished:
            self.error = error
        self.connection.ioloop.stop()

    def on_channel(self, channel: Any) -> None:
        self.channel = channel
        operation = self.job.operation
        if operation.is_confirmed:
            channel.confirm_delivery(self.on_confirm, callback=lambda _frame: self.start())
        elif operation.prefetch_count:
            channel.basic_qos(prefetch_count=operation.prefetch_count, callback=lambda _frame: self.start())
        else:
            self.start()

    def start(self) -> None:
        self.watch.start()
        operation = self.job.operation
        if operation.consumes:
            callback = self.on_message_no_ack if operation.no_ack else self.on_message
            self.channel.basic_consume(self.job.queue, callback, auto_ack=operation.no_ack)
        elif operation.is_confirmed:
            self.publish(min(IN_FLIGHT, self.to_send))
        else:
            self.publish_chunk()

    def publish(self, count: int) -> None:
        channel, queue, body = self.channel, self.job.queue, self.body
        self.to_send -= count
        for _ in range(count):
            channel.basic_publish("", queue, body, PROPERTIES)

    def publish_chunk(self) -> None:
        self.publish(min(self.chunk, self.to_send))
        if self.to_send:
            self.connection.ioloop.call_later(0, self.publish_chunk)
        else:
            self.declare()

    def on_confirm(self, frame: Any) -> None:
        method = frame.method
        if not isinstance(method, pika.spec.Basic.Ack):
            raise RuntimeError("the broker refused a message")
        # RabbitMQ confirms a classic queue's messages in the order of publishing, so counting the
        # tags up to this one is enough; a confirm out of order would be noticed by the count below.
        confirmed = method.delivery_tag - self.confirmed_up_to if method.multiple else 1
        self.confirmed_up_to += confirmed
        self.to_confirm -= confirmed
        if self.to_send:
            self.publish(min(confirmed, self.to_send))
        elif not self.to_confirm:
            self.declare()

    def on_message(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self.received_bytes += len(body)
        channel.basic_ack(method.delivery_tag)
        self.to_receive -= 1
        if not self.to_receive:
            self.declare()

    def on_message_no_ack(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        self.received_bytes += len(body)
        self.to_receive -= 1
        if not self.to_receive:
            self.declare()

    def declare(self) -> None:
        self.channel.queue_declare(self.job.queue, passive=True, callback=self.on_declared)

    def on_declared(self, frame: Any) -> None:
        if frame.method.message_count != self.job.expected_messages:
            self.declare()
            return
        self.watch.stop()
        self.is_finished = True
        self.watch.print_result(received_bytes=self.received_bytes)
        self.connection.close()


def main() -> None:
    run = Run(read_task())
    run.connection.ioloop.start()
    if run.error is not None:
        raise run.error


if __name__ == "__main__":
    main()
