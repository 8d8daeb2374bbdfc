"""Pidbox over each broker, and with the real Kombu on the other side: it controls our nodes, and we control its."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import kombu as untyped_kombu
import kombu.pidbox as untyped_pidbox

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.errors import InconsistencyError, NotSent, PublishTimeout, PublishUnconfirmed
from txmsg.messaging.pidbox import Mailbox, Node

kombu: Any = untyped_kombu
pidbox: Any = untyped_pidbox


class PidboxCase(MessagingCase):
    """Nodes of txmsg."""

    async def listening_node(self, namespace: str, hostname: str, kind: str = "direct") -> Node:
        """A node that listens, and knows how to add, to fail and to tell its name."""
        node = Mailbox(namespace, kind)(self.connection()).Node(hostname, state=hostname)

        @node.handler
        def add(state: str, x: int, y: int) -> int:
            return x + y

        @node.handler
        async def name(state: str) -> str:
            await self.pause(0)
            return state

        @node.handler
        def fail(state: str) -> None:
            raise ValueError("it broke")

        await node.listen()
        return node


class PidboxCases(PidboxCase):
    """Nodes and mailboxes of ours."""

    async def test_calls(self) -> None:
        """kombu P3, P5, P6, P8: to some, to all, by pattern, of both types of exchange."""
        for kind in ("direct", "fanout"):
            namespace = self.name(kind)
            for hostname in ("web-1", "web-2", "db-1"):
                await self.listening_node(namespace, hostname, kind)
            mailbox = Mailbox(namespace, kind)(self.connection())
            self.assertEqual(await mailbox.call(["web-1"], "add", {"x": 1, "y": 2}, 10), [{"web-1": 3}])
            replies = await mailbox.multi_call("name", limit=3, timeout=10)
            self.assertEqual(
                sorted(map(str, replies)), sorted(str({name: name}) for name in ("web-1", "web-2", "db-1"))
            )
            replies = await mailbox.multi_call("name", limit=2, timeout=10, pattern="web-*")
            self.assertEqual({name for reply in replies for name in reply}, {"web-1", "web-2"})

    async def test_the_same_name(self) -> None:
        """kombu P4: the name of a node is taken until it has closed."""
        namespace = self.name("ns")
        first = await self.listening_node(namespace, "one")
        second = Mailbox(namespace)(self.connection()).Node("one")
        await self.failure(second.listen(), InconsistencyError)
        await first.close()
        await second.listen()


class CutCases(PidboxCase):
    """Losing the connection."""

    async def test_after_a_cut(self) -> None:
        """kombu P9: nodes and mailboxes go on when the connection was lost."""
        namespace = self.name("ns")
        node = await self.listening_node(namespace, "one")
        mailbox = Mailbox(namespace)(self.connection())
        self.assertEqual(await mailbox.call(["one"], "name", timeout=10), [{"one": "one"}])
        await self.cut()
        replies: list[Any] = []
        for _ in range(20):  # a request is not kept while the node is away, and may not leave while we are
            with contextlib.suppress(PublishTimeout, PublishUnconfirmed, NotSent):
                replies = await mailbox.call(["one"], "name", timeout=1)
            if replies:
                break
        self.assertEqual(replies, [{"one": "one"}])
        await node.close()


class WithKombuCases(PidboxCase):
    """Kombu's nodes and mailboxes on the other side; it blocks, so it runs in threads."""

    def kombu_node(self, namespace: str, hostname: str, kind: str = "direct") -> tuple[threading.Event, list[Any]]:
        """A node of Kombu's in a thread, until the event is set; and what it was told."""
        listening, ended = threading.Event(), threading.Event()
        told: list[Any] = []

        def run() -> None:
            with kombu.Connection(self.url()) as connection:
                node = pidbox.Mailbox(namespace, type=kind)(connection).Node(hostname, state=hostname)

                def add(state: str, x: int, y: int) -> int:
                    told.append((x, y))
                    return x + y

                def fail(state: str) -> None:
                    raise ValueError("it broke")

                node.handler(add)
                node.handler(fail)
                node.channel = connection.channel()
                consumer = node.listen()
                listening.set()
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)
                consumer.cancel()

        thread = threading.Thread(target=run, name="kombu's node", daemon=True)
        thread.start()
        self.addCleanup(lambda: self.in_thread(thread.join, 10))
        self.addCleanup(ended.set)
        return listening, told

    async def in_kombu(self, namespace: str, use: Callable[[Any], Any], kind: str = "direct") -> Any:
        """Call `use(mailbox)` with a mailbox of Kombu's, in a thread."""

        def run() -> Any:
            with kombu.Connection(self.url()) as connection:
                return use(pidbox.Mailbox(namespace, type=kind)(connection))

        return await self.in_thread(run)

    async def test_kombu_controls_txmsg(self) -> None:
        """kombu P5, P6, P7, P8, P10: Kombu calls, casts and scatters to our nodes, and gets our replies."""
        for kind in ("direct", "fanout"):
            namespace = self.name(kind)
            nodes = [await self.listening_node(namespace, hostname, kind) for hostname in ("one", "two")]
            told: list[Any] = []
            for node in nodes:
                node.handlers["tell"] = lambda state, n, told=told: told.append((state, n))

            def use(mailbox: Any) -> list[Any]:
                mailbox.cast(["two"], "tell", {"n": 1})
                mailbox.abcast("tell", {"n": 2})
                return [
                    mailbox.call(["one"], "add", {"x": 1, "y": 2}, timeout=10),
                    mailbox.multi_call("name", timeout=10, limit=2),
                    mailbox.call(["two"], "fail", timeout=10),
                    mailbox.call(["two"], "none", timeout=10),
                    mailbox._broadcast("name", reply=True, timeout=10, limit=1, pattern="t*", matcher="glob"),
                    mailbox._broadcast("name", reply=True, timeout=10, limit=1, pattern=".n", matcher="pcre"),
                ]

            added, named, failed, unknown, globbed, matched = await self.in_kombu(namespace, use, kind)
            self.assertEqual(added, [{"one": 3}])
            self.assertEqual(sorted(map(str, named)), ["{'one': 'one'}", "{'two': 'two'}"])
            self.assertEqual(failed, [{"two": {"error": "ValueError('it broke')"}}])
            self.assertIn("no command", unknown[0]["two"]["error"])
            self.assertEqual((globbed, matched), ([{"two": "two"}], [{"one": "one"}]))
            self.assertEqual(sorted(told), [("one", 2), ("two", 1), ("two", 2)])
            self.flushLoggedErrors(ValueError, LookupError)

    async def test_txmsg_controls_kombu(self) -> None:
        """kombu P5, P6, P7, P8, P10: we call, cast and scatter to Kombu's nodes, and get its replies."""
        for kind in ("direct", "fanout"):
            namespace = self.name(kind)
            nodes = [self.kombu_node(namespace, hostname, kind) for hostname in ("one", "two")]
            for listening, _ in nodes:
                self.assertTrue(await self.in_thread(listening.wait, 10))
            mailbox = Mailbox(namespace, kind)(self.connection())
            self.assertEqual(await mailbox.call(["one"], "add", {"x": 1, "y": 2}, 10), [{"one": 3}])
            replies = await mailbox.multi_call("add", {"x": 2, "y": 2}, timeout=10, limit=2)
            self.assertEqual(sorted(map(str, replies)), ["{'one': 4}", "{'two': 4}"])
            (failed,) = await mailbox.call(["two"], "fail", timeout=10)
            self.assertEqual(failed, {"two": {"error": "ValueError('it broke')"}})
            await mailbox.cast(["two"], "add", {"x": 5, "y": 5})
            await mailbox.abcast("add", {"x": 6, "y": 6}, pattern="o*")
            await mailbox.abcast("add", {"x": 7, "y": 7}, pattern="^t", matcher="pcre")
            replies = await mailbox.multi_call("add", {"x": 0, "y": 0}, timeout=10, limit=2)
            self.assertEqual(sorted(map(str, replies)), ["{'one': 0}", "{'two': 0}"])
            expected = [[(1, 2), (2, 2), (6, 6), (0, 0)], [(2, 2), (5, 5), (7, 7), (0, 0)]]
            self.assertEqual([told for _, told in nodes], expected)

    async def test_both_listen(self) -> None:
        """kombu P6, P11: nodes of both kinds in one mailbox; clocks are above those of the other's messages."""
        namespace = self.name("ns")
        listening, _ = self.kombu_node(namespace, "kombu")
        self.assertTrue(await self.in_thread(listening.wait, 10))
        node = await self.listening_node(namespace, "txmsg")
        mailbox = Mailbox(namespace)(self.connection())
        mailbox.clock.adjust(1000)
        for use in (mailbox, None):
            if use is not None:
                replies = await use.multi_call("add", {"x": 1, "y": 1}, timeout=10, limit=2)
            else:
                replies = await self.in_kombu(namespace, lambda each: each.multi_call("add", {"x": 1, "y": 1}, 10, 2))
            self.assertEqual(
                {name: sum_ for reply in replies for name, sum_ in reply.items()}, {"kombu": 2, "txmsg": 2}
            )
        self.assertGreater(node.mailbox.clock.value, 1000)


class PidboxOverMemory(OverMemory, PidboxCases, CutCases):
    """In this process."""


class PidboxOverBroker(OverBroker, PidboxCases, CutCases):
    """On a socket."""


class PidboxOverRabbitMQ(OverRabbitMQ, PidboxCases):
    """On RabbitMQ."""


class PidboxWithKombuOverBroker(OverBroker, WithKombuCases):
    """Through our broker."""


class PidboxWithKombuOverRabbitMQ(OverRabbitMQ, WithKombuCases):
    """Through RabbitMQ."""
