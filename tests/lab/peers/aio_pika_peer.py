"""The workload with aio-pika, after its own documentation: connect_robust, publisher confirms, mandatory.

https://docs.aio-pika.com/quick-start.html and https://docs.aio-pika.com/apidoc.html#aio_pika.RobustConnection.  A
publish that fails is reported as it failed, not repeated: aio-pika leaves that to the application.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aio_pika
from aio_pika.exceptions import DeliveryError, PublishError

from tests.lab.peers.commands import Commands
from tests.lab.recorder import LineRecorder
from tests.lab.workload import EXCHANGE, Settings, queue_name
from txmsg.testing.disruption.checker import Ending

__all__ = ["run"]


class _Run:
    def __init__(self, settings: Settings, recorder: LineRecorder, commands: Commands) -> None:
        self.settings = settings
        self.recorder = recorder
        self.commands = commands
        self.confirmed: set[str] = set()
        self.handled: set[str] = set()
        self.publishes: set[asyncio.Task[None]] = set()

    async def connect(self, name: str) -> Any:
        url = f"{self.settings.targets[0]}?heartbeat={self.settings.heartbeat}"
        connection = await aio_pika.connect_robust(url, reconnect_interval=0.5)

        def lost(*arguments: Any) -> None:
            why = arguments[1] if len(arguments) > 1 else None
            self.recorder.state(name, "lost", type(why).__name__)

        connection.close_callbacks.add(lost)
        connection.reconnect_callbacks.add(lambda *_: self.recorder.state(name, "ready", ""))
        self.recorder.state(name, "ready", "")
        return connection

    async def main(self) -> None:
        consuming = await self.connect("consuming")
        channel = await consuming.channel()
        await channel.set_qos(prefetch_count=self.settings.prefetch)
        exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.DIRECT, durable=True)
        arguments = {"x-queue-type": "quorum"} if self.settings.quorum else None
        for number in range(self.settings.queues):
            name = queue_name(number)
            queue = await channel.declare_queue(name, durable=True, arguments=arguments)
            await queue.bind(exchange, name)
            await queue.consume(self.handler(name))
        publishing = await self.connect("publishing")
        out = await publishing.channel(publisher_confirms=True)
        target = await out.get_exchange(EXCHANGE)
        self.recorder.write("started")
        loops = [asyncio.create_task(self.publish(target, number)) for number in range(self.settings.publishers)]
        await asyncio.gather(*loops)
        if self.publishes:
            await asyncio.wait(self.publishes, timeout=self.settings.publish_timeout + 5)
        end = time.monotonic() + self.settings.quiet
        while self.confirmed - self.handled and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        for connection in (publishing, consuming):
            try:
                await asyncio.wait_for(connection.close(), 10)
            except Exception as error:
                self.recorder.write("note", repr(error))

    async def publish(self, exchange: Any, number: int) -> None:
        name, queue = f"p{number}", queue_name(number % self.settings.queues)
        mine: set[asyncio.Task[None]] = set()
        while not self.commands.stopping.is_set():
            if len(mine) < self.settings.window and not self.commands.paused.is_set():
                task = asyncio.create_task(self.publish_one(exchange, self.recorder.attempted(name), queue))
                for those in (mine, self.publishes):
                    those.add(task)
                    task.add_done_callback(those.discard)
            await asyncio.sleep(self.settings.every)

    async def publish_one(self, exchange: Any, message_id: str, queue: str) -> None:
        message = aio_pika.Message(
            message_id.encode(), message_id=message_id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        ending: Ending = "confirmed"
        try:
            await exchange.publish(message, queue, mandatory=True, timeout=self.settings.publish_timeout)
        except PublishError:
            ending = "returned"
        except DeliveryError:
            ending = "nacked"
        except (Exception, asyncio.CancelledError):
            ending = "unconfirmed"
        if ending == "confirmed":
            self.confirmed.add(message_id)
        self.recorder.ended(message_id, ending)

    def handler(self, queue: str) -> Any:
        async def handle(message: Any) -> None:
            message_id = message.body.decode()
            self.recorder.handled(message_id, queue, bool(message.redelivered))
            self.handled.add(message_id)
            try:
                await message.ack()
            except Exception as error:
                self.recorder.write("note", repr(error))

        return handle


def run(settings: Settings, recorder: LineRecorder, commands: Commands) -> None:
    """Run until it is told to stop, and everything confirmed was handled, or `quiet` is over."""
    asyncio.run(_Run(settings, recorder, commands).main())
