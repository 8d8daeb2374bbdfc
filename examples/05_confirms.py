"""Publisher confirms: many messages in flight, and for each of them the broker's answer.

python examples/05_confirms.py amqp://localhost 1000
"""

import sys
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.internet.task import react

from txmsg.amqp import connect
from txmsg.errors import PublishReturned


async def main(reactor: Any, url: str = "amqp://localhost", count: str = "1000") -> None:
    connection = await connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.confirm_select()
    declared = await channel.queue_declare("", exclusive=True)

    outcomes = await DeferredList(
        [channel.basic_publish("", declared.queue, b"message %d" % n, mandatory=True) for n in range(int(count))],
        consumeErrors=True,
    )
    print(f"{sum(succeeded for succeeded, _ in outcomes)} of {count} messages are safe with the broker")

    try:
        await channel.basic_publish("", "no such queue", b"lost?", mandatory=True)
    except PublishReturned as error:
        print(f"not lost: {error}")
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
