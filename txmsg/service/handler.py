"""The user's handler: how it is found, and how it is run.

`package.module:callable` is imported once, before the service is daemonised, so that every mistake in it
is one line on the terminal.  A handler takes one argument, the :class:`txmsg.amqp.Delivery`, and may be a
function, return a Deferred, or be `async def`; these run in the reactor's thread.  With threads it is a
blocking function, run in a pool of its own, and gets a :class:`ThreadDelivery`.  One with a second parameter,
`publisher`, also gets the service's publisher.  Invariant: whatever a
handler does or raises comes out as a result or an exception of :meth:`HandlerRunner.run`, in the
reactor's thread.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from twisted.python.threadpool import ThreadPool

from txmsg.amqp import Delivery, Publisher
from txmsg.errors import ConfigurationError, clip
from txmsg.service.declared import DeclaredConsumer, declarations_in
from txmsg.service.publishing import ThreadPublisher
from txmsg.service.settings import nearest_name

__all__ = [
    "Handler",
    "HandlerImportError",
    "HandlerRunner",
    "ReactorRunner",
    "ThreadDelivery",
    "ThreadRunner",
    "check_call",
    "check_kind",
    "check_threads",
    "create_handler",
    "load_app",
    "load_handler",
    "load_server",
    "make_server",
    "wants",
]

#: What a handler is: called with a delivery (and a publisher); a result that is an awaitable is waited for.
Handler = Callable[..., Any]

#: How the names of each setting look.
_FORMS = {
    "handler": "package.module:callable",
    "app": "package.module or package.module:name",
    "rpc": "package.module:name",
    "celery": "package.module:name",
}


class HandlerImportError(ConfigurationError):
    """The handler named in the configuration cannot be imported, found or called."""


def load_handler(name: str) -> Handler:
    """The callable that `name`, "package.module:callable", stands for.

    A class is called once without arguments, and the instance is the handler.  The current directory is
    searched too, as with `python -m` (but not under `python -P`).  Raises HandlerImportError.
    """
    if ":" not in name:
        raise HandlerImportError(f"handler {clip(name)!r} must look like {_FORMS['handler']}")
    target = _load("handler", name)
    if inspect.isclass(target):
        target = create_handler(target, name)
    if not callable(target):
        raise HandlerImportError(f"handler {name!r} is not callable: it is a {type(target).__name__}")
    handler: Handler = target
    return handler


def create_handler(handler_class: Callable[[], Any], name: str = "") -> Any:
    """An instance of a class that was given as a handler.  Raises HandlerImportError."""
    name = name or getattr(handler_class, "__qualname__", "")
    return _guarded(handler_class, f"handler {name!r}: creating it raised")


def load_app(name: str) -> list[DeclaredConsumer]:
    """The declared handlers that `name` stands for: "package.module", or something in it, "package.module:name".

    Raises HandlerImportError.
    """
    target = _load("app", name)
    try:
        return declarations_in(target)
    except ConfigurationError as error:
        raise HandlerImportError(f"app {name!r}: {error}") from None


def load_server(what: str, name: str) -> Any:
    """What `name`, "package.module:name", stands for; `what`: the setting, "rpc" or "celery".  HandlerImportError."""
    if ":" not in name:
        raise HandlerImportError(f"{what} {clip(name)!r} must look like {_FORMS[what]}")
    return _load(what, name)


def make_server(what: str, name: str, make: Callable[[Any], Any], connection: Any) -> Any:
    """What a function that `load_server` has found makes of a connection.  HandlerImportError."""
    try:
        check_call(make, "connection")
    except ConfigurationError as error:
        raise HandlerImportError(f"{what} {name!r}: {error}") from None
    return _guarded(lambda: make(connection), f"{what} {name!r}: calling it raised")


def _load(what: str, name: str) -> Any:
    """The module or the thing in it that `name` stands for."""
    module_name, colon, path = name.partition(":")
    attributes = path.split(".") if colon else []
    if not all(part.isidentifier() for part in [*module_name.split("."), *attributes]):
        raise HandlerImportError(f"{what} {clip(name)!r} must look like {_FORMS[what]}")
    what = f"{what} {name!r}"
    target: Any = _import_module(module_name, what)
    for attribute in attributes:
        try:
            target = getattr(target, attribute)
        except AttributeError:
            known = [n for n in dir(target) if not n.startswith("_")]
            hint = f"; {nearest_name(attribute, known)}" if 0 < len(known) <= 100 else ""
            raise HandlerImportError(f"{what}: {module_name} has no {attribute!r}{hint}") from None
    return target


def _import_module(module_name: str, what: str) -> Any:
    here = os.getcwd()
    if not sys.flags.safe_path and "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _guarded(lambda: importlib.import_module(module_name), f"{what}: importing it raised")
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        raise HandlerImportError(
            f"{what}: there is no module {missing!r} (searched: {here} and the installed packages)"
        ) from None


def _guarded(call: Callable[[], Any], what: str) -> Any:
    """Run foreign code at configuration time: whatever it raises becomes one line that says where."""
    try:
        return call()
    except ModuleNotFoundError as error:
        if error.name is not None and what.partition("'")[2].startswith(
            (error.name + ".", error.name + ":", error.name + "'")
        ):
            raise
        failure: BaseException = error
    except (Exception, SystemExit) as error:
        failure = error
    said = " ".join(traceback.format_exception_only(failure)[-1].split())
    frames = traceback.extract_tb(failure.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(failure, SyntaxError) and failure.filename and not failure.filename.startswith("<"):
        # Of a file that is imported; the last frame is that of the import machinery.
        said = f"{type(failure).__name__}: {failure.msg}"
        where = f" ({failure.filename}, line {failure.lineno})"
    raise HandlerImportError(f"{what} {clip(said)}{where}") from None


def wants(handler: Handler, name: str) -> bool:
    """Whether it has a parameter that is called `name` (publisher, producer); it is given one then, by that name."""
    try:
        parameter = inspect.signature(handler).parameters.get(name)
    except (TypeError, ValueError):
        return False  # a callable of C code that does not tell
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _with(handler: Handler, publisher: Publisher | ThreadPublisher) -> Handler:
    return partial(handler, publisher=publisher)


def check_call(handler: Handler, *names: str) -> None:
    """Refuse, with ConfigurationError, what cannot be called with so many arguments; `names` are for the text."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # a callable of C code that does not tell
    keywords = {name: None for name in names if name == "producer"}
    try:
        signature.bind(*[None] * (len(names) - len(keywords)), **keywords)
    except TypeError as error:
        name = getattr(handler, "__qualname__", type(handler).__qualname__)
        raise ConfigurationError(f"{name}{signature} cannot be called with {', '.join(names)}: {error}") from None


class HandlerRunner(Protocol):
    """Runs the handler for one delivery."""

    def start(self) -> None:
        """Get ready; called once, in the reactor's thread."""

    def run(self, delivery: Delivery) -> Deferred[Any] | None:
        """Run the handler: None when it has finished, else a Deferred of its end.  May raise what it raises."""

    def stop(self) -> None:
        """Let go of what start() took; waits for nothing."""


class ReactorRunner:
    """Runs the handler in the reactor's thread.   publisher: Publisher | None -- for a handler that wants one."""

    def __init__(self, handler: Handler, publisher: Publisher | None = None) -> None:
        self._handler: Handler = handler if publisher is None else _with(handler, publisher)

    def start(self) -> None:
        """Nothing to do."""

    def run(self, delivery: Delivery) -> Deferred[Any] | None:
        """See HandlerRunner."""
        result = self._handler(delivery)
        if result is None or isinstance(result, Deferred):
            return result
        if asyncio.isfuture(result):
            return Deferred.fromFuture(result)
        if isinstance(result, Awaitable):
            return Deferred.fromCoroutine(_awaited(result))
        _refuse_generator(result)
        return None

    def stop(self) -> None:
        """Nothing to do."""


class ThreadDelivery:
    """A delivery as a handler in a thread sees it: the attributes of Delivery, with calls that cross over.

    Everything may be read as from :class:`txmsg.amqp.Delivery`.  `ack`, `nack` and `reject` are done in
    the reactor's thread, wait for it, and raise what they raise there.  Use `call_in_reactor` for the
    rest of the client's API.
    """

    __slots__ = ("_delivery", "_reactor")

    def __init__(self, delivery: Delivery, reactor: Any) -> None:
        self._delivery = delivery
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)

    def __repr__(self) -> str:
        return f"<ThreadDelivery of {self._delivery!r}>"

    def call_in_reactor(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` in the reactor's thread and wait for its result, or for its Deferred's.

        For example `delivery.call_in_reactor(delivery.channel.basic_publish, "", "answers", b"42")`.
        """
        return blockingCallFromThread(self._reactor, function, *args, **kwargs)

    def ack(self, multiple: bool = False) -> None:
        """Acknowledge the delivery."""
        self.call_in_reactor(self._delivery.ack, multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """Refuse the delivery, by default handing it back to the queue."""
        self.call_in_reactor(self._delivery.nack, requeue, multiple)

    def reject(self, requeue: bool = False) -> None:
        """Refuse the delivery, by default for good."""
        self.call_in_reactor(self._delivery.reject, requeue)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _refuse_generator(result: object) -> None:
    """Nothing of it has run: to take that for success would lose the message."""
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(f"a handler must not return a {type(result).__name__}: is @inlineCallbacks missing?")


def check_kind(handler: Handler) -> None:
    """Refuse, with ConfigurationError, a generator function: calling it would run nothing."""
    for call in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - of an instance
        if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
            name = getattr(handler, "__qualname__", type(handler).__qualname__)
            raise ConfigurationError(f"{clip(name)} has a yield in it, so calling it runs nothing: @inlineCallbacks?")


def _daemon_thread(*args: Any, **kwargs: Any) -> threading.Thread:
    # A handler that never returns must not hold the process after the drain deadline.
    return threading.Thread(*args, daemon=True, **kwargs)


def check_threads(handler: Handler, threads: int) -> None:
    """Refuse, with ConfigurationError, threads for an `async def` handler: that one belongs in the reactor."""
    call = getattr(handler, "__call__", None)  # noqa: B004 - an instance whose __call__ is async def
    if threads and (inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)):
        raise ConfigurationError(f"threads is {threads}, but an async def handler runs in the reactor: set it to 0")


class ThreadRunner:
    """Runs a blocking handler in a pool of at most `threads` threads of its own.

    publisher: Publisher | None -- for a handler that wants one; it gets a ThreadPublisher.
    """

    def __init__(self, handler: Handler, threads: int, reactor: Any, publisher: Publisher | None = None) -> None:
        check_threads(handler, threads)
        self._handler: Handler = handler
        if publisher is not None:
            self._handler = _with(handler, ThreadPublisher(publisher, reactor))
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, "txmsg-handler")
        self._pool.threadFactory = _daemon_thread  # type: ignore[assignment]
        self._busy = 0

    def start(self) -> None:
        """Open the pool; its threads are made as they are needed."""
        self._pool.start()

    def run(self, delivery: Delivery) -> Deferred[Any]:
        """See HandlerRunner."""
        done: Deferred[Any] = Deferred()
        self._busy += 1
        self._pool.callInThreadWithCallback(
            lambda success, result: self._reactor.callFromThread(self._finished, done, result), self._call, delivery
        )
        return done

    def _call(self, delivery: Delivery) -> None:
        result = self._handler(ThreadDelivery(delivery, self._reactor))
        if inspect.iscoroutine(result):
            result.close()
        elif not isinstance(result, Awaitable):
            _refuse_generator(result)
            return
        raise TypeError(f"a handler that runs in threads must not return a {type(result).__name__}")

    def _finished(self, done: Deferred[Any], result: Any) -> None:
        # Counted here and not on the Deferred: when that is cancelled the thread is as busy as before.
        self._busy -= 1
        done.callback(result)

    def stop(self) -> None:
        """Close the pool; threads that are still busy are left to the end of the process."""
        if not self._busy:
            self._pool.stop()
