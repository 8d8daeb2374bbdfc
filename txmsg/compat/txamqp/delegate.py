"""Delegate: who is told of what the broker sends, one method for each of the protocol's."""

from __future__ import annotations

from typing import Any

from txmsg.compat.txamqp.message import Message

__all__ = ["Delegate"]


class Delegate:
    """The base of delegates: calls `basic_deliver(channel, message)` for basic.deliver, and so on.

    A method without a handler is ignored; txamqp loses the connection over it.
    """

    #: The AMQClient it serves; set by that.
    client: Any

    def __init__(self) -> None:
        self.handlers: dict[Any, Any] = {}
        self.invokers: dict[Any, Any] = {}
        self.invoke_all("init")

    def invoke_all(self, meth: str, *args: Any, **kwargs: Any) -> None:
        """Call the method `meth` of this class and of each class above that has one of its own."""
        for cls in type(self).__mro__:
            if meth in vars(cls):
                vars(cls)[meth](self, *args, **kwargs)

    def dispatch(self, channel: Any, message: Message) -> Any:
        """Call the handler of a message, and return what that returns."""
        handler = self.handlers.get(message.method)
        if handler is None:
            handler = getattr(self, message.method.python_name, None)
            if handler is None:
                return None
            self.handlers[message.method] = handler
        return handler(channel, message)

    def close(self, reason: Any) -> None:
        """The connection has ended."""
