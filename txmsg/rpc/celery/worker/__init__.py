"""A worker for clients of Celery, as a Twisted service."""

from __future__ import annotations

from txmsg.rpc.celery.worker.control import Control, Revoked
from txmsg.rpc.celery.worker.counts import WorkerCounts
from txmsg.rpc.celery.worker.outcomes import Ignore, Reject, Retry, SoftTimeLimitExceeded, TaskOutcome
from txmsg.rpc.celery.worker.request import Request
from txmsg.rpc.celery.worker.service import CeleryWorker
from txmsg.rpc.celery.worker.task import Task, Tasks

__all__ = [
    "CeleryWorker",
    "Control",
    "Ignore",
    "Reject",
    "Request",
    "Retry",
    "Revoked",
    "SoftTimeLimitExceeded",
    "Task",
    "TaskOutcome",
    "Tasks",
    "WorkerCounts",
]
