"""What tests of a whole broker over a data directory share: one on a `task.Clock`, and clients on its channels."""

from __future__ import annotations

from pathlib import Path

from tests.broker.channel_client import Client
from tests.broker.store_cases import StoreTestCase
from txmsg.broker.server import Broker
from txmsg.broker.store.worker import Worker
from txmsg.broker.users.credentials import Users

__all__ = ["BrokerTestCase"]


class BrokerTestCase(StoreTestCase):
    """`start_broker` starts one over `directory`, `stop_broker` stops it; `kill` is what a kill -9 leaves."""

    def setUp(self) -> None:
        super().setUp()
        self._clients: list[tuple[Broker, Client]] = []

    def start_broker(
        self, directory: Path | None = None, *, worker: Worker | None = None, users: Users | None = None
    ) -> Broker:
        """A broker with what is in the directory."""
        broker = Broker(
            reactor=self.clock,
            store=self.make(directory, worker),
            users=Users(cost=2) if users is None else users,
        )
        self.report = self.successResultOf(broker.start())
        return broker

    def stop_broker(self, broker: Broker) -> None:
        """In good order; its clients close their sockets."""
        stopped = broker.stop()
        for its, client in self._clients:
            if its is broker:
                client.lose()
        self.clock.advance(0)
        self.successResultOf(stopped)

    def restart_broker(self, broker: Broker) -> Broker:
        """In good order."""
        self.stop_broker(broker)
        return self.start_broker()

    def kill(self) -> Broker:
        """A broker over what a kill at this moment leaves of the directory."""
        return self.start_broker(self.copy())

    def client(self, broker: Broker, *, channels: int = 1) -> Client:
        """A client of it."""
        made = Client(broker, self.clock, channels=channels)
        self._clients.append((broker, made))
        return made
