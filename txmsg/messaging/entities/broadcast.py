"""Broadcast: a queue of one's own at a fanout exchange, so that everybody gets each message."""

from __future__ import annotations

from typing import Any, Self
from uuid import uuid4

from txmsg.messaging.entities.exchange import Exchange
from txmsg.messaging.entities.queue import Queue

__all__ = ["Broadcast"]


class Broadcast(Queue):
    """A queue that gets a copy of all that is published to a fanout exchange.

    name: str | None -- of the exchange.
    queue: str | None -- the name of the queue; None: "bcast." and a UUID, another one for each object.
    unique: bool = False -- put a UUID behind `queue`, too, so that each object is another queue.
    auto_delete: bool = True -- the queue goes with its last consumer.
    exchange: Exchange | str | None -- in place of the fanout exchange that `name` names.
    alias: None: `name`.

    More arguments are those of :class:`Queue`.  Copies and pickles are the same queue.
    """

    auto_delete = True

    def __init__(
        self,
        name: str | None = None,
        queue: str | None = None,
        unique: bool = False,
        auto_delete: bool | None = True,
        exchange: Exchange | str | None = None,
        alias: Any = None,
        **options: Any,
    ) -> None:
        if unique:
            queue = f"{queue or 'bcast'}.{uuid4()}"
        super().__init__(
            queue or f"bcast.{uuid4()}",
            Exchange(name, "fanout") if exchange is None else exchange,
            auto_delete=auto_delete,
            alias=alias or name,
            **options,
        )

    @classmethod
    def _of_options(cls, *, name: str | None = None, exchange: Any = None, **options: Any) -> Self:
        return cls(queue=name, exchange=exchange, **options)
