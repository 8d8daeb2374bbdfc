"""The management API over HTTP.

RFC 9110, RFC 7617 (Basic).  The limits (R36): a request's body, 1 MiB but for definitions and publishes; connections
at once; seconds without a request.  The invariants:

- nobody fills memory or disk without a password: of a body, at most 64 KiB and one read are taken before it was right;
- nothing is answered, not even whether a path exists, before a password was right; a wrong one takes as long as at the
  AMQP port, and longer each time;
- on an address of this machine only requests that name this machine are answered, so that a page in a browser cannot
  get in under a name of its own (DNS rebinding); no answer says that other origins may read it.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txmsg.broker.addresses import host_of, is_loopback
from txmsg.broker.management.api import ManagementAPI
from txmsg.broker.management.calls import Answer, encode
from txmsg.broker.users.credentials import Hidden, User
from txmsg.errors import ConfigurationError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmsg.broker.server import Broker

__all__ = ["ManagementListener", "ManagementResource", "listen_management"]

#: Octets of a request's body; more where definitions and messages come in.
BODY_LIMIT: Final = 1 << 20
LARGE_BODY_LIMIT: Final = 32 << 20
#: A body that may be longer is read only once the login was right.
_UNCHECKED_BODY_LIMIT: Final = 64 << 10
#: Connections at once, and seconds that one may be idle.
MOST_CONNECTIONS: Final = 64
IDLE_TIMEOUT: Final = 60

_CHALLENGE: Final = 'Basic realm="txmsg management"'
_CLOSING: Final = b"Connection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 413 Content Too Large\r\n" + _CLOSING
_UNAUTHORIZED: Final = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: " + _CHALLENGE.encode() + b"\r\n" + _CLOSING


class _Request(Request):
    """A request whose body is bounded before it is read; a long one is read when the login was right.

    logging_in: Deferred or None -- of a request whose body is long: fires with the user, or None for a wrong login.
    """

    #: It has been answered before its body was there.
    _is_refused = False
    _is_whole = False
    _received = 0
    logging_in: Deferred[User | None] | None = None

    def gotLength(self, length: int | None) -> None:
        """Twisted: all headers are here; None: the body comes in chunks, its length unknown."""
        channel: Any = self.channel
        path = channel._path.partition(b"?")[0]
        large = path.endswith(b"/publish") or path.startswith(b"/api/definitions")
        self._limit = LARGE_BODY_LIMIT if large else BODY_LIMIT
        is_too_long = length is not None and length > self._limit
        super().gotLength(0 if is_too_long else length)  # type: ignore[no-untyped-call]
        if is_too_long:
            self._refuse(_TOO_LARGE)
        elif length is None or length > _UNCHECKED_BODY_LIMIT:
            self._log_in_first(channel)

    def _log_in_first(self, channel: Any) -> None:
        resource = channel.site.resource
        if not isinstance(resource, ManagementResource):
            return
        self.client = channel.getPeer()
        transport = channel._networkProducer
        transport.pauseProducing()

        def logged_in(user: User | None) -> User | None:
            if self.channel is not None and not self._is_whole:
                if user is None:
                    self._refuse(_UNAUTHORIZED)
                else:
                    transport.resumeProducing()
            return user

        self.logging_in = resource.log_in(self).addCallback(logged_in)
        # What went wrong is told by the request itself, if that comes to be.
        self.logging_in.addErrback(lambda failure: logged_in(None) or failure)

    def handleContentChunk(self, data: bytes) -> None:
        """Twisted: a piece of the body."""
        if self._is_refused:
            return
        self._received += len(data)
        if self._received > self._limit:
            self._refuse(_TOO_LARGE)
        else:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def _refuse(self, answer: bytes) -> None:
        self._is_refused = True
        channel: Any = self.channel
        channel.transport.write(answer)
        channel.loseConnection()

    def process(self) -> None:
        """Twisted: the request is whole."""
        self._is_whole = True
        if not self._is_refused:
            super().process()  # type: ignore[no-untyped-call]


class ManagementResource(Resource):
    """Answers everything; to be the root of a Site, or elsewhere in one under `api`.

    names_only_this_machine: bool -- whether the Host header must be an IP address or localhost.
    """

    isLeaf = True

    def __init__(self, broker: Broker, *, names_only_this_machine: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.api = ManagementAPI(broker)
        self._broker = broker
        self._names_only_this_machine = names_only_this_machine

    def render(self, request: Request) -> Any:
        """Twisted: answer a request."""
        if self._names_only_this_machine and not _names_this_machine(request.getRequestHostname()):
            _send(request, Answer(421, {"error": "misdirected_request", "reason": "The Host header is another one's"}))
            return NOT_DONE_YET
        ended = request.notifyFinish()
        logging_in = getattr(request, "logging_in", None) or self.log_in(request)
        working = logging_in.addCallback(self._authenticated, request)
        # The one who asks has gone: nobody waits for the answer.
        ended.addErrback(lambda _: working.cancel())
        working.addCallback(lambda answer: _send(request, answer) if not request._disconnected else None)
        working.addErrback(self._failed, request)
        return NOT_DONE_YET

    def log_in(self, request: Request) -> Deferred[User | None]:
        """Fire with the user whose password is right; with None, and late, if it is not."""
        name = cast(bytes, request.getUser()).decode("utf-8", "surrogateescape")
        password = Hidden(cast(bytes, request.getPassword()))
        if not name:
            return succeed(None)
        host = host_of(request.getClientAddress())

        def judge(user: User | None) -> Any:
            delays = self._broker.login_delays
            if user is not None:
                delays.succeeded(host)
                return user
            late: Deferred[None] = Deferred(lambda _: timer.cancel())
            timer = self._broker.reactor.callLater(delays.failed(host), late.callback, None)
            return late

        return self._broker.users.check(name, password, host).addCallback(judge)

    def _authenticated(self, user: User | None, request: Request) -> Any:
        if user is None:
            return Answer(
                401,
                {"error": "not_authorized", "reason": "Login failed"} if request.getUser() else None,
                {"WWW-Authenticate": _CHALLENGE},
            )
        segments = [segment.decode("utf-8", "surrogateescape") for segment in request.postpath or ()]
        if segments and segments[0] == "api":
            segments = segments[1:]
        elif (request.prepath or [])[-1:] != [b"api"]:
            segments = [""]
        if segments[-1:] == [""]:
            segments = segments[:-1]  # as RabbitMQ: a slash at the end means nothing
        query = {
            name.decode("utf-8", "replace"): values[0].decode("utf-8", "replace")
            for name, values in request.args.items()
        }
        headers = {
            name.decode("ascii", "replace").lower(): values[0].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
            if name.lower() != b"authorization"
        }
        assert request.content is not None
        method = request.method.decode("ascii", "replace")
        return self.api.answer(user, method, segments, query, headers, request.content.read())

    def _failed(self, failure: Failure, request: Request) -> None:
        if not request._disconnected:
            self.api.log.failure("a request could not be answered", failure)
            request.processingFailed(failure)


def _names_this_machine(name: bytes) -> bool:
    """Whether a Host header is an IP address or localhost."""
    host = name.decode("ascii", "replace").lower().removeprefix("[").removesuffix("]").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _send(request: Request, answer: Answer) -> None:
    """Write an answer."""
    request.setResponseCode(answer.status)
    request.setHeader("Cache-Control", "no-cache")
    request.setHeader("Server", "txmsg")
    # For browsers: this is data, whatever is in it.
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Content-Security-Policy", "default-src 'none'")
    for name, value in answer.headers.items():
        request.setHeader(name, value)
    body = b"" if answer.body is None and answer.status != 200 else encode(answer.body)
    if answer.body is None:
        body = b""
    else:
        request.setHeader("Content-Type", "application/json")
    if answer.status != 204:
        request.setHeader("Content-Length", str(len(body)))
    if body and request.method != b"HEAD":
        request.write(body)
    request.finish()


class _Limited(WrappingFactory):
    """Accepts no more than so many connections at once."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted: None closes the socket."""
        return super().buildProtocol(addr) if len(self.protocols) < MOST_CONNECTIONS else None


class _Site(Site):
    """A site that keeps no log of requests."""

    noisy = False
    displayTracebacks = False

    def log(self, request: Any) -> None:
        """Twisted: a request was answered."""


class ManagementListener:
    """The API at one address.  host: str, port: int -- as they really are."""

    def __init__(self, api: ManagementAPI, port: IListeningPort, factory: _Limited) -> None:
        address: Any = port.getHost()
        self.host: str = address.host
        self.port: int = address.port
        self._api = api
        self._port: IListeningPort | None = port
        self._factory = factory
        api.http_listeners.append((self.host, self.port))

    @property
    def url(self) -> str:
        """Where a browser or client would look."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/api/"

    def stop(self) -> Deferred[None]:
        """Accept no more, and drop what is connected.  May be called more than once."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        self._api.http_listeners.remove((self.host, self.port))
        stopping = maybeDeferred(port.stopListening)
        for protocol in list(self._factory.protocols):
            protocol.transport.abortConnection()
        return DeferredList([stopping], consumeErrors=True).addCallback(lambda _: None)

    def __repr__(self) -> str:
        return f"<ManagementListener {self.url}>"


def listen_management(
    broker: Broker, host: str = "127.0.0.1", port: int = 15672, *, allow_remote_plaintext: bool = False
) -> ManagementListener:
    """Serve the API at an address.

    :raises ConfigurationError: for an address that other machines can reach, unless `allow_remote_plaintext`.
    :raises twisted.internet.error.CannotListenError: if the port is taken.
    """
    local = is_loopback(host)
    if not local and not allow_remote_plaintext:
        raise ConfigurationError(f"refusing to serve the management API at {host}: passwords would cross the network")
    resource = ManagementResource(broker, names_only_this_machine=local)
    site = _Site(resource, requestFactory=_Request, timeout=IDLE_TIMEOUT, reactor=broker.reactor)  # type: ignore[no-untyped-call]
    factory = _Limited(site)  # type: ignore[no-untyped-call]
    bound = broker.reactor.listenTCP(port, factory, interface=host)
    return ManagementListener(resource.api, bound, factory)
