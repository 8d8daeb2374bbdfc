"""The broker is killed and comes again while tasks are on their way: their results come all the same."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import deferLater

from tests.celery.base import CeleryCase, reactor
from tests.conformance.messaging.base import OverBroker, OverRabbitMQ
from txmsg.rpc.celery.app import CeleryApp


class RestartCases(CeleryCase):
    """celery A-14, A-24, 12.14: the task is durable, so is the queue for results, and both sides come back."""

    timeout = 120

    def url(self) -> str:
        """Of the broker."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Kill it and start it again."""
        raise NotImplementedError

    async def test_restart(self) -> None:
        """One that waits in the queue, one that is sent while there is no broker, and one that runs meanwhile."""
        queue = self.name("restart")
        app = CeleryApp(self.url(), timeout=90.0, default_queue=queue, publish_timeout=60.0)
        self.addCleanup(app.close)
        waiting = await app.send_task("add", [2, 2])
        lost: list[Any] = []
        app.connection.add_recovery_callback(lambda reason, delay: lost.append(reason))
        restarting = self.in_background(self.restart())
        await self.until(lambda: lost, 30)
        sending = app.send_task("add", [3, 3], retry_policy={"max_retries": 60})
        await restarting
        await self.worker(self.url(), queue)
        self.assertEqual(await waiting.get(), 4)
        self.assertEqual(await (await sending).get(), 6)
        started: list[Any] = []
        running = await app.send_task("nap_late", [1.0], on_state_change=started.append)
        await self.until(lambda: started)
        await self.restart()
        await deferLater(reactor, 0)
        self.assertEqual(await running.get(), "slept")


class RestartOverBroker(OverBroker, RestartCases):
    """The embedded broker, with its data on disk."""

    durable = True


@pytest.mark.long
class RestartOverRabbitMQ(OverRabbitMQ, RestartCases):
    """kill -9 of RabbitMQ."""
