"""The program of `pika_twisted` with one import changed: txmsg.compat.pika."""

from __future__ import annotations

from typing import Any

from twisted.internet import task

from benchmarks.clients import pika_twisted
from benchmarks.task import read_task
from txmsg.compat.pika import TwistedProtocolConnection

if __name__ == "__main__":
    changed: Any = pika_twisted
    changed.TwistedProtocolConnection = TwistedProtocolConnection
    task.react(pika_twisted.main, [read_task()])
