"""Task and Tasks: the functions that a worker runs, by the names that messages give to them.

The invariant: only what was registered is ever called, and nothing is imported for a name.  Pure of I/O.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, TypeVar, overload

from txmsg.errors import ConfigurationError, clip

__all__ = ["Task", "Tasks"]

_F = TypeVar("_F", bound=Callable[..., Any])

#: Celery's: three more attempts, three minutes apart.
MAX_RETRIES: Final = 3
RETRY_DELAY: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A function and how it is run.

    name: str -- in messages.   function -- returns the result, a Deferred or another awaitable, or is `async def`.
    bind: bool -- it is given the :class:`~txmsg.rpc.celery.worker.request.Request` first.
    thread: bool -- it blocks: it is called in a thread.
    acks_late: bool | None -- True: the message is acked after its result has been sent, and a task whose worker dies
        is run again; False: before it is run.  None: as the worker has it.
    ignore_result: bool -- no result is sent, unless the message says otherwise (L-02).
    store_errors_even_if_ignored: bool -- FAILURE is sent even so (L-04).
    max_retries: int | None -- attempts after the first, None: any number.   default_retry_delay: seconds.
    time_limit, soft_time_limit: seconds or None; those in the message win.
    track_started: bool | None -- send STARTED; None: as the worker has it.
    throws -- classes of exceptions that are no surprise: they are logged without a traceback.
    """

    name: str
    function: Callable[..., Any]
    bind: bool = False
    thread: bool = False
    acks_late: bool | None = None
    ignore_result: bool = False
    store_errors_even_if_ignored: bool = False
    max_retries: int | None = MAX_RETRIES
    default_retry_delay: float = RETRY_DELAY
    time_limit: float | None = None
    soft_time_limit: float | None = None
    track_started: bool | None = None
    throws: tuple[type[BaseException], ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError("a task has a name")
        if not callable(self.function):
            raise ConfigurationError(f"the task {clip(self.name)!r} is not callable")
        if self.thread and inspect.iscoroutinefunction(self.function):
            raise ConfigurationError(f"the task {clip(self.name)!r} is a coroutine: it does not run in a thread")
        retries = self.max_retries
        if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
            raise ConfigurationError(f"max_retries is an int from 0, or None, not {retries!r}")
        for name in ("default_retry_delay", "time_limit", "soft_time_limit"):
            value = getattr(self, name)
            if value is None and name != "default_retry_delay":
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not isfinite(value) or value < 0:
                raise ConfigurationError(f"{name} is a number of seconds, not {value!r}")
        if self.time_limit and self.soft_time_limit and self.soft_time_limit > self.time_limit:
            raise ConfigurationError(f"soft_time_limit of {clip(self.name)!r} is above its time_limit")
        for kind in self.throws:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ConfigurationError(f"throws are classes of exceptions, not {kind!r}")

    def takes_error(self) -> bool:
        """Whether, as an errback, it is called here with (request, error, traceback): it has more than one parameter,
        besides what `bind` gives to it (M-07).
        """
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):  # of what is written in C
            return False
        places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        return len(places) - self.bind > 1 or any(each.kind is each.VAR_POSITIONAL for each in parameters)


class Tasks(Mapping[str, Task]):
    """The tasks of a worker, by name.

    tasks = Tasks()

    @tasks.task(name="shop.add")
    def add(x, y):
        return x + y
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    @overload
    def task(self, function: _F, /) -> _F: ...

    @overload
    def task(self, function: None = None, /, *, name: str | None = None, **options: Any) -> Callable[[_F], _F]: ...

    def task(self, function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Decorator: register a function, which stays what it is.

        name: str | None -- None: "module.function", as Celery does.   options -- the fields of :class:`Task`.
        ConfigurationError: an option that is not known or not possible, no name, or the name is taken.
        """
        if function is None:
            return lambda decorated: self._register(decorated, name, options)
        return self._register(function, name, options)

    def _register(self, function: Any, name: str | None, options: dict[str, Any]) -> Any:
        if name is None:
            own = getattr(function, "__name__", "")
            if not own or own == "<lambda>":
                raise ConfigurationError("a function without a name needs one: task(name=...)")
            name = f"{function.__module__}.{own}"
        throws = options.pop("throws", ())
        options = {**options, "throws": throws if isinstance(throws, tuple) else (throws,)}
        if options.pop("name", None) is not None or "function" in options:
            raise ConfigurationError("the function of a task is what is decorated")
        try:
            self.add(Task(name=name, function=function, **options))
        except TypeError as error:
            raise ConfigurationError(f"the task {clip(name)!r}: {error}") from None
        return function

    def add(self, task: Task) -> Task:
        """Register a Task; ConfigurationError: its name is taken."""
        if task.name in self._tasks:
            raise ConfigurationError(f"there is a task {clip(task.name)!r} already")
        self._tasks[task.name] = task
        return task

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Tasks {', '.join(sorted(self._tasks)[:10])}{', ...' if len(self._tasks) > 10 else ''}>"
