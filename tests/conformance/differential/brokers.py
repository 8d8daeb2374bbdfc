"""The two brokers of a comparison, with the same users and virtual host.

The embedded one runs in a process of its own, which ends with its parent: its standard input closes.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Any, Final

from tests.conformance.differential.wire_client import Account
from tests.source import ROOT
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["CONFIGURE", "LIMITED", "READ", "VIRTUAL_HOST", "WRITE", "EmbeddedProcess", "RabbitMQ"]

VIRTUAL_HOST = "differential"
#: Who may not do everything, and what they may; the password is the name.
LIMITED = "limited"
CONFIGURE = "^own"
WRITE = "^(own|amq.default$|amq.topic$)"
READ = "^own"

_SERVE = """
import sys
from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from txmsg.testing import EmbeddedBroker

class Parent(Protocol):
    def connectionLost(self, reason):
        broker.stop().addBoth(lambda _: reactor.stop())

vhost, limited, configure, write, read, folder = sys.argv[1:]
broker = EmbeddedBroker(listen=True, data_dir=folder or None)

async def serve():
    await broker.start()
    broker.broker.add_vhost(vhost)
    users = broker.broker.users
    users.set_permissions("guest", vhost)
    users.add(limited, limited)
    users.set_permissions(limited, vhost, configure, write, read)
    stdio.StandardIO(Parent())
    print(broker.parameters().port, flush=True)

def failed(failure):
    failure.printTraceback()
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(serve()).addErrback(failed))
reactor.run()
"""


class _Either:
    """Where the accounts lead."""

    port: int

    def account(self, name: str) -> Account:
        """The account for a connection of that name."""
        if name == "l":
            return Account(self.port, VIRTUAL_HOST, LIMITED, LIMITED)
        return Account(self.port, VIRTUAL_HOST)


class EmbeddedProcess(_Either):
    """The embedded broker."""

    def __init__(self, folder: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, VIRTUAL_HOST, LIMITED, CONFIGURE, WRITE, READ, folder],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError("the embedded broker did not start")
        self.port = int(line)

    def close(self) -> int:
        """Stop it; its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process.stdout.close()

    def __enter__(self) -> EmbeddedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


#: One rabbitmqctl instead of four, each of which takes a second.
_ADD: Final = """
    User = <<"{limited}">>, VHost = <<"{vhost}">>, By = <<"tests">>,
    rabbit_vhost:add(VHost, By),
    rabbit_auth_backend_internal:set_permissions(<<"guest">>, VHost, <<".*">>, <<".*">>, <<".*">>, By),
    rabbit_auth_backend_internal:add_user(User, User, By),
    rabbit_auth_backend_internal:set_permissions(User, VHost, <<"{configure}">>, <<"{write}">>, <<"{read}">>, By)
"""
_REMOVE: Final = """
    rabbit_vhost:delete(<<"{vhost}">>, <<"tests">>),
    rabbit_auth_backend_internal:delete_user(<<"{limited}">>, <<"tests">>)
"""


class RabbitMQ(_Either):
    """A node that others may use too, but for one virtual host."""

    def __init__(self, node: RabbitMQNode) -> None:
        self._node = node
        self.port = node.port
        self._evaluate(_ADD)

    def _evaluate(self, expression: str) -> None:
        names = {"limited": LIMITED, "vhost": VIRTUAL_HOST, "configure": CONFIGURE, "write": WRITE, "read": READ}
        answer = self._node.eval(expression.format(**names).strip())
        if answer != "ok":
            raise RuntimeError(f"RabbitMQ: {answer}")

    def close(self) -> None:
        """Leave the node as it was."""
        self._evaluate(_REMOVE)

    def __enter__(self) -> RabbitMQ:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
