"""The states of a task, as Celery names them on the wire (celery I-01 to I-06).

The invariant: names are case-sensitive, and every name that is not known is a custom state, which is never final.
Pure: no Twisted, no I/O.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ALL_STATES",
    "EXCEPTION_STATES",
    "FAILURE",
    "IGNORED",
    "PENDING",
    "PROGRESS",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "REJECTED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
    "is_ready",
    "outranks",
    "precedence",
]

#: Nothing is known of the task: it waits, or there is none.
PENDING: Final = "PENDING"
#: A worker has it; only events say so.
RECEIVED: Final = "RECEIVED"
#: A worker runs it; only said where it is asked for.
STARTED: Final = "STARTED"
#: The custom name that most give to "still at it"; its result is what the task says.
PROGRESS: Final = "PROGRESS"
#: It failed and comes again.
RETRY: Final = "RETRY"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
#: It was called off, or has expired.
REVOKED: Final = "REVOKED"
#: A worker gave it back; only events say so.
REJECTED: Final = "REJECTED"
#: Its result was thrown away; never sent.
IGNORED: Final = "IGNORED"

#: The final ones: no other counts after them.
READY_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
#: Those of Celery's own that are not; custom ones are not final either.
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
#: Those whose result is an exception.
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
#: Those that end the wait with that exception.
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
#: What a result message of Celery's own can say.
ALL_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

_CUSTOM: Final = 2
_PRECEDENCE: Final = {
    SUCCESS: 0,
    FAILURE: 1,
    # Custom states are between these two.
    REVOKED: 3,
    STARTED: 4,
    RECEIVED: 5,
    REJECTED: 6,
    RETRY: 7,
    PENDING: 8,
}


def is_ready(state: str) -> bool:
    """Whether a state is final."""
    return state in READY_STATES


def precedence(state: str) -> int:
    """Where a state stands, 0 the first: SUCCESS, FAILURE, custom ones, REVOKED, STARTED, RECEIVED, and so on."""
    return _PRECEDENCE.get(state, _CUSTOM)


def outranks(state: str, other: str) -> bool:
    """Whether a state goes before another one; two custom ones do not."""
    return precedence(state) < precedence(other)
