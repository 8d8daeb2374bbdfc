"""Remote procedure calls: a server of one function, and a client that calls it.

python examples/16_rpc_fibonacci.py serve "amqp://localhost"
python examples/16_rpc_fibonacci.py ask "amqp://localhost" 30

Or let twistd run the server, and finish what is at work when it is told to stop:

cd examples; cp 16_rpc_fibonacci.py fibonacci.py
TXMSG_URL=amqp://localhost twistd -n --pidfile= txmsg-consumer --rpc fibonacci:server
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from txmsg.messaging import Connection, Queue
from txmsg.rpc import RPCClient, RPCServer


def fib(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def server(connection: Connection | str) -> RPCServer:
    # The queue goes with its last server: who calls then is told that nobody is there.
    server = RPCServer(connection, Queue("fibonacci", durable=False, auto_delete=True))
    server.register(fib)
    return server


async def serve(reactor: Any, url: str) -> None:
    serving = server(url)
    await serving.start()
    reactor.addSystemEventTrigger("before", "shutdown", serving.stop)
    print("serving")
    await Deferred()


async def ask(reactor: Any, url: str, number: str = "30") -> None:
    async with RPCClient(url, timeout=10) as client:
        print(f"fib({number}) is", await client.call("fibonacci", "fib", int(number)))


if __name__ == "__main__":
    react(serve if sys.argv[1] == "serve" else ask, sys.argv[2:])
