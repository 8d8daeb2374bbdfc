"""ignore_errors swallows what a connection that is gone raises, and nothing else."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConnectionLost, NotFound, StaleDelivery
from txmsg.messaging import Connection, ignore_errors


class IgnoreErrorsTests(SynchronousTestCase):
    """kombu O11."""

    def setUp(self) -> None:
        self.connection = Connection("memory://ignoring")

    def test_a_function(self) -> None:
        """Called with its arguments; its result, or None."""
        self.assertEqual(self.successResultOf(ignore_errors(self.connection, divmod, 7, 2)), (3, 1))
        self.assertEqual(self.successResultOf(ignore_errors(self.connection, succeed, 1)), 1)
        for error in (ConnectionLost("gone"), NotFound("no queue"), StaleDelivery("gone")):
            self.assertIsNone(self.successResultOf(ignore_errors(self.connection, fail, error)))
        self.failureResultOf(ignore_errors(self.connection, fail, ValueError("mine")), ValueError)
        self.failureResultOf(ignore_errors(self.connection, int, "x"), ValueError)

    def test_a_block(self) -> None:
        """Both kinds."""
        with ignore_errors(self.connection):
            raise ConnectionLost("gone")
        with self.assertRaises(ValueError), ignore_errors(self.connection):
            raise ValueError("mine")
        seen: list[str] = []

        async def block() -> None:
            async with ignore_errors(self.connection):
                await fail(NotFound("no queue"))
            seen.append("after")
            async with ignore_errors(self.connection):
                seen.append("inside")
            async with ignore_errors(self.connection):
                await fail(ValueError("mine"))

        self.failureResultOf(Deferred.fromCoroutine(block()), ValueError)
        self.assertEqual(seen, ["after", "inside"])
