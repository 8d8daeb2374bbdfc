"""A disk that is full or broken, and copies of the data (R35)."""

from __future__ import annotations

import sqlite3

from tests.broker.store_cases import HeldWorker, StoreTestCase
from txmsg.broker.store import StoreClosed, StoreFailed, database
from txmsg.errors import TxmsgError


class FailureTests(StoreTestCase):
    """A disk that does not take it (R35: nothing is confirmed that is not there)."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = HeldWorker()
        self.host = self.start(worker=self.worker)
        self.host.queue()
        self.commit(self.host)
        self.told: list[object] = []
        self.host.store.on_failure = self.told.append
        self.host.store.on_recovery = lambda: self.told.append("recovered")

    def limit_pages(self, pages: int) -> None:
        self.host.store._database.connection.execute(f"PRAGMA max_page_count={pages}").fetchall()

    def test_full(self) -> None:
        """A full disk: the publishers are told, everything stays, and is written when there is room again."""
        self.limit_pages(1)  # as many as there are
        self.host.publish(b"0" * 100_000)
        [seen] = self.commit(self.host)
        self.assertIn("full", seen)
        [failure] = self.told
        self.assertIsInstance(failure, StoreFailed)
        assert isinstance(failure, StoreFailed)
        self.assertTrue(failure.recoverable)
        self.assertIs(self.host.store.failure, failure)
        self.host.publish(b"1")
        entry = self.host.vhost.queue("q").get(no_ack=False)
        assert entry is not None
        self.host.vhost.queue("q").requeue([entry])
        [seen] = self.commit(self.host)
        self.assertIn("full", seen)
        self.clock.advance(1)
        self.assertEqual(self.told, [failure])
        self.limit_pages(1_000_000)
        self.assertIn("full", self.commit(self.host)[0])
        self.clock.advance(1)
        self.assertEqual(self.told, [failure, "recovered"])
        self.assertIsNone(self.host.store.failure)
        self.host.publish(b"2")
        self.assertEqual(self.commit(self.host), ["kept"])
        self.assertEqual(self.crash().kept_bodies(), [b"0" * 100_000, b"1", b"2"])

    def test_waiters_of_the_next_commit_are_told_too(self) -> None:
        """They were promised that what they told before them is safe, too."""
        self.worker.is_held = True
        seen: list[str] = []
        for name in ("a", "b"):
            self.host.publish(name.encode())
            self.host.store.after_commit(lambda: seen.append("kept"), lambda error: seen.append(type(error).__name__))
            self.clock.advance(0)
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        self.worker.fail(error)
        self.assertEqual(seen, ["StoreFailed", "StoreFailed"])
        self.worker.is_held = False
        self.host.vhost.queue("q").get(no_ack=True)
        self.clock.advance(1)
        self.assertEqual(self.crash().kept_bodies(), [b"b"])

    def test_broken(self) -> None:
        """Any other error is for good: nothing more is written, collected or confirmed."""
        self.worker.is_held = True
        errors: list[TxmsgError] = []
        self.host.publish(b"1")
        self.host.store.after_commit(lambda: self.fail("confirmed"), errors.append)
        self.clock.advance(0)
        self.worker.fail(sqlite3.OperationalError("disk I/O error"))
        self.host.publish(b"2")
        self.host.store.after_commit(lambda: self.fail("confirmed"), errors.append)
        self.assertEqual(len(errors), 2)
        for error in errors:
            assert isinstance(error, StoreFailed)
            self.assertFalse(error.recoverable)
        self.assertEqual(self.told, errors[:1])
        self.assertEqual((len(self.host.store._batch), self.worker.jobs, self.clock.getDelayedCalls()), (0, [], []))
        self.worker.is_held = False
        self.failureResultOf(self.host.store.close(), StoreFailed)
        host = self.start()
        self.assertEqual((host.kept_bodies(), self.report.stopped_cleanly), ([], False))

    def test_close_while_full(self) -> None:
        """One last attempt; then the caller is told, and the directory is free."""
        self.limit_pages(1)
        self.host.publish(b"0" * 100_000)
        self.commit(self.host)
        self.failureResultOf(self.host.store.close(), StoreFailed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        host = self.start()
        self.assertEqual((host.kept_bodies(), self.report.stopped_cleanly), ([], False))

    def test_close_when_there_is_room_again(self) -> None:
        """The last attempt may succeed."""
        self.limit_pages(1)
        self.host.publish(b"0" * 100_000)
        self.commit(self.host)
        self.limit_pages(1_000_000)
        self.successResultOf(self.host.store.close())
        self.assertEqual(self.start().kept_bodies(), [b"0" * 100_000])


class BackupTests(StoreTestCase):
    """Copies while the broker goes on."""

    def test_backup(self) -> None:
        """The copy is what was committed; a broker starts with it."""
        host = self.start()
        host.queue()
        host.publish(b"1")
        self.commit(host)
        target = self.copy()
        for path in target.iterdir():
            path.unlink()
        self.successResultOf(host.store.backup(target / "broker.db"))
        self.assertEqual((target / "broker.db").stat().st_mode & 0o777, 0o600)
        host.publish(b"2")
        self.commit(host)
        self.assertEqual(self.start(target).kept_bodies(), [b"1"])

    def test_no_room(self) -> None:
        """A copy that could not be finished does not stay, to be taken for one."""
        host = self.start()
        host.queue()
        target = self.directory.parent / "backup.db"

        def full(path: str) -> sqlite3.Connection:
            raise sqlite3.OperationalError("database or disk is full")

        self.patch(database, "connect", full)
        self.failureResultOf(host.store.backup(target), StoreFailed)
        self.assertFalse(target.exists())

    def test_existing_file(self) -> None:
        """Is not overwritten."""
        host = self.start()
        self.failureResultOf(host.store.backup(self.directory / "broker.db"), FileExistsError)

    def test_closed(self) -> None:
        """StoreClosed."""
        self.failureResultOf(self.make().backup("x"), StoreClosed)
