"""The tasks of the real Celery worker in the tests: ``celery -A tests.celery.tasks worker``."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
import signal
import time
from typing import Any

import celery as untyped_celery
from celery.exceptions import Ignore

celery: Any = untyped_celery

app: Any = celery.Celery("tests.celery.tasks", broker=os.environ.get("TEST_BROKER", "amqp://"), backend="rpc://")
app.conf.update(
    task_default_queue=os.environ.get("TEST_QUEUE", "celery"),
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


class Outer:
    """For an exception with a qualified name."""

    class Odd(Exception):
        """With an argument that JSON cannot carry."""


@app.task(name="add")
def add(x: Any, y: Any) -> Any:
    """The sum."""
    return x + y


@app.task(name="echo", bind=True)
def echo(self: Any, *args: Any, **kwargs: Any) -> Any:
    """What came, and what the request says."""
    request = self.request
    return {
        "args": args,
        "kwargs": kwargs,
        "id": request.id,
        "retries": request.retries,
        "timelimit": request.timelimit,
        "group": request.group,
        "group_index": request.group_index,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "eta": request.eta,
        "expires": request.expires,
        "ignore_result": request.ignore_result,
        "priority": request.delivery_info["priority"],
        "routing_key": request.delivery_info["routing_key"],
        "headers": request.headers,
        "mine": getattr(request, "x-mine", None),
        "correlation_id": request.correlation_id,
        "reply_to": request.reply_to,
        "at": time.time(),
    }


@app.task(name="fail")
def fail(text: str) -> None:
    """A ValueError."""
    raise ValueError(text, 7)


@app.task(name="fail_oddly")
def fail_oddly() -> None:
    """A nested class, an argument that is an object."""
    raise Outer.Odd(object(), "text")


@app.task(name="again", bind=True, max_retries=3)
def again(self: Any, times: int) -> int:
    """Retried as often as asked."""
    if self.request.retries < times:
        raise self.retry(exc=KeyError("not yet"), countdown=0)
    return int(self.request.retries)


@app.task(name="progress", bind=True)
def progress(self: Any, steps: int) -> str:
    """Custom states."""
    for step in range(steps):
        self.update_state(state="PROGRESS", meta={"step": step})
    return "done"


@app.task(name="nap")
def nap(seconds: float) -> str:
    """Takes some time."""
    time.sleep(seconds)
    return "slept"


@app.task(name="nap_late", acks_late=True)
def nap_late(seconds: float) -> str:
    """The same, acked when it has ended."""
    time.sleep(seconds)
    return "slept"


@app.task(name="quiet", ignore_result=True)
def quiet() -> str:
    """No result, unless the message says otherwise."""
    return "heard"


@app.task(name="ignored")
def ignored() -> None:
    """No result at all."""
    raise Ignore


@app.task(name="parent", bind=True)
def parent(self: Any) -> str:
    """Sends another task."""
    add.apply_async((1, 1), task_id=self.request.id + "-child", reply_to=self.request.reply_to)
    return "sent"


@app.task(name="unsendable")
def unsendable() -> Any:
    """A value that JSON cannot carry."""
    return object()


@app.task(name="die")
def die() -> None:
    """Ends the process it runs in."""
    os.kill(os.getpid(), signal.SIGKILL)
