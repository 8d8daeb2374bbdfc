"""The simulated disk of a broker: what is on it survives a crash, what was not synced does not.

The broker's own store runs on it, with its batches, its callbacks after a commit and its restoring; only SQLite and
the file system are replaced.  R35: what a callback after a commit was called for is on the disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.broker.message import Message
from txmsg.broker.store import SQLiteStore
from txmsg.broker.store.batch import Batch
from txmsg.broker.store.database import Database
from txmsg.broker.store.directory import DataDirectory
from txmsg.broker.store.records import (
    INLINE_LIMIT,
    Contents,
    Definition,
    KeptMessage,
    MessageReader,
    pack_message,
    unpack_definition,
)
from txmsg.testing.disruption.clock import SimulatedClock

__all__ = ["Disk", "SimulatedStore"]

_T = TypeVar("_T")


class Disk:
    """What is safe.

    syncs: int -- how many transactions have been written.
    """

    def __init__(self) -> None:
        self.is_new = True
        self.was_stopped_cleanly = True
        self.syncs = 0
        self.definitions: dict[int, tuple[int, bytes]] = {}
        #: row -> (row of the queue, record, long body, when it expires).
        self.messages: dict[int, tuple[int, bytes, bytes | None]] = {}
        self.returned: dict[int, int] = {}

    def write(self, batch: Batch, wall_offset: float) -> None:
        """One transaction."""
        self.syncs += 1
        for row, definition in batch.definitions.items():
            if definition is None:
                self.definitions.pop(row, None)
            else:
                self.definitions[row] = definition
        for row, (queue, message, expires_at) in batch.added.items():
            record = pack_message(message, None if expires_at is None else expires_at + wall_offset)
            self.messages[row] = (queue, record, self._long_body(message))
        self.returned.update(batch.returned)
        gone = set(batch.removed)
        if batch.emptied:
            gone.update(row for row, (queue, *_) in self.messages.items() if queue in batch.emptied)
        for row in gone:
            self.messages.pop(row, None)
            self.returned.pop(row, None)

    @staticmethod
    def _long_body(message: Message) -> bytes | None:
        return message.body if message.size > INLINE_LIMIT else None

    def read(self) -> Contents:
        """All there is."""
        found = sorted((kind, row, record) for row, (kind, record) in self.definitions.items())
        definitions = [Definition(row, kind, unpack_definition(record) or {}) for kind, row, record in found]
        reader = MessageReader()
        messages = []
        for row, (queue, record, body) in sorted(self.messages.items()):
            read = reader.read(record, body)
            assert read is not None, "what was packed can be read"
            messages.append(KeptMessage(row, queue, *read, self.returned.get(row, 0)))
        return Contents(definitions, messages, max([0, *self.definitions, *self.messages]))

    def __repr__(self) -> str:
        return f"<Disk with {len(self.definitions)} definitions, {len(self.messages)} messages, {self.syncs} syncs>"


class _DiskDatabase(Database):
    """A broker's way to its disk, until the broker crashes."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(DataDirectory("simulated"))
        self._disk: Disk | None = disk

    def lose(self) -> None:
        """The broker has crashed: nothing that it does any more reaches the disk."""
        self._disk = None

    def open(self) -> None:
        if self._disk is not None:
            self.is_new, self.stopped_cleanly = self._disk.is_new, self._disk.was_stopped_cleanly

    def read(self) -> Contents:
        return Contents([], [], 0) if self._disk is None else self._disk.read()

    def mark_running(self, unusable: list[tuple[str, int]]) -> None:
        assert not unusable, f"the simulated disk held what could not be restored: {unusable}"
        if self._disk is not None:
            self._disk.is_new = self._disk.was_stopped_cleanly = False

    def write(self, batch: Batch, wall_offset: float) -> None:
        if self._disk is not None:
            self._disk.write(batch, wall_offset)

    def close(self) -> None:
        if self._disk is not None:
            self._disk.was_stopped_cleanly = True

    def abandon(self) -> None:
        self._disk = None

    def backup(self, path: str | os.PathLike[str]) -> None:
        raise NotImplementedError("a simulated disk has no files")


class _SlowWorker:
    """Runs jobs one after the other, each after the time that `seconds()` gives."""

    def __init__(self, clock: SimulatedClock, seconds: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._is_busy = False

    def run(self, job: Callable[[], _T]) -> Deferred[_T]:
        deferred: Deferred[_T] = Deferred()
        self._jobs.append((job, deferred))
        if not self._is_busy:
            self._next()
        return deferred

    def _next(self) -> None:
        self._is_busy = bool(self._jobs)
        if self._jobs:
            wait = self._seconds()
            if wait:
                self._clock.callLater(wait, self._do)
            else:
                self._do()

    def _do(self) -> None:
        if self._jobs:  # else it was done in a hurry
            self._one()
        self._next()

    def _one(self) -> None:
        job, deferred = self._jobs.popleft()
        try:
            result = job()
        except Exception:
            deferred.errback(Failure())
        else:
            deferred.callback(result)

    def hurry(self) -> None:
        """Do all that waits, now."""
        while self._jobs:
            self._one()

    def stop(self) -> None:
        """Nothing is waiting that anybody needs."""


class SimulatedStore(SQLiteStore):
    """The broker's store on a simulated disk.

    seconds -- how long one sync takes, asked anew each time.
    """

    def __init__(self, disk: Disk, clock: SimulatedClock, seconds: Callable[[], float]) -> None:
        self._slow = _SlowWorker(clock, seconds)
        super().__init__("simulated", reactor=clock, worker=self._slow, wall_clock=clock.seconds)
        self._way = _DiskDatabase(disk)
        self._database = self._way

    def sync(self) -> None:
        """Write all that the broker has told, now."""
        self._slow.hurry()
        while self._batch and self._refusal is None:
            self._cancel_timer()
            self._commit()
            self._slow.hurry()

    def lose(self) -> None:
        """The broker has crashed: nothing that it does any more reaches the disk."""
        self._way.lose()
        self._slow.hurry()
        self._slow = _SlowWorker(self._slow._clock, lambda: 0.0)
        self._worker = self._slow
