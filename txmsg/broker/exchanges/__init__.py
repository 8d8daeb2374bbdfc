"""The kinds of exchange: where a message goes from here.

AMQP 0-9-1 section 3.1.3; https://www.rabbitmq.com/docs/exchanges.  One module for each type, none of which knows
Twisted or an octet.
"""

from __future__ import annotations

from typing import Final

from txmsg.broker.exchanges.default import DefaultExchange
from txmsg.broker.exchanges.direct import DirectExchange
from txmsg.broker.exchanges.exchange import ALTERNATE_EXCHANGE, Destination, Exchange
from txmsg.broker.exchanges.fanout import FanoutExchange
from txmsg.broker.exchanges.headers import HeadersExchange
from txmsg.broker.exchanges.topic import TopicExchange

__all__ = [
    "ALTERNATE_EXCHANGE",
    "EXCHANGE_TYPES",
    "STANDARD_EXCHANGES",
    "DefaultExchange",
    "Destination",
    "DirectExchange",
    "Exchange",
    "FanoutExchange",
    "HeadersExchange",
    "TopicExchange",
]

#: Name of a type -> its class.
EXCHANGE_TYPES: Final[dict[str, type[Exchange]]] = {
    made.type: made for made in (DirectExchange, FanoutExchange, HeadersExchange, TopicExchange)
}

#: The exchanges of a new virtual host beside the default one, as RabbitMQ has them: name -> (type, internal).
STANDARD_EXCHANGES: Final[dict[str, tuple[str, bool]]] = {
    "amq.direct": ("direct", False),
    "amq.fanout": ("fanout", False),
    "amq.topic": ("topic", False),
    "amq.headers": ("headers", False),
    "amq.match": ("headers", False),
    "amq.rabbitmq.trace": ("topic", True),
}
