"""Exceptions as data."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from twisted.python.failure import Failure

from tests.messaging.strategies import TYPED_VALUES
from txmsg.errors import DecodeError, EncodeError, RemoteError, TaskRevoked
from txmsg.rpc.celery import ExceptionClasses, exception_data, read_exception, traceback_text


class Outer:
    class InnerError(Exception):
        pass


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def raised(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException:
        return Failure()


class TestOutwards:
    def test_names_and_arguments(self) -> None:
        """celery J-01, J-02, J-03, P-08: a nested class has its qualified name."""
        assert exception_data(ValueError("bad", 5)) == {
            "exc_type": "ValueError",
            "exc_message": ["bad", 5],
            "exc_module": "builtins",
        }
        assert exception_data(KeyError())["exc_message"] == []
        data = exception_data(Outer.InnerError("x"))
        assert (data["exc_type"], data["exc_module"]) == ("Outer.InnerError", __name__)
        assert exception_data(raised(ValueError("x")))["exc_message"] == ["x"]

    def test_arguments_that_cannot_be_sent(self) -> None:
        """celery J-03: they are their repr, cut."""
        args = exception_data(ValueError({1}, Hostile(), "y", [object()] * 1000, "\ud800"))["exc_message"]
        assert args[:3] == ["{1}", "<Hostile>", "y"]
        assert len(args[3]) == 1024
        assert args[4] in ("\ud800", "'\\ud800'")

    def test_odd_classes(self) -> None:
        """celery J-01, J-08: whatever the class is, there is data that a client can read."""

        class Hiding(Exception):
            args = property(lambda self: 1 // 0)

        data = exception_data(Hiding("x"))
        assert data["exc_message"] == ["Hiding('x')"]
        odd = type("Odd", (Exception,), {"__module__": 7})("x")
        assert exception_data(odd) == {"exc_type": "Odd", "exc_message": ["x"], "exc_module": None}
        try:
            raise odd
        except Exception as error:
            assert traceback_text(error) is None
        named = type("Named", (Exception,), {"__module__": "\udc80"})
        assert exception_data(named())["exc_module"] == "\\udc80"

    def test_what_was_remote_is_passed_on(self) -> None:
        """celery J-01."""
        error = RemoteError("Odd", "text", "their.module", ("a", 1), "their traceback")
        assert exception_data(error) == {"exc_type": "Odd", "exc_message": ["a", 1], "exc_module": "their.module"}
        assert traceback_text(error) == "their traceback"
        assert exception_data(RemoteError("Odd"))["exc_module"] is None

    def test_our_own_have_names_that_clients_know(self) -> None:
        """celery J-11."""
        for error, name in ((EncodeError("a"), "EncodeError"), (DecodeError("a"), "DecodeError")):
            assert exception_data(error) == {
                "exc_type": name,
                "exc_message": ["a"],
                "exc_module": "kombu.exceptions",
            }

    def test_traceback(self) -> None:
        """celery J-04: it ends with the exception's line, and shows no variables."""
        secret = "hunter" + "2"
        text = traceback_text(raised(ValueError("bad")))
        assert text is not None
        assert text.startswith("Traceback (most recent call last):")
        assert text.rstrip().endswith("ValueError: bad")
        assert secret not in text
        assert traceback_text(raised(ValueError("bad")).value) is not None
        assert traceback_text(ValueError("never raised")) is None
        assert traceback_text(None) is None


class TestInwards:
    def test_of_each_version(self) -> None:
        """celery J-01 to J-03, J-07, P-08: 3.1 sends one text and no module, 4.3 the bare name, 5.7 the qualified."""
        error = read_exception({"exc_type": "Outer.Inner", "exc_message": ["a", 1], "exc_module": "m"}, "trace")
        assert (error.exc_type, error.exc_args, error.exc_module) == ("Outer.Inner", ("a", 1), "m")
        assert (error.message, error.remote_traceback) == ("('a', 1)", "trace")
        old = read_exception({"exc_type": "ValueError", "exc_message": "one text"})
        assert (old.exc_args, old.message, old.exc_module) == (("one text",), "one text", "")
        assert read_exception({"exc_type": "E", "exc_message": []}).message == ""
        assert read_exception({"exc_type": "E", "exc_message": [5]}).message == "5"
        assert type(read_exception({"exc_type": "E"}, revoked=True)) is TaskRevoked

    @pytest.mark.parametrize("value", [None, "text", "", 5, [], ["a"], {}, {"exc_type": None}, {"exc_type": 5}, True])
    def test_odd_data(self, value: Any) -> None:
        """celery O-10, J-08: an error all the same."""
        error = read_exception(value, 5)
        assert error.exc_type == "Exception"
        assert error.remote_traceback == ""
        str(error), repr(error)

    @given(TYPED_VALUES, TYPED_VALUES)
    def test_anything(self, value: Any, traceback: Any) -> None:
        """celery J-05, O-10."""
        for odd in (value, {"exc_type": value, "exc_message": value, "exc_module": value}):
            error = read_exception(odd, traceback)
            assert isinstance(error.exc_type, str)
            assert isinstance(error.message, str)
            str(error), repr(error)

    def test_too_deep_or_too_long_to_show(self) -> None:
        """celery O-10."""
        deep: list[Any] = []
        for _ in range(5000):
            deep = [deep]
        assert read_exception({"exc_type": "E", "exc_message": [deep]}).message == "[[[[[...]]]]]"
        assert len(read_exception({"exc_type": "E", "exc_message": [10**5000]}).message) < 300
        bomb: list[Any] = []
        for _ in range(60):
            bomb = [bomb, bomb]
        for value in (bomb, {"exc_type": bomb}, {"exc_type": "E", "exc_message": bomb}):
            assert len(read_exception(value).message) < 10_001

    def test_nothing_is_imported_or_called(self) -> None:
        """celery J-05, J-06, R27: os.system is two words."""
        code = """if True:
            import sys
            from txmsg.rpc.celery import ExceptionClasses, read_exception
            before = set(sys.modules)
            for module, name in (("os", "system"), ("this", "s"), ("builtins", "exec"), ("a.b", "__class__")):
                error = read_exception({"exc_type": name, "exc_message": ["exit 3"], "exc_module": module})
                assert ExceptionClasses([ValueError]).make(error) is error
                assert type(error).__name__ == "RemoteError", error
            assert set(sys.modules) == before, set(sys.modules) - before
        """
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestListedClasses:
    def test_listed(self) -> None:
        """celery J-05: only what the caller lists, by either name."""
        classes = ExceptionClasses([ValueError, Outer.InnerError])
        error = read_exception(exception_data(ValueError("a", 1)))
        made = classes.make(error)
        assert type(made) is ValueError
        assert made.args == ("a", 1)
        assert made.__cause__ is error
        for name in ("InnerError", "Outer.InnerError"):
            assert type(classes.make(RemoteError(name, exc_module=__name__))) is Outer.InnerError
        other = RemoteError("KeyError", exc_module="builtins")
        assert classes.make(other) is other
        elsewhere = RemoteError("ValueError", exc_module="evil")
        assert classes.make(elsewhere) is elsewhere

    def test_arguments_that_do_not_fit(self) -> None:
        """celery J-05."""
        error = RemoteError("UnicodeDecodeError", exc_module="builtins", exc_args=("a",))
        assert ExceptionClasses([UnicodeDecodeError]).make(error) is error

    def test_what_is_no_exception_class(self) -> None:
        """celery J-06."""
        for bad in (print, int, BaseException, "ValueError"):
            with pytest.raises(TypeError):
                ExceptionClasses([bad])  # type: ignore[list-item]
