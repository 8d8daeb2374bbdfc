"""The handler of the demonstration: `twistd txmsg-consumer --handler demo_handler:handle` calls it for each message."""

from __future__ import annotations

from txmsg.amqp import Delivery


async def handle(delivery: Delivery) -> None:
    """Print the message.  Returning is all it takes: the service acknowledges it then."""
    print(f"handled {delivery.body.decode()}", flush=True)
