"""Which row of the database keeps what: the store's memory of its definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.bindings import Binding

__all__ = ["KeptQueue", "KeptRows"]


class KeptQueue:
    """A queue that is kept: the row of its definition, and how many messages it has in the database or on the way."""

    __slots__ = ("messages", "row")

    def __init__(self, row: int, messages: int = 0) -> None:
        self.row = row
        self.messages = messages


class KeptRows:
    """Rows of the table `definition`.

    queues: by the queue itself, for the hot path; queue_names: (vhost, name) -> queue.
    exchanges: (vhost, name) -> row.   bindings: (vhost, binding) -> row.
    settings: kind -> name -> (row, value).
    """

    __slots__ = ("bindings", "exchanges", "queue_names", "queues", "settings")

    def __init__(self) -> None:
        self.queues: dict[Queue, KeptQueue] = {}
        self.queue_names: dict[tuple[str, str], Queue] = {}
        self.exchanges: dict[tuple[str, str], int] = {}
        self.bindings: dict[tuple[str, Binding], int] = {}
        self.settings: dict[str, dict[str, tuple[int, dict[str, Any]]]] = {}

    def add_queue(self, vhost: str, queue: Queue, row: int) -> KeptQueue:
        """A queue is kept in `row`."""
        kept = self.queues[queue] = KeptQueue(row)
        self.queue_names[vhost, queue.name] = queue
        return kept

    def remove_queue(self, vhost: str, name: str) -> KeptQueue | None:
        """It is kept no longer; None if it never was."""
        queue = self.queue_names.pop((vhost, name), None)
        return None if queue is None else self.queues.pop(queue)

    def set_setting(self, kind: str, name: str, row: int, value: dict[str, Any]) -> None:
        """A setting is kept in `row`."""
        self.settings.setdefault(kind, {})[name] = (row, value)
