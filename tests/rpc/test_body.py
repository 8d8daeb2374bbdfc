"""The wire form of requests and replies; errors as data on both sides."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ContentDisallowed, DecodeError, EncodeError, RemoteError, SerializationError
from txmsg.rpc.body import (
    ERROR,
    PROGRESS,
    RESULT,
    decode_reply,
    encode_error,
    encode_reply,
    encode_request,
    error_data,
    read_request,
)


def reply(body: Any) -> tuple[str, Any]:
    """What a client makes of a reply."""
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_reply(octets, "application/json", "utf-8", ["json"])


class RequestTests(SynchronousTestCase):
    """What a client sends, and a server reads."""

    def test_both_ways(self) -> None:
        """As docs/rpc.md has it."""
        encoded = encode_request("add", (1, 2), {"c": 3}, 12.5, "json")
        self.assertEqual(encoded.content_type, "application/json")
        value = json.loads(encoded.body)
        self.assertEqual(value, {"method": "add", "args": [1, 2], "kwargs": {"c": 3}, "deadline": 12.5})
        self.assertEqual(read_request(value), ("add", [1, 2], {"c": 3}, 12.5))
        self.assertNotIn("deadline", json.loads(encode_request("add", (), None, None, "json").body))

    def test_what_may_be_missing(self) -> None:
        """A method is enough."""
        self.assertEqual(read_request({"method": "now"}), ("now", [], {}, None))

    def test_what_is_no_request(self) -> None:
        """DecodeError."""
        wrong: tuple[Any, ...] = (
            None,
            [],
            "add",
            {},
            {"method": ""},
            {"method": 1},
            {"method": "m", "args": {}},
            {"method": "m", "args": "ab"},
            {"method": "m", "kwargs": []},
            {"method": "m", "kwargs": {1: 2}},
            {"method": "m", "deadline": "soon"},
            {"method": "m", "deadline": True},
            {"method": "m", "deadline": float("nan")},
        )
        for value in wrong:
            self.assertRaises(DecodeError, read_request, value)

    def test_what_cannot_be_sent(self) -> None:
        """EncodeError."""
        self.assertRaises(EncodeError, encode_request, "add", (object(),), {}, None, "json")
        for method, args, kwargs in [(5, (), {}), ("", (), {}), ("add", "12", {}), ("add", None, {}), ("add", (), [1])]:
            self.assertRaises(EncodeError, encode_request, method, args, kwargs, None, "json")

    def test_a_deadline_beyond_floats(self) -> None:
        """It is a number, and later than now."""
        deadline = read_request({"method": "add", "deadline": 10**400}).deadline
        assert deadline is not None
        self.assertGreater(deadline, 1e300)


class ReplyTests(SynchronousTestCase):
    """What a server sends, and a client reads."""

    def test_both_ways(self) -> None:
        """A result, whatever it is, and a state."""
        for kind in (RESULT, PROGRESS):
            for value in (None, 1, "text", [1, {"a": None}], {"error": 1}):
                self.assertEqual(reply(encode_reply(kind, value, "json").body), (kind, value))

    def test_an_error(self) -> None:
        """R27: strings and simple values."""
        try:
            raise ValueError("no", 3, object())
        except ValueError as error:
            encoded = encode_error(error, "json", traceback=True)
        kind, found = reply(encoded.body)
        self.assertEqual(kind, ERROR)
        self.assertIs(type(found), RemoteError)
        self.assertEqual((found.exc_type, found.exc_module), ("ValueError", "builtins"))
        self.assertEqual(found.exc_args, ("no", 3, "<object>"))
        self.assertIn("raise ValueError", found.remote_traceback)
        self.assertIn("ValueError: ('no', 3", str(found))

    def test_no_class_is_built(self) -> None:
        """R27: whatever class a reply names, it is a RemoteError, and that name is a str."""
        for name, module in [("SystemExit", "builtins"), ("Popen", "subprocess"), ("x" * 1000, "os; \n")]:
            _, found = reply({"error": {"exc_type": name, "exc_module": module, "exc_args": ["rm", "-rf"]}})
            self.assertIs(type(found), RemoteError)
            self.assertEqual((found.exc_type, found.exc_module), (name, module))
            self.assertLess(len(repr(found)), 400)
            self.assertTrue(str(found).isprintable())

    def test_without_a_traceback(self) -> None:
        """It is left out unless it is asked for."""
        data = error_data(Failure(ValueError("no")))
        self.assertEqual(data["traceback"], "")
        self.assertEqual(data["exc_message"], "no")

    def test_an_error_of_another_call(self) -> None:
        """A RemoteError that a server got itself is passed on as it came."""
        data = error_data(RemoteError("KeyError", "'k'", "builtins", ("k",), "there"))
        self.assertEqual(data, {**data, "exc_type": "KeyError", "exc_message": "'k'", "exc_args": ["k"]})
        self.assertEqual(data["traceback"], "")
        self.assertEqual(error_data(RemoteError("E", remote_traceback="there"), traceback=True)["traceback"], "there")

    def test_errors_that_are_hard_to_send(self) -> None:
        """A text that fails, that is long, that is no Unicode."""

        class BrokenError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        self.assertEqual(reply(encode_error(BrokenError(), "json").body)[1].exc_type, "BrokenError")
        self.assertLess(len(encode_error(ValueError("x" * 10**6), "json").body), 50_000)
        self.assertLess(len(encode_error(ValueError(*range(10**5)), "json").body), 50_000)
        self.assertEqual(reply(encode_error(ValueError("\udc80"), "json").body)[1].message, "\udc80")

    def test_what_is_no_reply(self) -> None:
        """DecodeError: dropped by the client."""
        wrong: tuple[Any, ...] = (
            b"",
            b"\xff",
            b"{",
            [],
            {},
            {"result": 1, "error": None},
            {"outcome": 1},
            {"error": "text"},
            {"error": {}},
            {"error": {"exc_type": 1}},
        )
        for body in wrong:
            self.assertRaises(DecodeError, reply, body)
        self.assertRaises(
            ContentDisallowed, decode_reply, b"\x80\x04N.", "application/x-python-serialize", "", ["json"]
        )

    @given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: json.dumps({"error": text}).encode()))
    def test_any_octets(self, octets: bytes) -> None:
        """A value, or a SerializationError."""
        try:
            kind, _ = decode_reply(octets, "application/json", "utf-8", ["json"])
        except SerializationError:
            return
        self.assertIn(kind, (RESULT, PROGRESS, ERROR))
