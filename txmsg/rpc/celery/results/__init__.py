"""Celery's results as Twisted objects: handles of tasks, and the two backends whose results are messages."""

from __future__ import annotations

from txmsg.rpc.celery.results.amqp_backend import AMQPBackend
from txmsg.rpc.celery.results.arriving import ResultIterator
from txmsg.rpc.celery.results.async_result import AsyncResult
from txmsg.rpc.celery.results.backend import RESULT_RETRY_POLICY, ResultBackend
from txmsg.rpc.celery.results.group_result import GroupResult
from txmsg.rpc.celery.results.rpc_backend import RPCBackend
from txmsg.rpc.celery.results.table import ResultCounts, ResultTable, TaskRecord

__all__ = [
    "RESULT_RETRY_POLICY",
    "AMQPBackend",
    "AsyncResult",
    "GroupResult",
    "RPCBackend",
    "ResultBackend",
    "ResultCounts",
    "ResultIterator",
    "ResultTable",
    "TaskRecord",
]
