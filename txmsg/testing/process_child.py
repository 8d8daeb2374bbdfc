"""What runs in the process of a :class:`txmsg.testing.process.BrokerProcess`."""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from txmsg.testing.broker import EmbeddedBroker
from txmsg.testing.scripted import ScriptedFault

__all__ = ["Commands", "main"]


class Commands(LineOnlyReceiver):
    """Lines of JSON, [number, command, arguments]; for each one line of JSON, with its number and "result" or "error".

    ended: Deferred -- fires when the lines end.
    """

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.ended: Deferred[None] = Deferred()
        self._faults: list[ScriptedFault] = []

    def connectionMade(self) -> None:
        """Twisted: say where the broker listens."""
        self._say({"number": 0, "port": self.broker.port})

    def lineReceived(self, line: bytes) -> None:
        """Twisted: do a command, and answer."""
        number, command, arguments = json.loads(line)
        done = maybeDeferred(lambda: getattr(self, f"do_{command}")(**arguments))
        done.addCallback(lambda result: self._say({"number": number, "result": result}))
        done.addErrback(self._failed, number)

    def _failed(self, failure: Failure, number: int) -> None:
        self._say({"number": number, "error": f"{type(failure.value).__name__}: {failure.getErrorMessage()}"})

    def _say(self, answer: dict[str, Any]) -> None:
        self.sendLine(json.dumps(answer).encode("ascii"))  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Twisted: whoever started us is gone, or wants us to be."""
        if not self.ended.called:
            self.ended.callback(None)

    # -- the commands: see the methods of BrokerProcess

    def do_add_vhost(self, name: str) -> None:
        """BrokerProcess.add_vhost."""
        self.broker.add_vhost(name)

    def do_delete_vhost(self, name: str) -> None:
        """BrokerProcess.delete_vhost."""
        self.broker.broker.delete_vhost(name)

    def do_add_user(self, name: str, password: str, virtual_host: str, **permissions: str) -> None:
        """BrokerProcess.add_user."""
        self.broker.add_user(name, password, virtual_host=virtual_host, **permissions)

    def do_depth(self, queue: str, virtual_host: str) -> tuple[int, int]:
        """BrokerProcess.depth."""
        view = self.broker.queue(queue, virtual_host=virtual_host)
        return view.depth, view.unacked

    def do_bodies(self, queue: str, virtual_host: str) -> list[str]:
        """BrokerProcess.bodies."""
        return [body.decode("latin-1") for body in self.broker.queue(queue, virtual_host=virtual_host).bodies]

    def do_fault(self, name: str, arguments: dict[str, Any]) -> int:
        """BrokerProcess.fault: the number of the fault."""
        if name.startswith("_"):
            raise AttributeError(f"there is no fault {name!r}")
        self._faults.append(getattr(self.broker.faults, name)(**arguments))
        return len(self._faults) - 1

    def do_fault_count(self, number: int) -> int:
        """RemoteFault.count."""
        return self._faults[number].count

    def do_stop_fault(self, number: int) -> None:
        """RemoteFault.stop."""
        self._faults[number].stop()

    def do_clear_faults(self) -> None:
        """BrokerProcess.clear_faults."""
        self.broker.faults.clear()


async def _run(reactor: Any) -> None:
    async with EmbeddedBroker(listen=True, reactor=reactor, **json.loads(sys.argv[1])) as broker:
        commands = Commands(broker)
        StandardIO(commands, reactor=reactor)
        await commands.ended


def main() -> None:
    """Run until standard input ends."""
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor)))
