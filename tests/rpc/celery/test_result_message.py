"""Result messages, both ways."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure

from tests.messaging.strategies import JSON_VALUES, TYPED_VALUES, same
from txmsg.errors import ConfigurationError, ContentDisallowed, EncodeError, TaskRevoked
from txmsg.rpc.celery import Child, ResultMessage, TaskResult, UnreadableResult, build_result, parse_result
from txmsg.rpc.celery.states import IGNORED, PENDING, REJECTED

NOW = datetime(2026, 11, 21, 12, 0, 0, 5, tzinfo=UTC)
JSON = {"content_type": "application/json", "content_encoding": "utf-8"}


def body(message: ResultMessage) -> Any:
    return json.loads(message.body)


def read(value: Any, **properties: Any) -> TaskResult:
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_result(octets, {**JSON, "correlation_id": "c", **properties})


class TestOutwards:
    def test_layout(self) -> None:
        """celery H-01 to H-06, A-03, A-04, N-16, P-07."""
        message = build_result("i", "SUCCESS", {"a": 1}, correlation_id="c", now=NOW)
        assert body(message) == {
            "task_id": "i",
            "status": "SUCCESS",
            "result": {"a": 1},
            "traceback": None,
            "children": [],
            "date_done": "2026-11-21T12:00:00.000005+00:00",
        }
        assert message.properties == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": {},
            "delivery_mode": 1,
            "priority": 0,
            "correlation_id": "c",
        }
        assert message.state == "SUCCESS"

    def test_correlation_id_falls_back(self) -> None:
        """celery A-05."""
        assert build_result("i", "SUCCESS").properties["correlation_id"] == "i"

    def test_persistent(self) -> None:
        """celery A-04."""
        assert build_result("i", "SUCCESS", persistent=True).properties["delivery_mode"] == 2

    def test_what_is_there_only_if_it_is(self) -> None:
        """celery H-05, H-07, H-08, H-09."""
        group = Child("g", None, (Child("m", Child("g")),))
        message = build_result(
            "i",
            "SUCCESS",
            group_id="g",
            parent_id="p",
            children=[Child("a"), group],
            extended={"name": "t", "args": [1], "secret": 1},
        )
        found = body(message)
        assert (found["group_id"], found["parent_id"]) == ("g", "p")
        assert found["children"] == [[["a", None], None], [["g", None], [[["m", [["g", None], None]], None]]]]
        assert (found["name"], found["args"], found["worker"]) == ("t", [1], None)
        assert "secret" not in found

    def test_failure(self) -> None:
        """celery H-04, I-04, J-01, J-04."""
        try:
            raise KeyError("missing")
        except KeyError:
            failure = Failure()
        for state in ("FAILURE", "RETRY", "REVOKED"):
            found = body(build_result("i", state, failure))
            assert found["result"] == {"exc_type": "KeyError", "exc_message": ["missing"], "exc_module": "builtins"}
            assert found["traceback"].rstrip().endswith("KeyError: 'missing'")
            assert (found["date_done"] is None) == (state == "RETRY")
        assert body(build_result("i", "FAILURE", KeyError(), traceback="mine"))["traceback"] == "mine"
        assert body(build_result("i", "FAILURE", KeyError()))["traceback"] is None

    def test_failures_as_data(self) -> None:
        """celery J-09: the answer to an unknown task."""
        data = {"exc_type": "NotRegistered", "exc_message": ["t"], "exc_module": "celery.exceptions"}
        assert body(build_result("i", "FAILURE", data))["result"] == data

    @pytest.mark.parametrize("result", [None, "text", 5, {}, {"exc_type": None, "exc_message": []}, {"exc_type": "E"}])
    def test_a_failure_without_an_exception_is_never_sent(self, result: Any) -> None:
        """celery J-08."""
        for state in ("FAILURE", "RETRY", "REVOKED"):
            with pytest.raises(ConfigurationError, match="exception"):
                build_result("i", state, result)

    @pytest.mark.parametrize("state", [PENDING, REJECTED, IGNORED, "", None, 5])
    def test_states_that_are_never_sent(self, state: Any) -> None:
        """celery I-01."""
        with pytest.raises(ConfigurationError):
            build_result("i", state)
        with pytest.raises(ConfigurationError):
            build_result("", "SUCCESS")

    def test_custom_states(self) -> None:
        """celery I-07, I-08, H-06: not final, and with what the task says."""
        found = body(build_result("i", "PROGRESS", {"done": 5}))
        assert (found["status"], found["result"], found["date_done"]) == ("PROGRESS", {"done": 5}, None)

    def test_results_that_cannot_be_encoded(self) -> None:
        """celery J-11: a failure is sent, and the state says so."""
        message = build_result("i", "SUCCESS", {1, 2}, extended={"args": [object()], "name": "t"})
        assert message.state == "FAILURE"
        assert body(message)["status"] == "FAILURE"
        assert body(message)["result"]["exc_type"] == "EncodeError"
        assert body(message)["result"]["exc_module"] == "kombu.exceptions"
        with pytest.raises(EncodeError):
            build_result("i", "PROGRESS", {1, 2})
        assert build_result("i", "FAILURE", ValueError({1}), extended={"args": [{1}]}).state == "FAILURE"

    def test_results_are_not_shown(self) -> None:
        message = build_result("i", "SUCCESS", "secret")
        assert "secret" not in repr(message)
        assert "secret" not in repr(parse_result(message.body, message.properties))


class TestInwards:
    def test_the_least(self) -> None:
        """celery H-10, O-01."""
        result = read({"task_id": "i", "status": "SUCCESS", "result": 5})
        assert (result.task_id, result.state, result.value, result.error) == ("i", "SUCCESS", 5, None)
        assert (result.children, result.date_done, result.traceback, result.group_id) == ((), None, None, None)
        assert result.is_ready
        assert not result.raises

    @pytest.mark.parametrize(
        ("date_done", "expected"),
        [
            ("2026-11-21T12:00:00.000005+00:00", NOW),
            ("2026-11-21T12:00:00.000005", NOW),
            (None, None),
            ("soon", None),
            (5, None),
        ],
    )
    def test_dates_of_each_version(self, date_done: Any, expected: Any) -> None:
        """celery H-06, P-07: 4.4 sends no offset, and means UTC."""
        value = {"task_id": "i", "status": "SUCCESS", "result": 5, "date_done": date_done}
        assert read(value).date_done == expected

    def test_of_3_1(self) -> None:
        """celery P-07, P-08, J-03: no date, and an exception of two texts."""
        result = read(
            {
                "status": "FAILURE",
                "traceback": "Traceback ...",
                "result": {"exc_type": "ValueError", "exc_message": "bad"},
                "task_id": "i",
                "children": [],
            }
        )
        assert result.error is not None
        assert (result.error.exc_type, result.error.exc_args) == ("ValueError", ("bad",))
        assert result.error.remote_traceback == result.traceback == "Traceback ..."
        assert result.raises
        assert result.value is None

    @pytest.mark.parametrize(("state", "raises"), [("RETRY", False), ("FAILURE", True), ("REVOKED", True)])
    def test_exception_states(self, state: str, raises: bool) -> None:
        """celery I-04, I-05, J-14, J-15: from a worker that was killed the traceback is null."""
        data = {"exc_type": "E", "exc_message": [1], "exc_module": "billiard.exceptions"}
        result = read({"task_id": "i", "status": state, "result": data, "traceback": None})
        assert result.raises == raises
        assert result.error is not None
        assert result.error.remote_traceback == ""
        assert isinstance(result.error, TaskRevoked) == (state == "REVOKED")

    @pytest.mark.parametrize("result", [None, "text", 5, [], {}])
    def test_odd_failures(self, result: Any) -> None:
        """celery O-10."""
        assert read({"task_id": "i", "status": "FAILURE", "result": result}).error is not None

    def test_ids(self) -> None:
        """celery O-02, O-05, O-06: the body's, and only without it the correlation id."""
        value = {"task_id": "i", "status": "SUCCESS", "result": 5}
        assert read(value, correlation_id="other").task_id == "i"
        assert read(value, correlation_id=None).task_id == "i"
        for odd in ({}, {"task_id": None}, {"task_id": 5}):
            assert read({"status": "SUCCESS", "result": 5, **odd}).task_id == "c"
        with pytest.raises(UnreadableResult, match="task_id"):
            read({"status": "SUCCESS", "result": 5}, correlation_id=None)

    @pytest.mark.parametrize(
        "value",
        [
            {"task_id": "i", "status": "SUCCESS"},
            {"task_id": "i", "result": 5},
            {"task_id": "i", "result": 5, "status": None},
        ],
    )
    def test_incomplete(self, value: dict[str, Any]) -> None:
        """celery O-03, O-04: the error says whose it is."""
        with pytest.raises(UnreadableResult) as caught:
            read(value)
        assert (caught.value.task_id, caught.value.correlation_id) == ("i", "c")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.task_id) == (str(caught.value), "i")

    def test_no_type_and_no_encoding(self) -> None:
        """celery O-07, O-08."""
        value = {"task_id": "i", "status": "SUCCESS", "result": 5}
        assert read(value, content_encoding=None).value == 5
        assert read(value, content_type=None, content_encoding=None).value == 5

    @pytest.mark.parametrize(
        "octets",
        [b"", b"{", b"[]", b"5", b'{"task_id": "i", "status": "SUCCESS", "result": {"__type__": "x", "__value__": 1}}'],
    )
    def test_what_cannot_be_decoded(self, octets: bytes) -> None:
        """celery O-09, F-09."""
        with pytest.raises(UnreadableResult) as caught:
            read(octets)
        assert caught.value.correlation_id == "c"

    def test_content_types_that_are_not_accepted(self) -> None:
        """celery J-16, C-12: pickle is refused before it is looked at."""
        with pytest.raises(UnreadableResult) as caught:
            read(b"cos\nsystem\n(S'exit 3'\ntR.", content_type="application/x-python-serialize")
        assert isinstance(caught.value.__cause__, ContentDisallowed)

    def test_children(self) -> None:
        """celery H-05, O-15: as they were built; what is odd is left out."""
        children = (Child("a", Child("p")), Child("g", None, (Child("m"), Child("n"))))
        message = build_result("i", "SUCCESS", children=children)
        assert parse_result(message.body, message.properties).children == children
        value = {"task_id": "i", "status": "SUCCESS", "result": 5}
        odd = [5, [], ["a"], [["x"], None], [[5, None], None], ["plain", None], [["a", 5], 5]]
        assert read({**value, "children": odd}).children == (Child("plain"), Child("a", None, ()))
        nothing: Any
        for nothing in (None, 5, "ab", {}):
            assert read({**value, "children": nothing}).children == ()

    def test_custom_states(self) -> None:
        """celery I-03, I-08, I-09, O-12: not final, and with what the task says."""
        for state in ("PROGRESS", "success", "STARTED"):
            result = read({"task_id": "i", "status": state, "result": {"done": 5}})
            assert (result.value, result.is_ready, result.raises, result.error) == ({"done": 5}, False, False, None)

    def test_other_keys(self) -> None:
        """celery H-09."""
        value = {"task_id": "i", "status": "SUCCESS", "result": 5, "worker": "w", "queue": "q"}
        assert read(value).extended == {"worker": "w", "queue": "q"}

    def test_plain_text_of_older_versions(self) -> None:
        """celery F-11, F-12: dates without envelopes stay text; NaN is read."""
        result = read(b'{"task_id":"i","status":"SUCCESS","result":["2026-11-21T12:00:00.123Z",NaN,Infinity]}')
        assert result.value[0] == "2026-11-21T12:00:00.123Z"
        assert repr(result.value[1:]) == "[nan, inf]"


CHILDREN = st.recursive(
    st.builds(Child, st.text("abc", min_size=1)),
    lambda inner: st.builds(
        Child, st.text("abc", min_size=1), st.none() | inner, st.none() | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


@given(
    state=st.sampled_from(["SUCCESS", "STARTED", "PROGRESS", "x"]),
    value=TYPED_VALUES,
    children=st.lists(CHILDREN, max_size=3).map(tuple),
    group_id=st.none() | st.text("abc", min_size=1),
    compression=st.sampled_from([None, "gzip"]),
)
def test_built_and_parsed(
    state: str, value: Any, children: tuple[Child, ...], group_id: str | None, compression: str | None
) -> None:
    """celery H-01 to H-08, F-01 to F-07, P-10."""
    message = build_result("i", state, value, children=children, group_id=group_id, compression=compression, now=NOW)
    found = parse_result(message.body, message.properties)
    assert (found.task_id, found.state, found.children, found.group_id) == ("i", state, children, group_id)
    assert same(found.value, value)
    assert found.date_done == (NOW if state == "SUCCESS" else None)


@settings(max_examples=300)
@given(
    octets=st.binary(max_size=40)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["task_id", "status", "result", "traceback", "children", "date_done", "group_id", "other"]),
        JSON_VALUES | st.sampled_from(["SUCCESS", "FAILURE", "REVOKED"]),
    ).map(lambda value: json.dumps(value).encode()),
    properties=st.dictionaries(
        st.sampled_from(["content_type", "content_encoding", "correlation_id", "headers"]), TYPED_VALUES
    ),
    content_type=st.sampled_from([{}, JSON, {"content_type": "application/x-yaml"}]),
)
def test_any_message_is_read_or_is_a_typed_error(
    octets: bytes, properties: dict[str, Any], content_type: dict[str, Any]
) -> None:
    """celery O-02 to O-10, R27."""
    try:
        found = parse_result(octets, {**properties, **content_type}, accept=["json", "yaml"])
    except UnreadableResult as error:
        str(error), repr(error)
    else:
        assert found.task_id
        assert found.state
        repr(found)
        if found.error is not None:
            str(found.error)


def test_yaml_that_contains_itself() -> None:
    """celery O-15: it ends."""
    octets = b"{task_id: i, status: SUCCESS, result: 1, children: &a [[[x, &b [[y, *b], *a]], *a]]}"
    assert parse_result(octets, {"content_type": "application/x-yaml"}, accept=["yaml"]).children


def test_yaml_of_billions() -> None:
    """celery O-15: it ends soon."""
    lines = "".join(
        f"x{n}: &x{n} [[[c, null], [*x{n - 1}, *x{n - 1}]], [[d, null], *x{n - 1}]]\n" for n in range(1, 40)
    )
    octets = f"x0: &x0 []\n{lines}task_id: i\nstatus: SUCCESS\nresult: 1\nchildren: *x39\n".encode()
    found = parse_result(octets, {"content_type": "application/x-yaml"}, accept=["yaml"])
    assert found.task_id == "i"
