"""A program on fedora-messaging, with our classes in the place of pika's adapter: `fedora_program.py URL`.

Run by test_fedora.py as a process of its own, because the classes have to be in place before fedora-messaging is
imported.  What it wants done to the broker it prints ("want restart"), and waits for a line on standard input.  In the
end it prints what it has seen, as JSON.  With `--real` it runs on pika's adapter itself, for comparison.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import pika.adapters.twisted_connection as adapter
from twisted.internet import reactor as installed_reactor
from twisted.internet import stdio, task
from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols.basic import LineReceiver

__all__: list[str] = []

reactor: Any = installed_reactor
PATIENCE = 30.0


class Operator(LineReceiver):
    """Standard input and output: what the test does for us."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self._waiting: Deferred[None] | None = None

    def ask(self, what: str) -> Deferred[None]:
        """Have something done to the broker; fires when it is."""
        self.sendLine(f"want {what}".encode())
        self._waiting = Deferred()
        return self._waiting

    def lineReceived(self, line: bytes) -> None:
        """It is done."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


def substitute() -> None:
    """Put our classes in the place of pika's."""
    from txmsg.compat import pika as ours

    for name in ours.__all__:
        setattr(adapter, name, getattr(ours, name))


class Program:
    """The consumers, the publisher, and what they have seen."""

    def __init__(self, url: str) -> None:
        from fedora_messaging import config
        from fedora_messaging.twisted.service import FedoraMessagingServiceV2

        config.conf.load_config("/dev/null")
        self.operator = Operator()
        stdio.StandardIO(self.operator)
        self.received: Counter[str] = Counter()
        self.seen: dict[str, Any] = {}
        self.service: Any = FedoraMessagingServiceV2(url)

    @property
    def factory(self) -> Any:
        return self.service.factory

    def on_message(self, message: Any) -> None:
        """In a thread, one at a time."""
        self.received[message.body["n"]] += 1

    async def consume(self, queue: str, **arguments: Any) -> Any:
        settings = {"durable": True, "auto_delete": False, "exclusive": False, "arguments": arguments}
        bindings = [{"exchange": "amq.topic", "queue": queue, "routing_keys": [queue]}]
        [consumer] = await self.factory.consume(self.on_message, bindings, {queue: settings})
        return consumer

    def publish(self, topic: str, number: str) -> Deferred[Any]:
        from fedora_messaging.message import Message

        return self.factory.publish(Message(topic=topic, body={"n": number}), "amq.topic")  # type: ignore[no-any-return]

    async def until(self, condition: Any) -> bool:
        for _ in range(int(PATIENCE / 0.05)):
            if condition():
                return True
            await task.deferLater(reactor, 0.05)
        return False

    async def outcome(self, deferred: Deferred[Any]) -> str:
        deferred.addTimeout(PATIENCE, reactor)
        try:
            return str(type(await deferred).__name__)
        except Exception as error:
            return str(type(error).__name__)

    async def run(self) -> None:
        self.service.startService()
        await self.consume("steady")
        await gatherResults([self.publish("steady", f"first{n}") for n in range(50)])
        self.seen["first"] = await self.until(lambda: sum(self.received.values()) == 50)
        await self.restart()
        await self.confirms()
        await self.server_cancel()
        await self.forced()
        stopping = Deferred.fromCoroutine(self.stop())
        self.seen["stopped"] = await self.outcome(stopping)

    async def restart(self) -> None:
        """The broker goes and comes while we publish: each is published, each is received."""
        published = [self.publish("steady", f"before{n}") for n in range(50)]
        done = self.operator.ask("restart")
        await task.deferLater(reactor, 0.05)
        published += [self.publish("steady", f"during{n}") for n in range(50)]
        await done
        published += [self.publish("steady", f"after{n}") for n in range(50)]
        outcomes = [await self.outcome(each) for each in published]
        self.seen["published through a restart"] = Counter(outcomes)
        self.seen["received after it"] = await self.until(lambda: len(self.received) == 200)

    async def confirms(self) -> None:
        """The broker refuses one (basic.nack), and gives one back."""
        protocol = await self.factory.when_connected()
        limited = {"queue": "limited", "arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}}
        await protocol.declare_queue(limited)
        await protocol.bind_queues([{"queue": "limited", "exchange": "amq.topic", "routing_key": "limited"}])
        self.seen["confirmed"] = await self.outcome(self.publish("limited", "1"))
        self.seen["refused"] = await self.outcome(self.publish("limited", "2"))
        channel = await protocol._allocate_channel()
        self.seen["returned"] = await self.outcome(
            channel.basic_publish(exchange="amq.topic", routing_key="nowhere", body=b"", mandatory=True)
        )
        channel.close()

    async def server_cancel(self) -> None:
        """A queue is deleted under its consumer; another consumer is cancelled by us."""
        doomed, quitting = await self.consume("doomed"), await self.consume("quitting")
        protocol = await self.factory.when_connected()
        channel = await protocol._allocate_channel()
        await channel.queue_delete("doomed")
        self.seen["cancelled by the server"] = await self.outcome(doomed.result)
        await self.factory.cancel([quitting])
        self.seen["cancelled by us"] = await self.outcome(quitting.result)

    async def forced(self) -> None:
        """An operator closes our connection (320): we are there again."""
        await self.operator.ask("close")
        self.seen["published after being forced out"] = await self.outcome(self.publish("steady", "forced"))
        self.seen["received after being forced out"] = await self.until(lambda: "forced" in self.received)

    async def stop(self) -> None:
        await self.service.stopService()


async def main(url: str) -> None:
    program = Program(url)
    try:
        await program.run()
    finally:
        program.operator.sendLine(b"seen " + json.dumps(program.seen).encode())
        await task.deferLater(reactor, 0.1)


if __name__ == "__main__":
    if "--real" not in sys.argv:
        substitute()
    task.react(lambda _: Deferred.fromCoroutine(main(sys.argv[1])))
