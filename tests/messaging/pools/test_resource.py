"""The tests of txmsg.messaging.pools.resource: the rules of a pool, on a clock that is set by hand."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError, LimitExceeded, OperationTimeout, PoolClosed, PoolError
from txmsg.messaging.lending import Lender
from txmsg.messaging.pools import Acquiring, Resource


class Thing:
    """What is lent."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lender: Lender[Thing] | None = None
        self.closings = 0

    def close(self) -> None:
        self.closings += 1

    def release(self) -> Deferred[None]:
        assert self.lender is not None
        return self.lender.release(self)

    def __repr__(self) -> str:
        return f"Thing {self.number}"


class Things(Resource[Thing]):
    """A pool whose making, preparing and releasing can be told to wait or to fail."""

    kind = "things"

    def setup(self) -> None:
        self.made: list[Thing] = getattr(self, "made", [])
        self.broken: set[Thing] = set()
        self.creating: list[Deferred[Thing]] | None = None
        self.preparing: list[tuple[Thing, Deferred[Thing]]] | None = None
        self.problem: Exception | None = None
        self.prepared: list[int] = []
        self.released: list[int] = []

    def create(self) -> Thing | Deferred[Thing]:
        if self.problem is not None:
            raise self.problem
        if self.creating is not None:
            self.creating.append(Deferred())
            return self.creating[-1]
        return self.another()

    def another(self) -> Thing:
        """One more."""
        self.made.append(Thing(len(self.made)))
        return self.made[-1]

    def is_usable(self, resource: Thing) -> bool:
        return resource not in self.broken

    def prepare(self, resource: Thing) -> Thing | Deferred[Thing]:
        self.prepared.append(resource.number)
        if self.preparing is not None:
            self.preparing.append((resource, Deferred()))
            return self.preparing[-1][1]
        return resource

    def release_resource(self, resource: Thing) -> None:
        self.released.append(resource.number)


class PoolCase(SynchronousTestCase):
    """A pool of three on a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = Things(3, reactor=self.clock)

    def state(self) -> tuple[int, int, int]:
        """In use, idle, waiting."""
        return (self.pool.in_use, self.pool.idle, self.pool.waiting)

    def acquired(self, count: int = 1) -> list[Thing]:
        """As many, at once."""
        return [self.successResultOf(self.pool.acquire()) for _ in range(count)]

    def waiters(self, count: int, timeout: float | None = None) -> tuple[list[Acquiring[Thing]], list[Any]]:
        """Some who wait, and what they got, in the order in which they got it."""
        got: list[Any] = []
        waiting = [self.pool.acquire(block=True, timeout=timeout) for _ in range(count)]
        for number, acquiring in enumerate(waiting):
            acquiring.addCallbacks(
                lambda thing, number=number: got.append((number, thing)),
                lambda failure, number=number: got.append((number, failure.type)),
            )
        return waiting, got


class LendingTests(PoolCase):
    """Lending and taking back (kombu L1 to L8, L12, L15, L23)."""

    def test_nothing_before_it_is_asked_for(self) -> None:
        """A new pool has made nothing (kombu L1, L6)."""
        self.assertEqual((self.pool.made, self.state()), ([], (0, 0, 0)))
        self.acquired()
        self.assertEqual((len(self.pool.made), self.state()), (1, (1, 0, 0)))

    def test_limit(self) -> None:
        """One more than the limit fails at once with the pool's own error (kombu L2, L12)."""
        things = self.acquired(3)
        self.assertEqual(len(set(things)), 3)
        error = self.failureResultOf(self.pool.acquire(), LimitExceeded)
        self.assertIn("all 3 things", str(error.value))
        self.assertTrue(error.value.recoverable)
        self.failureResultOf(self.pool.acquire(block=True, timeout=0), LimitExceeded)
        self.successResultOf(self.pool.release(things[1]))
        self.assertIs(self.acquired()[0], things[1])

    def test_last_in_first_out(self) -> None:
        """What was released last is lent first (kombu L4, L23)."""
        a, b, c = self.acquired(3)
        for thing in (b, a, c):
            self.pool.release(thing)
        self.assertEqual(self.acquired(3), [c, a, b])
        self.assertEqual(len(self.pool.made), 3)

    def test_light_use_keeps_one_busy(self) -> None:
        """One at a time: never more than one is made (kombu L4, L15)."""
        for _ in range(100):
            self.successResultOf(self.pool.acquire()).release()
        self.assertEqual((len(self.pool.made), self.state()), (1, (0, 1, 0)))

    def test_no_limit_no_pooling(self) -> None:
        """None and 0: made when acquired, closed when released (kombu L5)."""
        for limit in (None, 0):
            self.pool = Things(limit, reactor=self.clock)
            things = self.acquired(20)
            self.assertEqual(self.pool.in_use, 20)
            for thing in things:
                self.successResultOf(self.pool.release(thing))
            self.assertEqual(([thing.closings for thing in things], self.state()), ([1] * 20, (0, 0, 0)))
            self.assertNotIn(self.acquired()[0], things)

    def test_release_twice(self) -> None:
        """The second one changes nothing, in both forms (kombu L3)."""
        a, b = self.acquired(2)
        self.successResultOf(self.pool.release(a))
        self.successResultOf(self.pool.release(a))
        self.successResultOf(a.release())
        self.assertEqual(self.state(), (1, 1, 0))
        self.assertEqual((a.closings, self.pool.released), (0, [0]))
        self.assertEqual(len({b, *self.acquired(2)}), 3)

    def test_release_of_a_stranger(self) -> None:
        """What the pool never lent is not taken in, and not closed (kombu L3)."""
        self.acquired(2)
        stranger = Thing(99)
        self.successResultOf(self.pool.release(stranger))
        self.successResultOf(self.pool.replace(stranger))
        self.assertEqual((self.state(), stranger.closings, stranger.lender), ((2, 0, 0), 0, None))

    def test_hooks(self) -> None:
        """prepare at each lending, release_resource at each release; what prepare gives is lent (kombu L7)."""
        (a,) = self.acquired()
        a.release()
        self.acquired(2)
        self.assertEqual((self.pool.prepared, self.pool.released), ([0, 0, 1], [0]))

        class Wrapped(Things):
            def prepare(self, resource: Thing) -> Thing:
                return Thing(resource.number + 100)

        self.pool = Wrapped(1)
        self.assertEqual(self.acquired()[0].number, 100)

    def test_nothing_to_make(self) -> None:
        """A pool that does not say of what it is says so (kombu L7)."""
        self.failureResultOf(Resource[Thing](1).acquire(), NotImplementedError)

    def test_replace(self) -> None:
        """A defective one is closed, its place is free, and another is made (kombu L8)."""
        a, b, c = self.acquired(3)
        self.successResultOf(self.pool.replace(b))
        self.assertEqual((b.closings, b.lender, self.state()), (1, None, (2, 0, 0)))
        self.successResultOf(self.pool.release(b))
        self.assertEqual(self.state(), (2, 0, 0))
        self.assertNotIn(self.acquired()[0], (a, b, c))
        self.pool.release(c)
        self.successResultOf(self.pool.replace(c))
        self.assertEqual((c.closings, self.state()), (1, (2, 0, 0)))

    def test_replace_serves_who_waits(self) -> None:
        """The place of what was thrown away goes to the first in line (kombu L8, L15)."""
        things = self.acquired(3)
        _, got = self.waiters(1)
        self.pool.replace(things[0])
        self.assertEqual(got, [(0, self.pool.made[3])])

    def test_unusable_is_replaced(self) -> None:
        """What is idle and no longer usable is thrown away when it would be lent (kombu L13)."""
        things = self.acquired(3)
        for thing in things:
            thing.release()
        self.pool.broken = {things[2], things[1]}
        self.assertEqual(self.acquired(), [things[0]])
        self.assertEqual(([thing.closings for thing in things], self.state()), ([0, 1, 1], (1, 0, 0)))
        self.assertEqual([thing.number for thing in self.acquired(2)], [3, 4])

    def test_errors_of_the_limit(self) -> None:
        """A limit is a number."""
        wrong: list[Any] = [-1, "3", True, 1.5]
        for limit in wrong:
            self.assertRaises(ConfigurationError, Things, limit)

    def test_repr(self) -> None:
        """It tells how it is used."""
        self.acquired()
        self.assertEqual(repr(self.pool), "<Things 1 of 3 in use, 0 idle, 0 waiting>")
        self.assertIn("any number", repr(Things()))
        self.pool.force_close_all()
        self.assertIn("closed", repr(self.pool))


class BlockTests(PoolCase):
    """`async with` (kombu L2, L3)."""

    async def use(self, **arguments: Any) -> Thing:
        """A block that does nothing."""
        async with self.pool.acquire(**arguments) as thing:
            self.assertEqual(self.state(), (1, 0, 0))
        return thing

    def test_block(self) -> None:
        """It goes back at the end of the block (kombu L3)."""
        thing = self.successResultOf(Deferred.fromCoroutine(self.use(block=True)))
        self.assertEqual((thing.closings, self.state()), (0, (0, 1, 0)))

    def test_block_that_fails(self) -> None:
        """It goes back when the block raises, and the error is the block's (kombu L15)."""

        async def use() -> None:
            async with self.pool.acquire():
                raise LookupError("in the block")

        self.failureResultOf(Deferred.fromCoroutine(use()), LookupError)
        self.assertEqual(self.state(), (0, 1, 0))

    def test_block_that_is_cancelled(self) -> None:
        """It goes back when the coroutine is cancelled in the block, and when it is while it waits (kombu L15)."""

        async def use() -> None:
            async with self.pool.acquire(block=True):
                await Deferred()

        inside = [Deferred.fromCoroutine(use()) for _ in range(3)]
        waiting = Deferred.fromCoroutine(use())
        self.assertEqual(self.state(), (3, 0, 1))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.state(), (3, 0, 0))
        for each in inside:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.state(), (0, 3, 0))

    def test_block_that_could_not_acquire(self) -> None:
        """The error of `acquire` comes out, and nothing is released."""
        things = self.acquired(3)
        self.failureResultOf(Deferred.fromCoroutine(self.use()), LimitExceeded)
        self.assertEqual(self.state(), (3, 0, 0))
        self.assertEqual([thing.closings for thing in things], [0, 0, 0])

    def test_released_inside_of_the_block(self) -> None:
        """It is not taken away from who has it next (kombu L3, L15)."""
        next_user: list[Thing] = []

        async def use() -> None:
            async with self.pool.acquire() as thing:
                await thing.release()
                next_user.extend(self.acquired())

        self.successResultOf(Deferred.fromCoroutine(use()))
        self.assertEqual((self.state(), len(self.pool.made)), ((1, 0, 0), 1))
        next_user[0].release()
        self.assertEqual(self.state(), (0, 1, 0))

    def test_no_limit(self) -> None:
        """Without pooling it is closed at the end of the block (kombu L5)."""
        self.pool = Things()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.use())).closings, 1)


class WaitingTests(PoolCase):
    """The line of those who wait (kombu L2, L15)."""

    def test_first_come_first_served(self) -> None:
        """Each release serves the one who has waited longest (kombu L2)."""
        things = self.acquired(3)
        _, got = self.waiters(3)
        for thing in (things[2], things[0], things[1]):
            thing.release()
        self.assertEqual(got, [(0, things[2]), (1, things[0]), (2, things[1])])
        self.assertEqual(self.state(), (3, 0, 0))

    def test_nobody_overtakes(self) -> None:
        """Who asks from within a release of somebody else's comes after those who wait already (kombu L15)."""
        things = self.acquired(3)
        waiting, got = self.waiters(2)
        late: list[Any] = []

        def first(_: Any) -> None:
            things[1].release()  # there is a place, and one who waits for it
            late.append(self.failureResultOf(self.pool.acquire(), LimitExceeded))

        waiting[0].addCallback(first)
        things[0].release()
        self.assertEqual([number for number, _ in got], [0, 1])
        self.assertEqual((len(late), self.state()), (1, (3, 0, 0)))

    def test_forever_without_timeout(self) -> None:
        """Nothing is scheduled (kombu L2)."""
        self.acquired(3)
        self.waiters(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeout(self) -> None:
        """LimitExceeded after exactly that long, and no ghost in the line (kombu L2, L15)."""
        things = self.acquired(3)
        _, got = self.waiters(1, timeout=5)
        _, others = self.waiters(1)
        self.clock.advance(4.9)
        self.assertEqual(got, [])
        self.clock.advance(0.1)
        self.assertEqual((got, self.state()), ([(0, LimitExceeded)], (3, 0, 1)))
        things[0].release()
        self.assertEqual((others, got), ([(0, things[0])], [(0, LimitExceeded)]))

    def test_served_before_the_timeout(self) -> None:
        """Nothing is left of the timeout."""
        things = self.acquired(3)
        _, got = self.waiters(1, timeout=5)
        things[0].release()
        self.assertEqual((got, self.clock.getDelayedCalls()), ([(0, things[0])], []))

    def test_cancelled(self) -> None:
        """Who has left the line is not served, and what it would have got goes to the next (kombu L15)."""
        things = self.acquired(3)
        waiting, got = self.waiters(3, timeout=9)
        waiting[1].cancel()
        self.assertEqual((got, len(self.clock.getDelayedCalls())), ([(1, CancelledError)], 2))
        things[0].release()
        things[1].release()
        self.assertEqual([number for number, _ in got], [1, 0, 2])
        self.assertEqual((self.state(), self.clock.getDelayedCalls()), ((3, 0, 0), []))

    def test_a_long_line_that_releases_at_once(self) -> None:
        """Thousands who release what they got within their callbacks are no recursion."""
        things = self.acquired(3)
        served: list[int] = []

        def serve(thing: Thing, number: int) -> None:
            served.append(number)
            thing.release()

        for number in range(5000):
            self.pool.acquire(block=True).addCallback(serve, number)
        things[0].release()
        self.assertEqual(served, list(range(5000)))
        self.assertEqual((self.state(), len(self.pool.made)), ((2, 1, 0), 3))


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
