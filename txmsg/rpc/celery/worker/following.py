"""What goes on after a task: the next one of its chain, links, errbacks (celery M-04 to M-08).

The invariants: the last element of `chain` is next, and what is left goes on with it; the client's options say which
id an element has and where its result goes; when a chain ends early, all that is left of it is answered (M-05), so
that no client waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.logger import Logger

from txmsg.errors import ConfigurationError, DecodeError, clip
from txmsg.rpc.celery.message import task_from_signature
from txmsg.rpc.celery.result_message import Child, build_result
from txmsg.rpc.celery.signature import Embed, Signature, read_embed

if TYPE_CHECKING:
    from txmsg.rpc.celery.task_request import TaskRequest
    from txmsg.rpc.celery.worker.outgoing import Outgoing

__all__ = ["Following", "left_of_chain"]

#: Groups in chains in groups ... that are looked into.
_MAX_DEPTH = 16

_log = Logger(namespace="txmsg.rpc.celery.worker")


class Following:
    """Sends what follows a task.

    outgoing: Outgoing.   queue: str -- for signatures that name none.
    """

    def __init__(self, outgoing: Outgoing, queue: str) -> None:
        self._outgoing = outgoing
        self._queue = queue

    async def succeeded(self, request: TaskRequest, result: Any) -> list[Child]:
        """Send the links and the next of the chain, with the result; what was sent.

        ConfigurationError, DecodeError, EncodeError: it cannot be; OperationalError: there is no broker.
        """
        embed = request.embed
        children: list[Child] = []
        for callback in embed.callbacks:
            children += await self._send(callback.with_result(result), request, ())
        if embed.following is not None:
            children += await self._send(embed.following.with_result(result), request, embed.chain[:-1])
        return children

    async def failed(self, request: TaskRequest, errback: Signature) -> None:
        """Send one errback, with the id of what failed (M-07)."""
        await self._send(errback.with_result(request.task_id), request, ())

    async def will_not_run(
        self,
        chain: tuple[Signature, ...],
        state: str,
        error: BaseException | dict[str, Any],
        traceback: str | None,
        now: datetime,
    ) -> None:
        """Answer what is left of a chain, each to where its result was to go (M-05).

        state -- FAILURE or REVOKED.   error -- the exception, or its data.
        """
        for signature in left_of_chain(chain):
            if signature.task_id is None or signature.reply_to is None or signature.options.get("ignore_result"):
                continue
            made = build_result(signature.task_id, state, error, traceback=traceback, now=now)
            await self._outgoing.send_result(signature.reply_to, made)

    async def _send(
        self, signature: Signature, request: TaskRequest, chain: tuple[Signature, ...], depth: int = 0
    ) -> list[Child]:
        """Send a signature with its result in it; `chain` is what follows it, in reverse order."""
        if depth > _MAX_DEPTH:
            raise ConfigurationError("groups in chains in groups, and so on: that is too deep")
        if signature.kind == "chain":
            return await self._send_chain(signature, request, chain, depth)
        if signature.kind == "group":
            if chain:
                raise ConfigurationError("a group that a task follows is a chord, which the rpc backend does not have")
            return await self._send_group(signature, request, depth)
        if signature.kind == "chord":
            raise ConfigurationError("chords need a result backend that counts: rpc does not have them")
        task_id = signature.task_id or str(uuid4())
        options = signature.options
        embed = None
        if chain:
            own = read_embed({"callbacks": options.get("link"), "errbacks": options.get("link_error")})
            embed = Embed(own.callbacks, own.errbacks, chain)
        message = task_from_signature(
            signature,
            embed=embed,
            task_id=task_id,
            root_id=request.root_id or request.task_id,
            parent_id=request.task_id,
        )
        exchange, routing_key = self._address(options)
        await self._outgoing.send_task(message, routing_key, exchange)
        return [Child(task_id)]

    async def _send_chain(
        self, signature: Signature, request: TaskRequest, chain: tuple[Signature, ...], depth: int
    ) -> list[Child]:
        members = _with_first(signature)
        if signature.task_id:
            members[-1] = _named(members[-1], signature)
        return await self._send(members[0], request, (*chain, *reversed(members[1:])), depth + 1)

    async def _send_group(self, signature: Signature, request: TaskRequest, depth: int) -> list[Child]:
        members = signature.members()
        group_id = signature.task_id or str(uuid4())
        children: list[Child] = []
        for index, member in enumerate(members):
            given = member if signature.immutable else _with_args(member, signature.args)
            given = given.with_options(group_id=group_id, group_index=index)
            children += await self._send(given, request, (), depth + 1)
        return [Child(group_id, None, tuple(children))]

    def _address(self, options: Any) -> tuple[str, str]:
        """(exchange, routing key): of a queue, by the default exchange, unless an exchange is named."""
        exchange, routing_key, queue = (options.get(name) for name in ("exchange", "routing_key", "queue"))
        if isinstance(queue, str) and queue:
            return "", queue
        if isinstance(routing_key, str) and routing_key:
            return (exchange if isinstance(exchange, str) else ""), routing_key
        return "", self._queue


def _with_args(signature: Signature, args: tuple[Any, ...]) -> Signature:
    """With these before its own arguments, unless it is immutable: for a group or a chain the result is in there."""
    for argument in reversed(args):
        signature = signature.with_result(argument)
    return signature


def _with_first(signature: Signature) -> list[Signature]:
    """The tasks of a chain; the first one gets what the chain was given."""
    members = signature.members()
    members[0] = _with_args(members[0], signature.args)
    return members


def _named(member: Signature, chain: Signature) -> Signature:
    """The last of a chain, which has the chain's id."""
    options = {name: chain.options[name] for name in ("task_id", "reply_to") if name in chain.options}
    return member.with_options(**{**options, **member.options})


def left_of_chain(signatures: tuple[Signature, ...], depth: int = 0) -> Iterator[Signature]:
    """The single tasks that will not run, those of groups too; each is answered if it has an id and a reply queue."""
    if depth > _MAX_DEPTH:
        return
    for signature in reversed(signatures):
        if signature.kind in ("group", "chain"):
            try:
                members = tuple(signature.members())
            except DecodeError as error:
                _log.warn("a part of a chain cannot be read: {error}", error=clip(str(error)))
                continue
            yield from left_of_chain(tuple(reversed(members)), depth + 1)
        else:
            yield signature
