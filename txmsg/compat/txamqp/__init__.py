"""txamqp over `txmsg.amqp`: change the imports, and code written for txamqp 0.8 goes on.

    from txmsg.compat.txamqp.client import TwistedDelegate  # was: from txamqp.client import TwistedDelegate

The modules, classes, methods by name, arguments and messages are txamqp's; what was wrong behind them is not
(docs/moving-from-txamqp.md has the list).  Nothing of txamqp is needed, and no XML file:

- `protocol`: AMQClient, AMQChannel;  `factory`: AMQFactory;  `endpoint`: AMQEndpoint
- `client`: TwistedDelegate, TwistedEvent, and the exceptions Closed, ChannelClosed, ConnectionClosed
- `content`: Content;  `message`: Message;  `queue`: TimeoutDeferredQueue with its Closed and Empty
- `spec`: `load`, which reads nothing
"""

from __future__ import annotations

__all__: list[str] = []
