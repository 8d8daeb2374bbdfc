"""py-amqp: blocking, `Connection.drain_events` in a loop.

`basic_publish_confirm` of this library waits for each message on its own; the way to many in flight is
`confirm_select` and the channel's `basic_ack` event, which is what this program does.  The capability
`connection.blocked` is not asked for, because with it every publish first polls the socket (24 instead of
14 us at 100 bytes).
"""

from __future__ import annotations

import amqp

from benchmarks.plan import IN_FLIGHT
from benchmarks.queue import connect
from benchmarks.task import Stopwatch, Task, read_task


class Run:
    """One task on one channel."""

    def __init__(self, job: Task) -> None:
        self.job = job
        self.connection = connect(job.url, notices_blocked=False)
        self.channel = self.connection.channel()
        self.message = amqp.Message(job.body, delivery_mode=1)
        self.in_flight = self.confirmed_up_to = 0
        self.to_receive, self.received_bytes = job.count, 0

    def publish(self) -> None:
        publish, message, queue = self.channel.basic_publish, self.message, self.job.queue
        for _ in range(self.job.count):
            publish(message, "", queue)

    def publish_confirmed(self) -> None:
        publish, message, queue = self.channel.basic_publish, self.message, self.job.queue
        drain_events = self.connection.drain_events
        for _ in range(self.job.count):
            while self.in_flight >= IN_FLIGHT:
                drain_events()
            self.in_flight += 1
            publish(message, "", queue)
        while self.in_flight:
            drain_events()

    def on_ack(self, delivery_tag: int, multiple: bool) -> None:
        # RabbitMQ confirms a classic queue's messages in the order of publishing.
        confirmed = delivery_tag - self.confirmed_up_to if multiple else 1
        self.confirmed_up_to += confirmed
        self.in_flight -= confirmed

    def consume(self) -> None:
        self.channel.basic_consume(
            self.job.queue,
            no_ack=self.job.operation.no_ack,
            callback=self.on_message_no_ack if self.job.operation.no_ack else self.on_message,
        )
        drain_events = self.connection.drain_events
        while self.to_receive:
            drain_events()

    def on_message(self, message: amqp.Message) -> None:
        self.received_bytes += len(message.body)
        self.to_receive -= 1
        self.channel.basic_ack(message.delivery_tag)

    def on_message_no_ack(self, message: amqp.Message) -> None:
        self.received_bytes += len(message.body)
        self.to_receive -= 1


def main() -> None:
    job = read_task()
    run = Run(job)
    operation, watch = job.operation, Stopwatch()
    if operation.is_confirmed:
        run.channel.confirm_select()
        run.channel.events["basic_ack"].add(run.on_ack)
    if operation.prefetch_count:
        run.channel.basic_qos(0, operation.prefetch_count, False)
    watch.start()
    if operation.consumes:
        run.consume()
    elif operation.is_confirmed:
        run.publish_confirmed()
    else:
        run.publish()
    messages = -1
    while messages != job.expected_messages:
        messages = run.channel.queue_declare(job.queue, passive=True).message_count
    watch.stop()
    watch.print_result(received_bytes=run.received_bytes)
    run.connection.close()


if __name__ == "__main__":
    main()
