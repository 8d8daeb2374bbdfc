"""The tests of txmsg.messaging.pools.resource: lending, taking back, and the line of those who wait."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.pools.things import PoolCase, Thing, Things
from txmsg.errors import ConfigurationError, LimitExceeded
from txmsg.messaging.pools import Resource


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
