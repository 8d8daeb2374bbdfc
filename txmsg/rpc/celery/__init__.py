"""A bridge to Celery in both directions, over its message protocol and its RPC result backend.

:class:`CeleryApp` sends tasks and has their results; :mod:`txmsg.rpc.celery.worker` runs those that Celery's clients
send.  Task messages, signatures, results and failures as data are pure: with no reactor and no I/O.
"""

from __future__ import annotations

from txmsg.rpc.celery.app import CeleryApp
from txmsg.rpc.celery.control import Control
from txmsg.rpc.celery.failures import ExceptionClasses, exception_data, read_exception, traceback_text
from txmsg.rpc.celery.message import TaskMessage, build_task, task_from_signature
from txmsg.rpc.celery.result_message import (
    Child,
    ResultMessage,
    TaskResult,
    UnreadableResult,
    build_result,
    parse_result,
)
from txmsg.rpc.celery.results import AMQPBackend, AsyncResult, GroupResult, ResultBackend, RPCBackend
from txmsg.rpc.celery.signature import Chain, Embed, Group, Signature, chain, group, read_embed, read_signature
from txmsg.rpc.celery.task_request import BadTask, TaskRequest, build_retry, parse_task

__all__ = [
    "AMQPBackend",
    "AsyncResult",
    "BadTask",
    "CeleryApp",
    "Chain",
    "Child",
    "Control",
    "Embed",
    "ExceptionClasses",
    "Group",
    "GroupResult",
    "RPCBackend",
    "ResultBackend",
    "ResultMessage",
    "Signature",
    "TaskMessage",
    "TaskRequest",
    "TaskResult",
    "UnreadableResult",
    "build_result",
    "build_retry",
    "build_task",
    "chain",
    "exception_data",
    "group",
    "parse_result",
    "parse_task",
    "read_embed",
    "read_exception",
    "read_signature",
    "task_from_signature",
    "traceback_text",
]
