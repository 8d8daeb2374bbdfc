"""The queue that is measured on: declared, filled, checked and purged from outside the measured clients.

py-amqp does this, because it blocks and so keeps the runner simple; nothing here is inside a measurement.
All clients use the same queue: classic, durable, without arguments, and transient messages.
"""

from __future__ import annotations

import time
from urllib.parse import unquote, urlsplit

import amqp

__all__ = ["MeasuredQueue", "connect"]

#: How long the broker may take to hand back what a gone consumer held, in seconds.
SETTLE_LIMIT = 30.0


def connect(url: str, *, notices_blocked: bool = True) -> amqp.Connection:
    """Open a py-amqp connection to an amqp:// URL.

    With `notices_blocked`, which is the library's default, it looks for connection.blocked (one system call
    more) before every publish.
    """
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname or 'localhost'}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
    )
    if not notices_blocked:
        connection.negotiate_capabilities = {**connection.negotiate_capabilities, "connection.blocked": False}
    connection.connect()
    return connection


class MeasuredQueue:
    """One queue on one connection, used between the runs."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._connection = connect(url)
        self._channel = self._connection.channel()
        self._channel.queue_delete(name)
        self._channel.queue_declare(name, durable=True, auto_delete=False)

    @property
    def broker_version(self) -> str:
        """The broker's own words, such as "RabbitMQ 3.10.8 on Erlang/OTP 25.2.3"."""
        properties = self._connection.server_properties
        return f"{properties.get('product')} {properties.get('version')} on {properties.get('platform')}"

    def purge(self) -> int:
        """Empty the queue; how many messages were in it."""
        return int(self._channel.queue_purge(self.name))

    def fill(self, count: int, size: int) -> None:
        """Put `count` transient messages of `size` bytes into the queue and wait until they are there."""
        message = amqp.Message(b"x" * size, delivery_mode=1)
        for _ in range(count):
            self._channel.basic_publish(message, "", self.name)
        deadline = time.monotonic() + SETTLE_LIMIT
        while (found := self._counts()[0]) != count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the queue was filled with {count} messages and holds {found}")
            time.sleep(0.01)

    def settled_count(self) -> int:
        """How many messages are in the queue once no consumer is left on it.

        Unacknowledged messages of a closed connection return to the queue, so after a consumer that lost
        an ack this is not 0.
        """
        deadline = time.monotonic() + SETTLE_LIMIT
        while True:
            messages, consumers = self._counts()
            if not consumers:
                return messages
            if time.monotonic() > deadline:
                raise RuntimeError("a consumer is still on the queue after its process ended")
            time.sleep(0.05)

    def close(self) -> None:
        """Delete the queue and close the connection."""
        self._channel.queue_delete(self.name)
        self._connection.close()

    def _counts(self) -> tuple[int, int]:
        declared = self._channel.queue_declare(self.name, passive=True)
        return declared.message_count, declared.consumer_count
