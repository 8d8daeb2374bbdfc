"""The command line, in this process; tests/service/test_process.py has it under twistd."""

from __future__ import annotations

import atexit
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from txmsg import __version__
from txmsg.service import options as options_module
from txmsg.service import plan as plan_module
from txmsg.service.exit import ProcessExit
from txmsg.service.options import ConsumerOptions
from txmsg.service.settings import SETTINGS

CANARY = "c4n4ry"
NEEDED = ["--queue", "work", "--handler", "math:floor"]


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The real standard error; and no exit function of ours is left behind."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", stream)
    made: list[ProcessExit] = []

    def make() -> ProcessExit:
        made.append(ProcessExit())
        return made[-1]

    monkeypatch.setattr(options_module, "ProcessExit", make)
    yield stream
    for process_exit in made:
        atexit.unregister(process_exit.at_exit)


def parse(*arguments: str, environ: dict[str, str] | None = None) -> ConsumerOptions:
    options = ConsumerOptions()
    options.environ = environ or {}
    options.parseOptions(list(arguments))
    return options


def test_the_options_of_the_issue(stderr: io.StringIO, tmp_path: Path) -> None:
    """Issue: the command line as it is written there."""
    options = parse(
        *("--url", "amqp://localhost/shop", "--queue", "orders", "--declare"),
        *("--bind", "events:order.*", "--bind=logs:", "--prefetch", "50", "--concurrency", "4"),
        *("--handler", "math:floor", "--queue-argument", "x-max-length=5"),
    )
    settings = options.settings
    assert (settings.url, settings.queue, settings.declare) == ("amqp://localhost/shop", "orders", True)
    assert settings.bind == (("events", "order.*"), ("logs", ""))
    assert (settings.prefetch, settings.concurrency) == (50, 4)
    assert settings.queue_arguments == {"x-max-length": 5}
    assert options.plans[0].handler(2.5) == 2
    assert stderr.getvalue() == ""


def test_what_may_be_repeated(stderr: io.StringIO) -> None:
    settings = parse(
        *NEEDED, "--url", "amqp://localhost", "--url=amqp://127.0.0.1", "--retry-delay", "1", "--retry-delay=60"
    ).settings
    assert (settings.url, settings.retry_delays) == ("amqp://localhost;amqp://127.0.0.1", (1.0, 60.0))


def test_servers(stderr: io.StringIO) -> None:
    """Issue 7: they may be repeated, and go together with a handler or without one."""
    names = ["--rpc", "tests.service.test_servers:own", "--celery=tests.service.test_servers:tasks"]
    options = parse(*names, "--rpc=tests.service.test_servers:made")
    assert options.plans == []
    assert [plan.what for plan in options.servers] == ["RPC server", "RPC server", "Celery worker"]
    options = parse(*NEEDED, *names)
    assert (len(options.plans), len(options.servers)) == (1, 2)
    assert stderr.getvalue() == ""


def test_two_parsers_share_nothing(stderr: io.StringIO) -> None:
    assert parse(*NEEDED, "--bind", "a:b").settings.bind == (("a", "b"),)
    assert parse(*NEEDED).settings.bind == ()


def test_a_flag_overrides_the_file_both_ways(stderr: io.StringIO, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("declare = true\nexclusive = true\n")
    settings = parse(*NEEDED, "-c", str(path), "--no-exclusive", "--no-durable").settings
    assert (settings.declare, settings.exclusive, settings.durable) == (True, False, False)


def test_the_environment(stderr: io.StringIO) -> None:
    settings = parse(*NEEDED, environ={"TXMSG_URL": "amqp://127.0.0.1"}).settings
    assert settings.url == "amqp://127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--hander", "x"], 64, "unknown option --hander; did you mean 'handler'?"),
        (["--password", CANARY], 64, "--password would be seen in the list of processes: set TXMSG_PASSWORD"),
        (["--no-declar", "--xyz"], 64, "unknown option --xyz; known are: "),
        (["--queue"], 64, "option --queue requires argument"),
        (["--declare=yes"], 64, "option --declare must not have an argument"),
        ([*NEEDED, "more"], 64, "unexpected argument 'more'"),
        ([*NEEDED, "--declare", "--no-declare"], 64, "contradict each other"),
        (["--queue", "work"], 64, "--handler is required"),
        (["--rpc", "math:floor", "--queue", "work"], 64, "option --queue: is for a handler, and has no effect with"),
        (["--rpc", "math"], 78, "rpc 'math' must look like package.module:name"),
        ([*NEEDED, "--celery", "math:pi"], 78, "must be Tasks, a CeleryWorker, or a function that makes one"),
        (["--handler", "math:floor"], 64, "--queue is required"),
        ([*NEEDED, "--prefetch", "x"], 64, "option --prefetch: must be an integer"),
        ([*NEEDED, "--retry-delay", "1", "--dead-letter", "work"], 78, "must have names of their own"),
        ([*NEEDED, "--config", "/none.toml"], 78, "cannot read '/none.toml'"),
        ([*NEEDED, "--url", "http://h"], 78, "must begin with amqp:// or amqps://"),
        ([*NEEDED, "--url", "amqp://h"], 78, "no user for 'h'"),
        (["--queue", "work", "--handler", "math:flor"], 78, "did you mean 'floor'?"),
        ([*NEEDED[:2], "--handler", "tests.service.test_options:async_handler", "--threads", "2"], 78, "async def"),
    ],
)
def test_one_line_and_the_code(stderr: io.StringIO, arguments: list[str], code: int, expected: str) -> None:
    """R33: usage 64, configuration 78, before anything has started; one line that says what to fix."""
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == code
    (line,) = stderr.getvalue().splitlines()
    assert line.startswith("txmsg-consumer: ")
    assert expected in line
    assert CANARY not in line
    assert line.endswith(f"(exit code {code})")


async def async_handler(delivery: Any) -> None:
    """A handler that belongs in the reactor."""


def test_help_and_version(stderr: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--help", "--version"):
        with pytest.raises(SystemExit) as caught:
            parse(argument)
        assert caught.value.code == 0
    out = capsys.readouterr().out
    for setting in SETTINGS:
        if setting.is_option:
            assert f"--{setting.option}" in out
    assert f"txmsg {__version__}" in out


def test_the_exit_function_is_registered_before_the_handler_is_imported(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit functions run in reverse order: those of the handler's module must run before ours ends the process."""
    order: list[str] = []
    monkeypatch.setattr(atexit, "register", lambda function: order.append(function.__name__))

    def imported(name: str) -> type[int]:
        order.append("import")
        return int

    monkeypatch.setattr(plan_module, "load_handler", imported)
    parse(*NEEDED)
    assert order == ["at_exit", "import"]
