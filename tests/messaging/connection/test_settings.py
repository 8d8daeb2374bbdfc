"""Settings of a Connection that are none: found by the constructor, and nothing secret is shown."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError
from txmsg.messaging import Connection


class WrongTypesTests(SynchronousTestCase):
    """kombu A9, A18, A25: an argument of the wrong type is a ConfigurationError."""

    def test_wrong(self) -> None:
        """Of each argument."""
        wrong: list[dict[str, Any]] = [
            *({"port": port} for port in ("abc", "", "1e3", 0, -1, 65536, 5.5, True, "9" * 5000)),
            *({"userid": userid} for userid in (b"guest", 5)),
            *({"virtual_host": name} for name in (b"/", 5)),
            *({"transport_options": options} for options in (5, [("heartbeat", 5)], "heartbeat")),
            *({"ssl": ssl} for ssl in (5, "perhaps")),
            {"heartbeat": 65536},
            {"heartbeat": 1e9},
        ]
        for settings in wrong:
            with self.subTest(settings=settings):
                self.assertRaises(ConfigurationError, Connection, "h", **settings)

    def test_a_password_that_is_no_text(self) -> None:
        """reliability C3.1: it is in no error, and in no local variable of a frame that raises."""
        passwords: list[Any] = [b"swordfish", ["swordfish"]]
        for password in passwords:
            try:
                Connection("h", password=password)
            except ConfigurationError:
                failure = Failure(captureVars=True)
            frames = [frame for frame in failure.frames if frame[0] != "test_a_password_that_is_no_text"]
            self.assertEqual(len(frames), 1)
            self.assertNotIn("swordfish", f"{failure.getErrorMessage()}{frames}")

    def test_fine(self) -> None:
        """What can be understood is."""
        connection = Connection("h", port="77", heartbeat=65535)  # type: ignore[arg-type]
        self.assertEqual((connection.port, connection.host), (77, "h:77"))
        for ssl, is_tls in ((0, False), (1, True), ("yes", True), ("0", False), ({}, True), (None, False)):
            with self.subTest(ssl=ssl):
                self.assertEqual(Connection("h", ssl=ssl).as_uri().startswith("amqps:"), False)
                self.assertEqual(Connection("h", ssl=ssl).port, 5671 if is_tls else 5672)
