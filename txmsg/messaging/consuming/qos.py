"""QoS: a prefetch count that is changed now and sent later.

Counts change often, where a worker grows and shrinks or holds messages back until they are due; each change on the wire
costs a round trip.  So the changes are added up, and `update` sends what came of them, if it differs.

basic.qos (AMQP 0-9-1 section 1.8.3.1) carries 16 bits, and 0 means no limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError

__all__ = ["PREFETCH_COUNT_MAX", "QoS"]

#: The largest count that basic.qos carries; what is above it is sent as 0, no limit.
PREFETCH_COUNT_MAX: Final = 0xFFFF


class QoS:
    """A prefetch count.

    callback -- called as `callback(prefetch_count=n)` to set it, for instance `consumer.qos`; may return a Deferred.
    initial: int -- what it is to begin with; 0 is no limit.  It is not sent before :meth:`update`.
    max_prefetch: int | None -- `increment_eventually` goes no further; None: anywhere.

    Invariants: a count that limits never becomes 0, which would mean no limit, by decrementing; and no limit stays no
    limit until :meth:`set`.
    """

    _log = Logger()

    def __init__(self, callback: Callable[..., Any], initial: int, max_prefetch: int | None = None) -> None:
        self.callback = callback
        self.max_prefetch = max_prefetch
        #: What it should be.
        self.value = _checked(initial)
        #: What was last sent; None: nothing was.
        self.prev: int | None = None

    def increment_eventually(self, count: int = 1) -> int:
        """Let so many more be prefetched, from the next :meth:`update` on; returns the new value."""
        if self.value:
            self.value += max(count, 0)
            if self.max_prefetch and self.value > self.max_prefetch:
                self.value = self.max_prefetch
        return self.value

    def decrement_eventually(self, count: int = 1) -> int:
        """Let so many fewer be prefetched, from the next :meth:`update` on, but one at least; returns the new value."""
        if self.value:
            self.value = max(self.value - max(count, 0), 1)
        return self.value

    def set(self, count: int) -> Deferred[int]:
        """Send a count, unless it is what was sent last; fires with what was sent.  0, or above 65535: no limit.

        ConfigurationError for what is no count.  Otherwise it fails with what the callback fails with; then the next
        :meth:`update` sends it again.
        """
        try:
            self.value = _checked(count)
        except ConfigurationError:
            return fail()
        wire = 0 if count > PREFETCH_COUNT_MAX else count
        if count == self.prev:
            return succeed(wire)
        if count > PREFETCH_COUNT_MAX:
            self._log.warn("a prefetch count of {count} cannot be sent; there is no limit now", count=count)
        before, self.prev = self.prev, count

        def failed(failure: Failure) -> Failure:
            # Unless another count was sent since.
            if self.prev == count:
                self.prev = before
            return failure

        return maybeDeferred(self.callback, prefetch_count=wire).addCallbacks(lambda _: wire, failed)

    def update(self) -> Deferred[int]:
        """Send the value, unless it is what was sent last; fires as :meth:`set` does."""
        return self.set(self.value)

    def __repr__(self) -> str:
        return f"<QoS {self.value}, sent {self.prev}>"


def _checked(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigurationError(f"a prefetch count is a number from 0 (no limit), not {count!r}")
    return count
