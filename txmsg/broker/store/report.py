"""What was found in the data directory at the start."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Damage", "LoadReport"]


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that could not be used.

    what: str -- in words, without anything of a message's content.
    messages: int -- how many messages it costs, where that is known.
    """

    what: str
    messages: int = 0


@dataclass(slots=True)
class LoadReport:
    """What a start found.

    stopped_cleanly: bool -- whether the broker that wrote the data had closed it.  If not, every message is
        delivered as redelivered, for it may have been delivered before.
    is_new: bool -- there was no data yet.
    damage: what could not be used; each is also logged.
    """

    stopped_cleanly: bool = True
    is_new: bool = False
    vhosts: int = 0
    exchanges: int = 0
    queues: int = 0
    bindings: int = 0
    messages: int = 0
    seconds: float = 0.0
    damage: list[Damage] = field(default_factory=list)
