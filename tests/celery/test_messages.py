"""Our messages beside those of the real Celery: what it makes we make, what we make it reads, and the reverse.

Nothing is sent: these are Celery's own functions for its messages, in this process.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import amqp.serialization
import celery
import celery.app.trace
import celery.canvas
import celery.exceptions
import celery.result
import celery.worker.request
import kombu.message
import kombu.serialization
import pytest

from txmsg.errors import RemoteError, TaskRevoked
from txmsg.rpc.celery import (
    BadTask,
    Child,
    Embed,
    ResultMessage,
    Signature,
    TaskMessage,
    TaskRequest,
    build_result,
    build_retry,
    build_task,
    chain,
    group,
    parse_result,
    parse_task,
    read_signature,
    task_from_signature,
)
from txmsg.wire.tables import decode_table, encode_table

NOW = datetime(2026, 11, 21, 12, 0, 0, 5, tzinfo=UTC)
VALUES = [1, "ä", None, 1.5, NOW, date(2026, 11, 21), Decimal("1.10"), UUID(int=7), b"text", b"\xff", {"a": [True]}]

app = celery.Celery("messages", broker="memory://", backend="rpc://", set_as_current=False)


@app.task(name="messages.add")  # type: ignore[untyped-decorator]
def add(x: int, y: int = 0) -> int:
    return x + y


def as_octets(value: Any, serializer: str = "json") -> tuple[bytes, dict[str, str]]:
    """What Kombu makes of a body."""
    content_type, encoding, body = kombu.serialization.dumps(value, serializer)
    octets = body.encode() if isinstance(body, str) else body
    return octets, {"content_type": content_type, "content_encoding": encoding}


def theirs(protocol: int, *args: Any, **kwargs: Any) -> tuple[bytes, dict[str, Any]]:
    """A task message of Celery's, as it comes off the wire."""
    message = getattr(app.amqp, f"as_task_v{protocol}")(*args, **kwargs)
    body, properties = as_octets(message.body)
    # A client sets the rest of the properties when it publishes.
    made = {**message.properties, **properties, "headers": message.headers, "delivery_mode": 2, "priority": 0}
    return body, made


def received(message: TaskMessage | ResultMessage) -> Any:
    """A message of ours as Kombu hands it to Celery."""
    properties = dict(message.properties)
    return kombu.message.Message(
        message.body,
        content_type=properties.pop("content_type"),
        content_encoding=properties.pop("content_encoding"),
        headers=properties.pop("headers"),
        properties=properties,
        delivery_info={"exchange": "", "routing_key": "celery"},
        accept={"application/json"},
    )


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reply_to": "replies", "retries": 3, "shadow": "s", "origin": "o", "parent_id": "p", "root_id": "r"},
    {"eta": NOW, "expires": NOW + timedelta(seconds=5)},
    {"countdown": 5, "expires": 60, "now": NOW},
    {"group_id": "g", "group_index": 2, "time_limit": 30, "soft_time_limit": 20},
    {"ignore_result": True, "replaced_task_nesting": 1, "argsrepr": "***", "kwargsrepr": "***"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("arguments", [((), {}), ((1, "a", [2, None]), {"b": 2.5, "c": {"d": ()}})])
def test_protocol_2_is_celerys(options: dict[str, Any], arguments: tuple[Any, Any]) -> None:
    """celery D-01 to D-07, E-01 to E-17, K-11, P-01, P-02, P-04: the same headers, properties and body."""
    args, kwargs = arguments
    options = {"ignore_result": None, **options}
    body, properties = theirs(2, "i", "messages.add", args, kwargs, **options)
    ours = build_task("messages.add", args, kwargs, task_id="i", **options)
    assert dict(ours.headers) == properties["headers"]
    assert json.loads(ours.body) == json.loads(body)
    assert {k: v for k, v in ours.properties.items() if k != "expiration"} == properties
    assert ("expiration" in ours.properties) == ("expires" in options)


@pytest.mark.parametrize("options", OPTIONS[:5])
def test_protocol_1_is_celerys(options: dict[str, Any]) -> None:
    """celery P-01: and so is that of 3.1."""
    options = {name: value for name, value in options.items() if name != "origin"}
    body, properties = theirs(1, "i", "messages.add", (1,), {"y": 2}, **options)
    options = {name: value for name, value in options.items() if name not in ("shadow", "parent_id", "root_id")}
    ours = build_task("messages.add", (1,), {"y": 2}, task_id="i", protocol=1, **options)
    assert json.loads(ours.body) == json.loads(body)
    assert {k: v for k, v in ours.properties.items() if k != "expiration"} == properties


@pytest.mark.parametrize("protocol", [1, 2])
def test_theirs_are_read(protocol: int) -> None:
    """celery D-01 to D-04, E-02 to E-15, F-01 to F-07, P-01, P-10."""
    link = add.s(1).set(task_id="next", reply_to="r")
    body, properties = theirs(
        protocol,
        "i",
        "messages.add",
        VALUES,
        {"y": VALUES},
        reply_to="replies",
        countdown=5,
        expires=60,
        now=NOW,
        group_id="g",
        time_limit=30,
        soft_time_limit=20,
        retries=2,
        callbacks=[link],
        errbacks=[add.si(2)],
    )
    found = parse_task(body, properties)
    assert isinstance(found, TaskRequest), found
    assert (found.task_id, found.name, found.protocol) == ("i", "messages.add", protocol)
    assert found.args == found.kwargs["y"] == VALUES
    assert (found.reply_to, found.correlation_id) == ("replies", "i")
    assert (found.eta, found.expires) == (NOW + timedelta(seconds=5), NOW + timedelta(seconds=60))
    assert (found.time_limit, found.soft_time_limit, found.retries, found.group_id) == (30, 20, 2, "g")
    callback = found.embed.callbacks[0]
    assert (callback.task, callback.args, callback.task_id, callback.reply_to) == ("messages.add", (1,), "next", "r")
    assert found.embed.errbacks[0].immutable


def as_request(message: TaskMessage) -> Any:
    """What Celery's worker makes of it."""
    found = received(message)
    return celery.worker.request.Request(found, app=app, task=add, headers=found.headers)


def test_ours_are_read_by_a_worker() -> None:
    """celery D-03, D-04, E-02 to E-15, E-18, F-01 to F-07."""
    embed = Embed((Signature("messages.add"),), (), (Signature("messages.add", (5,)),))
    message = build_task(
        "messages.add",
        VALUES,
        {"y": VALUES},
        task_id="i",
        reply_to="replies",
        countdown=5,
        expires=60,
        now=NOW,
        time_limit=30,
        soft_time_limit=20,
        group_id="g",
        ignore_result=False,
        headers={"x-mine": 1},
        embed=embed,
        compression="gzip",
    )
    request = as_request(message)
    assert (request.id, request.name, request.reply_to, request.correlation_id) == (
        "i",
        "messages.add",
        "replies",
        "i",
    )
    assert request.args == request.kwargs["y"] == VALUES
    assert (request.eta, request.expires) == (NOW + timedelta(seconds=5), NOW + timedelta(seconds=60))
    assert list(request.time_limits) == [30, 20]
    context = celery.app.task.Context(request.request_dict)
    assert (context.group, context.ignore_result, context.headers) == ("g", False, {"x-mine": 1})
    _, _, sent = received(message).payload
    assert celery.canvas.maybe_signature(sent["callbacks"][0], app=app).task == "messages.add"
    assert celery.canvas.maybe_signature(sent["chain"][-1], app=app).args == [5]


def test_a_retry_of_ours_is_read() -> None:
    """celery K-01."""
    first = build_task("messages.add", [1], task_id="i", reply_to="replies", root_id="root")
    found = parse_task(first.body, first.properties)
    assert isinstance(found, TaskRequest)
    request = as_request(build_retry(found, countdown=5))
    assert (request.id, request.reply_to, request.root_id, request.parent_id) == ("i", "replies", "root", "i")
    assert request.request_dict["retries"] == 1


def test_chains_are_celerys() -> None:
    """celery M-04: the rest in reverse order, each step with its id and the client's queue."""
    ours = chain([Signature("messages.add", (1, 2)), *(Signature("messages.add", (n,)) for n in (3, 4))], reply_to="r")
    message = task_from_signature(ours.first, embed=Embed(chain=ours.rest))
    rest = json.loads(message.body)[2]["chain"]
    frozen = celery.canvas._chain(add.s(1, 2), add.s(3), add.s(4), app=app)
    tasks, results = frozen.prepare_steps((), {}, frozen.tasks, root_id=None, parent_id=None, app=app)
    first = tasks.pop()
    assert first.args == (1, 2)
    assert [step["args"] for step in rest] == [list(task.args) for task in tasks] == [[4], [3]]
    for step, task in zip(rest, tasks, strict=True):
        assert step.keys() >= task.keys() - {"chord_size"}
        assert {"task_id", "reply_to"} <= task.options.keys()
        assert {"task_id", "reply_to"} <= step["options"].keys()
    assert [result.id for result in results] == [task.options["task_id"] for task in [*tasks, first]]
    for step in rest:
        assert celery.canvas.maybe_signature(step, app=app).id in ours.task_ids


def test_chains_of_theirs_are_read() -> None:
    """celery M-04: what a worker gets of a chain, and what it sends next."""
    steps = celery.canvas._chain(add.s(1, 2), add.s(3), add.si(4, 5), app=app)
    tasks, _ = steps.prepare_steps((), {}, steps.tasks, root_id="root", parent_id=None, app=app)
    tasks.pop()
    body, properties = theirs(2, "i", "messages.add", (1, 2), chain=[dict(task) for task in tasks], reply_to="mine")
    found = parse_task(body, properties)
    assert isinstance(found, TaskRequest)
    following = found.embed.following
    assert following is not None
    assert following.with_result(3).args == (3, 3)
    sent = task_from_signature(
        following.with_result(3), embed=Embed(chain=found.embed.chain[:-1]), root_id="root", parent_id="i"
    )
    request = as_request(sent)
    assert request.id == following.task_id
    assert request.reply_to == following.reply_to == app.thread_oid
    last = parse_task(sent.body, sent.properties)
    assert isinstance(last, TaskRequest)
    assert last.embed.following is not None
    assert last.embed.following.with_result(6).args == (4, 5)


def test_groups_of_ours_are_read() -> None:
    """celery M-01, M-06: also as data in a signature of theirs."""
    for index, signature in enumerate(group([Signature("messages.add")] * 2, reply_to="r", group_id="g").signatures):
        headers = as_request(task_from_signature(signature)).request_dict
        assert (headers["group"], headers["group_index"]) == ("g", index)
    theirs_ = json.loads(as_octets(celery.canvas.group([add.s(1), add.s(2)], app=app))[0])
    assert [member.args for member in read_signature(theirs_).members()] == [(1,), (2,)]
    both = json.loads(as_octets(celery.canvas._chain(add.s(1), add.s(2), app=app))[0])
    assert [member.args for member in read_signature(both).members()] == [(1,), (2,)]


# -- results -------------------------------------------------------------------------------------

REQUEST = SimpleNamespace(
    reply_to="r", correlation_id="c", group="g", parent_id="p", children=[], delivery_info={}, stamps=None
)


def their_result(state: str, result: Any, traceback: str | None = None) -> tuple[bytes, dict[str, Any]]:
    body, properties = as_octets(app.backend._to_result("i", state, result, traceback, REQUEST))
    return body, {**properties, "correlation_id": "c", "priority": 0, "delivery_mode": 1, "headers": {}}


def test_results_are_celerys() -> None:
    """celery H-01 to H-08, A-04, J-01 to J-03, N-16, P-07, P-08: but for the moment, the same message."""
    for state, value in (
        ("SUCCESS", {"a": [1, None]}),
        ("PROGRESS", {"done": 5}),
        ("FAILURE", ValueError("bad", 5)),
        ("FAILURE", celery.exceptions.NotRegistered("t")),
        ("RETRY", KeyError("x")),
        ("REVOKED", celery.exceptions.TaskRevokedError("expired")),
        ("FAILURE", celery.exceptions.SoftTimeLimitExceeded()),
    ):
        body, properties = their_result(state, value, "trace")
        ours = build_result("i", state, value, correlation_id="c", traceback="trace", group_id="g", parent_id="p")
        assert dict(ours.properties) == properties
        left, right = json.loads(ours.body), json.loads(body)
        dates = [left.pop("date_done"), right.pop("date_done")]
        assert left == right
        assert [date and datetime.fromisoformat(date).utcoffset() for date in dates] == (
            [timedelta(0)] * 2 if state in ("SUCCESS", "FAILURE", "REVOKED") else [None, None]
        )


def test_results_of_theirs_are_read() -> None:
    """celery H-01 to H-08, J-01 to J-04, K-02, K-08."""
    result = parse_result(*their_result("SUCCESS", VALUES))
    assert (result.task_id, result.value, result.group_id, result.parent_id) == ("i", VALUES, "g", "p")
    assert result.date_done is not None
    failed = parse_result(*their_result("FAILURE", ValueError("bad", NOW, {1}), "trace"))
    assert failed.error is not None
    assert (failed.error.exc_type, failed.error.exc_module) == ("ValueError", "builtins")
    assert failed.error.exc_args[0] == "bad"
    assert failed.error.exc_args[2] == "{1}"
    assert failed.error.remote_traceback == "trace"
    revoked = parse_result(*their_result("REVOKED", celery.exceptions.TaskRevokedError("expired")))
    assert type(revoked.error) is TaskRevoked
    assert revoked.error.message == "expired"
    assert type(parse_result(*their_result("RETRY", KeyError("x"))).error) is RemoteError


def test_results_of_ours_are_read_by_a_client() -> None:
    """celery H-01 to H-05, O-01, O-15, J-05."""
    children = [Child("a"), Child("g", None, (Child("b"),))]
    message = received(build_result("i", "SUCCESS", VALUES, children=children))
    meta = app.backend.meta_from_decoded(message.payload)
    assert (meta["task_id"], meta["status"], meta["result"]) == ("i", "SUCCESS", VALUES)
    first, second = (celery.result.result_from_tuple(child, app=app) for child in meta["children"])
    assert (first.id, second.id, second.results[0].id) == ("a", "g", "b")
    for error in (ValueError("bad", 5), celery.exceptions.NotRegistered("t"), TimeoutError()):
        message = received(build_result("i", "FAILURE", error, traceback="trace"))
        meta = app.backend.meta_from_decoded(message.payload)
        assert type(meta["result"]) is type(error)
        assert meta["result"].args == error.args
        assert meta["traceback"] == "trace"


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (b"", {"task": "t", "id": "i"}, "DecodeError"),
        (b"[[],{}]", {"task": "t", "id": "i"}, "InvalidTaskError"),
        (b"[5,{},null]", {"task": "t", "id": "i"}, "TypeError"),
        (b"[[],{},null]", {"task": None, "id": "i"}, "NotRegistered"),
        (b"[[],{},null]", {"task": "t", "id": "i", "eta": "soon"}, "InvalidTaskError"),
        (b"[[],{},null]", {"task": "t", "id": "i", "compression": "x"}, "ContentDisallowed"),
    ],
)
def test_answers_to_bad_tasks_are_read_by_a_client(body: bytes, headers: dict[str, Any], kind: str) -> None:
    """celery N-01, N-02, N-06 to N-12, N-14, J-09, J-11: with the classes that Celery has for them."""
    verdict = parse_task(body, {"content_type": "application/json", "reply_to": "r", "headers": headers})
    assert isinstance(verdict, BadTask)
    assert verdict.task_id is not None
    message = received(build_result(verdict.task_id, "FAILURE", verdict.data))
    meta = app.backend.meta_from_decoded(message.payload)
    assert isinstance(meta["result"], Exception)
    assert type(meta["result"]).__name__ == kind
    assert type(meta["result"]).__module__ in ("builtins", "celery.exceptions", "kombu.exceptions")
    assert hasattr(__import__(type(meta["result"]).__module__, fromlist=["x"]), kind)


def read_table(octets: bytes) -> dict[str, Any]:
    return decode_table(octets, 0, len(octets))[0]


def test_types_of_headers() -> None:
    """celery E-20: py-amqp and we write the same table, with types that both read alike; never `s`."""
    headers = dict(build_task("messages.add", retries=3, headers={"big": 2**40, "x": [1.5, None]}).headers)
    octets = encode_table(headers)
    assert amqp.serialization.loads("F", octets, 0)[0] == [headers]
    assert read_table(amqp.serialization.dumps("F", [headers])) == headers
    for kind, value in ((b"V", b""), (b"I", b"\0\0\0\3"), (b"A", b"\0\0\0\2VV"), (b"F", b"\0\0\0\0")):
        names = {b"V": "eta", b"I": "retries", b"A": "timelimit", b"F": "stamps"}
        name = names[kind].encode()
        assert bytes([len(name)]) + name + kind + value in octets
    for kind in (b"l", b"L"):
        table = b"\1n" + kind + (-5).to_bytes(8, "big", signed=True)
        assert read_table(len(table).to_bytes(4, "big") + table) == {"n": -5}
