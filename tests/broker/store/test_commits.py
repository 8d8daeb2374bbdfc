"""When the store commits, and when its callbacks come (R35)."""

from __future__ import annotations

from tests.broker.model_fakes import FakeConsumer
from tests.broker.store_cases import HeldWorker, StoreTestCase
from txmsg.broker.queues.queue import PENDING
from txmsg.broker.store import StoreClosed
from txmsg.errors import TxmsgError


class CommitTests(StoreTestCase):
    """When a commit happens, and when its callbacks come (R35)."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = HeldWorker()
        self.host = self.start(worker=self.worker)
        self.queue = self.host.queue()
        self.commit(self.host)
        self.worker.is_held = True
        self.seen: list[str] = []

    def after(self, name: str) -> None:
        self.host.store.after_commit(
            lambda: self.seen.append(name), lambda error: self.seen.append(f"{name}: {type(error).__name__}")
        )

    def test_nothing_to_wait_for(self) -> None:
        """At once when all is written."""
        self.after("a")
        self.assertEqual(self.seen, ["a"])

    def test_callback_comes_after_the_commit(self) -> None:
        """Not before the database has it; then in order."""
        self.host.publish(b"1")
        self.after("a")
        self.after("b")
        self.assertEqual((self.seen, self.worker.jobs), ([], []))
        self.clock.advance(0)
        self.assertEqual((self.seen, len(self.worker.jobs)), ([], 1))
        self.assertEqual(self.crash().kept_bodies(), [])
        self.worker.work()
        self.assertEqual(self.seen, ["a", "b"])
        self.assertEqual(self.crash().kept_bodies(), [b"1"])

    def test_groups(self) -> None:
        """All that is told while a commit runs is the next one."""
        for number in range(5):
            self.host.publish(b"%d" % number)
            self.after(f"{number}")
            self.clock.advance(0)
        self.assertEqual(len(self.worker.jobs), 1)
        self.worker.work()
        self.assertEqual((self.seen, len(self.worker.jobs)), (["0"], 1))
        self.worker.work()
        self.assertEqual((self.seen, self.worker.jobs), (["0", "1", "2", "3", "4"], []))

    def test_wait_for_what_is_being_written(self) -> None:
        """Who asks while the commit runs, and has told nothing more, waits for it only."""
        self.host.publish(b"1")
        self.after("a")
        self.clock.advance(0)
        self.after("b")
        self.worker.work()
        self.assertEqual((self.seen, self.worker.jobs), (["a", "b"], []))

    def test_linger(self) -> None:
        """What nobody waits for is written a little later, with what came meanwhile."""
        self.host.publish(b"1")
        self.clock.advance(0.03)
        self.host.publish(b"2")
        self.assertEqual(self.worker.jobs, [])
        self.clock.advance(0.021)
        self.worker.work()
        self.assertEqual(self.crash().kept_bodies(), [b"1", b"2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waiting_ends_the_lingering(self) -> None:
        """Somebody who waits does not wait for that."""
        self.host.publish(b"1")
        self.clock.advance(0.01)
        self.after("a")
        self.clock.advance(0)
        self.assertEqual(len(self.worker.jobs), 1)

    def test_what_is_gone_before_its_commit_is_never_written(self) -> None:
        """Published, delivered, acked: no write at all, and the publisher's callback comes."""
        self.host.publish(b"x" * 10_000)
        self.after("a")
        self.queue.get(no_ack=True)
        self.clock.advance(0)
        self.assertEqual((self.seen, self.worker.jobs), (["a"], []))

    def test_callback_waits_for_its_turn(self) -> None:
        """Even when all it waited for is gone again it does not overtake those before it."""
        self.host.publish(b"1")
        self.after("a")
        self.clock.advance(0)
        self.host.publish(b"2")
        self.after("b")
        self.queue.get(no_ack=True)
        self.queue.get(no_ack=True)
        self.after("c")
        self.assertEqual(self.seen, [])
        self.worker.work()
        self.assertEqual(self.seen, ["a"])
        self.worker.work()
        self.assertEqual(self.seen, ["a", "b", "c"])

    def test_removed_while_it_is_being_written(self) -> None:
        """It is deleted by the next commit."""
        self.host.publish(b"1")
        self.after("a")
        self.clock.advance(0)
        self.queue.get(no_ack=True)
        self.worker.work()
        self.assertEqual(self.crash().kept_bodies(), [b"1"])
        self.clock.advance(0.05)
        self.worker.work()
        self.assertEqual(self.crash().kept_bodies(), [])

    def test_delivered_to_a_waiting_consumer(self) -> None:
        """What goes straight to a consumer is kept until it is acked."""
        consumer = FakeConsumer()
        self.queue.add_consumer(consumer)
        self.assertEqual(self.host.publish(b"1"), PENDING)
        self.after("a")
        self.clock.advance(0)
        self.worker.work()
        self.assertEqual(self.crash().kept_bodies(), [b"1"])

    def test_callback_that_raises(self) -> None:
        """Those behind it are called all the same."""
        self.host.publish(b"1")
        self.host.store.after_commit(lambda: 1 // 0)
        self.after("a")
        self.clock.advance(0)
        self.worker.work()
        self.assertEqual(self.seen, ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_callback_that_tells_more(self) -> None:
        """What a callback tells is the next commit."""
        self.host.publish(b"1")

        def more() -> None:
            self.host.publish(b"2")
            self.after("b")

        self.host.store.after_commit(more)
        self.clock.advance(0)
        self.worker.work()
        self.assertEqual(len(self.worker.jobs), 1)
        self.worker.work()
        self.assertEqual(self.seen, ["b"])

    def test_many_changes(self) -> None:
        """More changes than one statement holds are still one transaction."""
        for number in range(9001):
            self.host.publish(b"%d" % number)
        self.after("a")
        self.clock.advance(0)
        self.worker.work()
        self.assertEqual(self.seen, ["a"])
        self.assertEqual(self.crash().kept_bodies(), [b"%d" % number for number in range(9001)])


class CloseTests(StoreTestCase):
    """The end."""

    def test_close_writes_what_is_left(self) -> None:
        """Also while a commit runs, and the callbacks come."""
        worker = HeldWorker()
        host = self.start(worker=worker)
        host.queue()
        worker.is_held = True
        seen: list[str] = []
        host.publish(b"1")
        host.store.after_commit(lambda: seen.append("1"))
        self.clock.advance(0)
        host.publish(b"2")
        host.store.after_commit(lambda: seen.append("2"))
        done = host.store.close()
        host.publish(b"told while it closes")
        self.assertNoResult(done)
        while worker.jobs:
            worker.work()
        self.successResultOf(done)
        self.assertEqual(seen, ["1", "2"])
        host = self.start()
        self.assertEqual(host.kept_bodies(), [b"1", b"2", b"told while it closes"])
        self.assertTrue(self.report.stopped_cleanly)

    def test_one_file_is_left(self) -> None:
        """After a clean stop the data is one file, and the lock."""
        host = self.start()
        host.queue()
        self.stop(host)
        self.assertEqual(sorted(path.name for path in self.directory.iterdir()), ["broker.db", "lock"])

    def test_closed(self) -> None:
        """Nothing is confirmed any more, and closing again is nothing."""
        host = self.start()
        host.queue()
        self.stop(host)
        self.successResultOf(host.store.close())
        errors: list[TxmsgError] = []
        host.publish(b"1")
        host.store.after_commit(lambda: self.fail("confirmed"), errors.append)
        host.store.after_commit(lambda: self.fail("confirmed"))
        self.assertEqual([type(error) for error in errors], [StoreClosed])
        self.assertEqual((len(host.store._batch), self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(self.start().kept_bodies(), [])

    def test_never_loaded(self) -> None:
        """A store that was not loaded keeps nothing and confirms nothing."""
        errors: list[TxmsgError] = []
        self.make().after_commit(lambda: self.fail("confirmed"), errors.append)
        self.assertEqual([type(error) for error in errors], [StoreClosed])

    def test_repr(self) -> None:
        """Says where and how."""
        host = self.start()
        self.assertIn("open", repr(host.store))
        self.assertIn(str(self.directory), repr(host.store))
        self.stop(host)
        self.assertIn("closed", repr(host.store))
