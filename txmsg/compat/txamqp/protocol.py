"""AMQClient: the Protocol that txamqp's programs make, authenticate and take channels and queues from.

A program's subclass may have attributes of any name, so the connection itself is an object of its own (`native`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error as twisted_errors
from twisted.internet.defer import Deferred, fail, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.compat.txamqp.channel import AMQChannel
from txmsg.compat.txamqp.client import ChannelClosed, Closed, ConnectionClosed, TwistedEvent, closed_error
from txmsg.compat.txamqp.message import Message, closing_message, message_of
from txmsg.compat.txamqp.methods import values_of
from txmsg.compat.txamqp.native import NativeConnection, native_credentials, native_parameters, text_of
from txmsg.compat.txamqp.queue import TimeoutDeferredQueue
from txmsg.compat.txamqp.spec import SPEC, Method, Spec, method_named
from txmsg.errors import ConnectionClosed as NativeConnectionClosed
from txmsg.errors import ConnectionLost, EncodeError, TxmsgError
from txmsg.wire.methods import Method as WireMethod

__all__ = ["AMQChannel", "AMQClient", "ChannelClosed", "Closed", "ConnectionClosed"]

#: Seconds in which the whole opening has to be done, `authenticate()` included.
OPENING_TIMEOUT = 30.0

#: Seconds that `close()` without a limit of its own waits for the broker's agreement.
CLOSING_TIMEOUT = 3.0

#: How many returned messages are kept for a program that never looks.
MAX_RETURNED = 10_000


@implementer(IHandshakeListener)
class AMQClient(Protocol):
    """One connection to a broker, for any of Twisted's ways to connect.

    delegate -- a TwistedDelegate, for this client only; None for a new one.
    vhost: str.   spec -- what `spec.load` gave; not needed.   heartbeat: int -- seconds; 0, the default: none.
    clock -- for the timers; default: the installed reactor.   insist -- ignored.

    started: TwistedEvent -- fires when the limits are agreed on, or fails with Closed.
    disconnected: TwistedEvent -- fires when the socket is gone.
    closed: bool.   channels: dict by number.   queues: dict by consumer tag.
    basic_return_queue: TimeoutDeferredQueue -- the mandatory messages that have come back, the last 10,000.
    """

    _log = Logger(namespace="txmsg.compat.txamqp")

    channelClass: type[AMQChannel] = AMQChannel

    #: Seconds in which the broker has to answer a method; None for no limit, as txamqp has it.
    operationTimeout: float | None = 60.0

    #: The largest frame; the broker's proposal once that is known.
    MAX_LENGTH = 4096

    #: How the broker knows us: `authenticate` or `start` set these.
    response: Any = None
    mechanism = ""
    locale = "en_US"

    def __init__(
        self,
        delegate: Any = None,
        vhost: Any = "/",
        spec: Any = None,
        heartbeat: int = 0,
        clock: Any = None,
        insist: bool = False,
    ) -> None:
        if delegate is None:
            from txmsg.compat.txamqp.client import TwistedDelegate

            delegate = TwistedDelegate()
        self.delegate = delegate
        self.delegate.client = self
        self.vhost = vhost
        self.spec: Spec = SPEC if spec is None else spec
        self.heartbeatInterval = heartbeat
        self.insist = insist
        self.channels: dict[int, AMQChannel] = {}
        self.queues: dict[Any, TimeoutDeferredQueue] = {}
        self.started = TwistedEvent()
        self.disconnected = TwistedEvent()
        self.closed = False
        self.native = NativeConnection(
            native_parameters(vhost, heartbeat, OPENING_TIMEOUT, self.operationTimeout), reactor=clock
        )
        self.native.face = self
        self.native.ready.addErrback(lambda failure: None)  # `start` tells
        self.clock = self.native.clock
        self.basic_return_queue = TimeoutDeferredQueue(clock, MAX_RETURNED)
        self._login: list[Callable[[], object]] = []
        self._is_login_known = False
        self._is_closing = False
        self._close_reason: Any = None
        self._known: tuple[BaseException, Any] | None = None
        self._is_ended = False
        self._is_gone = False

    # -- the transport -----------------------------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Twisted: the transport is there; the opening begins."""
        self.native.makeConnection(transport)  # type: ignore[no-untyped-call]
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        """Twisted: TLS is up."""
        self.native.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: some bytes."""
        self.native.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the transport is gone; `disconnected` fires in here."""
        if self.native.transport is not None:
            self.native.connectionLost(reason)
        self.do_close(reason)
        if not self._is_gone:
            self._is_gone = True
            self.disconnected.fire()

    def logPrefix(self) -> str:
        """Twisted: the name in log lines."""
        return type(self).__name__

    # -- opening -----------------------------------------------------------------------------------

    def authenticate(
        self, username: Any, password: Any, mechanism: str = "AMQPLAIN", locale: str = "en_US"
    ) -> Deferred[Message]:
        """Log in with a name and a password; fires when the connection is open.

        username, password: str, or bytes of UTF-8; TypeError for anything else.
        mechanism: "AMQPLAIN" or "PLAIN"; ValueError for another.

        Fails with ConnectionClosed if the broker refuses the login (403) or the virtual host (530), and with Closed if
        the connection is lost or does not get open within 30 seconds.
        """
        for given in (username, password):
            if not isinstance(given, str | bytes):
                return fail(TypeError(f"a name and a password are text, not {type(given).__name__}"))
        if mechanism == "AMQPLAIN":
            return self.start({"LOGIN": username, "PASSWORD": password}, mechanism, locale)
        if mechanism == "PLAIN":
            return self.start(f"\0{text_of(username)}\0{text_of(password)}", mechanism, locale)
        return maybeDeferred(_refuse_mechanism, mechanism)

    def start(self, response: Any, mechanism: str = "AMQPLAIN", locale: str = "en_US") -> Deferred[Message]:
        """Log in with a response of the program's own: a dict of LOGIN and PASSWORD, or the text of a mechanism.

        Fires with connection.open-ok when the connection is open; fails as `authenticate`, and with Closed for a
        response that cannot be sent.
        """
        self.response, self.mechanism, self.locale = response, mechanism, locale
        self._is_login_known = True
        callbacks, self._login = self._login, []
        for callback in callbacks:
            callback()
        return self._start()

    @inlineCallbacks
    def _start(self) -> Any:
        yield self.started.wait()
        try:
            yield self.native.when_ready()
        except TxmsgError as error:
            raise closed_error(self.why(error)) from None
        return Message(method_named("connection.open-ok"), [""])

    def when_login_is_known(self, callback: Callable[[], object]) -> None:
        """For delegates: call back once `authenticate` or `start` was called."""
        if self._is_login_known:
            callback()
        else:
            self._login.append(callback)

    def asked(self, method: WireMethod) -> None:
        """For the connection below: connection.start and connection.tune, which the delegate answers."""
        self.delegate.dispatch(self._channel(0), message_of(method))

    def _do_connection_start_ok(self, values: dict[str, Any]) -> None:
        response, mechanism = values["response"], values["mechanism"]
        self.response = None  # nobody needs it any more
        self.native.answer(
            credentials=native_credentials(mechanism, response),
            client_properties=values["client_properties"] or None,
            locale=values["locale"] or "en_US",
        )

    def _do_connection_tune_ok(self, values: dict[str, Any]) -> None:
        self.native.answer(
            channel_max=values["channel_max"] or 65535,
            frame_max=max(4096, min(values["frame_max"] or 131072, 131072)),
            heartbeat=values["heartbeat"],
        )

    def _do_connection_open(self, values: dict[str, Any]) -> Deferred[Message]:
        return self._start()  # it is done with `authenticate` already

    # -- channels and queues -----------------------------------------------------------------------

    def channel(self, id: int) -> Deferred[AMQChannel]:
        """The channel with a number; fires at once.  `channel_open()` opens it.

        In the place of one that the broker has closed there is a new one.
        """
        return succeed(self._channel(id))

    def _channel(self, id: int) -> AMQChannel:
        channel = self.channels.get(id)
        if channel is None or (channel.closed and not self.closed):
            self.channels[id] = channel = self.channelClass(id, None, self)
            if self.closed:
                channel.close(self._close_reason)
        return channel

    def queue(self, key: Any) -> Deferred[TimeoutDeferredQueue]:
        """The queue for the deliveries of the consumer with this tag; fires at once."""
        return succeed(self.queue_named(key))

    def queue_named(self, key: Any) -> TimeoutDeferredQueue:
        """As `queue`, without a Deferred."""
        queue = self.queues.get(key)
        if queue is None:
            self.queues[key] = queue = TimeoutDeferredQueue(self.clock)
            if self.closed:
                queue.close(self._close_reason)
        return queue

    def prepare_queue(self, key: Any, is_acked: bool) -> None:
        """For channels: a consumer with this tag begins."""
        queue = self.queue_named(key)
        if queue.closed and not self.closed:
            del self.queues[key]
            queue = self.queue_named(key)
        queue.is_acked = is_acked

    def close_queue(self, key: Any, reason: Any) -> None:
        """For channels: the consumer with this tag has ended without the program's doing."""
        queue = self.queue_named(key)
        # What has to be acked on a channel that is no more, the broker delivers again.
        is_cancelled = isinstance(reason, Message) and reason.method.name == "cancel"
        queue.close(reason, discard=queue.is_acked and not is_cancelled)

    def tell(self, channel: AMQChannel | int, message: Message | WireMethod) -> None:
        """For channels: hand a message of the broker to the delegate."""
        if isinstance(channel, int):
            channel = self._channel(channel)
        if isinstance(message, WireMethod):
            message = message_of(message)
        self.native.guarded(self.delegate.dispatch, channel, message)

    def check_0_8(self) -> bool:
        """Whether it speaks AMQP 0-8: no."""
        return False

    def invoke(self, method: Method, args: Any) -> Deferred[Any]:
        """For channel 0: send a method of class connection."""
        return maybeDeferred(self._invoke, method, args).addErrback(self._failed)

    def _invoke(self, method: Method, args: Any) -> Any:
        special = getattr(self, f"_do_{method.python_name}", None)
        if special is None:
            if method.python_name.endswith("_ok"):
                return None  # it has been sent already
            raise EncodeError(f"{method.klass.name}.{method.name} is nothing for channel 0 of a client")
        try:
            return special(values_of(method, args))
        except Exception as error:
            if method.python_name not in ("connection_start_ok", "connection_tune_ok"):
                raise
            # The opening would wait for an answer that nobody can give any more: it ends with this error, which
            # whoever logs in is told.  The delegate's call, which nobody looks at, is no second place for it.
            self.native.drop(error)
            return None

    def _failed(self, failure: Failure) -> Failure:
        if isinstance(failure.value, NativeConnectionClosed):
            return Failure(closed_error(self.why(failure.value)))
        return failure

    def _do_connection_update_secret(self, values: dict[str, Any]) -> Deferred[Message]:
        updating: Deferred[Any] = self.native.update_secret(values["new_secret"], values["reason"])
        return updating.addCallback(message_of)

    # -- the end -----------------------------------------------------------------------------------

    @property
    def is_ending(self) -> bool:
        """Whether the end of the whole connection has begun."""
        return self.closed or self._is_closing or self._is_ended

    def _do_connection_close(self, values: dict[str, Any]) -> Deferred[Message]:
        self._is_closing = True
        code, text = values["reply_code"] or 200, values["reply_text"] or "Normal shutdown"
        closing: Deferred[Any] = self.native.close(code, text)
        return closing.addCallback(lambda reason: Message(method_named("connection.close-ok"), []))

    def close(self, reason: Any = None, within: float = 0) -> Deferred[None]:
        """End the connection; fires with None once that is done.

        reason -- what Closed carries for whoever waits; default: ConnectionDone.
        within: seconds that the broker gets to agree, while channels and queues stay as they are.  0: they are closed
            at once, and the socket goes when the broker has agreed, or after 3 seconds.
        """
        if self.closed:
            return succeed(None)
        if reason is None:
            reason = twisted_errors.ConnectionDone()
        if not self._is_closing:
            self._is_closing = True
            self._close_reason = reason
        if within <= 0:
            self.do_close(reason)
        ended = self.native.close()
        if self.native.is_closed:
            return ended.addCallback(lambda _: None)
        limit = self.clock.callLater(within or CLOSING_TIMEOUT, self.native.abort)

        def done(result: object) -> None:
            if limit.active():
                limit.cancel()

        self.native.when_closed().addCallback(done)  # not of `ended`, which may be cancelled
        return ended.addCallback(lambda _: None)

    def do_close(self, reason: Any) -> None:
        """Close all channels and queues, and tell the delegate; once.  For the delegate's `connection_close`."""
        if self.closed:
            return
        self.closed = True
        if self._close_reason is None:
            self._close_reason = reason
        reason = self._close_reason
        for channel in list(self.channels.values()):
            channel.close(reason)
        for queue in list(self.queues.values()):
            queue.close(reason, discard=queue.is_acked)
        self.basic_return_queue.close(reason)
        self._login.clear()
        self.native.guarded(self.delegate.close, reason)
        self.started.fail_if_not_fired(closed_error(reason))  # should the delegate not have done it
        if not self._is_ended:
            self.native.close()

    def ended(self, reason: BaseException) -> None:
        """For the connection below: this is why it ends."""
        if self._is_ended:
            return
        self._is_ended = True
        why = self.why(reason)
        if isinstance(why, Message) and not self._is_closing:
            self.tell(0, why)
        self.do_close(why)

    def why(self, reason: BaseException) -> Any:
        """The reason of the connection's end as txamqp's programs know it: one object, whoever asks."""
        if self._close_reason is not None:
            return self._close_reason
        if self._known is None or self._known[0] is not reason:
            self._known = reason, self._made_reason(reason)
        return self._known[1]

    def _made_reason(self, reason: BaseException) -> Any:
        if isinstance(reason, NativeConnectionClosed):
            if reason.initiator == "server" and reason.reply_code:
                text, class_id, method_id = reason.reply_text, reason.class_id, reason.method_id
                return closing_message("connection", reason.reply_code, text, class_id, method_id)
            if reason.initiator == "client" and reason.reply_code:
                return Failure(twisted_errors.ConnectionDone())
            if type(reason) is ConnectionLost and isinstance(
                reason.cause, twisted_errors.ConnectionDone | twisted_errors.ConnectionLost
            ):
                return Failure(reason.cause)  # which knows no less
        lost = twisted_errors.ConnectionLost(str(reason))
        lost.__cause__ = reason
        return Failure(lost)

    def channel_failed(self, channel: AMQChannel, reason: Failure) -> None:
        """For subclasses: the broker has closed a channel."""


def _refuse_mechanism(mechanism: str) -> Any:
    raise ValueError(f"unknown mechanism: {mechanism}; use start() for one of your own")
