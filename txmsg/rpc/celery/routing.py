"""TaskQueues: where a task is published to, and what is declared for it.

The invariant: what is declared is what Celery declares.  One more argument, or another flag, and whichever side comes
second gets a 406.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging import Exchange, Queue

__all__ = ["Destination", "TaskQueues"]


class Destination(NamedTuple):
    """Where a task goes: to this exchange, with this routing key, when these are declared."""

    exchange: Exchange | str
    routing_key: str
    declare: tuple[Any, ...]


class TaskQueues:
    """The queues of an application.

    queues -- Queues that are not as Celery makes them by default.   default: str -- the queue of tasks for which
    nothing is said.   create_missing: bool -- another queue is declared as Celery does: durable, bound to a durable
    direct exchange of its own name; False: it has to be there.   routes -- names of tasks to names of queues.
    """

    def __init__(
        self,
        queues: Iterable[Queue] = (),
        *,
        default: str = "celery",
        create_missing: bool = True,
        routes: Mapping[str, str] | None = None,
    ) -> None:
        self.default = default
        self.create_missing = create_missing
        if routes is not None and not isinstance(routes, Mapping):
            raise ConfigurationError(f"routes are a mapping of tasks to queues, not {type(routes).__name__}")
        self.routes = dict(routes or {})
        self._queues: dict[str, Queue] = {}
        for queue in queues:
            if not isinstance(queue, Queue):
                raise ConfigurationError(f"queues are Queues, not {type(queue).__name__}")
            self._queues[queue.name] = queue

    def queue(self, name: str) -> Queue:
        """A queue as it is declared."""
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a queue for tasks has a name, not {clip(repr(name), 60)}")
        found = self._queues.get(name)
        if found is None:
            is_there = not self.create_missing and name != self.default
            found = self._queues[name] = Queue(name, Exchange(name, "direct"), name, no_declare=is_there)
        return found

    def destination(
        self,
        task: str,
        queue: Queue | str | None = None,
        exchange: Exchange | str | None = None,
        routing_key: str | None = None,
    ) -> Destination:
        """Where a task goes; ConfigurationError for what says it only by half.

        task: str -- its name.   queue -- None: as the routes say, or the default.   exchange and routing_key -- in
        place of those of the queue.
        """
        if queue is None and exchange:
            if routing_key is None:
                raise ConfigurationError("an exchange without a routing key: give both, or a queue")
            return Destination(exchange, routing_key, (exchange,) if isinstance(exchange, Exchange) else ())
        if queue is None:
            if routing_key:
                raise ConfigurationError("a routing key without an exchange, which Celery would ignore: give both")
            queue = self.routes.get(task) or self.default
        entity = queue if isinstance(queue, Queue) else self.queue(queue)
        if exchange and routing_key is not None:
            return Destination(exchange, routing_key, (entity,))
        source = entity.exchange
        if source is None or not source.name or source.type == "direct":
            return Destination("", entity.name, (entity,))
        return Destination(source.name, routing_key or entity.routing_key, (entity,))
