"""The life of a channel of ``memory://``, and how a refusal of the model becomes the error of a transport.

Invariant: a channel ends once, for one reason, which everything on it fails with from then on; a refusal ends the
channel or the connection, whichever it would end in AMQP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from txmsg.broker.faults import Fault
from txmsg.errors import EncodeError, TxmsgError, WrongThread, channel_error, connection_error
from txmsg.wire.primitives import encode_short_string
from txmsg.wire.tables import decode_table, encode_table

if TYPE_CHECKING:
    from txmsg.transports.memory.connection import MemoryConnection

__all__ = ["ChannelLife", "carried", "name", "wait"]

_T = TypeVar("_T")


def name(what: str, value: object) -> str:
    """`value`, which AMQP must be able to carry as a name; EncodeError."""
    encode_short_string(value, what)
    assert isinstance(value, str)
    return value


def carried(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of `arguments` as a broker at the other end of a wire would get it; EncodeError for what it would not."""
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise EncodeError(f"arguments are a mapping or None, not {type(arguments).__name__}")
    if not arguments:
        return {}
    encoded = encode_table(arguments, "arguments")
    return decode_table(encoded, 0, len(encoded))[0]


def wait(deferreds: list[Deferred[BaseException]], reason: BaseException | None) -> Deferred[BaseException]:
    """A Deferred that fires with the `reason`: at once if there is one, else when `deferreds` are fired."""
    if reason is not None:
        return succeed(reason)
    waiter: Deferred[BaseException] = Deferred(deferreds.remove)
    deferreds.append(waiter)
    return waiter


class ChannelLife:
    """What the parts of a channel stand on.

    connection: MemoryConnection.   vhost: VirtualHost -- the model it works on.
    """

    _log = Logger(namespace="txmsg.transports.memory")

    def __init__(self, connection: MemoryConnection) -> None:
        self.connection = connection
        self.vhost = connection.vhost
        self._thread_id = threading.get_ident()
        self._reason: TxmsgError | None = None
        self._waiters: list[Deferred[BaseException]] = []

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._reason is None

    @property
    def close_reason(self) -> BaseException | None:
        """Why it has ended; None while it is open."""
        return self._reason

    def when_closed(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason at the end of the channel; works at any time."""
        return wait(self._waiters, self._reason)

    def check_thread(self) -> None:
        """Raise WrongThread unless this is the thread the channel was made in."""
        if threading.get_ident() != self._thread_id:
            raise WrongThread(
                "txmsg may only be called in the reactor's thread; from another thread use reactor.callFromThread(f, "
                "...), or twisted.internet.threads.blockingCallFromThread to wait for the result"
            )

    def _call(self, call: Callable[[], _T]) -> Deferred[_T]:
        """The Deferred of a method: `call()` asks the model; durable things are there once they are on disk."""
        self.check_thread()
        if self._reason is not None:
            return fail(self._reason.with_traceback(None))
        try:
            value = call()
        except Fault as fault:
            return fail(self._refused(fault))
        except TxmsgError as error:
            return fail(error)
        return self._done(value)

    def _done(self, value: _T) -> Deferred[_T]:
        journal = self.vhost.journal
        if not journal.is_durable:
            return succeed(value)
        done: Deferred[_T] = Deferred()
        journal.after_commit(lambda: done.callback(value), done.errback)
        return done

    def _refused(self, fault: Fault) -> TxmsgError:
        """End what `fault` ends; returns the error for whoever caused it."""
        if fault.closes_connection:
            closed = connection_error(fault.reply_code, fault.reply_text)
            self.connection.end(closed)
            return closed
        error = channel_error(fault.reply_code, fault.reply_text)
        self.end(error)
        return error

    def end(self, reason: TxmsgError) -> None:
        """End the channel because of `reason`: consumers go, what is unsettled goes back.  Once only."""
        if self._reason is not None:
            return
        self._reason = reason
        self._release()
        self.connection.channel_ended(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(reason)

    def _release(self) -> None:
        """Give back what the channel holds."""
        raise NotImplementedError
