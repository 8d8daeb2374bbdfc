"""The base classes of the tests.

They are trial's test cases: a test may return a Deferred or be ``async def``, an error that was logged and not
flushed fails the test, and so do delayed calls and sockets that are left in the reactor.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests import rabbitmq
from txmsg.testing.rabbitmq import RabbitMQNode

if TYPE_CHECKING:
    from txmsg.amqp.parameters import ConnectionParameters

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ReactorTestCase(TestCase):
    """A test on the real reactor, which may take up to ``timeout`` seconds."""

    timeout = 30

    def name(self, what: str) -> str:
        """A name nothing else has, so that tests sharing a broker do not meet: ``what``, the test, some digits."""
        return f"{what}.{self.id().rsplit('.', 1)[-1]}.{secrets.token_hex(4)}"

    def mktemp(self) -> str:
        """A path for a file or folder of the test's own, removed with all that is in it when the test ends.

        (trial's own leaves them in the current folder, which it expects to be a scratch one.)
        """
        folder = tempfile.mkdtemp(prefix="txmsg-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return os.path.join(folder, "temp")

    def in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        """Make a blocking call (``rabbitmqctl``, another client) while the reactor keeps running."""
        return deferToThread(call, *args, **kwargs)


class RabbitMQTestCase(ReactorTestCase):
    """A test against the test run's private RabbitMQ node, ``self.node``; skipped where RabbitMQ is missing."""

    node: RabbitMQNode

    def setUp(self) -> None:
        """Start the node unless it runs."""
        reason = rabbitmq.why_no_rabbitmq()
        if reason:
            raise SkipTest(reason)
        self.node = rabbitmq.shared_node()

    def parameters(self, **overrides: Any) -> ConnectionParameters:
        """Parameters for the node, user ``guest``, virtual host ``/``, with the fields given as keywords."""
        from txmsg.amqp.parameters import ConnectionParameters

        return ConnectionParameters.from_url(self.node.url, **overrides)
