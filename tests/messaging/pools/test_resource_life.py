"""The tests of txmsg.messaging.pools.resource: what takes its time or fails, other limits, and the end."""

from __future__ import annotations

from unittest import mock

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.pools.things import PoolCase, Thing, Things
from txmsg.errors import LimitExceeded, OperationTimeout, PoolClosed, PoolError


class MakingTests(PoolCase):
    """Resources that take their time, or fail (kombu L13, L15)."""

    def test_being_made_counts(self) -> None:
        """Those still connecting are within the limit (kombu L15)."""
        self.pool.creating = []
        acquiring = [self.pool.acquire() for _ in range(3)]
        self.assertEqual((self.state(), len(self.pool.creating)), ((3, 0, 0), 3))
        self.failureResultOf(self.pool.acquire(), LimitExceeded)
        self.pool.creating[1].callback(self.pool.another())
        self.assertEqual(self.successResultOf(acquiring[1]).number, 0)
        self.assertNoResult(acquiring[0])

    def test_failed_making(self) -> None:
        """The place is given back, at once and later, and goes to who waits (kombu L13)."""
        self.pool.problem = ConnectionRefusedError("nobody there")
        for _ in range(10):
            self.failureResultOf(self.pool.acquire(), ConnectionRefusedError)
        self.pool.problem = None
        self.pool.creating = []
        acquiring = [self.pool.acquire() for _ in range(3)]
        waiting = self.pool.acquire(block=True)
        self.pool.creating[0].errback(ConnectionResetError("gone"))
        self.failureResultOf(acquiring[0], ConnectionResetError)
        self.assertEqual((self.state(), len(self.pool.creating)), ((3, 0, 0), 4))
        self.pool.creating[3].callback(self.pool.another())
        self.successResultOf(waiting)

    def test_failed_preparing(self) -> None:
        """What could not be prepared is closed, its place is given back, and another is made (kombu L13)."""
        (a,) = self.acquired()
        a.release()
        self.pool.preparing = []
        acquiring = self.pool.acquire()
        self.pool.preparing[0][1].errback(ConnectionResetError("gone"))
        self.failureResultOf(acquiring, ConnectionResetError)
        self.assertEqual((a.closings, a.lender, self.state()), (1, None, (0, 0, 0)))
        self.pool.preparing = None
        self.assertIsNot(self.acquired()[0], a)

    def test_failed_preparing_serves_who_waits(self) -> None:
        """The line moves on (kombu L13, L15)."""
        self.pool.preparing = []
        first = [self.pool.acquire() for _ in range(3)]
        waiting = self.pool.acquire(block=True)
        self.pool.preparing[0][1].errback(ConnectionResetError("gone"))
        self.failureResultOf(first[0], ConnectionResetError)
        thing, preparing = self.pool.preparing[3]
        preparing.callback(thing)
        self.assertIs(self.successResultOf(waiting), thing)

    def test_cancelled_while_it_is_made(self) -> None:
        """The making is cancelled, and the place is free (kombu L15)."""
        self.pool.creating = []
        acquiring = self.pool.acquire(timeout=5)
        acquiring.cancel()
        self.failureResultOf(acquiring, CancelledError)
        self.assertTrue(self.pool.creating[0].called)
        self.assertEqual((self.state(), self.clock.getDelayedCalls()), ((0, 0, 0), []))

    def test_made_in_spite_of_being_cancelled(self) -> None:
        """What comes all the same is kept for the next one (kombu L15)."""
        late: Deferred[Thing] = Deferred(lambda _: late.callback(self.pool.another()))
        self.patch(self.pool, "create", lambda: late)
        acquiring = self.pool.acquire()
        acquiring.cancel()
        self.failureResultOf(acquiring, CancelledError)
        self.assertEqual((self.state(), len(self.pool.made)), ((0, 1, 0), 1))
        self.assertEqual(self.acquired(), self.pool.made)

    def test_timeout_while_it_is_made(self) -> None:
        """The timeout is for all of it; the error is another one (kombu L2)."""
        things = self.acquired(3)
        self.pool.creating = []
        acquiring = self.pool.acquire(block=True, timeout=5)
        self.clock.advance(3)
        self.pool.replace(things[0])
        self.assertEqual(len(self.pool.creating), 1)
        self.clock.advance(1.9)
        self.assertNoResult(acquiring)
        self.clock.advance(0.1)
        self.failureResultOf(acquiring, OperationTimeout)
        self.assertEqual(self.state(), (2, 0, 0))

    def test_what_cannot_be_looked_at(self) -> None:
        """kombu L7: it is thrown away, and another one is made."""
        pool = Things(2)
        first = self.successResultOf(pool.acquire())
        pool.release(first)
        with mock.patch.object(pool, "is_usable", lambda resource: 1 / 0):
            second = self.successResultOf(pool.acquire())
        self.assertEqual((second is first, first.closings, pool.in_use), (False, 1, 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_made_by_a_coroutine(self) -> None:
        """kombu L7: hooks may be coroutines."""

        class Slow(Things):
            async def create(self) -> Thing:  # type: ignore[override]
                return self.another()

            async def prepare(self, resource: Thing) -> Thing:  # type: ignore[override]
                return resource

        self.assertEqual(self.successResultOf(Slow(1).acquire()).number, 0)

    def test_failed_release(self) -> None:
        """What cannot be released is thrown away, and the place is free (kombu L7)."""
        (a,) = self.acquired()
        self.patch(self.pool, "release_resource", lambda resource: 1 / 0)
        self.successResultOf(a.release())
        self.assertEqual((a.closings, self.state()), (1, (0, 0, 0)))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failed_close(self) -> None:
        """What cannot be closed is gone all the same; `release` does not fail (kombu L5)."""
        self.pool = Things()
        (a,) = self.acquired()
        self.patch(a, "close", lambda: 1 / 0)
        self.successResultOf(a.release())
        self.assertEqual(self.state(), (0, 0, 0))


class ChangingTests(PoolCase):
    """Other limits, and the end (kombu L9 to L11)."""

    def test_grow(self) -> None:
        """Growing, and taking the limit away, is fine while in use; who waits is served (kombu L9)."""
        self.acquired(3)
        _, got = self.waiters(3)
        self.pool.limit = 5
        self.assertEqual([number for number, _ in got], [0, 1])
        self.successResultOf(self.pool.resize(None))
        self.assertEqual(([number for number, _ in got], self.state()), ([0, 1, 2], (6, 0, 0)))

    def test_shrink_while_in_use(self) -> None:
        """It raises, unless it is forced; then what is too much is closed when it comes back (kombu L9)."""
        things = self.acquired(3)
        self.assertRaises(PoolError, self.pool.resize, 1)
        self.assertRaises(PoolError, setattr, self.pool, "limit", 2)
        self.assertEqual(self.pool.limit, 3)
        self.pool.resize(1, force=True)
        self.failureResultOf(self.pool.acquire(), LimitExceeded)
        for thing in things:
            self.successResultOf(thing.release())
        self.assertEqual(([thing.closings for thing in things], self.state()), ([1, 1, 0], (0, 1, 0)))
        (a,) = self.acquired()
        self.pool.resize(2)
        self.pool.resize(1, ignore_errors=True)
        self.failureResultOf(self.pool.acquire(), LimitExceeded)
        self.assertEqual((a.closings, self.pool.limit), (0, 1))

    def test_shrink_while_idle(self) -> None:
        """It is allowed, and what is too much is closed, the one used longest ago first (kombu L9)."""
        things = self.acquired(3)
        for thing in things:
            thing.release()
        self.successResultOf(self.pool.resize(1))
        self.assertEqual(([thing.closings for thing in things], self.state()), ([1, 1, 0], (0, 1, 0)))

    def test_a_limit_where_there_was_none(self) -> None:
        """Is a smaller one (kombu L9)."""
        self.pool = Things()
        (a,) = self.acquired()
        self.assertRaises(PoolError, self.pool.resize, 5)
        a.release()
        self.pool.resize(5)
        self.acquired()[0].release()
        self.assertEqual(self.state(), (0, 1, 0))

    def test_reset(self) -> None:
        """Everything is closed, also what is in use; the pool goes on, and so does who waits (kombu L9)."""
        things = self.acquired(2)
        creating: list[Deferred[Thing]] = []
        self.pool.creating = creating
        starting = self.pool.acquire()
        _, got = self.waiters(1)
        self.successResultOf(self.pool.resize(3, reset=True))
        self.failureResultOf(starting, PoolClosed)
        self.assertTrue(creating[0].called)
        self.assertEqual([thing.closings for thing in things], [1, 1])
        self.assertEqual((len(got), self.pool.in_use), (1, 1))
        self.assertEqual(got[0][1].closings, 0)
        things[0].closings = 0
        self.successResultOf(self.pool.release(things[0]))
        self.assertEqual((things[0].closings, self.pool.in_use), (0, 1))

    def test_force_close_all(self) -> None:
        """Idle, lent and half made: all is closed, and nobody waits any more (kombu L10, L11)."""
        a, b = self.acquired(2)
        a.release()
        self.pool.creating = []
        c = self.acquired()[0]
        starting = [self.pool.acquire(timeout=5)]
        _, got = self.waiters(2, timeout=5)
        self.assertEqual(self.state(), (3, 0, 2))
        self.successResultOf(self.pool.force_close_all())
        self.assertEqual(got, [(0, PoolClosed), (1, PoolClosed)])
        self.failureResultOf(starting[0], PoolClosed)
        self.assertTrue(self.pool.creating[0].called)
        self.assertEqual((a, [thing.closings for thing in (b, c)]), (c, [1, 1]))
        self.assertEqual((self.state(), self.clock.getDelayedCalls()), ((0, 0, 0), []))
        self.assertTrue(self.pool.is_closed)
        # What was pulled from under its user may be released, to no effect.
        self.successResultOf(self.pool.release(b))
        self.assertEqual((b.closings, self.state()), (1, (0, 0, 0)))
        self.successResultOf(self.pool.force_close_all())

    def test_closed(self) -> None:
        """It lends nothing: a RuntimeError (kombu L11)."""
        self.pool.force_close_all()
        for block in (False, True):
            self.failureResultOf(self.pool.acquire(block=block, timeout=1), RuntimeError)
        self.assertRaises(PoolClosed, self.pool.resize, 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closing_takes_its_time(self) -> None:
        """`force_close_all` fires when the last one is closed."""
        things = self.acquired(2)
        ends: list[Deferred[None]] = [Deferred(), Deferred()]
        for thing, end in zip(things, ends, strict=True):
            self.patch(thing, "close", lambda end=end: end)
        closing = self.pool.force_close_all()
        ends[1].callback(None)
        self.assertNoResult(closing)
        ends[0].errback(ConnectionResetError())
        self.successResultOf(closing)
