"""ReconnectingConnection: what ends it for good, and what it does not even begin with."""

from __future__ import annotations

from typing import Any

from tests.amqp.recovery.world import SILENT, FakeMember, WorldTestCase
from txmsg.amqp import PlainCredentials, ReconnectingConnection
from txmsg.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectTimeout,
)


class GiveUpTests(WorldTestCase):
    """What ends it for good."""

    def gave_up(self, connection: ReconnectingConnection, seconds: float) -> BaseException:
        """Start it, and return why it is closed after that time."""
        member = FakeMember("m", [])
        connection.add_member(member)
        started, ready, closed = connection.start(), connection.when_ready(1000), connection.when_closed()
        self.world.run(seconds)
        reason = self.successResultOf(closed)
        self.assertIs(self.failed(started), reason)
        self.assertIs(self.failed(ready), reason)
        self.assertIs(connection.close_reason, reason)
        self.assertEqual((connection.state.value, member.calls[-1]), ("closed", "closed m"))
        self.assertIs(self.failed(connection.start()), reason)
        return reason

    def test_max_attempts(self) -> None:
        """After so many rounds over all hosts."""
        connection = self.connection(["amqp://x", "amqp://y"], max_attempts=3)
        self.assertIsInstance(self.gave_up(connection, 2), ConnectFailed)
        self.assertEqual([time for time, _ in self.world.attempts], [0, 0, 0.5, 0.5, 1.5, 1.5])

    def test_recovery_limit(self) -> None:
        """After so many seconds, also in the middle of an attempt; a new outage has the whole time again."""
        self.world.hosts["a"] = SILENT
        self.assertIsInstance(self.gave_up(self.connection(recovery_limit=4), 4.2), ConnectTimeout)
        self.world.broker()
        connection = self.started(recovery_limit=4)
        self.world.run(10)
        connection.reconnect()
        self.world.run(10)
        self.assertEqual(connection.state.value, "ready")

    def test_configuration(self) -> None:
        """An error of the configuration is not tried again."""

        def credentials() -> Any:
            return "guest:guest"

        self.world.broker()
        self.assertIsInstance(self.gave_up(self.connection(credentials=credentials), 1), ConfigurationError)
        self.assertEqual(len(self.world.attempts), 1)

    def test_configuration_that_did_work(self) -> None:
        """What worked once is tried again, slowly: a secret that is just being replaced does not end a service."""
        answers = iter([_guest(), "half a secret", _guest()])
        self.world.broker()
        connection = self.started(credentials=lambda: next(answers))
        connection.reconnect()
        self.world.run(20)
        self.assertIsInstance(connection.last_error, ConfigurationError)
        self.assertEqual((connection.state.value, connection.attempts), ("lost", 1))
        self.world.run(20)
        self.assertTrue(connection.is_ready)

    def test_endpoint_callable(self) -> None:
        """Nor is a callable that raises."""

        def endpoint(parameters: object) -> Any:
            raise KeyError("s3cret")

        connection = ReconnectingConnection("amqp://a", credentials=_guest, reactor=self.clock, endpoint=endpoint)
        reason = self.gave_up(connection, 1)
        self.assertIsInstance(reason, ConfigurationError)
        self.assertNotIn("s3cret", str(reason))

    def test_bad_arguments(self) -> None:
        """ConfigurationError at once, without the password."""
        cases: list[dict[str, Any]] = [
            {"targets": []},
            {"targets": "amqp://u:s3cret@h/a/b"},
            {"targets": ["amqp://u:s3cret@h", 5]},
            {"targets": "amqp://u:s3cret@a;http://b"},
            {"targets": "amqp://u:s3cret@far.example", "endpoint": None},
            {"order": "random"},
            {"attempt_timeout": 0},
            {"max_attempts": 0},
            {"recovery_limit": -1},
            {"name": 5},
        ]
        for options in cases:
            with self.subTest(options=options):
                with self.assertRaises(ConfigurationError) as caught:
                    self.connection(**{"targets": "amqp://a", "credentials": None} | options)
                self.assertNotIn("s3cret", str(caught.exception))


def _guest() -> PlainCredentials:
    return PlainCredentials("guest", "guest")
