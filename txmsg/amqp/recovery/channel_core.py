"""The life of a recovering channel: one after another, a plain :class:`txmsg.amqp.Channel` stands behind it.

Two things end a plain channel.  The connection goes: then the next one opens another, when the topology is there again.
Or the broker closes the channel, because of something that was asked of it (R25): then another one is opened in its
place at once, and with growing waits if nothing comes of that.  Either way prefetch, confirm mode and consumers come
back, all written at once.  If one consumer is refused, it is left to try again by itself: it is the first without a
reply, as replies come in the order of the calls.  Where that says nothing, they subscribe one at a time.

The invariant (R9): at most one coroutine opens a plain channel; it is cancelled when the connection is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmsg.amqp.channel import Channel
from txmsg.amqp.delivery import ReturnedMessage
from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.calls import RecoveringCalls
from txmsg.amqp.recovery.events import CHANNEL_FAILED, CHANNEL_REOPENED, RecoveryEvent
from txmsg.amqp.recovery.member import ORDER_CHANNEL, Member
from txmsg.amqp.recovery.replay import replay
from txmsg.amqp.recovery.topology import Topology
from txmsg.errors import ChannelClosed, ConnectionClosed, TxmsgError

if TYPE_CHECKING:
    from txmsg.amqp.client import AMQPProtocol
    from txmsg.amqp.recovery.consumer import RecoveringConsumer

__all__ = ["ChannelOwner", "RecoveringChannelCore"]


class ChannelOwner(Protocol):
    """What a recovering channel needs of its connection; :class:`ReconnectingConnection` has it."""

    topology: Topology

    @property
    def clock(self) -> IReactorTime:
        """The reactor."""

    @property
    def operation_timeout(self) -> float | None:
        """Seconds that a call may take."""

    @property
    def backoff(self) -> Backoff:
        """How long to wait before trying again."""

    @property
    def protocol(self) -> AMQPProtocol | None:
        """The connection that is ready."""

    @property
    def close_reason(self) -> BaseException | None:
        """Why it is over for good."""

    @property
    def last_error(self) -> BaseException | None:
        """What went wrong last."""

    def add_member(self, member: Member) -> None:
        """Recover it with the connection."""

    def remove_member(self, member: Member) -> None:
        """Forget it."""

    def report(self, event: RecoveryEvent) -> None:
        """Log it, and tell whoever wants to know."""


class RecoveringChannelCore:
    """What the parts of a recovering channel share."""

    order = ORDER_CHANNEL

    def __init__(self, connection: ChannelOwner, *, prefetch_count: int | None = None, confirm: bool = False) -> None:
        self.connection = connection
        #: How many plain channels there have been.
        self.epoch = 0
        self._channel: Channel | None = None
        self._reason: BaseException | None = None
        self._closing: ChannelClosed | None = None
        self._closed_waiters: list[Deferred[BaseException]] = []
        self._prefetch_count = prefetch_count
        self._global_prefetch_count: int | None = None
        self._is_confirming = confirm
        self._return_callbacks: list[Callable[[ReturnedMessage], object]] = []
        self._consumers: dict[str, RecoveringConsumer] = {}
        self._calls = RecoveringCalls(
            connection.clock, connection.operation_timeout, self._why_no_reply, self._call_succeeded
        )
        self._working: Deferred[None] | None = None
        #: Those that subscribe all at once now, and have no reply yet.
        self._subscribing: dict[RecoveringConsumer, None] = {}
        #: The plain channel that is being fitted out.
        self._coming: Channel | None = None
        self._retry: IDelayedCall | None = None
        #: How often the broker has closed a plain channel since something worked.
        self._failures = 0
        self._opened_at = 0.0
        #: Why there is no plain channel, other than for want of a connection.
        self._last_failure: BaseException | None = None
        self._ready_waiters: list[Deferred[Any]] = []

    # -- state -------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a plain channel now, so that calls go out at once."""
        return self._channel is not None and self._channel.is_open

    @property
    def is_closed(self) -> bool:
        """Whether it has ended for good."""
        return self._reason is not None

    @property
    def is_confirming(self) -> bool:
        """Whether it is in confirm mode."""
        return self._is_confirming

    @property
    def close_reason(self) -> BaseException | None:
        """Why it ended or is ending; None while it lives."""
        return self._reason or self._closing

    @property
    def channel(self) -> Channel | None:
        """The plain channel of now; None while there is none."""
        return self._channel

    def when_closed(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason when it has ended for good; a reconnect is no end."""
        if self._reason is not None:
            return succeed(self._reason)
        waiter: Deferred[BaseException] = Deferred(self._closed_waiters.remove)
        self._closed_waiters.append(waiter)
        return waiter

    def __repr__(self) -> str:
        if self._reason is not None:
            state = "closed"
        elif self._channel is not None:
            state = f"open as {self._channel.channel_number}"
        else:
            state = "recovering" if self._working is not None else "waiting"
        return (
            f"<{type(self).__name__} {state}, epoch {self.epoch}, {len(self._consumers)} consumers, "
            f"{len(self._calls)} calls waiting>"
        )

    def _why_no_reply(self) -> str:
        if self.is_open:
            return ""
        is_connected = self.connection.protocol is not None
        error = self._last_failure if is_connected else self.connection.last_error
        what = "the channel is not open" if is_connected else "there is no connection"
        return f": {what}{'' if error is None else f' ({error})'}"

    def _call_succeeded(self) -> None:
        self._failures = 0

    def forget_consumer(self, consumer: RecoveringConsumer) -> None:
        """For consumers: it has ended."""
        if self._consumers.get(consumer.consumer_tag) is consumer:
            del self._consumers[consumer.consumer_tag]

    # -- as a member of the connection ---------------------------------------------------------------

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """For the connection: come back on a new one."""
        if self.close_reason is not None:
            return succeed(None)
        self._stop_working()
        self._failures = 0
        working = self._work(protocol)
        working.addErrback(self._not_recovered, protocol)
        return working

    def _not_recovered(self, failure: Failure, protocol: AMQPProtocol) -> Failure | None:
        if self._closing is not None or self._reason is not None:
            return None  # it was closed meanwhile: that is no failure of the connection
        if protocol.is_open and not failure.check(CancelledError):
            self._try_again(protocol, failure.value)
        return failure

    def lost(self, reason: BaseException) -> None:
        """For the connection: it is gone."""
        self._stop_working()
        self._channel = None
        self._calls.pause()
        self._calls.connection_lost(reason)
        for consumer in list(self._consumers.values()):
            consumer.connection_lost(reason)

    def closed(self, reason: BaseException) -> None:
        """For the connection: it is over for good."""
        self._stop_working()
        self._end(reason)

    def stop(self) -> Deferred[None]:
        """For the connection: end in good order."""
        return self.close().addCallback(lambda reason: None)

    # -- opening a plain channel ---------------------------------------------------------------------

    def when_open(self) -> Deferred[Any]:
        """Fires with this channel once there is a plain one behind it; fails when it ends for good before."""
        if self.is_open and self._working is None:
            return succeed(self)
        waiter: Deferred[Any] = Deferred(self._ready_waiters.remove)
        if self._reason is not None:
            waiter.errback(Failure(self._reason.with_traceback(None)))
            return waiter
        self._ready_waiters.append(waiter)
        return waiter

    def _stop_working(self) -> None:
        if self._retry is not None:
            retry, self._retry = self._retry, None
            retry.cancel()
        if self._working is not None:
            self._working.cancel()

    def _work(self, protocol: AMQPProtocol) -> Deferred[None]:
        working = Deferred.fromCoroutine(self._open_plain(protocol))
        if not working.called:
            self._working = working

            def done(result: Any) -> Any:
                self._working = None
                return result

            working.addBoth(done)
        working.addCallback(self._opened)
        return working

    async def _open_plain(self, protocol: AMQPProtocol) -> None:
        """Open a channel, with all that this one is meant to have."""
        one_by_one = False
        for _ in range(len(self._consumers) + 2):
            channel = self._coming = await protocol.channel()
            try:
                await self._fit_out(channel, one_by_one)
                break
            except ChannelClosed as error:
                if error.initiator != "server" or not protocol.is_open:
                    raise
                last_error = error
                one_by_one = not self._found_guilty(error)
            except Exception:  # also a CancelledError
                if channel.is_open:
                    channel.close()
                raise
            finally:
                self._coming = None
        else:
            raise last_error

    async def _fit_out(self, channel: Channel, one_by_one: bool) -> None:
        for callback in self._return_callbacks:
            channel.add_return_callback(callback)
        under_way: list[Deferred[Any]] = []
        if self._is_confirming:
            under_way.append(channel.confirm_select())
        if self._global_prefetch_count is not None:
            under_way.append(channel.basic_qos(self._global_prefetch_count, global_qos=True))
        # From here on handlers may be called, and they may publish.
        self._channel = channel
        self._calls.use(channel)
        channel.when_closed().addCallback(self._plain_closed, channel)
        prefetch: int | None = None
        self._subscribing.clear()
        for consumer in list(self._consumers.values()):
            if consumer.is_waiting or consumer.is_subscribing:
                continue
            if consumer.prefetch_count is not None and consumer.prefetch_count != prefetch:
                prefetch = consumer.prefetch_count
                under_way.append(channel.basic_qos(prefetch))
            started = consumer.subscribe(channel)
            if not one_by_one:
                self._subscribing[consumer] = None
                under_way.append(started.addCallback(self._has_subscribed, consumer))
                continue
            try:
                await started
            except ChannelClosed as error:
                if channel.connection.is_open and error.method_name in ("basic.consume", ""):
                    consumer.refused(error)
                await gatherResults(under_way, consumeErrors=True).addErrback(lambda failure: None)
                raise
        if self._prefetch_count is not None and self._prefetch_count != prefetch:
            under_way.append(channel.basic_qos(self._prefetch_count))
        await _all(under_way)

    def _has_subscribed(self, result: Any, consumer: RecoveringConsumer) -> Any:
        self._subscribing.pop(consumer, None)
        return result

    def _found_guilty(self, error: ChannelClosed) -> bool:
        """Whether a consumer was refused while all subscribed at once; it is told."""
        if error.method_name != "basic.consume" or not self._subscribing:
            return False
        next(iter(self._subscribing)).refused(error)
        return True

    def _opened(self, result: None) -> None:
        self._subscribing.clear()
        self.epoch += 1
        self._last_failure = None
        self._opened_at = self.connection.clock.seconds()
        self._calls.resume()
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.callback(self)

    # -- when the broker closes it -------------------------------------------------------------------

    def _plain_closed(self, reason: BaseException, channel: Channel) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._calls.pause()
        protocol = channel.connection
        if self._closing is not None or self._reason is not None:
            self._end(self._closing or reason)
        elif self._retry is not None:
            return  # it was closed while it was fitted out, and that has been seen to
        elif self._working is None and protocol.is_open and not isinstance(reason, ConnectionClosed):
            self.connection.report(RecoveryEvent(CHANNEL_FAILED, repr(self), reason))
            if self.connection.clock.seconds() - self._opened_at >= self.connection.backoff.reset_after:
                self._failures = 0
            self._try_again(protocol, reason)

    def _try_again(self, protocol: AMQPProtocol, reason: BaseException | None) -> None:
        """Open another one in its place: at once the first time, then less and less often."""
        self._last_failure = reason
        delay = self.connection.backoff.delay(self._failures) if self._failures else 0.0
        self._failures += 1
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self.connection.clock.callLater(delay, self._reopen, protocol)

    def _reopen(self, protocol: AMQPProtocol) -> None:
        self._retry = None
        if not protocol.is_open or self._working is not None or self._closing is not None:
            return
        working = Deferred.fromCoroutine(self._open_another(protocol))
        working.addErrback(self._not_reopened, protocol)

    async def _open_another(self, protocol: AMQPProtocol) -> None:
        working = Deferred.fromCoroutine(self._redeclare_auto_delete(protocol))
        self._working = working
        try:
            await working
        finally:
            self._working = None
        await self._work(protocol)
        self.connection.report(RecoveryEvent(CHANNEL_REOPENED, repr(self)))

    async def _redeclare_auto_delete(self, protocol: AMQPProtocol) -> None:
        """The queues that have gone with their consumers when the channel was closed."""
        topology = self.connection.topology
        for consumer in list(self._consumers.values()):
            queue = topology.queues.get(topology.name_of(consumer.queue_key))
            if queue is not None and queue.auto_delete:
                await replay(protocol, topology.plan_for(queue.name), self.connection)

    def _not_reopened(self, failure: Failure, protocol: AMQPProtocol) -> None:
        error = failure.value
        if failure.check(CancelledError) or not protocol.is_open or self._closing is not None or self._reason:
            return
        self.connection.report(RecoveryEvent(CHANNEL_FAILED, repr(self), error))
        self._try_again(protocol, error)

    # -- the end -----------------------------------------------------------------------------------

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> Deferred[BaseException]:
        """End it for good, in good order; fires with the reason.  May be called at any time and more than once.

        Its consumers end, and calls that wait fail with ChannelClosed.
        """
        done = self.when_closed()
        if self._reason is None and self._closing is None:
            self._closing = closing = ChannelClosed(reply_text, reply_code, initiator="client")
            coming = self._coming
            self._stop_working()
            channel = self._channel or coming
            if channel is None or channel.is_closed:
                self._end(closing)
            else:
                channel.close(reply_code, reply_text).addCallback(lambda reason: self._end(closing))
        return done

    def _end(self, reason: BaseException) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._channel = None
        self.connection.remove_member(self)
        self._calls.close(reason)
        for consumer in list(self._consumers.values()):
            consumer.end(reason)
        self._return_callbacks.clear()
        ready, self._ready_waiters = self._ready_waiters, []
        for waiter in ready:
            waiter.errback(Failure(reason.with_traceback(None)))
        waiters, self._closed_waiters = self._closed_waiters, []
        for closed in waiters:
            closed.callback(reason)

    def _wrong_state(self) -> BaseException:
        reason = self._reason or self._closing
        assert reason is not None
        return reason.with_traceback(None)


async def _all(under_way: list[Deferred[Any]]) -> None:
    """Wait for all of them, and raise what the first one that failed has failed with."""
    try:
        await gatherResults(under_way, consumeErrors=True)
    except Exception as error:
        first = getattr(error, "subFailure", None)
        if first is None or not isinstance(first.value, TxmsgError):
            raise
        raise first.value.with_traceback(None) from None
