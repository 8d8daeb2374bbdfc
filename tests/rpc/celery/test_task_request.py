"""Task messages inwards: a request or a verdict for every message there can be."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from txmsg.errors import SerializerNotInstalled
from txmsg.messaging import serializers
from txmsg.rpc.celery import BadTask, Embed, Signature, TaskRequest, build_retry, build_task, parse_task
from txmsg.rpc.celery.message import HEADERS

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def message(
    value: Any = None, headers: dict[str, Any] | None = None, **properties: Any
) -> tuple[bytes, dict[str, Any]]:
    """A task message as a client of any language may send it; None takes a property away."""
    body = value if isinstance(value, bytes) else json.dumps([[1], {}, EMBED] if value is None else value).encode()
    made = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "reply_to": "replies",
        "correlation_id": "c",
        "headers": {"task": "t", "id": "i"} if headers is None else headers,
        **properties,
    }
    return body, {name: found for name, found in made.items() if found is not None}


def good(*args: Any, **kwargs: Any) -> TaskRequest:
    found = parse_task(*message(*args, **kwargs))
    assert isinstance(found, TaskRequest), found
    return found


def bad(*args: Any, **kwargs: Any) -> BadTask:
    found = parse_task(*message(*args, **kwargs))
    assert isinstance(found, BadTask), found
    return found


class TestGood:
    def test_the_least(self) -> None:
        """celery E-02, E-03, A-05, P-04: task and id, and nothing else."""
        request = good(reply_to=None, correlation_id=None)
        assert (request.name, request.task_id, request.args, request.kwargs) == ("t", "i", [1], {})
        assert (request.reply_to, request.correlation_id) == (None, "i")
        assert (request.eta, request.expires, request.retries, request.ignore_result) == (None, None, 0, None)
        assert (request.time_limit, request.soft_time_limit) == (None, None)

    def test_a_soft_limit_above_the_hard_one(self) -> None:
        """celery E-10: it could never be over, and the task would not be sent again for it."""
        request = good(headers={"task": "t", "id": "i", "timelimit": [5, 6]})
        assert (request.time_limit, request.soft_time_limit) == (5, None)
        assert build_retry(request).headers["timelimit"] == [5, None]
        assert (request.protocol, request.embed) == (2, Embed())

    def test_all_headers(self) -> None:
        """celery E-01 to E-17, E-19, K-13, L-01 to L-03."""
        request = good(
            headers={
                "lang": "c",
                "task": "t",
                "id": "i",
                "shadow": "s",
                "eta": "2026-11-21T13:00:00+01:00",
                "expires": "2026-11-21T12:00:00",
                "group": "g",
                "group_index": 1,
                "retries": 2,
                "timelimit": [30, 20.5],
                "root_id": "r",
                "parent_id": "p",
                "argsrepr": "(1,)",
                "kwargsrepr": "{}",
                "origin": "o",
                "ignore_result": False,
                "replaced_task_nesting": 1,
                "stamped_headers": ["colour"],
                "stamps": {"colour": "red"},
                "x-mine": [1],
            },
            priority=7,
        )
        assert request.eta == request.expires == NOW
        assert request.eta is not None
        assert request.eta.tzinfo is UTC
        assert (request.time_limit, request.soft_time_limit) == (30, 20.5)
        assert (request.group_id, request.group_index, request.retries) == ("g", 1, 2)
        assert (request.root_id, request.parent_id, request.shadow, request.origin) == ("r", "p", "s", "o")
        assert (request.argsrepr, request.kwargsrepr, request.ignore_result) == ("(1,)", "{}", False)
        assert (request.stamped_headers, request.stamps) == (("colour",), {"colour": "red"})
        assert (request.own_headers, request.priority) == ({"x-mine": [1]}, 7)

    def test_expired(self) -> None:
        """celery K-08, K-09: above the time, not at it."""
        request = good(headers={"task": "t", "id": "i", "expires": NOW.isoformat()})
        assert not request.is_expired(NOW)
        assert request.is_expired(NOW + timedelta(microseconds=1))
        assert not good().is_expired(NOW)

    def test_times_of_another_zone(self) -> None:
        """celery E-06: a client that says no zone can have one."""
        found = parse_task(
            *message(headers={"task": "t", "id": "i", "eta": "2026-11-21T12:00:00"}),
            naive=timezone(timedelta(hours=2)),
        )
        assert isinstance(found, TaskRequest)
        assert found.eta == NOW - timedelta(hours=2)

    def test_zero_is_no_limit(self) -> None:
        """celery E-10."""
        request = good(headers={"task": "t", "id": "i", "timelimit": [0, None]})
        assert (request.time_limit, request.soft_time_limit) == (None, None)

    @pytest.mark.parametrize("embed", [None, {}, EMBED])
    def test_embed_can_be_empty(self, embed: Any) -> None:
        """celery N-10."""
        assert good([[1], {}, embed]).embed == Embed()

    def test_no_encoding_and_no_type(self) -> None:
        """celery N-03, N-05: JSON is what it is read as."""
        assert good(content_encoding=None).args == [1]
        assert good(content_type=None, content_encoding=None).args == [1]

    def test_compressed(self) -> None:
        """celery E-18: gzip is zlib's format."""
        body, properties = message(
            zlib.compress(b"[[1],{},null]"), {"task": "t", "id": "i", "compression": "application/x-gzip"}
        )
        assert isinstance(parse_task(body, properties), TaskRequest)

    def test_what_follows(self) -> None:
        """celery M-04, M-06, M-07, M-08."""
        embed = {"callbacks": [{"task": "a"}], "errbacks": [{"task": "b"}], "chain": [{"task": "d"}, {"task": "c"}]}
        request = good([[], {}, {**embed, "chord": {"task": "e"}}])
        assert request.embed.callbacks == (Signature("a"),)
        assert request.embed.errbacks == (Signature("b"),)
        assert request.embed.following == Signature("c")
        assert request.embed.chord == Signature("e")

    def test_arguments_are_not_shown(self) -> None:
        assert "secret" not in repr(good([["secret"], {"a": "secret"}, None]))


class TestProtocol1:
    def test_the_least(self) -> None:
        """celery P-01: what 3.1 sends, and what makes it out."""
        request = good({"task": "t", "id": "i", "args": [1], "kwargs": {"a": 2}}, {})
        assert (request.protocol, request.name, request.task_id) == (1, "t", "i")
        assert (request.args, request.kwargs) == ([1], {"a": 2})
        assert good({"task": "t", "id": "i"}, headers={}).args == []

    def test_all(self) -> None:
        """celery P-01, E-07, E-10."""
        request = good(
            {
                "task": "t",
                "id": "i",
                "args": [],
                "kwargs": {},
                "retries": 3,
                "eta": "2026-11-21T12:00:00",
                "expires": None,
                "utc": True,
                "callbacks": [{"task": "a"}],
                "errbacks": None,
                "timelimit": [5, 4],
                "taskset": "g",
                "chord": None,
            },
            {"x-mine": 1},
        )
        assert (request.retries, request.eta, request.group_id) == (3, NOW, "g")
        assert (request.time_limit, request.soft_time_limit) == (5, 4)
        assert request.embed.callbacks == (Signature("a"),)
        assert request.own_headers == {"x-mine": 1}

    def test_without_headers_at_all(self) -> None:
        """celery P-01."""
        body, properties = message({"task": "t", "id": "i"}, {})
        del properties["headers"]
        assert isinstance(parse_task(body, properties), TaskRequest)

    def test_a_mixture(self) -> None:
        """celery P-01: the header task with an object that has args."""
        request = good({"args": [1], "kwargs": {"a": 2}, "retries": 4, "callbacks": [{"task": "n"}]})
        assert (request.protocol, request.args, request.kwargs, request.retries) == (2, [1], {"a": 2}, 4)
        assert request.embed.callbacks == (Signature("n"),)
        assert request.own_headers == {}  # what is in the body is no header
        assert bad({"kwargs": {}}).is_answered


class TestBad:
    """celery N-01 to N-14: a verdict for each."""

    @pytest.mark.parametrize("body", [b"[[1],{}]", b"[]", b"5", b'"text"', b"null", b"[1,2,3,4]"])
    def test_not_three_elements(self, body: bytes) -> None:
        """celery N-01."""
        verdict = bad(body)
        assert verdict.rejected
        assert verdict.is_answered
        assert (verdict.task_id, verdict.reply_to, verdict.correlation_id) == ("i", "replies", "c")
        assert (verdict.exc_module, verdict.exc_type) == ("celery.exceptions", "InvalidTaskError")

    def test_empty(self) -> None:
        """celery N-02."""
        verdict = bad(b"")
        assert verdict.rejected
        assert verdict.is_answered

    def test_no_type_and_no_json(self) -> None:
        """celery N-03: read as JSON, if JSON is accepted."""
        verdict = bad(b"\x80\x02", content_type=None)
        assert verdict.rejected
        assert verdict.exc_type == "DecodeError"
        found = parse_task(*message(content_type=None), accept=["msgpack"])
        assert isinstance(found, BadTask)
        assert found.exc_type == "ContentDisallowed"

    @pytest.mark.parametrize("headers", [{"task": "t"}, {"task": "t", "id": None}, {"task": "t", "id": ""}])
    def test_no_id(self, headers: dict[str, Any]) -> None:
        """celery N-04: nobody can be answered."""
        verdict = bad(headers=headers)
        assert verdict.rejected
        assert not verdict.is_answered

    @pytest.mark.parametrize("task_id", [5, ["i"], "x" * 256, "\ud800"])
    def test_ids_that_cannot_be_sent_back(self, task_id: Any) -> None:
        """celery N-04."""
        assert not bad(headers={"task": "t", "id": task_id}).is_answered
        assert not bad({"task": "t", "id": task_id}, {}).is_answered

    def test_invalid_json(self) -> None:
        """celery N-06: the text shows nothing of the body."""
        verdict = bad(b"[secret")
        assert verdict.rejected
        assert verdict.is_answered
        assert (verdict.exc_module, verdict.exc_type) == ("kombu.exceptions", "DecodeError")
        assert "secret" not in verdict.reason

    @pytest.mark.parametrize(
        "content_type", ["application/x-python-serialize", "application/x-msgpack", "application/x-yaml", "a/b"]
    )
    def test_content_types_that_are_not_accepted(self, content_type: str) -> None:
        """celery N-07, C-12, P-03: refused before a decoder sees it."""
        verdict = bad(b"cos\nsystem\n(S'exit 3'\ntR.", content_type=content_type)
        assert verdict.rejected
        assert verdict.is_answered
        assert (verdict.exc_module, verdict.exc_type) == ("kombu.exceptions", "ContentDisallowed")

    @pytest.mark.parametrize("content_type", ["application/data", "text/plain"])
    def test_octets_and_text(self, content_type: str) -> None:
        """celery N-03: no task can be in them."""
        assert bad(content_type=content_type).exc_type == "InvalidTaskError"

    @pytest.mark.parametrize("args", [None, "text", {"a": 1}, 5])
    def test_args(self, args: Any) -> None:
        """celery N-08: acked, and answered with a TypeError."""
        for verdict in (bad([args, {}, None]), bad({"task": "t", "id": "i", "args": args}, {})):
            assert (verdict.rejected, verdict.is_answered) == (False, True)
            assert (verdict.exc_module, verdict.exc_type) == ("builtins", "TypeError")

    @pytest.mark.parametrize("kwargs", [None, [], "text", 5])
    def test_kwargs(self, kwargs: Any) -> None:
        """celery N-09."""
        for verdict in (bad([[], kwargs, None]), bad({"task": "t", "id": "i", "kwargs": kwargs}, {})):
            assert (verdict.rejected, verdict.is_answered, verdict.exc_type) == (False, True, "TypeError")

    def test_keys_of_kwargs(self) -> None:
        """celery N-09: msgpack has keys that are no texts."""
        body = serializers.dumps([[], {b"a": 2}, None], "msgpack").body
        found = parse_task(*message(body, content_type="application/x-msgpack"), accept=["msgpack"])
        assert isinstance(found, BadTask)
        assert (found.rejected, found.is_answered, found.exc_type) == (False, True, "TypeError")

    @pytest.mark.parametrize("embed", [5, "text", [1], {"chain": 5}, {"callbacks": [None]}])
    def test_embed(self, embed: Any) -> None:
        """celery N-10: what is neither null nor an object."""
        verdict = bad([[], {}, embed])
        assert (verdict.rejected, verdict.is_answered) == (False, True)

    @pytest.mark.parametrize("name", ["eta", "expires"])
    @pytest.mark.parametrize("value", ["soon", 5, [], True, "9999-12-31T23:59:59-05:00", "2026-13-01", b"x"])
    def test_times(self, name: str, value: Any) -> None:
        """celery N-11, K-07."""
        verdict = bad(headers={"task": "t", "id": "i", name: value})
        assert (verdict.rejected, verdict.is_answered) == (False, True)
        assert name in verdict.reason

    @pytest.mark.parametrize(
        "header",
        [
            {"retries": "3"},
            {"retries": -1},
            {"retries": 2**31},
            {"timelimit": 5},
            {"timelimit": [1]},
            {"timelimit": ["a", None]},
            {"timelimit": [-1, None]},
            {"timelimit": [float("nan"), None]},
            {"timelimit": [10**400, None]},
        ],
    )
    def test_numbers(self, header: dict[str, Any]) -> None:
        """celery N-11: the same for other headers that say when and how."""
        verdict = bad(headers={"task": "t", "id": "i", **header})
        assert (verdict.rejected, verdict.is_answered) == (False, True)

    @pytest.mark.parametrize("name", [None, "", 5, ["t"]])
    def test_no_name(self, name: Any) -> None:
        """celery N-12: NotRegistered, as Celery's own workers answer."""
        for verdict in (bad(headers={"task": name, "id": "i"}), bad({"task": name, "id": "i"}, {})):
            assert (verdict.exc_type, verdict.rejected, verdict.is_answered) == ("NotRegistered", True, True)
        assert bad(headers={"task": None, "id": "i"}).data == {
            "exc_type": "NotRegistered",
            "exc_message": [None],
            "exc_module": "celery.exceptions",
        }

    @pytest.mark.parametrize("body", [[[1], {}, None], {"id": "i"}, {}, [], "t", None, 5])
    def test_no_task(self, body: Any) -> None:
        """celery N-13: not for us; nobody is answered."""
        verdict = bad(json.dumps(body).encode(), {"id": "i"})
        assert (verdict.rejected, verdict.is_answered) == (True, False)

    @pytest.mark.parametrize(
        ("compression", "body"),
        [
            ("application/x-unknown", b""),
            ("application/x-gzip", b"[[],{},null]"),
            ("application/x-gzip", zlib.compress(b"[[],{},null]")[:-3]),
            ("application/x-gzip", zlib.compress(b"0" * 2**25, 9)),
            ("application/x-bz2", b""),
            (5, b""),
        ],
    )
    def test_compression(self, compression: Any, body: bytes) -> None:
        """celery N-14: unknown, broken, a bomb, or not accepted."""
        verdict = bad(body, {"task": "t", "id": "i", "compression": compression})
        assert (verdict.rejected, verdict.is_answered) == (True, True)

    def test_who_is_not_answered(self) -> None:
        """celery A-06, L-01: no reply queue, or results are ignored."""
        assert not bad(b"", reply_to=None).is_answered
        assert not bad(b"", reply_to="").is_answered
        assert not bad(b"", {"task": "t", "id": "i", "ignore_result": True}).is_answered
        assert bad(b"", {"task": "t", "id": "i", "ignore_result": False}).is_answered

    def test_the_callers_own_mistake(self) -> None:
        with pytest.raises(SerializerNotInstalled):
            parse_task(*message(), accept=["jsno"])


class TestRetry:
    def test_what_it_keeps(self) -> None:
        """celery K-01, E-09, E-17."""
        follows = Embed((Signature("a"),), (Signature("b"),), (Signature("c"),))
        first = build_task(
            "t",
            [1],
            {"a": 2},
            task_id="i",
            reply_to="r",
            correlation_id="other",
            root_id="root",
            parent_id="p",
            expires=60,
            time_limit=9,
            soft_time_limit=8,
            ignore_result=False,
            headers={"mine": 1},
            embed=follows,
            group_id="g",
            group_index=2,
            shadow="s",
            origin="o",
            priority=4,
            argsrepr="***",
            stamped_headers=["colour"],
            stamps={"colour": "red"},
            now=NOW,
        )
        request = parse_task(first.body, first.properties)
        assert isinstance(request, TaskRequest)
        again = build_retry(request, countdown=5, now=NOW)
        assert again.body == first.body
        assert {k: v for k, v in again.headers.items() if v != first.headers[k]} == {
            "retries": 1,
            "parent_id": "i",
            "eta": "2026-11-21T12:00:05+00:00",
        }
        assert dict(again.properties) | {"headers": 0} == dict(first.properties) | {"headers": 0}
        second = parse_task(again.body, again.properties)
        assert isinstance(second, TaskRequest)
        assert (second.correlation_id, second.retries) == ("other", 1)

    def test_headers_that_brokers_act_upon(self) -> None:
        """C6.2: a sender does not get copies into other queues by way of a retry, unless the task says so."""
        acted_upon = {"CC": ["a"], "BCC": ["b"], "x-delay": 1, "x-death": []}
        request = good(headers={"task": "t", "id": "i", "mine": 1, **acted_upon})
        assert set(build_retry(request).headers) - HEADERS == {"mine"}
        assert build_retry(request, headers={"CC": ["a"]}).headers["CC"] == ["a"]

    def test_other_arguments(self) -> None:
        """celery K-01."""
        request = good(headers={"task": "t", "id": "i", "argsrepr": "(1,)"})
        again = build_retry(request, args=(2,), priority=9)
        assert json.loads(again.body)[0] == [2]
        assert again.headers["argsrepr"] == "(2,)"
        assert again.properties["priority"] == 9

    def test_protocol_1_stays(self) -> None:
        """celery K-01, P-01."""
        request = good({"task": "t", "id": "i", "args": [1]}, {})
        again = build_retry(request)
        found = parse_task(again.body, again.properties)
        assert isinstance(found, TaskRequest)
        assert (found.protocol, found.retries, found.args) == (1, 1, [1])
