"""One request at a server, and what the server has counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from txmsg.messaging import Message
from txmsg.messaging.serialization import serializers
from txmsg.messaging.serialization.media_types import parse_media_type
from txmsg.rpc.body import read_request

if TYPE_CHECKING:
    from txmsg.rpc.server import RPCServer

__all__ = ["IncomingCall", "ServerCounts", "serializer_of"]


@dataclass(slots=True)
class ServerCounts:
    """What a server has done so far.

    received: int -- requests that came.   succeeded, failed: int -- that were run.
    expired: int -- whose deadline had passed, so that they were not run.
    refused: int -- whose reply was to go where none may go; not run.   undecodable: int -- that could not be read.
    unknown: int -- for a method that is not registered.
    given_back: int -- at a stop, not begun or not ended.   unsent: int -- replies that could not be sent.
    """

    received: int = 0
    succeeded: int = 0
    failed: int = 0
    expired: int = 0
    refused: int = 0
    undecodable: int = 0
    unknown: int = 0
    given_back: int = 0
    unsent: int = 0


class IncomingCall:
    """A request that is being carried out; what a function that was registered with `bind=True` is given first.

    message: Message -- as it came; all of it is the caller's claim, but for `message.redelivered`.
    method: str, args: list, kwargs: dict.   deadline: float | None -- seconds since 1970.
    reply_to: str | None -- where the reply goes; None: the caller wants none.   correlation_id: str | None.
    is_over: bool -- whether it has been answered.
    comes_no_more: bool -- whether it is settled, so that no other server will run it.
    """

    __slots__ = (
        "_server",
        "args",
        "comes_no_more",
        "correlation_id",
        "deadline",
        "is_over",
        "kwargs",
        "message",
        "method",
        "reply_to",
        "serializer",
    )

    def __init__(self, server: RPCServer, message: Message, reply_to: str | None, correlation_id: str | None) -> None:
        self._server = server
        self.message = message
        self.reply_to = reply_to
        self.correlation_id = correlation_id
        self.method = ""
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.deadline: float | None = None
        self.is_over = self.comes_no_more = False
        self.serializer = serializer_of(message)

    def read(self) -> None:
        """Decode the body.  DecodeError, ContentDisallowed."""
        self.method, self.args, self.kwargs, self.deadline = read_request(self.message.payload)

    def progress(self, value: Any) -> None:
        """Tell the caller how far it has come: `on_progress(value)` is called there.  EncodeError.

        After the end it does nothing.
        """
        self._server.send_progress(self, value)

    def __repr__(self) -> str:
        return f"<IncomingCall {self.message!r}{' over' if self.is_over else ''}>"


def serializer_of(message: Message) -> str:
    """The serializer that a request came in, which is that of its reply, too; JSON where that is not known."""
    content_type = message.content_type
    if content_type == "application/json" or not content_type:
        return "json"
    return serializers.type_to_name.get(parse_media_type(content_type).name) or "json"
