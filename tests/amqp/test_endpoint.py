"""txmsg.amqp.endpoint on a clock: time limits, attempts, cancelling, errors; R11, W-88, B-09 to B-12, C1.8."""

from __future__ import annotations

from typing import Any

from pamqp import commands, frame
from twisted.internet import error as twisted_errors
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txmsg.amqp import AMQPProtocol, connect
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import PlainCredentials
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectTimeout,
    HandshakeTimeout,
    TxmsgError,
)

USER = PlainCredentials("user", "password")


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """An endpoint whose outcomes a test decides; it keeps what it was asked."""

    def __init__(self, *outcomes: BaseException | None) -> None:
        self.outcomes = list(outcomes)
        self.factories: list[IProtocolFactory] = []
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0
        self.peer = IPv4Address("TCP", "127.0.0.1", 5672)
        self.protocols: list[AMQPProtocol] = []
        self.transports: list[StringTransport] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Fail with the next outcome, connect for None, wait when there is none left."""
        self.factories.append(protocolFactory)
        if not self.outcomes:
            self.waiting.append(Deferred(self._cancel))
            return self.waiting[-1]
        outcome = self.outcomes.pop(0)
        return fail(outcome) if outcome is not None else succeed(self.build())

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled += 1
        deferred.errback(twisted_errors.ConnectingCancelledError(None))

    def build(self) -> AMQPProtocol:
        """Make the protocol and its transport, as an endpoint does."""
        protocol: Any = self.factories[-1].buildProtocol(None)  # type: ignore[arg-type]
        transport = StringTransport(peerAddress=self.peer)
        self.protocols.append(protocol)
        self.transports.append(transport)
        protocol.makeConnection(transport)
        return protocol  # type: ignore[no-any-return]


class ClockTests(SynchronousTestCase):
    """Time limits and attempts, without sockets and without waiting."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, endpoint: FakeEndpoint, **parameters: Any) -> Deferred[AMQPProtocol]:
        return connect(ConnectionParameters(**parameters), reactor=self.clock, endpoint=endpoint)

    def error(self, connecting: Deferred[AMQPProtocol], kind: type[BaseException]) -> BaseException:
        failure = self.failureResultOf(connecting)
        self.assertIs(type(failure.value), kind, str(failure.value))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        error: BaseException = failure.value
        return error

    def test_connect_timeout(self) -> None:
        """B-11, R11: name lookup and TCP together get connect_timeout."""
        endpoint = FakeEndpoint()
        connecting = self.connect(endpoint, connect_timeout=3)
        self.clock.advance(2.9)
        self.assertNoResult(connecting)
        self.clock.advance(0.1)
        error = self.error(connecting, ConnectTimeout)
        self.assertIn("connect_timeout (3 s)", str(error))
        self.assertEqual(endpoint.cancelled, 1)

    def test_no_connect_timeout(self) -> None:
        """B-11, B-12: None is no limit."""
        connecting = self.connect(FakeEndpoint(), connect_timeout=None, stack_timeout=None)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        connecting.addErrback(lambda failure: None)
        connecting.cancel()

    def test_stack_timeout_in_tcp(self) -> None:
        """B-12: stack_timeout ends an attempt that hangs in TCP."""
        connecting = self.connect(FakeEndpoint(), connect_timeout=None, stack_timeout=4)
        self.clock.advance(4)
        self.assertIn("stack_timeout (4 s)", str(self.error(connecting, ConnectTimeout)))

    def test_stack_timeout_in_the_handshake(self) -> None:
        """B-12: and one that hangs later, with the socket dropped."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint, stack_timeout=4, handshake_timeout=100)
        self.clock.advance(4)
        self.assertIn("stack_timeout (4 s)", str(self.error_of_lost(connecting, endpoint, HandshakeTimeout)))

    def test_stack_timeout_after_the_refusal(self) -> None:
        """B-12: a broker that refuses and then does not close: the refusal is what is told."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint, stack_timeout=4)
        for method in (
            commands.Connection.Start(0, 9, {}, "PLAIN", "en_US"),
            commands.Connection.Close(403, "NO", 0, 0),
        ):
            endpoint.protocols[0].dataReceived(frame.marshal(method, 0))
        self.assertNoResult(connecting)
        self.clock.advance(4)
        self.error_of_lost(connecting, endpoint, AuthenticationFailed)

    def test_default_is_bounded(self) -> None:
        """R11: without any setting a silent host costs no more than 10 s for TCP, 10 s for a stage, 15 s in all."""
        connecting = self.connect(FakeEndpoint())
        self.clock.advance(10)
        self.error(connecting, ConnectTimeout)
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint)
        self.clock.advance(10)
        self.error_of_lost(connecting, endpoint, HandshakeTimeout)

    def error_of_lost(self, connecting: Deferred[AMQPProtocol], endpoint: FakeEndpoint, kind: Any) -> BaseException:
        self.assertTrue(endpoint.transports[-1].disconnecting or endpoint.transports[-1].disconnected)
        endpoint.protocols[-1].connectionLost(Failure(twisted_errors.ConnectionAborted()))
        return self.error(connecting, kind)

    def test_cancel_in_tcp(self) -> None:
        """R28: cancelling stops the attempt, at once, with CancelledError and nothing left."""
        endpoint = FakeEndpoint()
        connecting = self.connect(endpoint)
        connecting.cancel()
        self.error(connecting, CancelledError)
        self.assertEqual(endpoint.cancelled, 1)

    def test_cancel_in_the_handshake(self) -> None:
        """R28: also when there is a socket already: it is dropped."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint)
        self.assertNoResult(connecting)
        connecting.cancel()
        self.error_of_lost(connecting, endpoint, CancelledError)

    def test_cancel_between_attempts(self) -> None:
        """R28: also while waiting for the next attempt."""
        endpoint = FakeEndpoint(twisted_errors.ConnectionRefusedError())
        connecting = self.connect(endpoint, connection_attempts=2)
        connecting.cancel()
        self.error(connecting, CancelledError)
        self.assertEqual(len(endpoint.factories), 1)

    def test_endpoint_that_ignores_cancelling(self) -> None:
        """R28: a connection that comes after the end is dropped, not leaked."""

        class Deaf(FakeEndpoint):
            def _cancel(self, deferred: Deferred[Any]) -> None:
                deferred.callback(self.build())

        endpoint = Deaf()
        connecting = self.connect(endpoint)
        connecting.cancel()
        self.assertTrue(endpoint.transports[-1].disconnecting or endpoint.transports[-1].disconnected)
        endpoint.protocols[-1].connectionLost(Failure(twisted_errors.ConnectionAborted()))
        self.error(connecting, CancelledError)

    def test_attempts(self) -> None:
        """B-09, B-10, W-88, J-22: as many attempts as asked for, retry_delay between them and none after the last."""
        refused = [twisted_errors.ConnectionRefusedError() for _ in range(3)]
        endpoint = FakeEndpoint(*refused)
        connecting = self.connect(endpoint, connection_attempts=3, retry_delay=2)
        for attempts in (1, 2):
            self.assertEqual(len(endpoint.factories), attempts)
            self.clock.advance(1.9)
            self.assertEqual(len(endpoint.factories), attempts)
            self.clock.advance(0.1)
        self.assertEqual(len(endpoint.factories), 3)
        self.error(connecting, ConnectFailed)

    def test_attempts_after_timeouts(self) -> None:
        """B-09: a connect timeout is tried again too."""
        endpoint = FakeEndpoint()
        connecting = self.connect(endpoint, connection_attempts=2, connect_timeout=3, retry_delay=0)
        self.clock.advance(3)
        self.clock.advance(0)
        self.assertEqual(len(endpoint.waiting), 2)
        self.clock.advance(3)
        self.error(connecting, ConnectTimeout)

    def test_no_attempts_after_the_handshake_began(self) -> None:
        """B-09, R12, U-15: only what never connected is tried again; a login is not tried in a loop."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint, connection_attempts=5, retry_delay=0, handshake_timeout=1)
        self.clock.advance(1)
        self.error_of_lost(connecting, endpoint, HandshakeTimeout)
        self.clock.advance(10)
        self.assertEqual(len(endpoint.factories), 1)

    def test_errors_are_typed(self) -> None:
        """Every error of an endpoint becomes ours, in one line that says where."""
        cases: list[tuple[Exception, type[ConnectFailed], str]] = [
            (twisted_errors.ConnectionRefusedError(), ConnectFailed, "refused the connection"),
            (twisted_errors.TimeoutError(), ConnectTimeout, "did not answer in time"),
            (TimeoutError("x"), ConnectTimeout, "did not answer in time"),
            (twisted_errors.DNSLookupError("x"), ConnectFailed, "unknown host"),
            (twisted_errors.NoRouteError(101), ConnectFailed, "cannot connect"),
            (OSError(13, "Permission denied"), ConnectFailed, "Permission denied"),
            (LookupError(), ConnectFailed, "LookupError"),
            (ValueError("proxy\nsays no"), ConnectFailed, "proxy\\nsays no"),
        ]
        for given, kind, says in cases:
            error = self.error(self.connect(FakeEndpoint(given)), kind)
            self.assertIn(says, str(error))
            self.assertNotIn("\n", str(error))
            self.assertIs(error.__cause__, given)
            assert isinstance(error, TxmsgError)
            self.assertTrue(error.recoverable)

    def test_endpoint_that_raises(self) -> None:
        """Never raises: an endpoint's exception is the Deferred's."""

        class Raising(FakeEndpoint):
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
                raise OSError("no")

        self.error(self.connect(Raising()), ConnectFailed)

    def test_endpoint_and_several_targets(self) -> None:
        """An endpoint goes to one place."""
        targets = ["amqp://localhost", "amqp://127.0.0.1"]
        self.error(connect(targets, reactor=self.clock, endpoint=FakeEndpoint()), ConfigurationError)

    def test_bad_targets(self) -> None:
        """W-38: Anything that is no target fails the Deferred, before a socket is made."""
        for target in (
            None,
            5,
            b"amqp://h",
            [],
            ["amqp://localhost", None],
            "",
            "localhost",
            [["amqp://localhost"]],
            "amqp://h.example",
        ):
            memory = MemoryReactorClock()
            connecting = connect(target, reactor=memory)  # type: ignore[arg-type]
            self.assertIsInstance(self.failureResultOf(connecting).value, ConfigurationError, repr(target))
            self.assertEqual(memory.tcpClients, [])

    def test_password_in_the_clear(self) -> None:
        """C1.8: refused before there is a socket."""
        for target in ("amqp://u:p@broker.example", "amqp://u:p@10.0.0.1", "amqp://u:p@my_broker"):
            memory = MemoryReactorClock()
            error = self.failureResultOf(connect(target, reactor=memory)).value
            self.assertIsInstance(error, ConfigurationError)
            self.assertIn("amqps://", str(error))
            self.assertEqual(memory.tcpClients, [])

    def test_peer_that_is_elsewhere(self) -> None:
        """C1.8: an endpoint that leads away from this machine, whatever `host` says: no password without TLS."""
        start = frame.marshal(commands.Connection.Start(0, 9, {}, "PLAIN", "en_US"), 0)
        for address, is_sent in (("10.0.0.9", False), ("127.0.0.1", True)):
            endpoint = FakeEndpoint(None)
            endpoint.peer = IPv4Address("TCP", address, 5672)
            connecting = self.connect(endpoint, credentials=PlainCredentials("user", "c4n4ry"))
            endpoint.protocols[0].dataReceived(start)
            self.assertEqual(b"c4n4ry" in endpoint.transports[0].value(), is_sent, address)
            if is_sent:
                connecting.addErrback(lambda failure: None)
                connecting.cancel()
            else:
                error = self.error_of_lost(connecting, endpoint, ConfigurationError)
                self.assertIn("'10.0.0.9'", str(error))

    def test_allowed_in_the_clear(self) -> None:
        """C1.8: unless it is allowed; a name with an underscore is connected to as well."""
        memory = MemoryReactorClock()
        connecting = connect("amqp://u:p@my_broker:7?allow_plaintext_auth=true", reactor=memory)
        self.assertEqual(memory.tcpClients[0][:2], ("my_broker", 7))
        connecting.addErrback(lambda failure: None)
        connecting.cancel()
        # What a callable will answer is only known in the handshake, which then has the last word.
        parameters = ConnectionParameters(host="my_broker", credentials=lambda: USER)
        connecting = connect(parameters, reactor=memory)
        self.assertEqual(len(memory.tcpClients), 2)
        connecting.addErrback(lambda failure: None)
        connecting.cancel()
