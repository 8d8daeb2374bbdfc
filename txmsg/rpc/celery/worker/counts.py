"""What a worker counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WorkerCounts"]


@dataclass(slots=True)
class WorkerCounts:
    """Since it was made.

    received -- messages.   bad -- those that no task can be run for.   unknown -- tasks that are not registered.
    succeeded, failed, retried, ignored, rejected -- how tasks ended.
    revoked -- called off, before they ran or while; expired.
    stale -- not run, or not settled: their connection was lost first, and the broker delivers them again.
    given_back -- to their queue, at a stop.
    unanswered -- results that were not sent: nobody could be reached, or `reply_to` names no reply queue.
    """

    received: int = 0
    bad: int = 0
    unknown: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    ignored: int = 0
    rejected: int = 0
    revoked: int = 0
    expired: int = 0
    stale: int = 0
    given_back: int = 0
    unanswered: int = 0
