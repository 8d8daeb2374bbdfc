"""Signatures, chains and groups as data (celery M-01, M-04).

A signature is a call that somebody else makes later: {task, args, kwargs, options, subtask_type, immutable}.  Chains
travel in reverse: the last element runs next.  The options hold where each result goes, so that the client that has
built a chain gets the result of every step.

The invariant: a signature from a message is only data; all of it is checked again when a task message is made of it.
Pure: no Twisted, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from txmsg.errors import ConfigurationError, DecodeError, clip

__all__ = [
    "OPTIONS",
    "Chain",
    "Embed",
    "Group",
    "Signature",
    "chain",
    "group",
    "read_embed",
    "read_signature",
    "signatures_in",
]

#: What Celery calls those of its own signatures that stand for several tasks.
_KINDS: Final = ("group", "chain", "chord", "map", "starmap", "chunks")


@dataclass(frozen=True, slots=True)
class Signature:
    """A task, its arguments, and how it is to be sent.

    task: str -- its name.   args: tuple; kwargs: mapping.
    options: mapping -- Celery's names: task_id, reply_to, queue, exchange, routing_key, countdown, eta, expires,
    priority, root_id, parent_id, group_id, group_index, time_limit, soft_time_limit, headers, link, link_error ...
    subtask_type: str | None -- "group", "chain", "chord" and so on for several tasks in one; None: one task.
    immutable: bool -- it does not get the result of the task before it.
    extra: mapping -- keys that are not known here; they go on as they came.
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    subtask_type: str | None = None
    immutable: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task_id(self) -> str | None:
        """The id it will have, if that is settled."""
        value = self.options.get("task_id")
        return value if isinstance(value, str) and value else None

    @property
    def reply_to(self) -> str | None:
        """Where its result goes; None: nobody has said."""
        value = self.options.get("reply_to")
        return value if isinstance(value, str) and value else None

    @property
    def kind(self) -> str:
        """ "task", or what several tasks it stands for: "group", "chain", "chord", "map", "starmap", "chunks"."""
        if self.subtask_type in _KINDS:
            return str(self.subtask_type)
        name = self.task.removeprefix("celery.")
        return name if name != self.task and name in _KINDS else "task"

    def members(self) -> list[Signature]:
        """The tasks of a group, all at once, or of a chain, the first one first; of a task: itself.

        DecodeError: there are none in it, or what is in it is no signature.
        """
        if self.kind == "task":
            return [self]
        tasks = self.kwargs.get("tasks")
        if self.kind not in ("group", "chain") or not isinstance(tasks, list | tuple) or not tasks:
            raise DecodeError(f"a {self.kind} whose tasks cannot be told")
        return [read_signature(task) for task in tasks]

    def with_options(self, **options: Any) -> Signature:
        """The same with other options; those given win."""
        return replace(self, options={**self.options, **options})

    def with_result(self, result: Any) -> Signature:
        """The same with a result before its own arguments, unless it is immutable (M-04)."""
        return self if self.immutable else replace(self, args=(result, *self.args))

    def as_data(self) -> dict[str, Any]:
        """What goes into a message."""
        return {
            **self.extra,
            "task": self.task,
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
            "options": dict(self.options),
            "subtask_type": self.subtask_type,
            "immutable": self.immutable,
        }

    def __repr__(self) -> str:
        # Arguments can be secrets.
        return f"<Signature {clip(self.task, 100)!r} of {len(self.args) + len(self.kwargs)} arguments>"


#: The options of a task, by the names that `apply_async` has for them.
OPTIONS: Final = frozenset(
    {
        "argsrepr",
        "chain",
        "chord",
        "compression",
        "countdown",
        "delivery_mode",
        "eta",
        "exchange",
        "expires",
        "group_id",
        "group_index",
        "headers",
        "ignore_result",
        "kwargsrepr",
        "link",
        "link_error",
        "origin",
        "parent_id",
        "priority",
        "queue",
        "reply_to",
        "retries",
        "root_id",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "task_id",
        "time_limit",
    }
)


def signatures_in(given: Iterable[Signature]) -> list[Signature]:
    """All of them; ConfigurationError for what are no signatures."""
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ConfigurationError(f"signatures are wanted, not {type(given).__name__}")
    found = list(given)
    for each in found:
        if not isinstance(each, Signature):
            raise ConfigurationError(f"a signature is wanted, not {type(each).__name__}")
    return found


_KEYS: Final = {"task", "args", "kwargs", "options", "subtask_type", "immutable"}


def read_signature(value: Any) -> Signature:
    """A signature from a message.  DecodeError."""
    if not isinstance(value, Mapping):
        raise DecodeError(f"a signature is an object, not {type(value).__name__}")
    task, args, kwargs, options = (value.get(name) for name in ("task", "args", "kwargs", "options"))
    if not isinstance(task, str) or not task:
        raise DecodeError("a signature names its task")
    if args is not None and not isinstance(args, list | tuple):
        raise DecodeError(f"the args of a signature are a list, not {type(args).__name__}")
    for what, found in (("kwargs", kwargs), ("options", options)):
        if found is not None and not _is_object(found):
            raise DecodeError(f"the {what} of a signature are an object")
    subtask_type = value.get("subtask_type")
    return Signature(
        task,
        tuple(args or ()),
        dict(kwargs or {}),
        dict(options or {}),
        subtask_type if isinstance(subtask_type, str) else None,
        bool(value.get("immutable")),
        {key: found for key, found in value.items() if key not in _KEYS},
    )


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


@dataclass(frozen=True, slots=True)
class Embed:
    """What goes on after a task; the third element of the body.

    callbacks -- run with its result.   errbacks -- run with its id when it fails.
    chain -- what is left of the chain in REVERSE order: the last one is next.
    chord -- of a chord's header: the body, which the rpc backend's users do not have (M-08).
    """

    callbacks: tuple[Signature, ...] = ()
    errbacks: tuple[Signature, ...] = ()
    chain: tuple[Signature, ...] = ()
    chord: Signature | None = None

    @property
    def following(self) -> Signature | None:
        """What runs next in the chain."""
        return self.chain[-1] if self.chain else None

    def as_data(self) -> dict[str, Any]:
        """What goes into a message: null where there is nothing."""
        return {
            "callbacks": _many(self.callbacks),
            "errbacks": _many(self.errbacks),
            "chain": _many(self.chain),
            "chord": self.chord.as_data() if self.chord is not None else None,
        }


def _many(signatures: Sequence[Signature]) -> list[dict[str, Any]] | None:
    return [signature.as_data() for signature in signatures] or None


def read_embed(value: Any) -> Embed:
    """The third element of a body; null and {} are an empty one (N-10).  DecodeError."""
    if value is None:
        return Embed()
    if not isinstance(value, Mapping):
        raise DecodeError(f"the third part of a task's body is an object, not {type(value).__name__}")
    chord = value.get("chord")
    return Embed(
        _read_many(value.get("callbacks"), "callbacks"),
        _read_many(value.get("errbacks"), "errbacks"),
        _read_many(value.get("chain"), "chain"),
        read_signature(chord) if chord is not None else None,
    )


def _read_many(value: Any, what: str) -> tuple[Signature, ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):  # one, as `link=` takes it
        return (read_signature(value),)
    if not isinstance(value, list | tuple):
        raise DecodeError(f"{what} are a list of signatures, not {type(value).__name__}")
    return tuple(read_signature(found) for found in value)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that can be sent.

    first: Signature -- the one to send, with its task_id and reply_to.
    rest -- for its `chain`: the others in reverse order.   task_ids -- of all, in the order in which they run.
    """

    first: Signature
    rest: tuple[Signature, ...]
    task_ids: tuple[str, ...]


def chain(signatures: Iterable[Signature], *, reply_to: str, root_id: str | None = None) -> Chain:
    """Tasks that run one after the other, each with the result of the one before it.

    Each gets an id, unless it has one, and `reply_to`, so that every result comes to the client.
    root_id: str | None -- None: the id of the first.
    ConfigurationError: none at all, or a group among them (which makes it a chord: A-29).
    """
    given = _flat(signatures)
    if not given:
        raise ConfigurationError("a chain has at least one task")
    task_ids = [signature.task_id or str(uuid4()) for signature in given]
    root_id = root_id or task_ids[0]
    frozen = [
        signature.with_options(task_id=task_id, reply_to=reply_to, root_id=root_id)
        for signature, task_id in zip(given, task_ids, strict=True)
    ]
    for index in range(1, len(frozen)):
        frozen[index] = frozen[index].with_options(parent_id=task_ids[index - 1])
    return Chain(frozen[0], tuple(reversed(frozen[1:])), tuple(task_ids))


def _flat(signatures: Iterable[Signature]) -> list[Signature]:
    """The tasks of a chain, those of chains in it too; ConfigurationError."""
    tasks: list[Signature] = []
    for signature in signatures:
        if signature.kind == "chain":
            tasks += _flat(signature.members())
        elif signature.kind in ("group", "chord"):
            raise ConfigurationError(f"a {signature.kind} in a chain is a chord, which the rpc backend does not have")
        else:
            tasks.append(signature)
    return tasks


@dataclass(frozen=True, slots=True)
class Group:
    """A group that can be sent: its id, and its tasks, each with its own id, the group's, and its place in it."""

    group_id: str
    signatures: tuple[Signature, ...]

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The ids of its tasks, in order."""
        return tuple(str(signature.options["task_id"]) for signature in self.signatures)


def group(signatures: Iterable[Signature], *, reply_to: str, group_id: str | None = None) -> Group:
    """Tasks that run at the same time; N messages that share the header `group` (M-01).

    ConfigurationError: one of them is a group, chain or chord of its own; send it for itself.
    """
    group_id = group_id or str(uuid4())
    made = []
    for index, signature in enumerate(signatures):
        if signature.kind not in ("task", "map", "starmap", "chunks"):
            raise ConfigurationError(f"a {signature.kind} in a group: send it for itself")
        made.append(
            signature.with_options(
                task_id=signature.task_id or str(uuid4()),
                reply_to=reply_to,
                group_id=group_id,
                group_index=index,
            )
        )
    return Group(group_id, tuple(made))
