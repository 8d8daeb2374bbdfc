"""Tests of what a Connection makes in one call."""

from __future__ import annotations

from typing import Any

from tests.messaging.connection.scripted_transport import ScriptedConnectionCase
from txmsg.errors import ConnectFailed, ConnectionLost
from txmsg.messaging import Channel


class ShortcutTests(ScriptedConnectionCase):
    """What is made from a connection in one call."""

    def test_ensure(self) -> None:
        """kombu B1, B6, B17: the methods are those of txmsg.messaging.retrying.ensuring, for this connection."""
        connection = self.connection(ConnectFailed("no"))
        waits: list[float] = []
        connecting = connection.ensure_connection(lambda error, wait: waits.append(wait), interval_start=3)
        self.clock.advance(3)
        self.assertIs(self.successResultOf(connecting), connection)
        self.assertEqual(waits, [3.0])
        outcomes: list[Any] = [ConnectionLost(), "done"]

        def work(channel: Channel | None = None) -> Any:
            outcome = outcomes.pop(0)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        done = connection.ensure(connection, work)()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(done), "done")
        outcomes[:] = ["done"]
        result, channel = self.successResultOf(connection.autoretry(work)())
        self.assertEqual((result, channel.is_open), ("done", True))

    def test_made(self) -> None:
        """kombu A42: each is on the connection, or on the channel that is given."""
        connection = self.connection()
        channel = self.successResultOf(connection.channel())
        self.assertIs(connection.Producer(channel).channel, channel)
        self.assertIs(connection.Producer().channel, connection.default_channel)
        self.assertIs(connection.Consumer(None, channel).channel, channel)
        self.assertIs(connection.Consumer([]).channel, connection.default_channel)
        self.assertIs(connection.SimpleQueue("q", channel=channel).channel, channel)
        self.assertIs(connection.SimpleQueue("q").channel, connection.default_channel)
        self.assertIs(connection.SimpleBuffer("q").channel, connection.default_channel)
        self.assertEqual((connection.Pool(3).limit, connection.ChannelPool(4).limit), (3, 4))
        self.assertEqual(len(self.transport.made), 1)
