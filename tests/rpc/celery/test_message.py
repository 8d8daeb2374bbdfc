"""Task messages outwards: what is sent, and what is refused before it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from txmsg.errors import CodecNotInstalled, ConfigurationError, DecodeError, EncodeError, SerializerNotInstalled
from txmsg.rpc.celery import Embed, Signature, TaskMessage, TaskRequest, build_task, parse_task, task_from_signature
from txmsg.rpc.celery.times import MAX_EXPIRATION

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def body(message: TaskMessage) -> Any:
    return json.loads(message.body)


class TestLayout:
    def test_body_has_three_elements(self) -> None:
        """celery D-01, D-02, D-03, D-05, D-06, P-02."""
        message = build_task("tasks.add", [1, 2], {"x": 3}, task_id="id-1", reply_to="replies")
        empty = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        assert body(message) == [[1, 2], {"x": 3}, empty]
        assert dict(message.properties) == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": "id-1",
            "reply_to": "replies",
            "delivery_mode": 2,
            "priority": 0,
            "headers": message.headers,
        }

    def test_headers(self) -> None:
        """celery E-01 to E-04, E-07 to E-17, P-01, P-04."""
        message = build_task(
            "tasks.add",
            (1, "a"),
            {"b": 2},
            task_id="id-1",
            shadow="sum",
            group_id="g",
            group_index=3,
            retries=2,
            time_limit=30,
            soft_time_limit=20.5,
            root_id="root",
            parent_id="parent",
            origin="gen1@here",
            ignore_result=True,
            replaced_task_nesting=1,
            stamped_headers=["colour"],
            stamps={"colour": "red"},
        )
        assert message.headers == {
            "lang": "py",
            "task": "tasks.add",
            "id": "id-1",
            "shadow": "sum",
            "eta": None,
            "expires": None,
            "group": "g",
            "group_index": 3,
            "retries": 2,
            "timelimit": [30, 20.5],
            "root_id": "root",
            "parent_id": "parent",
            "argsrepr": "(1, 'a')",
            "kwargsrepr": "{'b': 2}",
            "origin": "gen1@here",
            "ignore_result": True,
            "replaced_task_nesting": 1,
            "stamped_headers": ["colour"],
            "stamps": {"colour": "red"},
        }

    def test_properties_that_are_never_set(self) -> None:
        """celery D-08, D-04: reply_to is there without a value, too."""
        properties = build_task("t", expires=5).properties
        assert not {"message_id", "timestamp", "type", "user_id", "app_id"} & properties.keys()
        assert properties["reply_to"] == ""

    def test_ids_are_uuids_and_the_root_is_oneself(self) -> None:
        """celery E-03, E-11."""
        first, second = build_task("t"), build_task("t")
        assert first.task_id != second.task_id
        assert len(first.task_id) == 36
        assert first.headers["root_id"] == first.task_id == first.properties["correlation_id"]
        assert first.headers["origin"].startswith("gen")

    def test_priority_and_transient(self) -> None:
        """celery D-05, D-06."""
        properties = build_task("t", priority=9, persistent=False).properties
        assert (properties["priority"], properties["delivery_mode"]) == (9, 1)

    def test_reprs_are_cut_and_never_fail(self) -> None:
        """celery E-13."""

        class Odd(str):
            def __repr__(self) -> str:
                raise RuntimeError("no")

        headers = build_task("t", ["x" * 5000, *range(5000)], {"k": [["y" * 300] * 300] * 20}).headers
        assert len(headers["argsrepr"]) <= 1024
        assert len(headers["kwargsrepr"]) <= 1024
        assert "Odd" in build_task("t", [Odd("a")]).headers["argsrepr"]
        assert build_task("t", ["secret"], argsrepr="***").headers["argsrepr"] == "***"
        assert "secret" not in repr(build_task("t", ["secret"]))

    def test_own_headers(self) -> None:
        """celery E-19: they are merged, and cannot replace Celery's own."""
        assert build_task("t", headers={"x-mine": 1}).headers["x-mine"] == 1
        for name in ("id", "task", "compression", "stamps"):
            with pytest.raises(ConfigurationError, match=name):
                build_task("t", headers={name: "other"})

    @pytest.mark.parametrize(
        ("name", "header"),
        [("gzip", "application/x-gzip"), ("bzip2", "application/x-bz2"), ("zstd", "application/zstd")],
    )
    def test_compression(self, name: str, header: str) -> None:
        """celery E-18: what the name gzip stands for is zlib's format."""
        message = build_task("t", ["a" * 1000], compression=name)
        assert message.headers["compression"] == header
        assert len(message.body) < 500
        assert (message.body[:1] == b"\x78") == (name == "gzip")
        found = parse_task(message.body, message.properties, accept_compression=frozenset({header}))
        assert isinstance(found, TaskRequest)
        assert found.args == ["a" * 1000]

    def test_msgpack(self) -> None:
        """celery D-01, D-02."""
        message = build_task("t", [b"\xff"], serializer="msgpack")
        assert message.properties["content_type"] == "application/x-msgpack"
        assert message.properties["content_encoding"] == "binary"
        found = parse_task(message.body, message.properties, accept=["msgpack"])
        assert isinstance(found, TaskRequest)
        assert found.args == [b"\xff"]

    def test_protocol_1(self) -> None:
        """celery P-01."""
        message = build_task(
            "t", [1], {"a": 2}, task_id="i", protocol=1, group_id="g", time_limit=3, headers={"mine": 1}
        )
        assert message.headers == {"mine": 1}
        assert body(message) == {
            "task": "t",
            "id": "i",
            "args": [1],
            "kwargs": {"a": 2},
            "group": "g",
            "group_index": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "utc": True,
            "callbacks": None,
            "errbacks": None,
            "timelimit": [3, None],
            "taskset": "g",
            "chord": None,
        }
        with pytest.raises(ConfigurationError, match="chain"):
            build_task("t", protocol=1, embed=Embed(chain=(Signature("u"),)))


class TestTimes:
    def test_countdown_and_expires(self) -> None:
        """celery E-05, E-06, D-07, K-11, P-05: both from now on, absolute, with an offset; the property in ms."""
        message = build_task("t", countdown=10, expires=60, now=NOW)
        assert message.headers["eta"] == "2026-11-21T12:00:10+00:00"
        assert message.headers["expires"] == "2026-11-21T12:01:00+00:00"
        assert message.properties["expiration"] == "60000"
        assert message.expires == NOW + timedelta(seconds=60)

    @pytest.mark.parametrize(
        "value",
        [
            datetime(2026, 11, 21, 13, 0, 0),
            datetime(2026, 11, 21, 15, 0, 0, tzinfo=timezone(timedelta(hours=2))),
            "2026-11-21T13:00:00",
            "2026-11-21T13:00:00Z",
            "2026-11-21T14:00:00+01:00",
            timedelta(hours=1),
            3600,
            3600.0,
        ],
    )
    def test_forms_of_a_time(self, value: Any) -> None:
        """celery E-05, E-06: what names no zone is UTC."""
        headers = build_task("t", eta=value, expires=value, now=NOW).headers
        assert headers["eta"] == headers["expires"] == "2026-11-21T13:00:00+00:00"

    def test_a_countdown_wins(self) -> None:
        """celery E-05."""
        assert build_task("t", countdown=1, eta=NOW, now=NOW).headers["eta"] == "2026-11-21T12:00:01+00:00"
        assert build_task("t", countdown=0, now=NOW).headers["eta"] is None

    def test_expiration_of_the_past_and_of_the_far_future(self) -> None:
        """celery D-07: above 2**32 - 1 ms RabbitMQ would close the channel; the header says it all the same."""
        assert build_task("t", expires=-5, now=NOW).properties["expiration"] == "0"
        most = MAX_EXPIRATION / 1000
        assert build_task("t", expires=most, now=NOW).properties["expiration"] == str(MAX_EXPIRATION)
        far = build_task("t", expires=most + 1, now=NOW)
        assert "expiration" not in far.properties
        assert far.headers["expires"] is not None

    @pytest.mark.parametrize(
        "value",
        ["tomorrow", "", b"2026-11-21", float("nan"), float("inf"), 1e300, 10**400, "9999-12-31T23:59:59-05:00"],
    )
    def test_what_a_worker_could_not_read_is_not_sent(self, value: Any) -> None:
        """celery K-07."""
        for name in ("eta", "expires"):
            with pytest.raises(ConfigurationError, match=name):
                build_task("t", **{name: value})


class TestRefused:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"name": ""},
            {"name": None},
            {"name": "\ud800"},
            {"task_id": ""},
            {"task_id": "x" * 256},
            {"args": "text"},
            {"args": 5},
            {"kwargs": [("a", 1)]},
            {"kwargs": {1: 2}},
            {"protocol": 3},
            {"reply_to": None},
            {"reply_to": "q" * 256},
            {"priority": 256},
            {"priority": -1},
            {"priority": True},
            {"retries": -1},
            {"time_limit": -1},
            {"time_limit": "5"},
            {"time_limit": float("nan")},
            {"soft_time_limit": 10**400},
            {"time_limit": 5, "soft_time_limit": 6},
            {"headers": {1: 2}},
        ],
    )
    def test_arguments(self, arguments: dict[str, Any]) -> None:
        """celery N-01, N-04, N-08, N-09, N-12: what a worker would choke on cannot be built."""
        with pytest.raises(ConfigurationError):
            build_task(**{"name": "t", **arguments})

    def test_values_that_cannot_be_carried(self) -> None:
        """celery F-08: a tuple becomes a list, a set is refused."""
        assert body(build_task("t", [(1, 2)]))[0] == [[1, 2]]
        for value in ({1}, object(), 1j):
            with pytest.raises(EncodeError):
                build_task("t", [value])
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(EncodeError):
            build_task("t", deep)

    def test_serializers_that_are_not_there(self) -> None:
        """celery D-01: pickle is not there unless it is asked for."""
        with pytest.raises(SerializerNotInstalled):
            build_task("t", serializer="pickle")
        with pytest.raises(CodecNotInstalled):
            build_task("t", compression="zip")


class TestFromSignature:
    def test_options(self) -> None:
        """celery M-04, M-06: the options are those of the one who made the signature."""
        link = Signature("next", options={"task_id": "n"})
        signature = Signature(
            "t",
            (1,),
            {"a": 2},
            {
                "task_id": "i",
                "reply_to": "replies",
                "countdown": 5,
                "priority": 3,
                "delivery_mode": 1,
                "headers": {"mine": 1},
                "link": link.as_data(),
                "link_error": [link.as_data()],
                "queue": "other",
                "stamped_headers": ["colour"],
                "colour": "red",
            },
        )
        message = task_from_signature(signature, now=NOW, root_id="root", parent_id="p")
        assert body(message)[:2] == [[1], {"a": 2}]
        assert body(message)[2]["callbacks"] == body(message)[2]["errbacks"] == [link.as_data()]
        assert message.properties["reply_to"] == "replies"
        assert (message.properties["priority"], message.properties["delivery_mode"]) == (3, 1)
        headers = message.headers
        assert (headers["id"], headers["root_id"], headers["parent_id"], headers["mine"]) == ("i", "root", "p", 1)
        assert headers["eta"] == "2026-11-21T12:00:05+00:00"
        assert (headers["stamped_headers"], headers["stamps"]) == (["colour"], {"colour": "red"})

    @pytest.mark.parametrize(
        "options",
        [
            {"priority": "high"},
            {"eta": "soon"},
            {"headers": 5},
            {"headers": ["a"]},
            {"root_id": {}, "stamped_headers": 5},
            {"task_id": 5},
            {"argsrepr": 7},
            {"countdown": "5"},
            {"compression": 5},
            {"serializer": ["json"]},
        ],
    )
    def test_odd_options_of_strangers(self, options: dict[str, Any]) -> None:
        """celery M-04: typed errors, whatever is in there."""
        with pytest.raises((ConfigurationError, SerializerNotInstalled, CodecNotInstalled)):
            task_from_signature(Signature("t", options=options))

    def test_links_that_are_none(self) -> None:
        """celery M-06."""
        with pytest.raises(DecodeError):
            task_from_signature(Signature("t", options={"link": "next"}))
        with pytest.raises(ConfigurationError, match="group"):
            task_from_signature(Signature("celery.group", subtask_type="group"))
