"""Signatures, chains and groups as data."""

from __future__ import annotations

from typing import Any

import pytest

from txmsg.errors import ConfigurationError, DecodeError
from txmsg.rpc.celery import Embed, Signature, chain, group, read_embed, read_signature


def test_both_ways() -> None:
    """celery M-04, M-06: what is not known goes on as it came."""
    data: dict[str, Any] = {
        "task": "t",
        "args": [1],
        "kwargs": {"a": 2},
        "options": {"task_id": "i", "reply_to": "r"},
        "subtask_type": None,
        "immutable": True,
        "chord_size": None,
    }
    signature = read_signature(data)
    assert signature.as_data() == data
    assert (signature.task_id, signature.reply_to, signature.kind) == ("i", "r", "task")
    assert read_signature({"task": "t"}) == Signature("t")
    assert "secret" not in repr(Signature("t", ("secret",), {"a": "secret"}, {"headers": "secret"}))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "t",
        {},
        {"task": ""},
        {"task": 5},
        {"task": "t", "args": "text"},
        {"task": "t", "kwargs": []},
        {"task": "t", "options": [["a", 1]]},
        {"task": "t", "options": {1: 2}},
        {"task": "t", "kwargs": {1: 2}},
    ],
)
def test_what_is_no_signature(value: Any) -> None:
    """celery M-06."""
    with pytest.raises(DecodeError):
        read_signature(value)


def test_results_come_first_unless_it_is_immutable() -> None:
    """celery M-04."""
    assert Signature("t", (1, 2)).with_result(0).args == (0, 1, 2)
    assert Signature("t", (1, 2), immutable=True).with_result(0).args == (1, 2)


def test_a_chain_is_reversed() -> None:
    """celery M-04: each step has an id and the client's queue; the last element of the chain is the next one."""
    made = chain(
        [Signature("a"), Signature("b", options={"task_id": "given", "priority": 3}), Signature("c")], reply_to="mine"
    )
    assert made.first.task == "a"
    assert [signature.task for signature in made.rest] == ["c", "b"]
    steps = [made.first, *reversed(made.rest)]
    assert tuple(step.task_id for step in steps) == made.task_ids
    assert made.task_ids[1] == "given"
    assert len(set(made.task_ids)) == 3
    assert all(step.reply_to == "mine" for step in steps)
    assert {step.options["root_id"] for step in steps} == {made.task_ids[0]}
    assert [step.options.get("parent_id") for step in steps] == [None, *made.task_ids[:2]]
    assert steps[1].options["priority"] == 3
    following = Embed(chain=made.rest).following
    assert following is not None
    assert following.task == "b"
    assert Embed().following is None


def test_a_chain_in_a_chain_is_one() -> None:
    """celery M-04."""
    inner = Signature("celery.chain", (), {"tasks": [{"task": "b"}, {"task": "c"}]}, subtask_type="chain")
    made = chain([Signature("a"), inner, Signature("d")], reply_to="r", root_id="root")
    assert [made.first.task, *(signature.task for signature in reversed(made.rest))] == ["a", "b", "c", "d"]
    assert made.first.options["root_id"] == "root"


def test_chains_that_are_refused() -> None:
    """celery A-29: a group in a chain is a chord."""
    with pytest.raises(ConfigurationError):
        chain([], reply_to="r")
    for kind in ("group", "chord"):
        with pytest.raises(ConfigurationError, match="chord"):
            chain([Signature("a"), Signature(f"celery.{kind}", subtask_type=kind)], reply_to="r")


def test_groups() -> None:
    """celery M-01, E-07, E-08."""
    made = group([Signature("a"), Signature("b", options={"task_id": "given"})], reply_to="r")
    assert made.task_ids[1] == "given"
    assert len(set(made.task_ids)) == 2
    assert [s.options["group_index"] for s in made.signatures] == [0, 1]
    assert {s.options["group_id"] for s in made.signatures} == {made.group_id}
    assert all(s.reply_to == "r" for s in made.signatures)
    assert group([], reply_to="r", group_id="g").group_id == "g"
    with pytest.raises(ConfigurationError):
        group([Signature("celery.chain", subtask_type="chain")], reply_to="r")


def test_members() -> None:
    """celery M-06: what a callback is that stands for several tasks."""
    tasks = [{"task": "a"}, {"task": "b"}]
    for kind in ("group", "chain"):
        signature = Signature(f"celery.{kind}", (), {"tasks": tasks})
        assert signature.kind == kind
        assert [member.task for member in signature.members()] == ["a", "b"]
    one = Signature("celery.backend_cleanup")
    assert one.kind == "task"
    assert one.members() == [one]
    bad: Any
    for bad in ({}, {"tasks": []}, {"tasks": "ab"}, {"tasks": [5]}):
        with pytest.raises(DecodeError):
            Signature("celery.group", (), bad).members()
    with pytest.raises(DecodeError):
        Signature("x", subtask_type="chord").members()


def test_embed() -> None:
    """celery N-10: null and {} are fine; one signature alone is a list of one."""
    empty = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    for value in (None, {}, empty, {"callbacks": [], "more": 1}):
        assert read_embed(value) == Embed()
    assert Embed().as_data() == empty
    full = Embed((Signature("a"),), (Signature("b"),), (Signature("c"), Signature("d")), Signature("e"))
    assert read_embed(full.as_data()) == full
    assert read_embed({"callbacks": {"task": "a"}}).callbacks == (Signature("a"),)
    bad: Any
    for bad in (5, "x", [], {"callbacks": 5}, {"chain": ["a"]}, {"chord": 1}, {"errbacks": [None]}):
        with pytest.raises(DecodeError):
            read_embed(bad)
