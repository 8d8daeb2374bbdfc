"""The programs of docs/messaging-consuming.md run as they stand, but for the broker's address."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from tests.messaging.over_memory import MemoryCase
from txmsg import messaging
from txmsg.messaging import Queue

PAGE = Path(__file__).resolve().parents[3] / "docs" / "messaging-consuming.md"


def programs() -> list[str]:
    found: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found


class PageTests(MemoryCase):
    """Each block of the page."""

    def setUp(self) -> None:
        super().setUp()
        self.names: dict[str, Any] = {each: getattr(messaging, each) for each in messaging.__all__}
        self.names.update(connection=self.connection, orders=Queue("orders"), print=self.note, log=Logger())
        self.printed: list[Any] = []
        self.done(self.channel.queue_declare("orders", durable=True))

    def note(self, *values: object) -> None:
        self.printed.extend(values)

    def run_block(self, code: str) -> Deferred[Any]:
        """Run what is the inside of a coroutine."""
        exec("async def block():\n" + textwrap.indent(code, "    "), self.names)
        running = Deferred.fromCoroutine(self.names["block"]())
        self.turn()
        return running

    def test_the_whole_program(self) -> None:
        """The first one: declared, consumed, handled; it ends with the connection."""
        code = programs()[0].replace("amqp://guest:guest@localhost//", self.url)
        mains: list[Any] = []
        with mock.patch("twisted.internet.task.react", mains.append):
            exec(code, self.names)
        running = Deferred.fromCoroutine(mains[0](self.clock))
        self.turn()
        self.done(self.channel.publish("shop", "order.new", b'{"number": 7}', {"content_type": "application/json"}))
        self.turn()
        self.assertEqual((self.printed, self.depth("orders")), ([7], (0, 0)))
        self.cut()
        self.turn(5.0)
        self.assertNoResult(running)
        self.transport.reset()
        self.turn()
        running.cancel()
        self.turn()
        self.failureResultOf(running)

    def test_refusing(self) -> None:
        """A bad message is rejected."""
        self.names["handle"] = print
        exec(programs()[1], self.names)
        consumer = self.names["consumer"]
        self.done(consumer.consume())
        self.send("orders", b"bad")
        self.assertEqual(self.depth("orders"), (0, 0))

    def test_iterating(self) -> None:
        """Both loops."""
        running = self.run_block(programs()[2])
        self.send("orders", b"1", b"2")
        self.assertEqual((self.printed, self.depth("orders")), ([1, 2], (0, 0)))
        running.cancel()
        self.turn()
        self.failureResultOf(running)
        self.send("orders", b"1", b"2")
        running = self.run_block(programs()[3])
        self.turn(5.1)
        self.successResultOf(running)
        self.assertEqual(self.depth("orders"), (0, 0))

    def test_replying(self) -> None:
        """An answer that is sent."""
        sent: list[Any] = []

        def publish(body: Any, **settings: Any) -> Deferred[None]:
            sent.append((body, settings["routing_key"]))
            return succeed(None)

        self.names["producer"] = mock.Mock(publish=publish)
        exec(programs()[4], self.names)
        message = mock.Mock(content_type="application/json", properties={"reply_to": "r"})
        self.run_async(self.names["serve"]([1, 2], message))
        self.assertEqual(sent, [({"sum": 3}, "r")])
        message.ack.assert_called_once()
