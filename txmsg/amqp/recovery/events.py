"""What happens during recovery, as values: for logs, metrics, and applications that want to know.

`kind` is one of the constants here; nothing is reported twice for one fact (R10, R25).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from txmsg.errors import clip

__all__ = [
    "CHANNEL_FAILED",
    "CHANNEL_REOPENED",
    "CONSUMER_CANCELLED",
    "CONSUMER_ENDED",
    "CONSUMER_FAILED",
    "CONSUMER_RESUMED",
    "ENTITY_FAILED",
    "MEMBER_FAILED",
    "QUEUE_RENAMED",
    "RecoveryEvent",
]

#: An exchange, queue or binding could not be declared again; it is tried at the next recovery.
ENTITY_FAILED: Final = "entity failed"
#: A server-named queue has another name now.
QUEUE_RENAMED: Final = "queue renamed"
#: The broker has closed a channel, or it could not be opened again; the error says why.
CHANNEL_FAILED: Final = "channel failed"
#: A channel is there again after that.
CHANNEL_REOPENED: Final = "channel reopened"
#: The broker has cancelled a consumer: its queue is gone.
CONSUMER_CANCELLED: Final = "consumer cancelled"
#: A consumer could not subscribe again; it is tried later.
CONSUMER_FAILED: Final = "consumer failed"
#: A consumer has subscribed again after one of these.
CONSUMER_RESUMED: Final = "consumer resumed"
#: A consumer has ended, because it could not subscribe again within its limit, or its queue was deleted.
CONSUMER_ENDED: Final = "consumer ended"
#: Some other part of a connection could not recover.
MEMBER_FAILED: Final = "member failed"


@dataclass(frozen=True, slots=True)
class RecoveryEvent:
    """One thing that happened.

    kind: str -- one of the constants of this module.   subject: str -- which entity, channel, or consumer (clipped).
    error: BaseException | None -- what it failed with.
    """

    kind: str
    subject: str
    error: BaseException | None = None

    def __str__(self) -> str:
        why = "" if self.error is None else f": {clip(str(self.error)) or type(self.error).__name__}"
        return f"{self.kind}: {self.subject}{why}"
