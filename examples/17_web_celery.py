"""A web server that calls a Celery task for each request, and answers when the task is done.

python examples/17_web_celery.py "amqp://localhost" 8080
curl "http://localhost:8080/add?x=1&y=2"

It needs a worker of Celery with a task "add", or examples/18_celery_worker.py.  Nothing blocks: thousands of requests
can wait at a time, all on one connection.
"""

import json
import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txmsg.errors import RemoteError, RPCTimeout, TxmsgError
from txmsg.rpc.celery import CeleryApp


class Add(Resource):
    isLeaf = True

    def __init__(self, app: CeleryApp, queue: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.app = app
        self.queue = queue

    def render_GET(self, request: Request) -> bytes | int:
        try:
            numbers = [int(request.args[name][0]) for name in (b"x", b"y")]
        except (KeyError, ValueError):
            return answer(request, 400, {"error": "give x and y, two whole numbers"})
        running = Deferred.fromCoroutine(self.add(request, numbers))
        # Who goes away needs no answer: that ends the wait, and calls the task off.
        request.notifyFinish().addErrback(lambda failure: running.cancel())
        running.addErrback(lambda failure: failure.trap(CancelledError) and None)
        return NOT_DONE_YET

    async def add(self, request: Request, numbers: list[int]) -> None:
        try:
            total = await self.app.call_task(
                "add", numbers, queue=self.queue, expires=10, timeout=10, revoke_on_cancel=True
            )
            status, body = 200, {"result": total}
        except RemoteError as error:
            status, body = 500, {"error": f"{error.exc_type}: {error.message}"}
        except RPCTimeout:
            status, body = 504, {"error": "no worker has answered"}
        except TxmsgError as error:
            status, body = 503, {"error": str(error)}
        request.write(answer(request, status, body))
        request.finish()


def answer(request: Request, status: int, body: dict[str, Any]) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(body).encode() + b"\n"


async def main(reactor: Any, url: str = "amqp://localhost", port: str = "8080", queue: str = "celery") -> None:
    app = CeleryApp(url, reactor=reactor)
    root = Resource()
    root.putChild(b"add", Add(app, queue))
    listening = await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(Site(root))
    reactor.addSystemEventTrigger("before", "shutdown", app.close)
    print(f"http://127.0.0.1:{listening.getHost().port}/add")
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
