"""What becomes of messages that no task can be run for (celery N-01 to N-14).

The invariant: they are settled and never come again, and who can be told is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from txmsg.errors import SettlementError, clip
from txmsg.messaging import Message
from txmsg.rpc.celery.result_message import build_result
from txmsg.rpc.celery.signature import Signature
from txmsg.rpc.celery.states import FAILURE
from txmsg.rpc.celery.task_request import BadTask

if TYPE_CHECKING:
    from txmsg.rpc.celery.worker.service import CeleryWorker

__all__ = ["refuse", "settle"]

_log = Logger(namespace="txmsg.rpc.celery.worker")


async def refuse(worker: CeleryWorker, message: Message, bad: BadTask, chain: tuple[Signature, ...] = ()) -> None:
    """FAILURE, where it is known to whom; and rid of the message."""
    _log.error(
        "a message is no task that can be run: {reason} ({name}[{task_id}], type {kind})",
        reason=clip(bad.reason),
        name=clip(str(bad.name), 100),
        task_id=clip(str(bad.task_id), 60),
        kind=clip(str(message.content_type), 60),
    )
    if bad.is_answered and bad.task_id is not None:
        made = build_result(
            bad.task_id,
            FAILURE,
            bad.data,
            correlation_id=bad.correlation_id,
            now=worker.now(),
            group_id=bad.group_id,
            parent_id=bad.parent_id,
        )
        await worker.outgoing.send_result(bad.reply_to, made)
    await worker.following.will_not_run(chain, FAILURE, bad.data, None, worker.now())
    settle(message.reject if bad.rejected else message.ack)


def settle(how: Callable[[], None]) -> None:
    """A message that was lost with its connection comes again, and needs nothing more."""
    try:
        how()
    except SettlementError as error:
        _log.debug("a message was not settled: {error}", error=str(error))
