"""The store as the broker sees it: a journal that is told of everything durable and commits it in groups.

R35: `after_commit` calls back when what was told until then is synced to the disk, and not before.  One transaction is
written at a time, in the thread of the database; what is told meanwhile is the next one.  So the number of syncs
follows the speed of the disk, and each publisher waits for two at most.  When nobody waits, a transaction begins a
little later (`linger`): what is published, delivered and acked within that time never reaches the disk.

Invariant: the state of the database is always that of one moment of the broker, the end of a reactor turn or of a part
of it; a message that moves to a dead letter queue is in one of the two.

docs/durability.md has the promises and the numbers.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.broker.store.batch import Batch
from txmsg.broker.store.database import Database
from txmsg.broker.store.directory import DataDirectory
from txmsg.broker.store.errors import StoreClosed, StoreError, StoreFailed
from txmsg.broker.store.records import BINDING, EXCHANGE, INLINE_LIMIT, QUEUE, SETTING, pack_definition
from txmsg.broker.store.report import LoadReport
from txmsg.broker.store.restoring import VHOST, Restorer, VirtualHosts, binding_table, exchange_table, queue_table
from txmsg.broker.store.rows import KeptRows
from txmsg.broker.store.worker import ThreadWorker, Worker

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.internet.interfaces import IDelayedCall

    from txmsg.broker.exchanges.exchange import Exchange
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.bindings import Binding
    from txmsg.errors import TxmsgError

__all__ = ["SQLiteStore"]

T = TypeVar("T")

#: Seconds between attempts while the disk is full.
_RETRY = 1.0


class SQLiteStore:
    """Keeps durable entities and persistent messages in `directory`; a :class:`~txmsg.broker.interfaces.Journal`.

    directory: the data directory, mode 0700; made where it is missing.
    reactor: IReactorTime and IReactorFromThreads.
    worker: Worker | None -- where the database is used; None: a thread of its own.
    linger: float -- seconds that changes nobody waits for may stay in memory only; default 0.05.
    wall_clock: callable -- seconds since 1970.

    failure: StoreFailed | None -- why nothing can be written at the moment, or any more.
    on_failure, on_recovery: callable or None -- called with the failure when it begins, and when writing works again.

    Nothing may be told before :meth:`load` has fired, but what restoring itself does.
    """

    _log = Logger()

    #: What a :class:`~txmsg.broker.interfaces.Journal` says of itself.
    is_durable = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        reactor: Any,
        worker: Worker | None = None,
        linger: float = 0.05,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = DataDirectory(directory)
        self.failure: StoreFailed | None = None
        self.on_failure: Callable[[StoreFailed], object] | None = None
        self.on_recovery: Callable[[], object] | None = None
        self.report: LoadReport | None = None
        self._reactor = reactor
        self._worker: Worker = ThreadWorker(reactor) if worker is None else worker
        self._linger = linger
        self._wall_clock = wall_clock
        self._database = Database(self.directory)
        #: Why nothing can be told: it is not open, or has failed.
        self._refusal: StoreError | None = StoreClosed("the store has not been loaded")
        #: Not open, or closed for good: what is told goes nowhere.
        self._is_over = True
        self._batch = Batch()
        self._writing: Batch | None = None
        self._timer: IDelayedCall | None = None
        self._is_urgent = False
        self._next_row = 1
        self._rows = KeptRows()
        self._waiting_for_idle: Deferred[None] | None = None
        #: While it is being loaded: who waits for the end of that, to close it.
        self._after_load: list[Deferred[None]] | None = None

    def __repr__(self) -> str:
        state = "failed" if self.failure else "closed" if self._refusal else "open"
        return f"<SQLiteStore {str(self.directory.path)!r} {state}, {self._batch!r}>"

    # -- life

    @inlineCallbacks
    def load(self, broker: VirtualHosts) -> Generator[Deferred[Any], Any, LoadReport]:
        """Open the data directory and restore what is in it into `broker`; it serves nobody yet.

        The Deferred fails with a StoreError; then nothing is left open.
        """
        started = self._reactor.seconds()
        database = self._database
        self._after_load = []
        try:
            yield self._worker.run(database.open)
            contents = yield self._worker.run(database.read)
            report = LoadReport(stopped_cleanly=database.stopped_cleanly, is_new=database.is_new)
            restorer = Restorer(broker, self._rows, report, self._wall_offset())
            # All in one turn of the reactor: no timer of a queue may run while only a part is there.
            restorer.restore(contents)
            self._next_row = contents.last_row + 1
            self._refusal, self._is_over = None, False
            yield self._worker.run(partial(database.mark_running, restorer.unusable))
        except GeneratorExit:  # nobody comes back to it: it cannot wait for anything any more
            raise
        except BaseException as error:
            self._refusal, self._is_over = StoreClosed(f"{self!r} could not be opened"), True
            self._cancel_timer()
            yield self._worker.run(database.abandon)
            self._worker.stop()
            self._load_ended()
            if isinstance(error, sqlite3.Error):
                raise database.unusable(error) from None
            raise
        for name in restorer.new_vhosts:
            self.put_setting(VHOST, name, {"name": name})
        report.damage[:0] = database.damage
        report.seconds = self._reactor.seconds() - started
        for damage in report.damage:
            self._log.error("{damage}", damage=damage.what)
        self.report = report
        self._load_ended()
        return report

    def _load_ended(self) -> None:
        waiting, self._after_load = self._after_load or [], None
        for waiter in waiting:  # after the one who loads it has had its turn
            self._reactor.callLater(0, waiter.callback, None)

    @inlineCallbacks
    def close(self) -> Generator[Deferred[Any], Any, None]:
        """Write what is left, say in the database that this was a clean stop, and give the directory back.

        Call it when the connections are gone, so that what they had not settled has come back.  Nothing may be told
        any more.  The Deferred fails with StoreFailed if the last changes could not be written; the directory is
        free in any case.  Closing twice is the same as once; one that is being loaded is closed after that.
        """
        if self._after_load is not None:
            loaded: Deferred[None] = Deferred()
            self._after_load.append(loaded)
            yield loaded
        if isinstance(self._refusal, StoreClosed):
            return
        self._refusal = StoreClosed(f"the store in {str(self.directory.path)!r} is closed")
        yield self._idle()
        yield self._write_what_is_left().addBoth(self._give_back)
        if self.failure is not None:
            raise self.failure

    @inlineCallbacks
    def _write_what_is_left(self) -> Generator[Deferred[Any], Any, None]:
        try:
            if self.failure is None or self.failure.recoverable:
                self._cancel_timer()
                self._commit()
                yield self._idle()
            if self.failure is None:
                yield self._worker.run(self._database.close)
        except sqlite3.Error as error:
            self.failure = self._failure_of(error)

    def _give_back(self, outcome: T) -> Deferred[T]:
        """Whatever came of the writing.  No `finally`: one that is abandoned in there could not wait for this."""
        self._cancel_timer()
        self._is_over = True
        self._batch = Batch()
        abandoned = self._worker.run(self._database.abandon)
        self._worker.stop()
        return abandoned.addCallback(lambda _: outcome)

    def _idle(self) -> Deferred[None]:
        """Fires when nothing is being written."""
        deferred: Deferred[None] = Deferred()
        if self._writing is None:
            deferred.callback(None)
        else:
            self._waiting_for_idle = deferred
        return deferred

    def backup(self, path: str | os.PathLike[str]) -> Deferred[None]:
        """Write a copy of everything that is committed to the new file `path`, while the broker goes on.

        Put as `broker.db` into an empty data directory it is what this broker would be after a crash now.  The
        Deferred fails with StoreFailed, or OSError if there is such a file.
        """
        if self._refusal is not None:
            return fail(self._refusal)
        done = self._worker.run(partial(self._database.backup, path))

        def failed(failure: Failure) -> None:
            failure.trap(sqlite3.Error)
            raise StoreFailed(f"the backup could not be written: {failure.value}", recoverable=True)

        done.addErrback(failed)
        return done

    def settings(self, kind: str) -> dict[str, dict[str, Any]]:
        """The settings of that kind that are kept: name -> value."""
        return {name: value for name, (_, value) in self._rows.settings.get(kind, {}).items()}

    # -- what is told: definitions

    def _new_row(self) -> int:
        row = self._next_row
        self._next_row = row + 1
        return row

    def _put_definition(self, row: int, kind: int, table: Mapping[str, Any]) -> None:
        self._batch.definitions[row] = (kind, pack_definition(table))
        self._changed()

    def _delete_definition(self, row: int | None) -> None:
        if row is not None:
            self._batch.definitions[row] = None
            self._changed()

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """See `Journal`, as for all that follow."""
        row = self._rows.exchanges[vhost, exchange.name] = self._new_row()
        self._put_definition(row, EXCHANGE, exchange_table(vhost, exchange))

    def exchange_deleted(self, vhost: str, name: str) -> None:
        """See `Journal`."""
        self._delete_definition(self._rows.exchanges.pop((vhost, name), None))

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """See `Journal`."""
        kept = self._rows.add_queue(vhost, queue, self._new_row())
        self._put_definition(kept.row, QUEUE, queue_table(vhost, queue))

    def queue_deleted(self, vhost: str, name: str) -> None:
        """See `Journal`."""
        kept = self._rows.remove_queue(vhost, name)
        if kept is not None:
            if kept.messages:
                self._batch.empty_queue(kept.row)
            self._delete_definition(kept.row)

    def bound(self, vhost: str, binding: Binding) -> None:
        """See `Journal`."""
        row = self._rows.bindings[vhost, binding] = self._new_row()
        self._put_definition(row, BINDING, binding_table(vhost, binding))

    def unbound(self, vhost: str, binding: Binding) -> None:
        """See `Journal`."""
        self._delete_definition(self._rows.bindings.pop((vhost, binding), None))

    def put_setting(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        """See `Journal`."""
        if self._is_over:  # a virtual host that is restored tells this, too
            return
        known = self._rows.settings.get(kind, {}).get(name)
        row = self._new_row() if known is None else known[0]
        self._put_definition(row, SETTING, {"kind": kind, "name": name, "value": value})
        self._rows.set_setting(kind, name, row, dict(value))

    def delete_setting(self, kind: str, name: str) -> None:
        """See `Journal`."""
        known = self._rows.settings.get(kind, {}).pop(name, None)
        self._delete_definition(None if known is None else known[0])

    # -- what is told: messages

    def message_added(self, queue: Queue, entry: Entry) -> None:
        """See `Journal`."""
        kept = self._rows.queues[queue]
        kept.messages += 1
        row = entry.row = self._next_row
        self._next_row = row + 1
        message = entry.message
        batch = self._batch
        batch.added[row] = (kept.row, message, entry.expires_at)
        batch.size += message.size
        if message.size > INLINE_LIMIT and batch.share_body(message, row + 1) == row + 1:
            self._next_row = row + 2
        if self._timer is None:
            self._changed()

    def message_removed(self, queue: Queue, entry: Entry) -> None:
        """See `Journal`."""
        row = entry.row
        kept = self._rows.queues.get(queue)
        if type(row) is not int or kept is None:
            return
        kept.messages -= 1
        entry.row = None
        self._batch.remove(row)
        if self._timer is None:
            self._changed()

    def message_returned(self, queue: Queue, entry: Entry) -> None:
        """See `Journal`."""
        row = entry.row
        if type(row) is int and queue in self._rows.queues:
            self._batch.returned[row] = entry.delivery_count
            self._changed()

    def queue_purged(self, queue: Queue, entries: list[Entry]) -> None:
        """See `Journal`."""
        for entry in entries:
            self.message_removed(queue, entry)

    def after_commit(
        self, callback: Callable[[], object], failed: Callable[[TxmsgError], object] | None = None
    ) -> None:
        """See `Journal`.  `failed` gets a StoreFailed."""
        if self._refusal is not None:
            if failed is not None:
                failed(self._refusal)
        elif self._batch or self._batch.waiters:
            self._batch.waiters.append((callback, failed))
            self._hurry()
        elif self._writing is not None:
            self._writing.waiters.append((callback, failed))
        else:
            callback()

    # -- when to commit

    def _wall_offset(self) -> float:
        return self._wall_clock() - float(self._reactor.seconds())

    def _changed(self) -> None:
        """There is something to write, soon."""
        if self._refusal is not None:
            self._refused()
        elif self._timer is None and self._writing is None:  # else this follows what is being written
            self._timer = self._reactor.callLater(self._linger, self._timed_out)

    def _refused(self) -> None:
        """Nothing can be told; what comes while the disk is full, or before the last commit, is still written."""
        if self._is_over or (self.failure is not None and not self.failure.recoverable):
            self._batch = Batch()

    def _hurry(self) -> None:
        """Somebody waits: write at the end of this turn of the reactor, with whatever else happens in it."""
        if self._writing is None and not self._is_urgent:
            self._cancel_timer()
            self._is_urgent = True
            self._timer = self._reactor.callLater(0, self._timed_out)

    def _cancel_timer(self) -> None:
        timer, self._timer, self._is_urgent = self._timer, None, False
        if timer is not None and timer.active():
            timer.cancel()

    def _timed_out(self) -> None:
        self._timer, self._is_urgent = None, False
        self._commit()

    def _commit(self) -> None:
        """Write the batch; only while none is being written."""
        batch, self._batch = self._batch, Batch()
        if not batch:  # all of it has been taken back
            self._written(batch)
            return
        self._writing = batch
        job = partial(self._database.write, batch, self._wall_offset())
        self._worker.run(job).addCallbacks(
            lambda _: self._written(batch), lambda failure: self._not_written(batch, failure)
        )

    def _written(self, batch: Batch) -> None:
        self._writing = None
        if self.failure is not None:
            self.failure = None
            if not isinstance(self._refusal, StoreClosed):
                self._refusal = None
            self._log.info("{directory}: there is room again, all is written", directory=self.directory)
            self._tell(self.on_recovery)
        for callback, _ in batch.waiters:
            self._tell(callback)
        self._go_on()

    def _go_on(self) -> None:
        """Nothing is being written any more: what came meanwhile is next."""
        if self._waiting_for_idle is not None:
            waiting, self._waiting_for_idle = self._waiting_for_idle, None
            waiting.callback(None)
        elif self._writing is None and self._refusal is None:  # a callback may have told more, and even written it
            if self._batch.waiters:
                self._cancel_timer()
                self._commit()
            elif self._batch:
                self._changed()

    def _failure_of(self, error: BaseException) -> StoreFailed:
        where = f"the broker's database in {str(self.directory.path)!r} cannot be written: {error}"
        return StoreFailed(where, recoverable=_is_full(error))

    def _not_written(self, batch: Batch, reason: Failure) -> None:
        """R35: nothing of it is safe, so nothing of it is confirmed."""
        self._writing = None
        is_new = self.failure is None
        error = reason.value
        assert error is not None
        failure = self.failure = self._failure_of(error)
        if not isinstance(self._refusal, StoreClosed):
            self._refusal = failure
        waiters = batch.waiters + self._batch.waiters
        batch.waiters, self._batch.waiters = [], []
        if failure.recoverable:
            batch.absorb(self._batch)
            self._batch = batch
            self._cancel_timer()
            self._timer = self._reactor.callLater(_RETRY, self._timed_out)
        else:
            self._batch = Batch()
        if is_new:
            self._log.error("{problem}", problem=str(failure))
            self._tell(partial(self.on_failure, failure) if self.on_failure else None)
        for _, failed in waiters:
            self._tell(partial(failed, failure) if failed else None)
        self._go_on()

    def _tell(self, callback: Callable[[], object] | None) -> None:
        """Call it; what it raises is its own fault, and those behind it are called all the same."""
        if callback is not None:
            try:
                callback()
            except Exception:
                self._log.failure("a callback of the store raised")


def _is_full(error: BaseException) -> bool:
    """Whether the disk, or the quota, is full: then SQLite has taken all of the transaction back."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
