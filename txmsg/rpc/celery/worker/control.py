"""Control: what operators and clients ask of all workers, by the exchange `celery.pidbox` (celery K-12).

revoke and terminate; ping and what `inspect` shows of tasks.  Invariants: the ids that were called off are kept for a
bounded time and in a bounded number; a request never makes a worker do anything but what is listed here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from txmsg.errors import clip
from txmsg.messaging.pidbox import Mailbox, Node

if TYPE_CHECKING:
    from txmsg.rpc.celery.worker.service import CeleryWorker

__all__ = ["Control", "Revoked"]

#: As Celery: how many ids are kept, and for how many seconds.
MAX_REVOKED: Final = 50_000
REVOKED_FOR: Final = 10_800.0
#: Octets of a task's id, which is a property of its messages.
_SHORT: Final = 255
#: Seconds, of a worker's own queue for requests (5.2).
_QUEUE_EXPIRES, _QUEUE_TTL = 10.0, 300.0
#: Tasks that one answer of `inspect` names.
_MAX_SHOWN = 1000

_log = Logger(namespace="txmsg.rpc.celery.worker")


class Revoked:
    """Ids of tasks that were called off.

    now() -- seconds, for how long they are kept.
    """

    def __init__(self, now: Callable[[], float], maximum: int = MAX_REVOKED, seconds: float = REVOKED_FOR) -> None:
        self._now = now
        self._maximum = maximum
        self._seconds = seconds
        self._ids: OrderedDict[str, float] = OrderedDict()

    def add(self, task_ids: Iterable[str]) -> None:
        """Keep these; the oldest go when there are too many."""
        now = self._now()
        for task_id in task_ids:
            if len(task_id) > _SHORT:
                continue  # no task has it
            self._ids[task_id] = now
            self._ids.move_to_end(task_id)
        while self._ids and (len(self._ids) > self._maximum or now - next(iter(self._ids.values())) > self._seconds):
            self._ids.popitem(last=False)

    def __contains__(self, task_id: str) -> bool:
        added = self._ids.get(task_id)
        return added is not None and self._now() - added <= self._seconds

    def __iter__(self) -> Any:
        return iter([task_id for task_id in self._ids if task_id in self])

    def __len__(self) -> int:
        return len(self._ids)


class Control:
    """A worker's ear for requests.

    worker: CeleryWorker.   namespace: str -- of the mailbox, "celery".
    """

    def __init__(self, worker: CeleryWorker, namespace: str = "celery") -> None:
        self._worker = worker
        self._namespace = namespace
        self._node: Node | None = None
        self.revoked = Revoked(self._now)  # not its reactor: the worker may be made before there is one

    def _now(self) -> float:
        return float(self._worker.connection.reactor.seconds())

    def is_revoked(self, task_id: str) -> bool:
        """Whether a task was called off."""
        return task_id in self.revoked

    @property
    def is_listening(self) -> bool:
        """Whether requests are heard."""
        return self._node is not None

    def start(self) -> Deferred[Any]:
        """Listen; InconsistencyError: another worker has this name."""
        mailbox = Mailbox(
            self._namespace,
            "fanout",
            self._worker.connection,
            queue_expires=_QUEUE_EXPIRES,
            queue_ttl=_QUEUE_TTL,
        )
        commands = (
            self.revoke,
            self.terminate,
            self.ping,
            self.active,
            self.scheduled,
            self.reserved,
            self.registered,
            self.list_revoked,
            self.active_queues,
        )
        handlers: dict[str, Any] = {command.__name__: command for command in commands}
        handlers["revoked"] = handlers.pop("list_revoked")
        self._node = mailbox.Node(self._worker.hostname, handlers=handlers)
        return self._node.listen()

    def stop(self) -> Deferred[Any]:
        """Listen no more."""
        node, self._node = self._node, None
        return succeed(None) if node is None else node.close()

    # -- the commands: each is called with the node's state, and what the request holds -------------------

    def revoke(
        self, state: Any = None, task_id: Any = None, terminate: bool = False, signal: Any = None, **_: Any
    ) -> Any:
        """Call tasks off: what has not begun is not run; with `terminate`, what runs is cancelled.

        task_id: str or a list.   signal -- there are no processes that one could be sent to.
        """
        task_ids = [task_id] if isinstance(task_id, str) else task_id
        if not isinstance(task_ids, list | tuple | set) or not all(isinstance(each, str) for each in task_ids):
            return {"error": "task_id is an id, or a list of ids"}
        task_ids = set(task_ids)
        self.revoked.add(task_ids)
        _log.info("{count} tasks are called off, {ids}", count=len(task_ids), ids=clip(", ".join(sorted(task_ids))))
        ended = self._worker.revoke(task_ids, terminate is True)
        if terminate is True:
            return {"ok": f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown"}
        return {"ok": f"tasks {', '.join(sorted(task_ids))} flagged as revoked"}

    def terminate(self, state: Any = None, signal: Any = None, task_id: Any = None, **_: Any) -> Any:
        """As revoke(terminate=True)."""
        return self.revoke(state, task_id, True, signal)

    def ping(self, state: Any = None, **_: Any) -> dict[str, str]:
        """Whether it is there."""
        return {"ok": "pong"}

    def active(self, state: Any = None, **_: Any) -> list[dict[str, Any]]:
        """Tasks that run."""
        return [self._shown(each) for each in list(self._worker.executions_running)[:_MAX_SHOWN]]

    def reserved(self, state: Any = None, **_: Any) -> list[dict[str, Any]]:
        """Tasks that wait for a place."""
        return [self._shown(each) for each in list(self._worker.executions_waiting)[:_MAX_SHOWN]]

    def scheduled(self, state: Any = None, **_: Any) -> list[dict[str, Any]]:
        """Tasks that wait for their eta."""
        return [
            {
                "eta": each.request.eta.isoformat() if each.request.eta is not None else None,
                "priority": each.request.priority,
                "request": self._shown(each),
            }
            for each in list(self._worker.executions_held)[:_MAX_SHOWN]
        ]

    def registered(self, state: Any = None, **_: Any) -> list[str]:
        """Names of tasks."""
        return sorted(self._worker.tasks)

    def list_revoked(self, state: Any = None, **_: Any) -> list[str]:
        """Ids that were called off."""
        return list(self.revoked)

    def active_queues(self, state: Any = None, **_: Any) -> list[dict[str, Any]]:
        """What it consumes."""
        return [{"name": queue.name, "routing_key": queue.routing_key} for queue in self._worker.queues]

    def _shown(self, execution: Any) -> dict[str, Any]:
        """Of the arguments only what the sender wrote for logs: they can be secrets."""
        request = execution.request
        return {
            "id": request.task_id,
            "name": request.name,
            "args": request.argsrepr,
            "kwargs": request.kwargsrepr,
            "hostname": self._worker.hostname,
            "acknowledged": execution.message.state == "acked",
            "delivery_info": {
                "exchange": execution.message.delivery.exchange,
                "routing_key": execution.message.delivery.routing_key,
                "redelivered": execution.message.redelivered,
                "priority": request.priority,
            },
        }
