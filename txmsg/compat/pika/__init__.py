"""pika's Twisted adapter over `txmsg.amqp`: change the import, and code written against pika 1.4 goes on.

    from txmsg.compat.pika import TwistedProtocolConnection  # was: from pika.adapters.twisted_connection

Names, arguments, attributes, the order of calls and the exception classes are pika's; what was wrong behind them is
not (docs/moving-from-pika.md has the list).  pika itself is still needed, for its parameters, its `spec` and its
exceptions: `pip install txmsg[pika]`.
"""

from __future__ import annotations

try:
    import pika.exceptions
    import pika.frame
    import pika.spec  # noqa: F401
except ImportError as error:
    raise ImportError(
        "txmsg.compat.pika needs pika for its parameters, spec and exceptions: pip install 'txmsg[pika]'"
    ) from error

from txmsg.compat.pika.channel import TwistedChannel
from txmsg.compat.pika.deferred_queue import ClosableDeferredQueue
from txmsg.compat.pika.messages import ReceivedMessage
from txmsg.compat.pika.protocol import TwistedProtocolConnection

__all__ = ["ClosableDeferredQueue", "ReceivedMessage", "TwistedChannel", "TwistedProtocolConnection"]
