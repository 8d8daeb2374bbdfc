"""What is measured: the clients, the operations, the sizes and how many messages each run moves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

__all__ = [
    "CLIENTS",
    "IN_FLIGHT",
    "OPERATIONS",
    "REFILL",
    "SIZES",
    "Client",
    "Operation",
    "message_count",
]

#: Confirmed publish keeps this many messages unconfirmed.
IN_FLIGHT = 1000

#: A program that awaits Deferreds waits for this many at a time then: waiting for one after the other would
#: resume it once for each message.
REFILL = 100

#: Body sizes in bytes.
SIZES = (100, 64 * 1024)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to measure.

    `prefetch_count` is meaningful for a consuming operation that acknowledges; 0 elsewhere.
    """

    name: str
    title: str
    consumes: bool
    is_confirmed: bool = False
    no_ack: bool = False
    prefetch_count: int = 0


@dataclass(frozen=True, slots=True)
class Client:
    """A measured client.

    `module` is the program under benchmarks/clients; None for the compiled one.  `distribution` names the
    package whose version is reported, `needs` the import that must be possible.
    """

    name: str
    module: str | None
    distribution: str
    needs: str | None

    @property
    def is_installed(self) -> bool:
        """Whether the library can be imported (always true for the compiled client)."""
        return self.needs is None or find_spec(self.needs) is not None


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("publish", "publish, no confirms", consumes=False),
        Operation("publish-confirmed", "confirmed publish, 1,000 in flight", consumes=False, is_confirmed=True),
        Operation("consume-ack", "consume with acks, prefetch 200", consumes=True, prefetch_count=200),
        Operation("consume-ack-1000", "consume with acks, prefetch 1,000", consumes=True, prefetch_count=1000),
        Operation("consume-no-ack", "consume, no_ack", consumes=True, no_ack=True),
    )
}

CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        Client("txmsg", "benchmarks.clients.txmsg_client", "txmsg", "txmsg"),
        Client("pika-twisted", "benchmarks.clients.pika_twisted", "pika", "pika"),
        Client("pika-select", "benchmarks.clients.pika_select", "pika", "pika"),
        Client("aio-pika", "benchmarks.clients.aio_pika_client", "aio-pika", "aio_pika"),
        Client("py-amqp", "benchmarks.clients.py_amqp", "amqp", "amqp"),
        Client("rabbitmq-c", None, "rabbitmq-c", None),
    )
}


def message_count(size: int, *, quick: bool) -> int:
    """How many messages one run moves: enough for about a second or more, bounded in bytes."""
    count = 60_000 if size <= 4096 else 3_000
    return count // 20 if quick else count
