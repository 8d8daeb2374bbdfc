"""pika's parameters as ours: rows B and J-02."""

from __future__ import annotations

from typing import Any

import pika
from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp import ConnectionParameters, ExternalCredentials, PlainCredentials
from txmsg.compat.pika.parameters import native_credentials, native_parameters
from txmsg.errors import ConfigurationError


class Token:
    """Credentials of an application's own."""

    TYPE = "X-TOKEN"

    def response_for(self, start: Any) -> tuple[str, str]:
        assert self.TYPE in start.mechanisms
        return self.TYPE, "token"

    def erase_credentials(self) -> None:
        pass


class ParametersTests(SynchronousTestCase):
    def native(self, **settings: Any) -> ConnectionParameters:
        return native_parameters(pika.ConnectionParameters(**settings), self)

    def test_defaults(self) -> None:
        """B-03 to B-14: pika's defaults; what pika does not have is off."""
        native = self.native()
        self.assertEqual((native.virtual_host, native.locale), ("/", "en_US"))
        self.assertEqual((native.channel_max, native.frame_max, native.heartbeat), (65535, 131072, None))
        self.assertEqual(native.handshake_timeout, 15.0)
        self.assertIsNone(native.blocked_connection_timeout)
        self.assertIsNone(native.operation_timeout)
        self.assertIsNone(native.confirm_timeout)
        self.assertEqual(native.default_prefetch_count, 0)
        self.assertEqual(native.credentials, PlainCredentials("guest", "guest"))

    def test_url(self) -> None:
        """C: URLParameters are parameters."""
        native = native_parameters(
            pika.URLParameters("amqp://me:secret@broker:5673/v?heartbeat=7&stack_timeout=3"), self
        )
        self.assertEqual((native.host, native.port, native.virtual_host), ("broker", 5673, "v"))
        self.assertEqual((native.heartbeat, native.handshake_timeout), (7, 3.0))
        self.assertEqual(native.credentials, PlainCredentials("me", "secret"))
        self.assertNotIn("secret", repr(native))

    def test_tuning_and_limits(self) -> None:
        """B-07, B-12, B-14 to B-16: None is no limit, 0 is at once; unknown socket options are skipped."""
        native = self.native(
            heartbeat=lambda connection, proposed: (self.assertIs(connection, self), proposed // 2)[1],
            stack_timeout=None,
            blocked_connection_timeout=0,
            client_properties={"connection_name": "me"},
            tcp_options={"TCP_KEEPIDLE": 60, "TCP_OTHER": 1},
        )
        assert callable(native.heartbeat)
        self.assertEqual(native.heartbeat(60), 30)
        self.assertGreater(native.handshake_timeout, 86400)
        self.assertEqual(native.blocked_connection_timeout, 0)
        self.assertEqual(native.client_properties, {"connection_name": "me"})
        self.assertEqual(native.tcp_options, {"TCP_KEEPIDLE": 60})
        self.assertEqual(self.native(heartbeat=True).heartbeat, 1)
        native = self.native(stack_timeout=1e9, blocked_connection_timeout=1e9, heartbeat=100_000)
        self.assertGreater(native.handshake_timeout, 86400)
        self.assertGreater(native.blocked_connection_timeout or 0, 86400)

    def test_a_host_that_is_not_used(self) -> None:
        """J-02: it may be anything; what counts may not."""
        self.assertEqual(self.native(host="in valid").host, "localhost")
        self.assertRaises(ConfigurationError, self.native, locale="")

    def test_credentials(self) -> None:
        """D, B-04: PLAIN, EXTERNAL, and an application's own."""
        self.assertIsInstance(native_credentials(pika.credentials.ExternalCredentials()), ExternalCredentials)
        other: Any = native_credentials(Token())
        self.assertEqual((other.mechanism, other.response()), ("X-TOKEN", b"token"))
        self.assertRaises(ConfigurationError, other.respond, b"?")
