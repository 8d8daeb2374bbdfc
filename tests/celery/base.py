"""What the tests with the real Celery stand on: a broker and one worker for each class, a vhost of their own.

class ClientCases(CeleryCase): ...                    # not collected by itself
class ClientOverBroker(OverBrokerProcess, ClientCases): ...
class ClientOverRabbitMQ(OverRabbitMQNode, ClientCases): ...
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from tests import rabbitmq
from tests.cases import ReactorTestCase
from tests.celery.workers import WorkerProcess
from txmsg.messaging import Connection
from txmsg.rpc.celery.app import CeleryApp
from txmsg.testing.process import BrokerProcess

__all__ = ["CeleryCase", "OverBrokerProcess", "OverRabbitMQNode", "reactor"]

reactor: Any = installed_reactor

E = TypeVar("E", bound=BaseException)


class CeleryCase(ReactorTestCase):
    """`self.app()` makes a client, closed at the end of the test.

    The limits are wide: a worker of Celery 5.7 with the solo pool now and then polls its sockets for ten seconds while
    deliveries wait in its own buffer.
    """

    __test__ = False
    timeout = 90
    broker_url: ClassVar[str] = ""

    def app(self, **settings: Any) -> CeleryApp:
        """A client of the worker."""
        settings.setdefault("timeout", 30.0)
        made = CeleryApp(self.broker_url, **settings)
        self.addCleanup(made.close)
        return made

    def connection(self) -> Connection:
        """A Connection that has not connected, closed at the end of the test."""
        made = Connection(self.broker_url)
        self.addCleanup(made.close)
        return made

    async def worker(self, url: str, queue: str, pool: str = "solo") -> WorkerProcess:
        """A worker of this test alone."""
        worker = await self.in_thread(lambda: WorkerProcess(url, queue, pool).wait())
        self.addCleanup(worker.close)
        return worker

    def in_background(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Begin it now."""
        return Deferred.fromCoroutine(work)

    async def failure(self, deferred: Awaitable[Any], *types: type[E]) -> E:
        """The exception that `deferred` fails with, which must be one of `types`."""
        try:
            value = await deferred
        except types as error:
            return error
        raise self.failureException(f"succeeded with {value!r}")

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until `condition()` is true."""
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            await deferLater(reactor, 0.02)
        self.fail("it did not come true in time")


class OverBrokerProcess(ReactorTestCase):
    """The embedded broker, in a process of its own."""

    __test__ = True
    broker_url: ClassVar[str]
    _broker: ClassVar[BrokerProcess]
    _worker: ClassVar[WorkerProcess]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the broker, and one worker for all tests of the class."""
        cls._broker = BrokerProcess().start()
        cls.broker_url = cls._broker.url
        try:
            cls._worker = WorkerProcess(cls.broker_url).wait()
        except BaseException:
            cls._broker.close()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        """End both."""
        cls._worker.close()
        cls._broker.close()


class OverRabbitMQNode(ReactorTestCase):
    """The private RabbitMQ node, in a virtual host of the class."""

    __test__ = True
    broker_url: ClassVar[str]
    _vhost: ClassVar[str]
    _worker: ClassVar[WorkerProcess]

    @classmethod
    def setUpClass(cls) -> None:
        """Make the virtual host, and start one worker for all tests of the class."""
        reason = rabbitmq.why_no_rabbitmq()
        if reason:
            raise SkipTest(reason)
        node = rabbitmq.shared_node()
        cls._vhost = f"celery-{secrets.token_hex(4)}"
        node.add_vhost(cls._vhost)
        cls.broker_url = node.url_for(virtual_host=cls._vhost)
        cls._worker = WorkerProcess(cls.broker_url).wait()

    @classmethod
    def tearDownClass(cls) -> None:
        """End the worker; the virtual host goes."""
        cls._worker.close()
        rabbitmq.shared_node().delete_vhost(cls._vhost)
