"""Finding uses in source: what is reported, on which line, and what is not."""

from __future__ import annotations

import contextlib
import textwrap
import unittest
import warnings

from txmsg.migrate.finder import find_uses


def found(source: str, *, is_meant: bool = False) -> list[tuple[int, str, str]]:
    """(line, library, what) of each use."""
    uses = find_uses(textwrap.dedent(source), is_meant=is_meant)
    return [(use.line, use.library.name, use.row.shown) for use in uses]


class PikaTests(unittest.TestCase):
    def test_program(self) -> None:
        source = """\
            import pika
            from pika.adapters.twisted_connection import TwistedProtocolConnection as Base, _Private
            from pika.exceptions import ChannelClosedByBroker


            class Mine(Base):
                def connectionReady(self):
                    self.ready.chainDeferred(None)

                async def work(self, parameters=pika.ConnectionParameters()):
                    channel = await self.channel()
                    (channel
                        .basic_publish("", "q", b"", pika.spec.BasicProperties(delivery_mode=2)))
                    try:
                        await channel.queue_declare("q")
                    except pika.exceptions.ConnectionClosed.__class__:
                        pass
            """
        adapter = "pika.adapters.twisted_connection"
        self.assertEqual(
            found(source),
            [
                (2, "pika", adapter),
                (2, "pika", f"{adapter}.TwistedProtocolConnection"),
                (3, "pika", "pika.exceptions.ChannelClosedByBroker"),
                (6, "pika", f"{adapter}.TwistedProtocolConnection"),
                (7, "pika", "def connectionReady"),
                (8, "pika", ".ready"),
                (10, "pika", "pika.ConnectionParameters"),
                (13, "pika", ".basic_publish()"),
                (13, "pika", "pika.spec.BasicProperties"),
                (15, "pika", ".queue_declare()"),
                (16, "pika", "pika.exceptions.ConnectionClosed"),
            ],
        )

    def test_ways_to_import(self) -> None:
        """The module, under a name of its own, in full, and our drop-in."""
        what = "pika.adapters.twisted_connection.TwistedChannel"
        for source in (
            "import pika.adapters.twisted_connection\nx = pika.adapters.twisted_connection.TwistedChannel",
            "import pika.adapters.twisted_connection as t\nx = t.TwistedChannel",
            "from pika.adapters import twisted_connection\nx = twisted_connection.TwistedChannel",
            "import pika\nx = pika.adapters.twisted_connection.TwistedChannel",
            "from txmsg.compat import pika as t\nx = t.TwistedChannel",
            "import txmsg.compat.pika\nx = txmsg.compat.pika.TwistedChannel",
        ):
            with self.subTest(source):
                self.assertIn((2, "pika", what), found(source))

    def test_star(self) -> None:
        """`from ... import *` brings the names in."""
        base = "pika.adapters.twisted_connection"
        source = f"from {base} import *\nTwistedProtocolConnection(None)\nos.path\n"
        self.assertEqual(found(source), [(1, "pika", base), (2, "pika", f"{base}.TwistedProtocolConnection")])
        source = "from txmsg.compat.txamqp.client import *\nclass Mine(TwistedDelegate): pass\n"
        self.assertEqual(found(source)[1:], [(2, "txamqp", "txamqp.client.TwistedDelegate")])

    def test_callbacks(self) -> None:
        """A method that is handed on; one of a word that means much is left alone."""
        source = """\
            from pika.adapters import twisted_connection
            started.addCallback(channel.basic_ack, multiple=True)
            river.flow
            """
        self.assertEqual([use[::2] for use in found(source)[1:]], [(2, ".basic_ack()")])

    def test_channels_from_elsewhere(self) -> None:
        """A channel that another module of the program holds."""
        source = """\
            import app, signals
            from app import channel
            from pika.adapters import twisted_connection
            channel.basic_ack(1)
            app.channel.queue_declare("q")
            signals.flow()
            """
        self.assertEqual([use[::2] for use in found(source)[1:]], [(4, ".basic_ack()"), (5, ".queue_declare()")])

    def test_names_in_two_places(self) -> None:
        source = """\
            import pika.adapters.twisted_connection
            x = pika.connection.URLParameters("amqp://")
            protocol.closed.addBoth(print)
            """
        self.assertEqual(
            [use[::2] for use in found(source)[1:]], [(2, "pika.connection.URLParameters"), (3, ".closed")]
        )

    def test_strings(self) -> None:
        """What mock.patch is given."""
        source = """\
            from pika.adapters import twisted_connection
            patch("pika.adapters.twisted_connection.TwistedChannel.basic_ack")
            x = "pika.adapters.twisted_connection is going away"
            """
        self.assertEqual([use[0] for use in found(source)], [1, 2])

    def test_other_adapters(self) -> None:
        """A program on another adapter of pika's is not meant."""
        source = "import pika\nc = pika.BlockingConnection().channel()\nc.basic_publish('', 'q', b'')\n"
        self.assertEqual(found(source), [])

    def test_handed_a_channel(self) -> None:
        """--all-files: methods of channels only."""
        source = "def send(channel):\n    channel.basic_publish('', 'q', b'')\n    channel.ready\n"
        self.assertEqual(found(source), [])
        self.assertEqual(found(source, is_meant=True), [(2, "pika", ".basic_publish()")])
        source = "channel.channel_open()\nriver.flow()\nthreads.queue()\n"
        self.assertEqual(found(source, is_meant=True), [(1, "txamqp", ".channel_open()")])


class TxAMQPTests(unittest.TestCase):
    def test_program(self) -> None:
        source = """\
            import txamqp.spec
            from txamqp import content
            from txamqp.client import TwistedDelegate
            class Mine(TwistedDelegate):
                def basic_deliver(self, ch, msg):
                    ch.basic_ack(msg.delivery_tag)
            async def run(client):
                channel = await client.channel(1)
                await channel.channel_open()
                await channel.queue_declare(queue="q")
                queue = await client.queue("tag")
                await client.disconnected.wait()
            spec = txamqp.spec.load("x")
            body = content.Content("x")
            """
        self.assertEqual(
            found(source),
            [
                (1, "txamqp", "txamqp"),
                (2, "txamqp", "txamqp"),
                (3, "txamqp", "txamqp.client.TwistedDelegate"),
                (4, "txamqp", "txamqp.client.TwistedDelegate"),
                (5, "txamqp", "def basic_deliver"),
                (6, "txamqp", ".basic_ack()"),
                (9, "txamqp", ".channel_open()"),
                (10, "txamqp", ".queue_declare()"),
                (11, "txamqp", ".queue()"),
                (12, "txamqp", ".disconnected"),
                (13, "txamqp", "txamqp.spec.load"),
                (14, "txamqp", "txamqp.content.Content"),
            ],
        )

    def test_variables_that_are_called_like_modules(self) -> None:
        """txamqp's modules have the names that programs give to what is in them."""
        source = """\
            from txamqp import content, queue
            def body(content):
                return content.body
            async def run(client):
                queue = await client.queue("tag")
                await queue.get()
            body = content.Content("x")
            error = queue.Closed.__name__
            """
        self.assertEqual(
            [use[::2] for use in found(source)[1:]],
            [(5, ".queue()"), (7, "txamqp.content.Content"), (8, "txamqp.queue.Closed")],
        )

    def test_drop_in(self) -> None:
        """Who has moved in is told what is left to do."""
        source = "from txmsg.compat.txamqp.protocol import AMQClient\n"
        self.assertEqual(found(source), [(1, "txamqp", "txamqp.protocol.AMQClient")])

    def test_nothing(self) -> None:
        """No library, a name that only begins like one, relative imports."""
        for source in ("", "import txamqphelper\nx.channel_open()", "from .txamqp import client", "x = 'txamqp'"):
            with self.subTest(source):
                self.assertEqual(found(source), [])


class SourceTests(unittest.TestCase):
    def test_deep_source(self) -> None:
        """Generated source is deeper than the stack: looked at, or refused as source is."""
        source = "import txamqp.spec\nx = " + "-" * 3000 + "1\n"
        with contextlib.suppress(SyntaxError, RecursionError, MemoryError, ValueError):
            find_uses(source)
        source = "import txamqp.spec\nx = a" + ".b" * 5000 + "\n"
        with contextlib.suppress(RecursionError, MemoryError):
            self.assertEqual(len(find_uses(source)), 1)

    def test_warnings(self) -> None:
        r"""Old source is full of "\d", which is neither an error nor to be told."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(len(find_uses('import txamqp\nx = "\\d"\n')), 1)

    def test_not_python(self) -> None:
        self.assertRaises(SyntaxError, find_uses, "print 'hello'")
        self.assertRaises((SyntaxError, ValueError), find_uses, b"\0")
