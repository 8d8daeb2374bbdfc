"""Publication: which failures are its own."""

from __future__ import annotations

from tests.messaging.retrying.retry_case import RetryCase
from txmsg.errors import AccessRefused, NotFound, OperationalError, PreconditionFailed
from txmsg.messaging.publishing.publication import Publication
from txmsg.messaging.retrying.retrying import RetryIntervals

NO_EXCHANGE = "NOT_FOUND - no exchange '{}' in vhost '/'"
NO_ACCESS = "ACCESS_REFUSED - access to exchange '{}' in vhost '/' refused for user 'guest'"
TOO_LARGE = "PRECONDITION_FAILED - message size {} is larger than configured max size 5"


class BystanderTests(RetryCase):
    """kombu B9, B10: the channel is closed because of one thing; what was under way beside it is tried again."""

    def test_whose_fault_it_is(self) -> None:
        """By the method that the broker names, and the exchange, or the size."""
        for error, exchange, may_retry in (
            (NotFound("NOT_FOUND - no queue 'q' in vhost '/'", 404, method_name="queue.declare"), "orders", True),
            (PreconditionFailed("inequivalent arg", 406, method_name="exchange.declare"), "orders", True),
            (NotFound(NO_EXCHANGE.format("other"), 404, method_name="basic.publish"), "orders", True),
            (NotFound(NO_EXCHANGE.format("other"), 404, method_name="basic.publish"), "", True),
            (NotFound(NO_EXCHANGE.format("orders"), 404, method_name="basic.publish"), "orders", False),
            (NotFound(NO_EXCHANGE.format("it's"), 404, method_name="basic.publish"), "it's", False),
            (AccessRefused(NO_ACCESS.format("amq.default"), 403, method_name="basic.publish"), "", False),
            (AccessRefused(NO_ACCESS.format("amq.default"), 403, method_name="basic.publish"), "orders", True),
            (PreconditionFailed("invalid expiration", 406, method_name="basic.publish"), "orders", False),
            (PreconditionFailed(TOO_LARGE.format(9), 406, method_name="basic.publish"), "orders", True),
            (PreconditionFailed(TOO_LARGE.format(0), 406, method_name="basic.publish"), "orders", False),
            (NotFound(NO_EXCHANGE.format("other"), 404), "orders", False),
            (NotFound("closed", 404, initiator="client", method_name="queue.declare"), "orders", False),
        ):
            with self.subTest(error=error, exchange=exchange):
                publication = Publication(1, exchange, "key", b"", {}, False, intervals=RetryIntervals())
                self.assertEqual(publication.failed(error, was_sent=True), may_retry)
                outcome = publication.outcome(error)
                self.assertIs(type(outcome), OperationalError if may_retry else type(error))
                self.assertFalse(Publication(1, exchange, "key", b"", {}, False).failed(error, was_sent=True))

    def test_it_is_sent_again(self) -> None:
        """With a policy; without one it ends with what the broker says."""
        self.open()
        other = NotFound(NO_EXCHANGE.format("other"), 404, method_name="basic.publish")
        self.transport.publishes.extend([other, other])
        self.failureResultOf(self.publish(1, retry=False), NotFound)
        published = self.publish(2)
        self.assertEqual(self.told, [("NotFound", 1)])
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), ["1", "2", "2"])
