"""How a call to another process ends, when it does not end with its result.

What was raised there arrives as data: names, texts and simple values.  No class is ever built from a message (R27).
"""

from __future__ import annotations

from typing import Any

from txmsg.errors.base import TxmsgError, clip

__all__ = ["NoResponder", "RPCError", "RPCTimeout", "RemoteError", "TaskRevoked"]


class RPCError(TxmsgError):
    """A call that has no result."""


class RemoteError(RPCError):
    """What was called has failed, there.  All of it is what the other side says, and is data.

    exc_type: str -- the name of the class of the exception, for instance "ValueError".
    message: str -- its text.
    exc_module: str -- where that class is defined; "" where that was not said.
    exc_args: tuple -- its arguments, as far as the serializer carries them.
    remote_traceback: str -- the traceback; "" where that was not sent.
    """

    def __init__(
        self,
        exc_type: str,
        message: str = "",
        exc_module: str = "",
        exc_args: tuple[Any, ...] = (),
        remote_traceback: str = "",
    ) -> None:
        self.exc_type = exc_type
        self.message = message
        self.exc_module = exc_module
        self.exc_args = exc_args
        self.remote_traceback = remote_traceback
        super().__init__(exc_type, message, exc_module, exc_args, remote_traceback)

    def __str__(self) -> str:
        name = clip(self.exc_type, 100)
        return f"{name}: {clip(self.message)}" if self.message else name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class NoResponder(RPCError):
    """The request was routed to no queue, so that nobody can answer; nothing was done.

    exchange, routing_key: str -- where it was sent.
    """

    def __init__(self, exchange: str = "", routing_key: str = "") -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        super().__init__(exchange, routing_key)

    def __str__(self) -> str:
        where = f"exchange {clip(self.exchange)!r}, " if self.exchange else ""
        return f"nobody answers calls to {where}{clip(self.routing_key)!r}: it leads to no queue"


class RPCTimeout(RPCError):
    """No result came within the time of the call.  Whether anything was done is unknown.

    timeout: float -- seconds that the call had.
    """

    recoverable = True

    def __init__(self, message: str = "no result in time", timeout: float = 0.0) -> None:
        self.timeout = timeout
        super().__init__(message, timeout)

    def __str__(self) -> str:
        return str(self.args[0])


class TaskRevoked(RemoteError):
    """A task was revoked before it ended, or its time had passed before it began; the text says which."""
