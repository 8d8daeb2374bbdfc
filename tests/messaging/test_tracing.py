"""Tests of seeing what the messaging layer does."""

from __future__ import annotations

import io
import os
from typing import Any
from unittest import mock

from twisted.logger import Logger, LogLevel, globalLogPublisher

from tests.messaging.connection.scripted_transport import ScriptedConnectionCase
from txmsg.errors import ConfigurationError
from txmsg.messaging import tracing
from txmsg.messaging.tracing import LoggedCalls, get_loglevel, setup_logging


class SwitchTests(ScriptedConnectionCase):
    """Switches in the environment."""

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """What is logged in a namespace from now on."""
        found: list[dict[str, Any]] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == namespace:
                found.append(event)

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)  # type: ignore[arg-type]
        return found

    def use(self, **environment: str) -> None:
        """Use a connection with these in the environment."""
        with mock.patch.dict(os.environ, environment):
            connection = self.connection(url=f"{self.transport.scheme}://user:S3CRET@host")
            channel = self.successResultOf(connection.channel())
            self.successResultOf(channel.publish("e", "k", b"B0DY", {"priority": 1}, mandatory=True))
            self.successResultOf(channel.queue_purge("q"))
            self.successResultOf(connection.close())

    def test_connection(self) -> None:
        """kombu A46: what a connection does is logged at debug, and at info when it is asked for."""
        for environment, level in (({}, LogLevel.debug), ({"TXMSG_LOG_CONNECTION": "1"}, LogLevel.info)):
            events = self.events("txmsg.messaging.connection")
            self.use(**environment)
            formats = [event["log_format"].split()[0] for event in events]
            self.assertEqual(formats, ["connecting", "connected", "closing"])
            self.assertEqual({event["log_level"] for event in events}, {level})
            self.assertNotIn("S3CRET", repr(events))

    def test_channel(self) -> None:
        """kombu A46, U3, U5: each call on a channel, with its arguments, but no body; only when it is asked for."""
        events = self.events("txmsg.messaging.channel")
        self.use(TXMSG_LOG_CHANNEL="0")
        self.assertEqual(events, [])
        self.use(TXMSG_LOG_CHANNEL="1")
        calls = [event["ident"] + event["call"] for event in events]
        self.assertEqual(
            [call for call in calls if "when_closed" not in call],
            [
                "channel 1: publish('e', 'k', <4 bytes>, {'priority': 1}, mandatory=True)",
                "channel 1: queue_purge('q')",
            ],
        )

    def test_debug(self) -> None:
        """kombu A46: both, on standard error, begun once."""
        begun: list[Any] = []
        with mock.patch("sys.stderr", io.StringIO()) as stderr, mock.patch.object(tracing, "_begun", begun):
            for _ in range(2):
                self.use(TXMSG_LOG_DEBUG="1")
            begun.pop()()
            self.assertEqual(begun, [])
        text = stderr.getvalue()
        self.assertEqual((text.count("connected to"), text.count("publish(")), (2, 2))
        self.assertNotIn("S3CRET", text)
        self.assertNotIn("B0DY", text)


class SetupTests(ScriptedConnectionCase):
    """setup_logging and levels."""

    def test_levels(self) -> None:
        """kombu U2: names and numbers, as Python's logging has them."""
        for given, level in (("WARNING", LogLevel.warn), ("fatal", LogLevel.critical), (10, LogLevel.debug)):
            self.assertIs(get_loglevel(given), level)
        self.assertIs(get_loglevel(LogLevel.info), LogLevel.info)
        for wrong in ("loud", 11, None):
            self.assertRaises(ConfigurationError, get_loglevel, wrong)

    def test_setup(self) -> None:
        """kombu U2, U3, U4: some namespaces, from a level on, into a file, with tracebacks or without."""
        for tracebacks in (True, False):
            file = io.StringIO()
            end = setup_logging("warn", file, ["txmsg.test"], tracebacks=tracebacks)
            Logger(namespace="txmsg.test.below").warn("seen")
            Logger(namespace="txmsg.test").info("too low")
            Logger(namespace="txmsg.tests").warn("another")
            try:
                raise KeyError("a reason")
            except KeyError:
                Logger(namespace="txmsg.test").failure("failed")
            end()
            Logger(namespace="txmsg.test").warn("too late")
            text = file.getvalue()
            self.assertEqual(
                [word in text for word in ("seen", "failed", "too", "another")], [True, True, False, False]
            )
            self.assertEqual("Traceback" in text, tracebacks)
        self.flushLoggedErrors(KeyError)

    def test_logged_calls(self) -> None:
        """kombu U3: all else is as on the object itself."""

        class Thing:
            name = "thing"

            def double(self, number: int) -> int:
                return 2 * number

            def __repr__(self) -> str:
                return "Thing()"

        logged = LoggedCalls(Thing())
        self.assertEqual(
            (logged.double(4), logged.double(number=3), logged.name, repr(logged)), (8, 6, "thing", "Thing()")
        )
        self.assertRaises(AttributeError, getattr, logged, "other")
