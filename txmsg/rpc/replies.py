"""ReplySender: a server's replies, on a channel of their own.

Replies are not confirmed: a caller that gets none says so by RPCTimeout.  While the connection is away they wait, a
bounded number of them, for the caller may be on a connection that lives.

Invariant: a reply goes to an address that a broker has made for replies, or to one with a prefix that this server was
given, never to any queue that a request names (C6.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError
from txmsg.messaging.serialization import Encoded
from txmsg.rpc.direct_reply_to import DIRECT_REPLY_PREFIX, is_direct_reply_to
from txmsg.rpc.reply_channel import open_plain_channel

if TYPE_CHECKING:
    from txmsg.messaging import Connection
    from txmsg.rpc.request import ServerCounts

__all__ = ["REPLY_PREFIXES", "ReplySender"]

#: Direct replies, and queues that the broker has named.
REPLY_PREFIXES: Final = (DIRECT_REPLY_PREFIX, "amq.gen-")

#: Replies that wait for the connection, at most.
_WAITING_MOST: Final = 10_000
#: And octets of them together, unless it is one.
_WAITING_OCTETS: Final = 64 * 1024 * 1024

_log = Logger(namespace="txmsg.rpc.replies")


class ReplySender:
    """Publishes to the default exchange, unconfirmed.

    connection: Connection.   prefixes -- of further names that replies may go to; each ends the guess at a name, so
        it is as long as can be, and never empty.
    """

    def __init__(self, connection: Connection, prefixes: Iterable[str] = ()) -> None:
        given = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
        if not all(isinstance(prefix, str) and prefix for prefix in given):
            raise ConfigurationError("a prefix of the queues that replies may go to is a str that is not empty")
        self.connection = connection
        self.prefixes = REPLY_PREFIXES + given
        self._channel: Any = None
        self._opening: Deferred[None] | None = None
        self._waiting: deque[tuple[str, dict[str, Any], bytes, ServerCounts, Deferred[None]]] = deque()
        self._waiting_octets = 0
        self._turn: IDelayedCall | None = None
        self._is_closed = False

    def may_reply_to(self, name: str) -> bool:
        """Whether replies may go there; of direct reply-to, only what a broker can have made."""
        if name.startswith(DIRECT_REPLY_PREFIX):
            return is_direct_reply_to(name)
        return name.startswith(self.prefixes)

    def send(
        self, reply_to: str, correlation_id: str | None, encoded: Encoded, counts: ServerCounts, behind: bool = False
    ) -> Deferred[None] | None:
        """Send one reply; what cannot be sent is counted.

        behind: bool -- at the end of the turn, behind the acks that were given in it.
        None: it has left, or never will; a Deferred fires then.
        """
        properties = {"content_type": encoded.content_type, "content_encoding": encoded.content_encoding}
        if correlation_id is not None:
            properties["correlation_id"] = correlation_id
        channel = self._channel
        is_open = channel is not None and channel.is_open
        if is_open and not behind and not self._waiting:
            sent: Deferred[None] = channel.publish("", reply_to, encoded.body, properties).addErrback(_unsent, counts)
            return None if sent.called and not sent.paused else sent
        octets = len(encoded.body)
        if (
            self._is_closed
            or len(self._waiting) >= _WAITING_MOST
            or (self._waiting and self._waiting_octets + octets > _WAITING_OCTETS)
        ):
            counts.unsent += 1
            return None
        waits: Deferred[None] = Deferred()
        self._waiting.append((reply_to, properties, encoded.body, counts, waits))
        self._waiting_octets += octets
        if not is_open:
            self._open_soon()
        elif self._turn is None:
            self._turn = self.connection.reactor.callLater(0, self._turn_over)
        return waits

    def _turn_over(self) -> None:
        self._turn = None
        if self._is_closed or (self._channel is not None and self._channel.is_open):
            self._open_over(None)
        else:
            self._open_soon()

    def open(self) -> Deferred[None]:
        """Open the channel, so that the first reply need not wait."""
        self._is_closed = False
        return Deferred.fromCoroutine(self._open())

    def _open_soon(self) -> None:
        if self._opening is None:
            opening = self._opening = Deferred.fromCoroutine(self._open())
            opening.addBoth(self._open_over)

    async def _open(self) -> None:
        if self._channel is not None and self._channel.is_open:
            return
        channel = await open_plain_channel(await self.connection.transport_connection())
        if self._is_closed or (self._channel is not None and self._channel.is_open):
            channel.close()
            return
        old, self._channel = self._channel, channel
        if old is not None:
            old.close().addErrback(lambda failure: None)  # so that it does not come back by itself

    def _open_over(self, outcome: object) -> None:
        self._opening = None
        if isinstance(outcome, Failure) and not outcome.check(CancelledError):
            _log.warn("{count} replies could not be sent: {error}", count=len(self._waiting), error=str(outcome.value))
        waiting, self._waiting = self._waiting, deque()
        self._waiting_octets = 0
        channel = self._channel
        for reply_to, properties, body, counts, waits in waiting:
            if channel is None or not channel.is_open:
                counts.unsent += 1
                waits.callback(None)
            else:
                channel.publish("", reply_to, body, properties).addErrback(_unsent, counts).addBoth(_left, waits)

    def close(self) -> Deferred[None]:
        """Close the channel, behind what was sent; what still waits for one is not sent."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._turn is not None:
            self._turn.cancel()
            self._turn_over()
        channel, self._channel = self._channel, None
        if channel is None or not channel.is_open:
            return succeed(None)
        closing: Deferred[None] = channel.close()
        return closing


def _left(_: object, waits: Deferred[None]) -> None:
    waits.callback(None)


def _unsent(failure: Failure, counts: ServerCounts) -> None:
    counts.unsent += 1
    _log.debug("a reply was not sent: {error}", error=str(failure.value))
