"""TaskSender: published, confirmed, and again after a loss."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, NotSent, TxmsgError
from txmsg.rpc.celery import RPCBackend, build_task
from txmsg.rpc.celery.routing import TaskQueues
from txmsg.rpc.celery.sending import TASK_RETRY_POLICY, TaskSender


class TaskSenderTests(MemoryCase):
    """celery 4.1, 12.14."""

    def setUp(self) -> None:
        """One with a backend that is ready."""
        super().setUp()
        self.backend = RPCBackend(self.connection)
        self.done(self.backend.ready())
        self.sender = TaskSender(self.connection, self.backend, retry_policy={"max_retries": 2})
        self.addCleanup(self.turn)
        self.addCleanup(self.connection.close)

    def send(self, *args: Any, **how: Any) -> Any:
        """One task to the default queue."""
        return self.sender.send(build_task("add", reply_to=self.backend.oid), TaskQueues().destination("add"), **how)

    def test_the_queue_for_results_is_there(self) -> None:
        """12.14: also where the connection was lost between making it ready and sending."""
        self.run_async(self.send())
        self.assertEqual(self.depth("celery"), (1, 0))
        self.done(self.backend.close())
        self.assertNotIn(self.backend.oid, self.transport.vhost(self.url).queues)
        self.connection.declared_entities.clear()
        self.patch(RPCBackend, "is_ready", True)
        self.run_async(self.send())
        self.assertIn(self.backend.oid, self.transport.vhost(self.url).queues)

    def test_retries(self) -> None:
        """A loss is no failure; the policy can be given with each task."""
        self.run_async(self.send())
        self.cut()
        sending = Deferred.fromCoroutine(self.send(retry_policy={"interval_start": 1.0}))
        self.turn(1)
        self.turn(1)
        self.done(sending)
        self.assertEqual(self.sender.retry_policy.max_retries, 2)
        self.assertEqual(TASK_RETRY_POLICY.max_retries, 20)

    def test_closing(self) -> None:
        """Closed before anything was sent, or after it; what comes then makes it anew."""
        self.done(Deferred.fromCoroutine(self.sender.close()))
        self.run_async(self.send())
        self.run_async(self.sender.close())
        self.done(self.connection.close())
        sending = Deferred.fromCoroutine(self.send(retry=False))
        self.turn()
        self.failureResultOf(sending, NotSent, TxmsgError)

    def test_settings(self) -> None:
        """ConfigurationError."""
        for wrong in (0, -1, "5", True):
            self.assertRaises(ConfigurationError, TaskSender, self.connection, self.backend, publish_timeout=wrong)
