"""What the tests of the store share: a broker's model over a data directory, on a `task.Clock`."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.message import Entry, Message
from txmsg.broker.queues.queue import Queue
from txmsg.broker.store import InlineWorker, LoadReport, SQLiteStore
from txmsg.broker.store.worker import Worker
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.wire.properties import BasicProperties

__all__ = ["HeldWorker", "Host", "StoreTestCase", "bodies_of", "execute", "persistent"]

T = TypeVar("T")


class HeldWorker:
    """Does its jobs when the test says so: a slow disk."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.is_held = False

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        deferred: Deferred[T] = Deferred()
        self.jobs.append((job, deferred))
        if not self.is_held:
            self.work()
        return deferred

    def work(self) -> None:
        """Do the next job."""
        job, deferred = self.jobs.pop(0)
        try:
            result = job()
        except Exception:
            deferred.errback(Failure())
        else:
            deferred.callback(result)

    def fail(self, error: Exception) -> None:
        """Let the next job fail before it does anything."""
        self.jobs.pop(0)[1].errback(Failure(error))

    def stop(self) -> None:
        """Nothing is waiting."""


class Host:
    """What a store restores into: virtual hosts, without a server."""

    def __init__(self, store: SQLiteStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.vhosts: dict[str, VirtualHost] = {}
        self.add_vhost("/")

    def add_vhost(self, name: str) -> VirtualHost:
        """One more."""
        made = self.vhosts[name] = VirtualHost(name, clock=self.clock, journal=self.store)
        return made

    @property
    def vhost(self) -> VirtualHost:
        """The default one."""
        return self.vhosts["/"]

    def publish(self, body: bytes, key: str = "q", exchange: str = "", **fields: Any) -> int:
        """A persistent message; returns the outcome."""
        properties = persistent(**fields)
        return self.vhost.publish(exchange, key, Message.published(exchange, key, properties, body), properties)

    def queue(self, name: str = "q", **options: Any) -> Queue:
        """A durable queue."""
        return self.vhost.declare_queue(name, durable=True, **options)

    def kept_bodies(self, name: str = "q") -> list[bytes]:
        """The bodies that are ready in a queue."""
        return bodies_of(self.vhost.queue(name).ready_entries())


def persistent(**fields: Any) -> BasicProperties:
    """Properties of a persistent message."""
    return BasicProperties(delivery_mode=2, **fields)


def bodies_of(entries: list[Entry]) -> list[bytes]:
    """Their bodies."""
    return [entry.message.body for entry in entries]


def execute(path: Path, statement: str, *values: object) -> list[Any]:
    """Run one statement on a database that no broker has open."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


class StoreTestCase(SynchronousTestCase):
    """`start` and `stop` a host over `directory`; `crash` copies the directory as a killed process leaves it."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="txmsg-test-")  # trial's own would stay
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.directory = Path(folder) / "data"
        self.clock = Clock()
        self.now = 1_700_000_000.0
        self.stores: list[SQLiteStore] = []
        self.copies = 0

    def tearDown(self) -> None:
        for store in self.stores:
            store._database.abandon()

    def make(self, directory: Path | None = None, worker: Worker | None = None) -> SQLiteStore:
        """A store that is not loaded."""
        store = SQLiteStore(
            directory or self.directory,
            reactor=self.clock,
            worker=InlineWorker() if worker is None else worker,
            wall_clock=lambda: self.now + self.clock.seconds(),
        )
        self.stores.append(store)
        return store

    def start(self, directory: Path | None = None, worker: Worker | None = None) -> Host:
        """A host with what is in the directory."""
        host = Host(self.make(directory, worker), self.clock)
        self.report: LoadReport = self.successResultOf(host.store.load(host))
        return host

    def stop(self, host: Host) -> None:
        """In good order."""
        for vhost in host.vhosts.values():
            vhost.stop()
        self.successResultOf(host.store.close())

    def restart(self, host: Host) -> Host:
        """In good order."""
        self.stop(host)
        return self.start()

    def copy(self) -> Path:
        """The directory as it is now on the disk."""
        self.copies += 1
        target = self.directory.with_name(f"{self.directory.name}-copy{self.copies}")
        shutil.copytree(self.directory, target)
        (target / "broker.db-shm").unlink(missing_ok=True)
        return target

    def crash(self) -> Host:
        """A new host over what a kill of the process at this moment leaves."""
        return self.start(self.copy())

    def commit(self, host: Host) -> list[str]:
        """Let the store commit; what its callbacks were."""
        seen: list[str] = []
        host.store.after_commit(lambda: seen.append("kept"), lambda error: seen.append(f"lost: {error}"))
        self.clock.advance(0)
        return seen
