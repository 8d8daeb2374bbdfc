"""A pool of things for the tests, whose making and preparing can be told to wait or to fail."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.messaging.lending import Lender
from txmsg.messaging.pools import Acquiring, Resource

__all__ = ["PoolCase", "Thing", "Things"]


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
