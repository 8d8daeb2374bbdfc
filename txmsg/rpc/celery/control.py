"""Control: what workers are told, over Celery's pidbox (celery K-12).

The fanout exchange ``celery.pidbox`` takes it to each worker that runs now; one that starts later knows nothing of it.
The commands are those of Celery's remote control:
https://docs.celeryq.dev/en/stable/userguide/workers.html#remote-control
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail

from txmsg.errors import ConfigurationError
from txmsg.messaging import Connection
from txmsg.messaging.pidbox import Mailbox
from txmsg.rpc.celery.waiting import within

__all__ = ["Control"]


class Control:
    """Tells all workers of an application something, or those that are named.

    connection: Connection.   namespace: str -- "celery"; workers with `control_exchange` have another.
    timeout: float -- seconds that sending a command has, beside those for its answers; OperationTimeout after that.
    """

    def __init__(self, connection: Connection, namespace: str = "celery", timeout: float = 30.0) -> None:
        self.timeout = timeout
        self.mailbox = Mailbox(namespace, type="fanout", connection=connection)

    def revoke(
        self,
        task_id: str | Iterable[str],
        *,
        terminate: bool = False,
        signal: str = "SIGTERM",
        destination: Iterable[str] | None = None,
    ) -> Deferred[None]:
        """Have tasks not run; fires when the broker has that, which says nothing of the workers.

        A worker that gets, or holds, one of them afterwards reports REVOKED in place of running it.  One that has
        ended stays as it is.
        task_id -- one, or several.   terminate: bool -- end also one that runs, by `signal` to the process it is in:
        that process may have begun with another task by then.   destination -- names of workers, or one; None: all.
        """
        ids: Any = task_id if isinstance(task_id, str) or not isinstance(task_id, Iterable) else list(task_id)
        if not ids or not isinstance(ids, str | list) or not all(isinstance(each, str) and each for each in ids):
            return fail(ConfigurationError("the id of a task to revoke is a str that is not empty"))
        arguments = {"task_id": ids, "terminate": bool(terminate), "signal": signal if terminate else None}
        return self.cast("revoke", arguments, destination=destination)

    def ping(self, timeout: float = 1.0, destination: Iterable[str] | None = None) -> Deferred[dict[str, Any]]:
        """Fires, after `timeout` seconds, with the answers of the workers that run: {name: {"ok": "pong"}}."""
        return self.ask("ping", timeout=timeout, destination=destination)

    def cast(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, destination: Iterable[str] | None = None
    ) -> Deferred[None]:
        """Send any command and want no answer; fires when the broker has it.  destination -- as for :meth:`revoke`."""
        if destination is None:
            sent = self.mailbox.abcast(command, arguments)
        else:
            try:
                sent = self.mailbox.cast(_names(destination), command, arguments)
            except ConfigurationError as error:
                return fail(error)
        return within(self.timeout, sent, self.mailbox.reactor, f"the command {command!r} was not sent")

    def ask(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float = 1.0,
        destination: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> Deferred[dict[str, Any]]:
        """Send any command; fires with the answers by the names of the workers.

        timeout: float -- seconds until it fires with what has come.   limit: int | None -- so many are enough; with
        `destination` it is as many as are named.
        """
        if destination is None:
            asked = self.mailbox.multi_call(command, arguments, timeout=timeout, limit=limit)
        else:
            try:
                names = _names(destination)
            except ConfigurationError as error:
                return fail(error)
            asked = self.mailbox.call(names, command, arguments, timeout=timeout, limit=limit)
        limited = self.timeout + (timeout if isinstance(timeout, int | float) else 0.0)
        what = f"the command {command!r} was not answered"
        return within(limited, asked, self.mailbox.reactor, what).addCallback(_by_name)

    def close(self) -> Deferred[None]:
        """Give up its channel; the connection stays open."""
        return self.mailbox.close()


def _names(destination: Iterable[str]) -> list[str]:
    """One name is a str, too, whose letters are nobody's names."""
    names = [destination] if isinstance(destination, str) else list(destination)
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError("destination is the names of workers, each a str that is not empty")
    return names


def _by_name(replies: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for reply in replies:
        if isinstance(reply, Mapping):
            found.update(reply)
    return found
