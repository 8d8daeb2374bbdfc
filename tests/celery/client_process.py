"""A client of the real Celery in a process of its own, which does what the tests of our worker tell it to.

Both halves are here: the process runs this file.  One process serves a whole test module: importing Celery takes
longer than most tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path
from typing import Any

__all__ = ["ClientError", "ClientProcess"]

_ROOT = Path(__file__).parents[2]
#: Seconds that one piece of code may take.
_PATIENCE = 60.0


class ClientError(Exception):
    """What the code in the client raised.

    kind: str -- "module.QualifiedName" of its class.   args: list -- its arguments, or their repr.
    traceback: str -- of the task, where there is one.   mro: list of names.
    """

    def __init__(self, kind: str, arguments: list[Any], remote: str, mro: list[str], text: str) -> None:
        super().__init__(f"{kind}{tuple(arguments)!r}\n{text}")
        self.kind = kind
        self.arguments = arguments
        self.traceback = remote
        self.mro = mro


class ClientProcess:
    """The half in the test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.celery.client_process"],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, url: str, queue: str, code: str) -> Any:
        """Run the body of a function with `app` (Celery's), `celery` and `tasks`; returns what that returns, by JSON.

        Blocks; ClientError where it raises.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([url, queue, textwrap.dedent(code)]) + "\n")
        process.stdin.flush()
        watchdog = threading.Timer(_PATIENCE, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError("the client has ended")
        outcome = json.loads(line)
        if "error" in outcome:
            raise ClientError(*outcome["error"])
        return outcome["result"]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


# -- in the process ----------------------------------------------------------------------------------


def _make(url: str, queue: str) -> Any:
    """An unmodified client: a broker, rpc:// for results, and the names of tasks."""
    import celery

    app: Any = celery.Celery("client", broker=url, backend="rpc://", set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        broker_connection_timeout=10,
        enable_utc=True,
        timezone="UTC",
    )
    for name in ("add", "fail", "echo", "slow", "again", "note", "progress"):
        app.task(name=name, typing=False)(_nothing)
    return app


def _nothing(*args: Any, **kwargs: Any) -> None:
    """The client knows the names of tasks only."""


def _call(app: Any, code: str) -> Any:
    import celery

    scope: dict[str, Any] = {"app": app, "celery": celery, "tasks": app.tasks}
    exec("def body():\n" + textwrap.indent(code, "    "), scope)
    return scope["body"]()


def _argument(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | None) else repr(value)


def main() -> None:
    """Answer one line with one line, until there are no more."""
    out, sys.stdout = sys.stdout, sys.stderr
    apps: dict[tuple[str, str], Any] = {}
    for line in sys.stdin:
        url, queue, code = json.loads(line)
        key = url, queue
        try:
            if key not in apps:
                apps[key] = _make(url, queue)
            outcome: Any = {"result": _call(apps[key], code)}
        except Exception as error:
            kind = type(error)
            outcome = {
                "error": [
                    f"{kind.__module__}.{kind.__qualname__}",
                    [_argument(each) for each in error.args],
                    str(getattr(error, "__cause__", "") or ""),
                    [each.__name__ for each in kind.__mro__],
                    traceback.format_exc(),
                ]
            }
        out.write(json.dumps(outcome, default=repr) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
