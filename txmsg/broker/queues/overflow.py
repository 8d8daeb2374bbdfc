"""How long a queue may become: x-max-length, x-max-length-bytes and x-overflow.

RabbitMQ's rules (https://www.rabbitmq.com/docs/maxlength): only ready messages count, and only the bytes of their
bodies.  With `drop-head` messages leave at the head after the new one is in; with `reject-publish` and
`reject-publish-dlx` the new one is refused beforehand, even if a consumer would have taken it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DROP_HEAD", "REJECT_PUBLISH", "REJECT_PUBLISH_DLX", "LengthLimit"]

DROP_HEAD: Final = "drop-head"
REJECT_PUBLISH: Final = "reject-publish"
REJECT_PUBLISH_DLX: Final = "reject-publish-dlx"


class LengthLimit:
    """The limit on the length of a queue.

    max_length: int | None -- ready messages.
    max_bytes: int | None -- octets of the bodies of the ready messages.
    overflow: str -- what to do beyond them.
    """

    __slots__ = ("max_bytes", "max_length", "overflow")

    def __init__(self, max_length: int | None, max_bytes: int | None, overflow: str = DROP_HEAD) -> None:
        self.max_length = max_length
        self.max_bytes = max_bytes
        self.overflow = overflow

    @property
    def rejects(self) -> bool:
        """Whether new messages are refused; else the oldest make room."""
        return self.overflow != DROP_HEAD

    def is_exceeded(self, length: int, octets: int) -> bool:
        """Whether so many messages with so many octets are more than it allows."""
        return (self.max_length is not None and length > self.max_length) or (
            self.max_bytes is not None and octets > self.max_bytes
        )
