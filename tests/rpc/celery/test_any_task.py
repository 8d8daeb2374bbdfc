"""Any task message: what is built is parsed as what it was, and whatever comes has a verdict."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.strategies import JSON_VALUES, TYPED_VALUES, ZONES, same
from txmsg.rpc.celery import BadTask, Embed, Signature, TaskRequest, build_task, parse_task

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
SIGNATURES = st.builds(
    Signature,
    NAMES,
    st.lists(JSON_VALUES, max_size=2).map(tuple),
    st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=2),
    st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=2),
    st.none() | st.just("group"),
    st.booleans(),
)
MANY = st.lists(SIGNATURES, max_size=2).map(tuple)
TIMES = st.tuples(st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)), ZONES).map(
    lambda both: both[0].replace(tzinfo=both[1])
)
SECONDS = st.none() | st.integers(1, 10**6) | st.floats(0.001, 1e6)


@given(
    protocol=st.sampled_from([1, 2]),
    name=NAMES,
    args=st.lists(TYPED_VALUES, max_size=4),
    kwargs=st.dictionaries(st.text(max_size=8), TYPED_VALUES, max_size=4),
    options=st.fixed_dictionaries(
        {},
        optional={
            "task_id": NAMES,
            "correlation_id": NAMES,
            "reply_to": NAMES,
            "eta": TIMES,
            "expires": TIMES,
            "priority": st.integers(0, 255),
            "retries": st.integers(0, 1000),
            "time_limit": SECONDS,
            "group_id": st.none() | NAMES,
            "group_index": st.none() | st.integers(0, 10**6),
            "compression": st.sampled_from([None, "gzip"]),
        },
    ),
    only_2=st.fixed_dictionaries(
        {},
        optional={
            "soft_time_limit": st.none(),
            "root_id": NAMES,
            "parent_id": st.none() | NAMES,
            "shadow": st.none() | NAMES,
            "ignore_result": st.sampled_from([None, True, False]),
            "headers": st.dictionaries(st.text(max_size=5).map("x-".__add__), JSON_VALUES, max_size=3),
        },
    ),
    embed=st.builds(Embed, MANY, MANY, MANY, st.none() | SIGNATURES),
)
def test_built_and_parsed(
    protocol: int,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    only_2: dict[str, Any],
    embed: Embed,
) -> None:
    """celery D-01 to D-07, E-02 to E-19, F-01 to F-08, F-10, P-10: whatever is built is parsed as what it was."""
    if protocol == 1:
        only_2 = {}
        embed = Embed(embed.callbacks, embed.errbacks, (), embed.chord)
    built = build_task(name, args, kwargs, protocol=protocol, embed=embed, **options, **only_2)
    found = parse_task(built.body, built.properties)
    assert isinstance(found, TaskRequest), found
    assert (found.protocol, found.name, found.task_id) == (protocol, name, built.task_id)
    assert same(found.args, args)
    assert same(found.kwargs, kwargs)
    assert same(found.embed.as_data(), embed.as_data())
    assert found.correlation_id == options.get("correlation_id", built.task_id)
    assert found.reply_to == options.get("reply_to")
    for what in ("eta", "expires"):
        asked = options.get(what)
        assert getattr(found, what) == (asked and asked.replace(tzinfo=asked.tzinfo or UTC))
    for what in ("retries", "priority"):
        assert getattr(found, what) == options.get(what, 0)
    for what in ("time_limit", "group_id", "group_index"):
        assert getattr(found, what) == options.get(what)
    for what in ("parent_id", "shadow", "ignore_result"):
        assert getattr(found, what) == only_2.get(what)
    assert found.own_headers == only_2.get("headers", {})


ODD = TYPED_VALUES | st.just(10**400) | st.just("\ud800") | st.just(float("nan"))
FIELDS = [
    *("task", "id", "eta", "expires", "retries", "timelimit", "group", "group_index", "root_id", "parent_id"),
    *("shadow", "origin", "argsrepr", "kwargsrepr", "ignore_result", "replaced_task_nesting", "stamped_headers"),
    *("stamps", "compression", "lang", "taskset", "callbacks", "errbacks", "chord", "chain", "args", "kwargs"),
]
TABLES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), ODD, max_size=8)
PLAUSIBLE = st.sampled_from([{}, {"task": "t", "id": "i"}])
BODIES = (
    st.binary(max_size=60)
    | ODD.map(lambda value: json.dumps(value, default=str).encode("utf-8", "surrogatepass"))
    | st.lists(JSON_VALUES, min_size=3, max_size=3).map(lambda value: json.dumps(value).encode())
    | TABLES.map(lambda value: json.dumps(value, default=str).encode("utf-8", "surrogatepass"))
)


@settings(max_examples=300)
@given(
    body=BODIES,
    headers=st.tuples(PLAUSIBLE, TABLES).map(lambda both: {**both[0], **both[1]}) | ODD,
    properties=st.dictionaries(
        st.sampled_from(["content_encoding", "reply_to", "correlation_id", "priority", "expiration", "type"]), ODD
    ),
    content_type=st.sampled_from(["application/json", "text/plain", "application/x-msgpack", "application/x-yaml"])
    | ODD,
    accept=st.sampled_from([["json"], ["json", "msgpack", "yaml"], []]),
)
def test_any_message_has_a_verdict(
    body: bytes, headers: Any, properties: dict[str, Any], content_type: Any, accept: list[str]
) -> None:
    """celery N-01 to N-14, R27: nothing is raised, whatever comes; and what is to be run can be retried or refused."""
    found = parse_task(body, {**properties, "headers": headers, "content_type": content_type}, accept=accept)
    assert isinstance(found, TaskRequest | BadTask)
    repr(found)
    if isinstance(found, BadTask):
        assert found.reason.isprintable() or found.reason.isascii()
        json.dumps(found.data)
        if found.is_answered:
            assert found.task_id
            assert found.reply_to
