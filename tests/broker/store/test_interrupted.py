"""A broker that is killed while it makes its database, or repairs it (F56), or stopped while it starts."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.broker.store.broker_cases import BrokerTestCase
from tests.broker.store.test_damage import DamageTestCase
from tests.broker.store_cases import HeldWorker, Host, StoreTestCase
from txmsg.broker.server import Broker
from txmsg.broker.store import DataDirectoryRefused, StoreDamaged
from txmsg.broker.store.schema import APPLICATION_ID, PAGE_SIZE, connect
from txmsg.broker.users.credentials import Users

#: The system calls by which a repair changes files, as the module sees them: where a kill makes a difference.
STEPS = ("fsync", "link", "replace")


class Killed(BaseException):
    """The process ends here."""


class CreationTests(StoreTestCase):
    """F56: the first start; whatever a kill leaves of it, the next start is the first."""

    def setUp(self) -> None:
        super().setUp()
        self.directory.mkdir(mode=0o700)
        self.path = self.directory / "broker.db"

    def check_first_start(self) -> None:
        host = self.start()
        self.assertTrue(self.report.is_new)
        self.assertEqual(self.report.damage, [])
        host.queue()
        host.publish(b"1")
        self.assertEqual(self.commit(host), ["kept"])
        self.assertEqual(self.restart(host).kept_bodies(), [b"1"])

    def test_empty_file(self) -> None:
        """Made, and nothing written."""
        self.path.touch()
        self.check_first_start()

    def test_file_without_tables(self) -> None:
        """Marked as ours or not yet, and no more."""
        for application in (0, APPLICATION_ID):
            connection = connect(self.path)
            connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute(f"PRAGMA application_id={application}")
            connection.close()
            self.assertEqual(self.path.stat().st_size, PAGE_SIZE)
            self.check_first_start()
            self.stores.pop()._database.abandon()
            for left in self.directory.iterdir():
                left.unlink()

    def test_in_the_transaction(self) -> None:
        """The pages are in the file, and the journal that takes them back is beside it."""
        made = connect(self.directory.with_name("made.db"))
        made.execute(f"PRAGMA page_size={PAGE_SIZE}")
        made.execute("PRAGMA auto_vacuum=INCREMENTAL")
        made.execute("PRAGMA cache_size=1")
        made.execute("BEGIN")
        made.execute("CREATE TABLE state (id INTEGER PRIMARY KEY, value TEXT NOT NULL)")
        made.executemany("INSERT INTO state (value) VALUES (?)", [("x" * 3000,)] * 50)
        # As after the sync of the journal: everything is on its way, nothing is committed.
        for suffix in ("", "-journal"):
            shutil.copy(f"{self.directory.with_name('made.db')}{suffix}", f"{self.path}{suffix}")
        made.close()
        self.assertGreater(self.path.stat().st_size, PAGE_SIZE)
        self.check_first_start()

    def test_something_else(self) -> None:
        """A small database of somebody else is no first start."""
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA application_id=7")
        connection.close()
        before = self.path.read_bytes()
        self.failureResultOf(self.make().load(_nobody()), StoreDamaged)
        self.assertEqual(self.path.read_bytes(), before)

    def test_link(self) -> None:
        """C7.4: the journal is looked at like the other files."""
        victim = self.directory.with_name("victim")
        victim.write_bytes(b"precious")
        (self.directory / "broker.db-journal").symlink_to(victim)
        self.failureResultOf(self.make().load(_nobody()), DataDirectoryRefused)
        self.assertEqual(victim.read_bytes(), b"precious")


class RepairTests(DamageTestCase):
    """F56: a repair that is killed is begun again, and what it saves is the same."""

    def setUp(self) -> None:
        super().setUp()
        self.fill(60)
        self.stop(self.host)
        content = bytearray((self.directory / "broker.db").read_bytes())
        at = content.index(b"30 30 30") // PAGE_SIZE * PAGE_SIZE
        content[at : at + 8] = b"\xff" * 8
        (self.directory / "broker.db").write_bytes(content)

    def kill_at(self, step: int) -> tuple[bool, Path]:
        """Start on a copy and be killed at the step of that number; whether there is one, and the directory."""
        directory = self.copy()
        count = 0

        def dies(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    raise Killed
                return call(*arguments)

            return called

        patches = [self.patch(os, name, dies(getattr(os, name))) for name in STEPS]
        try:
            self.make(directory).load(_nobody()).addErrback(lambda failure: failure.trap(Killed, AssertionError))
        except Killed:
            pass
        finally:
            for patch in patches:
                patch.restore()
            self.stores[-1]._database.abandon()
        return count >= step, directory

    def test_killed_at_each_step(self) -> None:
        """Before each change of a file."""
        expected = self.restore(self.copy())
        self.assertTrue(0 < self.lost(expected) < 30)
        for step in range(1, 50):
            was_killed, directory = self.kill_at(step)
            if not was_killed:
                break
            self.assertEqual(self.restore(directory), expected, f"step {step}")
        self.assertGreater(step, 5)


def _nobody() -> Any:
    """Who has no virtual hosts: what would be restored fails."""

    class Nobody:
        vhosts: dict[str, Any] = {}

        def add_vhost(self, name: str) -> Any:
            raise AssertionError(name)

    return Nobody()


class StopWhileStartingTests(BrokerTestCase):
    """R35: a broker that is stopped before its start has ended gives its directory back, and in good order."""

    def test_stopped_while_loading(self) -> None:
        """The stop waits for the disk; nothing is left, no timer neither."""
        broker = self.start_broker()
        queue = broker.vhosts["/"].declare_queue("q", durable=True, arguments={"x-expires": 1000})
        self.stop_broker(broker)
        for steps in range(3):
            worker = HeldWorker()
            worker.is_held = True
            broker = Broker(reactor=self.clock, store=self.make(worker=worker), users=Users(cost=2))
            started = broker.start()
            for _ in range(steps):
                worker.work()
            stopped = broker.stop()
            self.assertNoResult(stopped)
            worker.is_held = False
            while worker.jobs:
                worker.work()
            self.clock.advance(0)
            self.successResultOf(started)
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            again = self.start_broker()
            self.assertTrue(self.report.stopped_cleanly)
            self.assertIn(queue.name, again.vhosts["/"].queues)
            self.stop_broker(again)


class AbandonedTests(StoreTestCase):
    """R35: a process that ends while the store is at work: nobody comes back to what waits for the disk."""

    def abandon(self, jobs_done: int, work: Callable[[Host], Deferred[Any]], is_loaded: bool) -> None:
        """Begin it, let the worker do some jobs and no more, and let go of everything."""
        worker = HeldWorker()
        directory = self.directory.with_name(f"data{jobs_done}")
        host = self.start(directory, worker) if is_loaded else Host(self.make(directory, worker), self.clock)
        if is_loaded:
            host.queue()
        self.addCleanup(host.store._database.abandon)
        worker.is_held = True
        self.waiting = weakref.ref(work(host))
        for _ in range(jobs_done):
            worker.work()
        self.assertEqual(len(worker.jobs), 1)
        worker.jobs.clear()
        self.stores.clear()
        self.worker = worker

    def check_silence(self, work: Callable[[Host], Deferred[Any]], is_loaded: bool = True) -> None:
        """It goes without a word, wherever it was, and asks for nothing any more."""
        complaints: list[str] = []
        self.patch(sys, "unraisablehook", lambda problem: complaints.append(repr(problem.exc_value)))
        for jobs_done in range(3):
            self.abandon(jobs_done, work, is_loaded)
            gc.collect()
            self.assertIsNone(self.waiting())
            self.assertEqual((complaints, self.worker.jobs), ([], []))

    def test_closing(self) -> None:
        """While the last changes are written, the database is closed, or the directory is given back."""
        self.check_silence(lambda host: host.store.close())

    def test_loading(self) -> None:
        """While the database is opened, read or marked."""
        self.check_silence(lambda host: host.store.load(host), is_loaded=False)
