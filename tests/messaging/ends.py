"""What has an end: the part that all channels and connections of scripted transports have in common."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

__all__ = ["Ends"]


class Ends:
    """It is open until `lose` says why not; `is_away` is for what may come back."""

    def __init__(self) -> None:
        self.is_away = False
        self.reason: BaseException | None = None
        self._waiters: list[Deferred[BaseException]] = []

    @property
    def is_open(self) -> bool:
        """As the contract has it."""
        return self.reason is None and not self.is_away

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason."""
        if self.reason is not None:
            return succeed(self.reason)
        self._waiters.append(Deferred())
        return self._waiters[-1]

    def lose(self, reason: BaseException) -> None:
        """It is over."""
        if self.reason is None:
            self.reason = reason
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(reason)
