"""Messaging for Twisted: values over queues, an AMQP 0-9-1 client, a consumer service and a broker for ``twistd``.

The names that most programs of :mod:`txmsg.messaging` begin with can be had from here, too::

    from txmsg import Connection, Consumer, Exchange, Producer, Queue

Each is loaded when it is first asked for: importing this package imports no reactor, no transport, and opens nothing
(kombu AD4).  All else is in the subpackages: :mod:`txmsg.messaging`, :mod:`txmsg.amqp` (the client),
:mod:`txmsg.service`, :mod:`txmsg.testing`, :mod:`txmsg.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txmsg.messaging import (
        Connection,
        Consumer,
        Exchange,
        Message,
        Producer,
        Queue,
        binding,
        eventloop,
        parse_url,
        pools,
        uuid,
    )

__all__ = [
    "Connection",
    "Consumer",
    "Exchange",
    "Message",
    "Producer",
    "Queue",
    "__version__",
    "binding",
    "eventloop",
    "parse_url",
    "pools",
    "uuid",
]

#: The version of the distribution.
__version__ = "0.1.0"


# Type checkers do not see it, for to them it would mean that any name is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module("txmsg.messaging"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
