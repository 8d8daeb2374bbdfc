"""What was logged during a test."""

from __future__ import annotations

from typing import Any

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer


@implementer(ILogObserver)
class Logged:
    """Collects log events of some namespaces; `text` is what a text log would hold of them."""

    def __init__(self, test: SynchronousTestCase, *namespaces: str) -> None:
        self.events: list[LogEvent] = []
        self.namespaces = namespaces or ("txmsg.service",)
        globalLogPublisher.addObserver(self)
        test.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith(self.namespaces):
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def levels(self) -> list[Any]:
        return [event["log_level"].name for event in self.events]
