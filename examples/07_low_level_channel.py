"""The protocol without the helper: AMQPProtocol on an endpoint of your own, and Deferreds with callbacks.

python examples/07_low_level_channel.py HOST PORT
"""

import sys
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import react

from txmsg.amqp import AMQPProtocol, ConnectionParameters
from txmsg.errors import NotFound


@inlineCallbacks
def main(reactor: Any, host: str = "localhost", port: str = "5672") -> Generator[Deferred[Any], Any, None]:
    endpoint = HostnameEndpoint(reactor, host, int(port))
    protocol = AMQPProtocol(ConnectionParameters(host=host), reactor=reactor)
    yield connectProtocol(endpoint, protocol)
    yield protocol.ready
    print(f"tuned to {protocol.negotiated}")

    # A failed method closes its channel, never the connection.
    channel = yield protocol.channel()
    try:
        yield channel.queue_declare("surely missing", passive=True)
    except NotFound as error:
        print(f"the broker says: {error}")

    # A transaction: two messages, or none.
    channel = yield protocol.channel()
    declared = yield channel.queue_declare("", exclusive=True)
    yield channel.tx_select()
    channel.basic_publish("", declared.queue, b"one")
    channel.basic_publish("", declared.queue, b"two")
    yield channel.tx_commit()
    while True:
        delivery = yield channel.basic_get(declared.queue)
        if delivery is None:
            break
        print(f"got {delivery.body!r}, {delivery.message_count} left")
        delivery.ack()
    yield channel.tx_commit()
    reason = yield protocol.close()
    print(f"closed: {reason}")


if __name__ == "__main__":
    react(main, sys.argv[1:])
