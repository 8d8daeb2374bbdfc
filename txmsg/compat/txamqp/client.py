"""What goes with a client: the exceptions, TwistedEvent, and TwistedDelegate, which programs subclass."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.compat.txamqp.delegate import Delegate
from txmsg.compat.txamqp.message import Message

__all__ = [
    "AlreadyFiredError",
    "ChannelClosed",
    "Closed",
    "ConnectionClosed",
    "TwistedDelegate",
    "TwistedEvent",
    "closed_error",
]


class Closed(Exception):
    """The channel or the connection has ended.

    args[0] -- why: the broker's channel.close or connection.close as a Message (`reply_code`, `reply_text`), a Failure
    for a connection that was lost, or what the program closed it with.
    """


class ChannelClosed(Closed):
    """The broker has closed the channel, and says why in `args[0].reply_code` and `.reply_text`."""


class ConnectionClosed(Closed):
    """The broker has closed the connection, and says why in `args[0].reply_code` and `.reply_text`."""


class AlreadyFiredError(Exception):
    """A TwistedEvent fires once."""


def closed_error(reason: Any) -> Closed:
    """The exception for a reason."""
    if isinstance(reason, Closed):
        return reason
    if isinstance(reason, Message):
        return ConnectionClosed(reason) if reason.method.klass.name == "connection" else ChannelClosed(reason)
    return Closed(reason)


class TwistedEvent:
    """Something that happens once, or fails to.

    Each `wait()` has a Deferred of its own, so that no waiter disturbs another.
    """

    def __init__(self) -> None:
        self._waiters: list[Deferred[bool]] = []
        self._outcome: list[Any] = []

    def fire(self) -> None:
        """It has happened: the waiters get True.  AlreadyFiredError for a second time."""
        self._settle(True)

    def fail(self, reason: Any) -> None:
        """It will not happen: the waiters fail with the exception or Failure.  AlreadyFiredError as above."""
        if self._outcome:
            raise AlreadyFiredError
        self._settle(reason if isinstance(reason, Failure) else Failure(reason))

    def fail_if_not_fired(self, reason: Any) -> None:
        """As `fail`, but nothing happens if it is settled already."""
        if not self._outcome:
            self.fail(reason)

    def wait(self) -> Deferred[bool]:
        """A new Deferred that fires with True, or fails; works at any time, and may be cancelled."""
        waiter: Deferred[bool] = Deferred(self._give_up)
        if self._outcome:
            waiter.callback(self._outcome[0])
        else:
            self._waiters.append(waiter)
        return waiter

    def _give_up(self, waiter: Deferred[bool]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _settle(self, outcome: Any) -> None:
        if self._outcome:
            raise AlreadyFiredError
        self._outcome.append(outcome)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(outcome)


class TwistedDelegate(Delegate):
    """What every program's delegate is or stands on.

    Subclasses override what they want to know of (`basic_deliver`, `basic_return_`, `basic_cancel`, `basic_ack`,
    `basic_nack`, `channel_close`, `channel_flow`, `connection_start`, `connection_tune`, `connection_close`,
    `connection_blocked`, `connection_unblocked`, `close`) and call these.  Whether they do or not, the end of a
    channel or connection is the end.
    """

    def connection_start(self, ch: Any, msg: Message) -> None:
        """The broker has introduced itself: log in as soon as `authenticate` or `start` has said how."""
        client = self.client
        client.when_login_is_known(
            lambda: ch.connection_start_ok(mechanism=client.mechanism, response=client.response, locale=client.locale)
        )

    def connection_tune(self, ch: Any, msg: Message) -> None:
        """The broker proposes limits: take them, with the heartbeat of ours."""
        self.client.MAX_LENGTH = msg.frame_max
        ch.connection_tune_ok(msg.channel_max, msg.frame_max, self.client.heartbeatInterval)
        self.client.started.fire()

    def basic_deliver(self, ch: Any, msg: Message) -> Any:
        """A message for a consumer: into its queue."""
        self.client.queue_named(msg.consumer_tag).put(msg)

    def basic_return_(self, ch: Any, msg: Message) -> Any:
        """A mandatory message has come back: into `client.basic_return_queue`."""
        self.client.basic_return_queue.put(msg)

    def basic_cancel(self, ch: Any, msg: Message) -> Any:
        """The broker has ended a consumer, because its queue is gone: whoever waits for it is told."""
        self.client.queue_named(msg.consumer_tag).close(msg)

    def channel_flow(self, ch: Any, msg: Message) -> Any:
        """The broker wants no publishes for a while, or wants them again."""
        ch.channel_flow_ok(active=msg.active)

    def channel_close(self, ch: Any, msg: Message) -> Any:
        """The broker has closed a channel."""
        ch.channel_close_ok()
        ch.do_close(msg)

    def connection_close(self, ch: Any, msg: Message) -> Any:
        """The broker has closed the connection."""
        ch.connection_close_ok()
        self.client.do_close(msg)

    def close(self, reason: Any) -> None:
        """The connection has ended, for whatever reason."""
        self.client.closed = True
        self.client.started.fail_if_not_fired(closed_error(reason))
