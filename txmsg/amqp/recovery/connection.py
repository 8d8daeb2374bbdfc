"""ReconnectingConnection: one connection to the broker for the application, whatever happens to the single ones.

Twisted's ClientService is the loop (:mod:`txmsg.amqp.recovery.loop`); here are the policies given to it: which host is
next, how long to wait, when to give up, what comes back on the new connection, who is told.

Invariants: nobody sees a connection before all its members are back.  Every wait has a limit or can be cancelled.
Closing is legal in any state and from any callback, and ends within its limit (R29, R30); after it no delayed call, no
socket and no unfired Deferred of ours is left (R28).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.endpoint import connect
from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.amqp.recovery.ending import Ending
from txmsg.amqp.recovery.events import RecoveryEvent
from txmsg.amqp.recovery.failures import Verdict, classify, is_our_defect
from txmsg.amqp.recovery.hosts import Host, HostList, Target, parameters_of
from txmsg.amqp.recovery.loop import ConnectionLoop
from txmsg.amqp.recovery.member import Member
from txmsg.amqp.recovery.members import Members
from txmsg.amqp.recovery.outage import Outage
from txmsg.amqp.recovery.publisher import Publisher
from txmsg.amqp.recovery.replay import TopologyReplay
from txmsg.amqp.recovery.state import ObservableState, RecoveryState, StateChange, without_traceback
from txmsg.amqp.recovery.topology import Topology
from txmsg.amqp.sasl import CredentialsSource
from txmsg.amqp.validation import integer, seconds, text
from txmsg.errors import ConfigurationError, ConnectionClosed, ConnectTimeout, clip

__all__ = ["ReconnectingConnection"]

_READY = (RecoveryState.READY, RecoveryState.BLOCKED)
_OVER = (RecoveryState.CLOSING, RecoveryState.CLOSED)


class ReconnectingConnection(ObservableState):
    """A connection that comes back, with all that lives on it.

    targets: where to: a URL, several of them (a list, or "url;url"), ConnectionParameters, or a list of these.  A name
        with several addresses counts as several hosts.  Default: amqp://localhost.
    reactor: default: the installed one.
    backoff: Backoff -- the waits between the rounds over the hosts.
    order: "shuffle" (default) or "listed" -- of the hosts in a round; a host that was just lost comes last.
    attempt_timeout: 10 s -- what one host may cost: name lookup, TCP, TLS and the AMQP handshake together (R11).  The
        parameters' own limits of the single stages hold too.
    recovery_timeout: 60 s -- for bringing all members back; then the connection is dropped and the next one tried.
    credentials: in place of those of the targets; a callable is asked anew for each attempt, and may return a Deferred.
    max_attempts: int | None -- rounds over all hosts in one outage, then it gives up.  None: never.
    recovery_limit: float | None -- seconds of one outage, then it gives up.  None: never.  The first connect is an
        outage too, with the same rules.
    endpoint: a callable from ConnectionParameters to the IStreamClientEndpoint to connect with (a proxy, a simulator),
        or None for TCP.  With `tls` in the parameters it is wrapped.
    name: what the broker's management tools show as connection name.

    Raises ConfigurationError.

    Attributes:

    epoch: int -- how many connections have been ready so far.
    last_error: BaseException | None -- what ended the last connection or attempt.
    close_reason: BaseException | None -- why it is closed for good, None before.
    topology: Topology -- what was declared on its channels, and comes back.
    """

    def __init__(
        self,
        targets: Target | Sequence[Target] = "amqp://localhost",
        *,
        reactor: Any = None,
        backoff: Backoff | None = None,
        order: str = "shuffle",
        attempt_timeout: float = 10.0,
        recovery_timeout: float = 60.0,
        credentials: CredentialsSource | None = None,
        max_attempts: int | None = None,
        recovery_limit: float | None = None,
        endpoint: Callable[[Any], IStreamClientEndpoint] | None = None,
        name: str = "",
    ) -> None:
        found = parameters_of(targets, credentials, text("name", name, empty=True))
        del targets, credentials  # a URL may hold a password, and the locals of a frame can be printed (C3.1)
        if isinstance(found, ConfigurationError):
            raise found
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = installed
        super().__init__()
        #: The reactor, or whatever clock was given for it.
        self.clock = reactor
        self.backoff = Backoff() if backoff is None else backoff
        self.name = name
        self.epoch = 0
        self.last_error: BaseException | None = None
        self.close_reason: BaseException | None = None
        self._attempt_timeout = seconds("attempt_timeout", attempt_timeout)
        self._max_attempts = None if max_attempts is None else integer("max_attempts", max_attempts, 1, 2**31)
        self._recovery_limit = None if recovery_limit is None else seconds("recovery_limit", recovery_limit)
        self._hosts = HostList(found, reactor, order=order, endpoint=endpoint, random=self.backoff.random)
        self._outage = Outage(reactor, self.backoff, self._hosts, self._recovery_limit, self._outage_too_long)
        self._is_once = False
        self._members = Members(reactor, self._member_problem)
        self.topology = Topology()
        self._members.add(TopologyReplay(self))
        self._loop = ConnectionLoop(self, reactor, seconds("recovery_timeout", recovery_timeout))
        self._ending = Ending(reactor, self._loop, self._members, lambda: self._protocol, self._closed)
        self._host: Host | None = None
        self._protocol: AMQPProtocol | None = None
        self._delay: float | None = None
        self._ready_waiters: list[Deferred[ReconnectingConnection]] = []
        self._closed_waiters: list[Deferred[BaseException]] = []

    # -- what it is --------------------------------------------------------------------------------

    @property
    def protocol(self) -> AMQPProtocol | None:
        """The connection that is ready, None while there is none."""
        protocol = self._protocol
        return protocol if protocol is not None and protocol.is_open and self._state in _READY else None

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection; also one that is blocked."""
        return self.protocol is not None

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no publishes now (R16)."""
        return self._state is RecoveryState.BLOCKED

    @property
    def attempts(self) -> int:
        """How often a host was tried in this outage."""
        return self._outage.attempts

    @property
    def rounds(self) -> int:
        """How many rounds over all hosts have ended in this outage."""
        return self._outage.rounds

    @property
    def hosts(self) -> list[str]:
        """The targets as "name:port"."""
        return [str(Host(parameters)) for parameters in self._hosts.targets]

    @property
    def where(self) -> str:
        """The host of the current or last attempt, as "name:port" or "name:port (address)"."""
        return "" if self._host is None else str(self._host)

    @property
    def target_index(self) -> int:
        """Which of the targets the current or last attempt is at, counted from 0; those of `add_targets` come last."""
        host = self._host
        found = (i for i, parameters in enumerate(self._hosts.targets) if host and parameters is host.parameters)
        return next(found, 0)

    @property
    def operation_timeout(self) -> float | None:
        """Seconds for one operation; that of the first target's parameters."""
        return self._hosts.targets[0].operation_timeout

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        where = self.where or ", ".join(self.hosts[:3])
        error = self.last_error
        last = f", last error: {type(error).__name__}" if error is not None and self._state not in _READY else ""
        return (
            f"<ReconnectingConnection{name} {self._state.value} {where}, epoch {self.epoch}, "
            f"attempt {self.attempts}{last}>"
        )

    def _member_problem(self, kind: str, subject: str, error: BaseException | None) -> None:
        self.report(RecoveryEvent(kind, clip(subject), error))

    def _enter(self, state: RecoveryState, reason: BaseException | str | None = None) -> None:
        old, self._state = self._state, state
        delay = self._delay if state is RecoveryState.LOST else None
        self._tell(StateChange(old, state, reason, self.attempts, self.where, self.clock.seconds(), delay))

    # -- members -----------------------------------------------------------------------------------

    def add_member(self, member: Member) -> None:
        """Let `member` live on this connection: it is brought back on each new one.

        While the connection is recovering it comes back with the others; while it is ready, that is its own affair.
        A connection that is closed tells it so at once.
        """
        if self.close_reason is not None:
            member.closed(self.close_reason)
            return
        self._members.add(member)

    def remove_member(self, member: Member) -> None:
        """Forget `member`; nothing happens if it is not there."""
        self._members.remove(member)

    def channel(self, *, prefetch_count: int | None = None, confirm: bool = False) -> Deferred[RecoveringChannel]:
        """Open a channel that outlives this connection's single ones; may be called before it is ready.

        prefetch_count: 0 (no limit) to 65535; None: `default_prefetch_count` of the parameters.
        confirm: whether it is in confirm mode.

        Fails with OperationTimeout when there is no connection within `operation_timeout`.
        """
        return RecoveringChannel.open(self, prefetch_count=prefetch_count, confirm=confirm)

    def publisher(
        self,
        *,
        mandatory: bool = True,
        persistent: bool = True,
        confirm: bool = True,
        on_loss: Literal["resend", "fail"] = "resend",
        max_outstanding: int = 10_000,
        max_outstanding_bytes: int = 64 * 1024 * 1024,
        when_full: Literal["fail", "wait"] = "fail",
        timeout: float = 30.0,
    ) -> Publisher:
        """Make a publisher that keeps its word across outages; may be used before there is a connection.

        The options are those of :class:`Publisher`.
        """
        return Publisher(
            self,
            mandatory=mandatory,
            persistent=persistent,
            confirm=confirm,
            on_loss=on_loss,
            max_outstanding=max_outstanding,
            max_outstanding_bytes=max_outstanding_bytes,
            when_full=when_full,
            timeout=timeout,
        ).join()

    # -- waiting -----------------------------------------------------------------------------------

    def start(self, *, once: bool = False) -> Deferred[ReconnectingConnection]:
        """Begin; fires when it is ready for the first time, fails with what made it give up.

        once: give up when the first round over the hosts has brought no connection.
        Calling it again waits for the same.  Cancelling the Deferred only ends this wait: use `close()` to stop.
        """
        if self._state is RecoveryState.IDLE:
            self._is_once = once
            self._outage.first()
            self._enter(RecoveryState.CONNECTING)
            if self.close_reason is None:  # a callback may have closed it
                self._loop.start()
        return self._wait_ready()

    def when_ready(self, timeout: float | None = None) -> Deferred[ReconnectingConnection]:
        """Wait until there is a connection, at any time.

        timeout: seconds; None: `operation_timeout`.  Fails with ConnectTimeout, which names the last error, with what
        made it give up, or with ConnectionClosed after `close()`.
        """
        limit = self.operation_timeout if timeout is None else seconds("timeout", timeout, zero=True)
        waiting = self._wait_ready()
        if limit is not None and not waiting.called:
            waiting.addTimeout(limit, self.clock, self._not_ready_in_time)
        return waiting

    def when_closed(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason once it is closed for good; works at any time."""
        if self._state is RecoveryState.CLOSED:
            assert self.close_reason is not None
            return succeed(self.close_reason)
        waiter: Deferred[BaseException] = Deferred(self._closed_waiters.remove)
        self._closed_waiters.append(waiter)
        return waiter

    def _wait_ready(self) -> Deferred[ReconnectingConnection]:
        if self.is_ready:
            return succeed(self)
        if self.close_reason is not None:
            return fail(self.close_reason.with_traceback(None))
        waiter: Deferred[ReconnectingConnection] = Deferred(self._ready_waiters.remove)
        self._ready_waiters.append(waiter)
        return waiter

    def _not_ready_in_time(self, outcome: object, limit: float) -> Any:
        if isinstance(outcome, Failure) and outcome.check(CancelledError):
            last = "" if self.last_error is None else f"; last error: {self.last_error}"
            raise ConnectTimeout(f"not connected within {limit:g} s ({self._state.value}){last}")
        return outcome

    async def __aenter__(self) -> ReconnectingConnection:
        try:
            return await self.start()
        except BaseException:  # cancelled, too
            self.close(0)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- for the loop ------------------------------------------------------------------------------

    def attempt(self) -> Deferred[AMQPProtocol]:
        """For the loop: try the next host."""
        return Deferred.fromCoroutine(self._attempt())

    async def _attempt(self) -> AMQPProtocol:
        self._outage.attempts += 1
        began = self.clock.seconds()
        self._host = host = self._hosts.pick()
        if self._state is not RecoveryState.CONNECTING:
            self._enter(RecoveryState.CONNECTING)
        if host.address is None:
            self._host = host = await self._hosts.look_up(host, self._attempt_timeout)
        left = max(0.1, self._attempt_timeout - (self.clock.seconds() - began))
        own = host.parameters.stack_timeout
        parameters = host.parameters.replace(stack_timeout=left if own is None else min(left, own))
        return await connect(parameters, reactor=self.clock, endpoint=self._hosts.endpoint_of(host))

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """For the loop: bring the members back."""
        self._enter(RecoveryState.RECOVERING)
        return Deferred.fromCoroutine(self._members.recover(protocol))

    def next_delay(self, error: BaseException) -> float:
        """For the loop: note what happened, and say how long to wait.  No callback is called here."""
        self.last_error = without_traceback(error)
        is_seen_to = any(error is blamed for blamed in self.topology.left_out.values())
        self._delay = delay = self._outage.next_delay(self._host, error, is_seen_to)
        return delay

    def made(self, protocol: AMQPProtocol) -> None:
        """For the loop: it is ready."""
        self._protocol = protocol
        self.epoch += 1
        self._outage.ready(self._host)
        protocol.blocked.add_blocked_callback(self._blocked_changed)
        protocol.blocked.add_unblocked_callback(self._blocked_changed)
        self._enter(RecoveryState.READY)
        if protocol is self._protocol and protocol.is_blocked:
            self._blocked_changed()
        # A callback, or one of them, may end it again: the others wait on, or fail.
        while self._ready_waiters and self.protocol is not None:
            self._ready_waiters.pop(0).callback(self)

    def failed(self, error: BaseException) -> None:
        """For the loop: an attempt or a recovery failed."""
        self._over(error)

    def lost(self, reason: BaseException) -> None:
        """For the loop: the ready connection is gone."""
        if self._state not in _OVER:
            self._outage.begin()
        self._over(reason)

    def _over(self, error: BaseException) -> None:
        self._protocol = None
        if is_our_defect(error):
            self._log.error(
                "{host}: the broker found fault with what was sent: {error}", host=self.where, error=clip(str(error))
            )
        self._members.lost(error)
        if self.close_reason is not None:  # it was closing, and now there is nothing left to close
            self._ending.stop(self.close_reason)
        elif self._is_hopeless(error):
            self._give_up(error)
        else:
            self._enter(RecoveryState.LOST, error)

    def _is_hopeless(self, error: BaseException) -> bool:
        rounds = self._outage.rounds
        if not self.epoch and (classify(error) is Verdict.FATAL or (self._is_once and rounds)):
            return True
        return rounds == self._max_attempts

    def _blocked_changed(self, reason: str = "") -> None:
        protocol = self._protocol
        if protocol is None or self._state not in _READY:
            return
        if protocol.is_blocked and self._state is RecoveryState.READY:
            self._enter(RecoveryState.BLOCKED, protocol.blocked.reason)
        elif not protocol.is_blocked and self._state is RecoveryState.BLOCKED:
            self._enter(RecoveryState.READY)

    # -- an outage ---------------------------------------------------------------------------------

    def _outage_too_long(self) -> None:
        limit = self._recovery_limit
        self._give_up(self.last_error or ConnectTimeout(f"no connection within recovery_limit ({limit:g} s)"))

    def reconnect(self, reason: str = "asked for by the application") -> None:
        """Drop this connection and make a new one.  Nothing happens while there is none."""
        if self._protocol is not None and self._state in _READY:
            self._protocol.abort(ConnectionClosed(f"reconnecting: {clip(reason)}", initiator="client"))

    def hurry(self) -> None:
        """Try again now, and not only after the wait that has begun; also a host that is left alone for a while.

        Nothing happens while there is no such wait.  The waits after this one are as they would have been.
        """
        if self._state is RecoveryState.LOST:
            self._hosts.release()
            self._loop.hurry()

    def add_targets(self, targets: Target | Sequence[Target]) -> None:
        """Let it come back to these hosts, too; they come after the others, from the next round on.

        targets: as for the constructor, as they are: its `credentials` and `name` do not count for them.
        Raises ConfigurationError.
        """
        found = parameters_of(targets, None, "")
        del targets
        if isinstance(found, ConfigurationError):
            raise found
        self._hosts.add(found)

    # -- the end -----------------------------------------------------------------------------------

    def close(self, timeout: float = 10.0) -> Deferred[None]:
        """End it for good, in good order; fires when nothing is left.  Idempotent, legal in any state.

        timeout: seconds, for everything: members finish what they have begun (handlers, confirms), the connection is
        closed; what is not done then is aborted.  Without a ready connection it ends at once.
        """
        seconds("timeout", timeout, zero=True)
        done: Deferred[None] = Deferred(lambda deferred: waiter.cancel())
        waiter = self.when_closed().addCallbacks(lambda reason: done.callback(None), lambda failure: None)
        if self._state not in _OVER:
            self._close(ConnectionClosed("closed by the application", 200, initiator="client"), timeout)
        return done

    def _give_up(self, error: BaseException) -> None:
        """It will not become better: end it for good because of `error`."""
        if self._state not in _OVER:
            self._close(error, 0.0)

    def _close(self, reason: BaseException, timeout: float) -> None:
        self.close_reason = reason
        protocol = self.protocol
        self._outage.end()
        self._enter(RecoveryState.CLOSING, reason)
        self._ending.begin(reason, 0.0 if protocol is None else timeout)

    def _closed(self, reason: BaseException) -> None:
        self._protocol = None
        without_traceback(reason)
        self._members.closed(reason)
        self._enter(RecoveryState.CLOSED, reason)
        ready_waiters, self._ready_waiters = self._ready_waiters, []
        for ready_waiter in ready_waiters:
            ready_waiter.errback(Failure(reason.with_traceback(None)))
        closed_waiters, self._closed_waiters = self._closed_waiters, []
        for closed_waiter in closed_waiters:
            closed_waiter.callback(reason)
