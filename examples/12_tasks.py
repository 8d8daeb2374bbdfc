"""A small task queue: three queues by urgency, tasks as compressed JSON, and a worker that is a Twisted service.

python examples/12_tasks.py send "amqp://localhost" high hello Kombu
python examples/12_tasks.py work "amqp://localhost" 1

A task is the name of a function and its arguments: the worker runs what it knows, and nothing else.  (Without a number
the worker runs until Ctrl-C.)
"""

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.task import react

from txmsg.messaging import Connection, ConsumerMixin, Exchange, Message, Queue, pools

EXCHANGE = Exchange("tasks", type="direct")
QUEUES = {urgency: Queue(f"tasks.{urgency}", EXCHANGE, routing_key=urgency) for urgency in ("high", "middle", "low")}

TASKS: dict[str, Callable[..., object]] = {}


def task(function: Callable[..., object]) -> Callable[..., object]:
    """Let workers run it, by its name."""
    TASKS[function.__name__] = function
    return function


@task
def hello(who: str = "world") -> None:
    print(f"Hello {who}")


class Worker(ConsumerMixin):
    """Runs tasks; the first `count` ones, or for ever."""

    def __init__(self, connection: Connection, count: int) -> None:
        self.connection = connection
        self.left = count

    def get_consumers(self, Consumer: Any, channel: Any) -> Any:
        return [
            Consumer(
                queues=list(QUEUES.values()),
                callbacks=[self.run_task],
                accept=["json"],
                accept_compression=["bzip2"],
                prefetch_count=1,
            )
        ]

    def run_task(self, body: Any, message: Message) -> None:
        function = TASKS.get(body["task"])
        if function is None:
            message.reject()  # to the dead letters, if the queue has a place for them
        else:
            function(*body["args"])
            message.ack()
        self.left -= 1
        if not self.left:
            self.should_stop = True


async def send(connection: Connection, urgency: str, name: str, *arguments: str) -> None:
    async with pools.producers[connection].acquire(block=True) as producer:
        await producer.publish(
            {"task": name, "args": arguments},
            exchange=EXCHANGE,
            routing_key=urgency,
            declare=[QUEUES[urgency]],  # so that it waits for a worker that was not there yet
            compression="bzip2",
            retry=True,
        )
    await pools.reset()
    print(f"sent {name} to {QUEUES[urgency].name}")


async def main(reactor: Any, what: str, url: str, *arguments: str) -> None:
    connection = Connection(url, reactor=reactor)
    if what == "send":
        await send(connection, *arguments)
    else:
        await Worker(connection, int(arguments[0]) if arguments else -1).run()


if __name__ == "__main__":
    react(main, sys.argv[1:])
