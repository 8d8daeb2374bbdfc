"""A Twisted worker for clients of Celery: its tasks may be coroutines, and hundreds of them wait at a time.

python examples/18_celery_worker.py "amqp://localhost"

The client is Celery's, as it is:

    app = celery.Celery(broker="amqp://localhost", backend="rpc://")
    print(app.send_task("add", [1, 2]).get(timeout=10))
    print(app.send_task("countdown", [3]).get(timeout=10))

Or let twistd run the tasks, and finish those at work when it is told to stop:

cd examples; cp 18_celery_worker.py shop.py
TXMSG_URL=amqp://localhost twistd -n --pidfile= txmsg-consumer --celery shop:tasks
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from txmsg.rpc.celery.worker import CeleryWorker, Request, Tasks

tasks = Tasks()


@tasks.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@tasks.task(name="countdown", bind=True, acks_late=True)
async def countdown(request: Request, number: int) -> str:
    """Tells how far it has come; the reactor is free meanwhile."""
    from twisted.internet import reactor

    while number:
        request.update_state("PROGRESS", {"left": number})
        await deferLater(reactor, 0.1)
        number -= 1
    return "lift-off"


async def main(reactor: Any, url: str = "amqp://localhost", queue: str = "celery") -> None:
    worker = CeleryWorker(url, tasks, queue)
    await worker.start()
    reactor.addSystemEventTrigger("before", "shutdown", worker.stop)
    print(f"waiting for tasks in queue {queue}")
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
