"""A queue as simple as Python's own: put values in here, get them out there.

python examples/11_simple_queue.py put "amqp://localhost" simple_queue "Hello World!"
python examples/11_simple_queue.py get "amqp://localhost" simple_queue
"""

import sys
from typing import Any

from twisted.internet.task import react

from txmsg.messaging import Connection


async def main(reactor: Any, what: str, url: str, name: str, *values: str) -> None:
    async with Connection(url, reactor=reactor) as connection, connection.SimpleQueue(name) as queue:
        if what == "put":
            for value in values:
                await queue.put({"text": value})  # JSON; fires when the broker has it
            print(f"{await queue.qsize()} in the queue")
            return
        while True:
            try:
                message = await queue.get(timeout=1.0)
            except queue.Empty:
                break
            print(f"got {message.payload['text']!r}")
            message.ack()


if __name__ == "__main__":
    react(main, sys.argv[1:])
