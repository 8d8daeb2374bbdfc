"""The handler: importing it, and running its kinds."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from tests.cases import ReactorTestCase
from tests.service.fakes import FakeChannel
from txmsg.errors import ConfigurationError
from txmsg.service.handler import HandlerImportError, ReactorRunner, ThreadDelivery, ThreadRunner, load_handler

MODULE = """
import functools

def plain(delivery): return "plain"
async def coroutine(delivery): return "coroutine"
class Counter:
    def __init__(self): self.seen = 0
    def __call__(self, delivery): self.seen += 1
    def handle(self, delivery): return self
class NeedsArguments:
    def __init__(self, arguments): pass
class NotCallable: pass
counter = Counter()
number = 5
partial = functools.partial(plain)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with some modules in it; what is imported from it is forgotten afterwards."""
    (tmp_path / "hn_good.py").write_text(MODULE)
    (tmp_path / "hn_raises.py").write_text("x = 1\nraise RuntimeError('no\\nway')\n")
    (tmp_path / "hn_needs.py").write_text("import hn_not_installed\n")
    (tmp_path / "hn_syntax.py").write_text("def broken(:\n")
    (tmp_path / "hn_exits.py").write_text("raise SystemExit(0)\n")
    package = tmp_path / "hn_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text("def run(delivery): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.startswith("hn_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize("name", ["plain", "coroutine", "counter", "counter.handle", "partial", "Counter"])
def test_what_can_be_a_handler(modules: Path, name: str) -> None:
    """Functions, methods, instances; a class is made into its instance once."""
    handler = load_handler(f"hn_good:{name}")
    assert callable(handler)
    assert not isinstance(handler, type)


def test_a_module_in_a_package(modules: Path) -> None:
    assert load_handler("hn_package.tasks:run").__module__ == "hn_package.tasks"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hn_good", "must look like package.module:callable"),
        ("hn_good:", "must look like package.module:callable"),
        (":plain", "must look like package.module:callable"),
        ("hn_good.py:plain:x", "must look like package.module:callable"),
        ("hn-good:plain", "must look like package.module:callable"),
        ("hn_none:run", "there is no module 'hn_none' (searched: "),
        ("hn_none.tasks:run", "there is no module 'hn_none' (searched: "),
        ("hn_package.none:run", "there is no module 'hn_package.none' (searched: "),
        ("hn_good:plan", "hn_good has no 'plan'; did you mean 'plain'?"),
        ("hn_good:counter.handel", "did you mean 'handle'?"),
        ("hn_good:number", "is not callable: it is a int"),
        ("hn_good:NotCallable", "is not callable: it is a NotCallable"),
        ("hn_good:NeedsArguments", "creating it raised TypeError: "),
        ("hn_raises:run", "importing it raised RuntimeError: no way ({here}/hn_raises.py, line 2)"),
        (
            "hn_needs:run",
            "importing it raised ModuleNotFoundError: No module named 'hn_not_installed' ({here}/hn_needs.py, line 1)",
        ),
        ("hn_syntax:run", "importing it raised SyntaxError: invalid syntax ({here}/hn_syntax.py, line 1)"),
        ("hn_exits:run", "importing it raised SystemExit: 0"),
    ],
)
def test_what_cannot(modules: Path, name: str, expected: str) -> None:
    """Issue: a handler that cannot be imported is one typed error and one clear line, which names it."""
    with pytest.raises(HandlerImportError) as caught:
        load_handler(name)
    text = str(caught.value)
    assert "\n" not in text
    assert repr(name) in text
    assert expected.format(here=modules) in text


def generator(delivery: Any) -> Iterator[None]:
    yield


async def async_generator(delivery: Any) -> AsyncIterator[None]:
    yield


class ReactorRunnerTests(ReactorTestCase):
    """The kinds of handlers that run in the reactor's thread."""

    def test_a_function_is_finished_when_it_returns(self) -> None:
        seen: list[Any] = []
        assert ReactorRunner(seen.append).run("delivery") is None  # type: ignore[arg-type]
        assert seen == ["delivery"]

    def test_a_deferred_is_waited_for(self) -> None:
        result: Deferred[None] = Deferred()
        assert ReactorRunner(lambda delivery: result).run("delivery") is result  # type: ignore[arg-type]

    def test_a_coroutine_is_run(self) -> None:
        async def handler(delivery: Any) -> str:
            return f"done {await succeed(delivery)}"

        result = ReactorRunner(handler).run("delivery")  # type: ignore[arg-type]
        assert result is not None
        assert self.successResultOf(result) == "done delivery"

    def test_other_awaitables_are_waited_for(self) -> None:
        """R22: the message is not done with before they are."""
        result: Deferred[str] = Deferred()

        class Later:
            def __await__(self) -> Generator[Any, Any, str]:
                return (yield from result.__await__())

        ran = ReactorRunner(lambda delivery: Later()).run("delivery")  # type: ignore[arg-type]
        assert ran is not None
        self.assertNoResult(ran)
        result.callback("done")
        assert self.successResultOf(ran) == "done"
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future = loop.create_future()
        assert isinstance(ReactorRunner(lambda delivery: future).run("delivery"), Deferred)  # type: ignore[arg-type]

    def test_a_generator_has_not_run(self) -> None:
        """R22: to take it for success would lose the message."""
        for handler in (generator, async_generator):
            with pytest.raises(TypeError, match="inlineCallbacks"):
                ReactorRunner(handler).run("delivery")  # type: ignore[arg-type]

    def test_an_exception_comes_out(self) -> None:
        def handler(delivery: Any) -> None:
            raise ValueError("x")

        with pytest.raises(ValueError, match="x"):
            ReactorRunner(handler).run("delivery")  # type: ignore[arg-type]


class ThreadRunnerTests(ReactorTestCase):
    """Blocking handlers in threads."""

    def runner(self, handler: Any, threads: int = 2) -> ThreadRunner:
        from twisted.internet import reactor

        runner = ThreadRunner(handler, threads, reactor)
        runner.start()
        self.addCleanup(runner.stop)
        return runner

    async def test_it_runs_elsewhere_and_ends_here(self) -> None:
        """Row 39: the handler is not in the reactor's thread, its end is."""
        threads: list[threading.Thread] = []
        result = self.runner(lambda delivery: threads.append(threading.current_thread())).run(FakeChannel().delivery(1))
        ended_in = result.addCallback(lambda _: threading.current_thread())
        assert await ended_in is threading.current_thread()
        assert threads[0] is not threading.current_thread()
        assert threads[0].daemon
        assert "txmsg-handler" in threads[0].name

    async def test_an_exception_comes_out(self) -> None:
        def handler(delivery: Any) -> None:
            raise ValueError("x")

        with pytest.raises(ValueError, match="x"):
            await self.runner(handler).run(FakeChannel().delivery(1))

    async def test_at_most_n_threads(self) -> None:
        """H-08: the pool is bounded: the third of three handlers waits for one of the two before it."""
        release, lock = threading.Event(), threading.Lock()
        running, peak = 0, 0

        def handler(delivery: Any) -> None:
            nonlocal running, peak
            with lock:
                running += 1
                peak = max(peak, running)
            release.wait(10)
            with lock:
                running -= 1

        runner = self.runner(handler)
        results = [runner.run(FakeChannel().delivery(tag)) for tag in range(3)]
        await self.in_thread(lambda: release.wait(0.2))
        release.set()
        for result in results:
            await result
        assert peak == 2

    async def test_settling_crosses_back(self) -> None:
        """Acks of a handler in a thread happen in the reactor's thread, and raise in the handler's."""
        channel = FakeChannel()
        here = threading.current_thread()
        where: list[threading.Thread] = []
        errors: list[str] = []
        settle = channel._settle

        def recorded(tag: int, how: tuple[Any, ...]) -> None:
            where.append(threading.current_thread())
            settle(tag, how)

        channel._settle = recorded  # type: ignore[method-assign]

        def handler(delivery: ThreadDelivery) -> None:
            assert delivery.body == b"body"
            assert repr(delivery).startswith("<ThreadDelivery of <Delivery ")
            calls: list[Callable[[], None]] = [delivery.ack, delivery.nack, delivery.reject]
            calls[delivery.delivery_tag - 1]()
            assert delivery.is_settled
            try:
                delivery.ack()
            except Exception as error:
                errors.append(type(error).__name__)

        runner = self.runner(handler)
        for tag in (1, 2, 3):
            await runner.run(channel.delivery(tag))
        assert channel.settled == [(1, "ack"), (2, "requeue"), (3, "reject")]
        assert errors == ["AlreadySettled"] * 3
        assert set(where) == {here}

    async def test_call_in_reactor(self) -> None:
        """The documented crossing for everything else: it waits for a Deferred and gives its result."""
        got: list[Any] = []

        def answer(value: int, *, more: int) -> Deferred[tuple[int, threading.Thread]]:
            return succeed((value + more, threading.current_thread()))

        await self.runner(lambda d: got.append(d.call_in_reactor(answer, 40, more=2))).run(FakeChannel().delivery(1))
        assert got == [(42, threading.current_thread())]

    async def test_a_deferred_or_coroutine_from_a_thread_is_an_error(self) -> None:
        async def coroutine() -> None:
            """Never run."""

        handlers: list[Callable[[Any], Any]] = [
            lambda delivery: Deferred(),
            lambda delivery: coroutine(),
            generator,
        ]
        for handler in handlers:
            with pytest.raises(TypeError, match="must not return a"):
                await self.runner(handler).run(FakeChannel().delivery(1))

    def test_an_async_handler_is_refused(self) -> None:
        async def function(delivery: Any) -> None:
            """Never run."""

        class Instance:
            async def __call__(self, delivery: Any) -> None:
                """Never run."""

        for handler in (function, Instance()):
            with pytest.raises(ConfigurationError, match="async def"):
                ThreadRunner(handler, 1, None)
