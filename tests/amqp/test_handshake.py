"""The opening conversation: what is answered to each step, and what each way to fail is called."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from txmsg import __version__
from txmsg.amqp.handshake import CAPABILITIES, ClientHandshake, Negotiated, Stage, client_properties, negotiate
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import ExternalCredentials, PlainCredentials
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    IncompatibleProtocol,
    LocalProtocolError,
    NoCommonMechanism,
    RemoteProtocolError,
    TxmsgError,
    VirtualHostRefused,
)
from txmsg.wire.methods import Method, connection

CANARY = "canary-4711"


class NegotiateTests(SynchronousTestCase):
    def tune(self, offer: tuple[int, int, int], **wishes: Any) -> tuple[int, int, int]:
        parameters = ConnectionParameters(**wishes)
        channel_max, frame_max, heartbeat = offer
        found = negotiate(parameters, connection.Tune(channel_max, frame_max, heartbeat))
        return found.channel_max, found.frame_max, found.heartbeat

    def test_the_table(self) -> None:
        """24.11, G-04 to G-08: never above the offer, 0 of the broker is no limit, our heartbeat wins."""
        rabbitmq = (2047, 131072, 60)
        cases: list[tuple[tuple[int, int, int], dict[str, Any], tuple[int, int, int]]] = [
            (rabbitmq, {}, (2047, 131072, 60)),
            (rabbitmq, {"channel_max": 65535}, (2047, 131072, 60)),
            (rabbitmq, {"channel_max": 1}, (1, 131072, 60)),
            (rabbitmq, {"frame_max": 4096}, (2047, 4096, 60)),
            ((0, 0, 0), {}, (2047, 131072, 0)),
            ((0, 0, 0), {"channel_max": 65535, "frame_max": 8192}, (65535, 8192, 0)),
            ((10, 4096, 5), {}, (10, 4096, 5)),
            ((65535, 2**32 - 1, 65535), {}, (2047, 131072, 65535)),
            # W-05, W-26: None takes the broker's, a number is used whatever was proposed.
            (rabbitmq, {"heartbeat": None}, (2047, 131072, 60)),
            (rabbitmq, {"heartbeat": 0}, (2047, 131072, 0)),
            (rabbitmq, {"heartbeat": 600}, (2047, 131072, 600)),
            ((2047, 131072, 0), {"heartbeat": 15}, (2047, 131072, 15)),
            # B-07: a callable decides from the proposal.
            (rabbitmq, {"heartbeat": lambda proposed: proposed // 2}, (2047, 131072, 30)),
            (rabbitmq, {"heartbeat": lambda proposed: 0}, (2047, 131072, 0)),
        ]
        for offer, wishes, expected in cases:
            with self.subTest(offer=offer, wishes=wishes):
                self.assertEqual(self.tune(offer, **wishes), expected)

    def test_a_frame_max_below_the_minimum(self) -> None:
        """R19, G-05: 1 to 4095 is refused, not answered with something the broker did not offer."""
        for frame_max in (1, 8, 4095):
            error = self.assertRaises(RemoteProtocolError, self.tune, (2047, frame_max, 60))
            self.assertIn(str(frame_max), str(error))
            self.assertEqual(error.reply_code, 501)

    def test_what_a_heartbeat_callable_must_return(self) -> None:
        """B-07: an int from 0 to 65535, no bool; anything else is our own error, before tune-ok."""
        for bad in (None, -1, 65536, 1.5, True, "30", lambda: 1):
            error = self.assertRaises(LocalProtocolError, self.tune, (0, 0, 60), heartbeat=lambda proposed, b=bad: b)
            self.assertIn("heartbeat", str(error))

    def test_a_heartbeat_callable_that_raises(self) -> None:
        """R2: a typed error that names the callable, with what it raised as the cause."""

        def fail(proposed: int) -> int:
            raise ZeroDivisionError

        error = self.assertRaises(TxmsgError, self.tune, (0, 0, 60), heartbeat=fail)
        self.assertIn("heartbeat", str(error))
        self.assertIsInstance(error.__cause__, ZeroDivisionError)

    def test_the_parameters_are_not_changed(self) -> None:
        """B-21: a second connection from the same parameters begins with the original wishes."""
        parameters = ConnectionParameters(channel_max=65535)
        negotiate(parameters, connection.Tune(10, 4096, 5))
        self.assertEqual((parameters.channel_max, parameters.frame_max, parameters.heartbeat), (65535, 131072, None))


class ClientPropertiesTests(SynchronousTestCase):
    def test_what_we_say_of_ourselves(self) -> None:
        """F-28, W-04: product, version, platform; all capabilities that change what a broker tells us (kombu D2)."""
        properties = client_properties(ConnectionParameters())
        self.assertEqual(properties["product"], "txmsg")
        self.assertEqual(properties["version"], __version__)
        for name in (
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "publisher_confirms",
        ):
            self.assertIs(properties["capabilities"][name], True)
        self.assertNotIn("connection_name", properties)

    def test_the_applications_entries_win(self) -> None:
        """B-15: key by key; capabilities are merged, so that mentioning one does not switch the others off."""
        properties = client_properties(
            ConnectionParameters(
                connection_name="worker 1",
                client_properties={"product": "mine", "x": 1, "capabilities": {"connection.blocked": False, "own": 2}},
            )
        )
        self.assertEqual((properties["product"], properties["x"]), ("mine", 1))
        self.assertEqual(properties["connection_name"], "worker 1")
        expected = dict(CAPABILITIES) | {"connection.blocked": False, "own": 2}
        self.assertEqual(properties["capabilities"], expected)

    def test_nothing_is_shared_between_connections(self) -> None:
        """M-23: a change of one table reaches neither the next connection nor the defaults."""
        parameters = ConnectionParameters(client_properties={"capabilities": {"own": True}})
        first = client_properties(parameters)
        first["capabilities"]["own"] = first["capabilities"]["basic.nack"] = False
        self.assertTrue(client_properties(parameters)["capabilities"]["own"])
        self.assertTrue(client_properties(ConnectionParameters())["capabilities"]["basic.nack"])
        self.assertTrue(CAPABILITIES["basic.nack"])


class HandshakeTests(SynchronousTestCase):
    def handshake(self, *, is_tls: bool = False, has_certificate: bool = False, **parameters: Any) -> ClientHandshake:
        self.sent: list[Method] = []
        self.log: list[str] = []
        self.done: list[Negotiated] = []
        self.failures: list[BaseException] = []

        def send(method: Method) -> None:
            self.sent.append(method)
            self.log.append(method.NAME)

        return ClientHandshake(
            ConnectionParameters(**parameters),
            host=parameters.get("host", "localhost"),
            is_tls=is_tls,
            has_client_certificate=has_certificate,
            send=send,
            tuned=lambda negotiated: self.log.append("tuned"),
            done=self.done.append,
            failed=self.failures.append,
        )

    def start(
        self, handshake: ClientHandshake, mechanisms: str = "AMQPLAIN PLAIN", locales: str = "en_US", **fields: Any
    ) -> None:
        handshake.receive(connection.Start(mechanisms=mechanisms, locales=locales, **fields))

    def failure(self, *kinds: type[BaseException]) -> Any:
        """The one error it failed with."""
        self.assertEqual(self.done, [])
        (error,) = self.failures
        self.assertIsInstance(error, kinds)
        return error

    def test_the_whole_conversation(self) -> None:
        """G-01 to G-08, E-02: start-ok, tune-ok, the new limits, open; then done, once (kombu D1, D3)."""
        handshake = self.handshake(virtual_host="/app", credentials=PlainCredentials("u", CANARY), locale="en_US")
        self.start(handshake, server_properties={"product": "RabbitMQ"})
        self.assertEqual(handshake.stage, Stage.LOGIN)
        handshake.receive(connection.Tune(2047, 131072, 60))
        self.assertEqual(self.log, ["connection.start-ok", "connection.tune-ok", "tuned", "connection.open"])
        start_ok, tune_ok, opened = self.sent
        assert isinstance(start_ok, connection.StartOk)
        assert isinstance(tune_ok, connection.TuneOk)
        assert isinstance(opened, connection.Open)
        self.assertEqual((start_ok.mechanism, bytes(start_ok.response)), ("PLAIN", b"\0u\0" + CANARY.encode()))
        self.assertEqual(start_ok.locale, "en_US")
        self.assertEqual((tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat), (2047, 131072, 60))
        self.assertEqual(opened.virtual_host, "/app")
        self.assertEqual(self.done, [])
        handshake.receive(connection.OpenOk())
        self.assertEqual(self.done, [Negotiated(2047, 131072, 60)])
        self.assertEqual(self.failures, [])
        self.assertEqual(handshake.server_properties, {"product": "RabbitMQ"})

    def test_a_locale_that_is_not_offered(self) -> None:
        """B-13: the broker's first one instead of one that it would refuse; ours if it offers none."""
        for offered, expected in (("de_DE en_US", "pt_BR"), ("pt_BR en_US", "pt_BR"), ("", "pt_BR")):
            self.start(self.handshake(locale="pt_BR"), locales=offered)
            (start_ok,) = self.sent
            assert isinstance(start_ok, connection.StartOk)
            expected = "de_DE" if offered.startswith("de") else expected
            self.assertEqual(start_ok.locale, expected)

    def test_another_version(self) -> None:
        """G-03: 0-9 is required; the error names both."""
        self.start(self.handshake(), version_major=0, version_minor=10)
        self.assertIn("0-10", str(self.failure(IncompatibleProtocol)))
        self.assertEqual(self.sent, [])

    def test_no_common_mechanism(self) -> None:
        """E-03, E-04: names are compared whole; nothing secret is sent."""
        for offered in ("AMQPLAIN", "EXTERNAL", "XPLAIN PLAINX", ""):
            self.start(self.handshake(credentials=PlainCredentials("u", CANARY)), offered)
            error = self.failure(NoCommonMechanism)
            self.assertIn("PLAIN", str(error))
            self.assertEqual(self.sent, [])

    def test_a_password_in_the_clear_is_refused(self) -> None:
        """C1.8: to another machine without TLS nothing is sent; with TLS or leave it is."""
        there: dict[str, Any] = {"host": "broker.example", "credentials": PlainCredentials("u", CANARY)}
        self.start(self.handshake(**there))
        self.assertIn("TLS", str(self.failure(ConfigurationError)))
        self.assertEqual(self.sent, [])
        self.start(self.handshake(is_tls=True, **there))
        self.assertEqual(len(self.sent), 1)
        self.start(self.handshake(allow_plaintext_auth=True, **there))
        self.assertEqual(len(self.sent), 1)

    def test_external(self) -> None:
        """E-06, C1.8: with a client certificate the response is empty; without one it is not tried."""
        self.start(self.handshake(is_tls=True, has_certificate=True, credentials=ExternalCredentials()), "EXTERNAL")
        (start_ok,) = self.sent
        assert isinstance(start_ok, connection.StartOk)
        self.assertEqual((start_ok.mechanism, start_ok.response), ("EXTERNAL", b""))
        self.start(self.handshake(is_tls=True, credentials=ExternalCredentials()), "EXTERNAL")
        self.failure(ConfigurationError)

    def test_credentials_that_come_later(self) -> None:
        """C2.2: a callable may return a Deferred; start-ok waits for it."""
        asked: Deferred[Any] = Deferred()
        handshake = self.handshake(credentials=lambda: asked)
        self.start(handshake)
        self.assertEqual(handshake.stage, Stage.CREDENTIALS)
        self.assertEqual(self.sent, [])
        asked.callback(PlainCredentials("u", "p"))
        self.assertEqual(self.log, ["connection.start-ok"])

    def test_credentials_that_cannot_be_had(self) -> None:
        """C3.1: the error says which kind of thing went wrong, and not the text, which may hold the secret."""

        def fail() -> Any:
            raise OSError(f"cannot read {CANARY}")

        self.start(self.handshake(credentials=fail))
        error = self.failure(AuthenticationFailed)
        self.assertEqual(error.initiator, "client")
        self.assertIn("OSError", str(error))
        self.assertNotIn(CANARY, str(error) + repr(error) + repr(error.__dict__))

    def test_credentials_of_the_wrong_kind(self) -> None:
        """C2.2: what the callable returns is checked, and not shown."""
        self.start(self.handshake(credentials=lambda: ("u", CANARY)))
        self.assertNotIn(CANARY, str(self.failure(ConfigurationError)))

    def test_the_end_while_credentials_are_fetched(self) -> None:
        """R28: the fetching is cancelled, nothing is sent, nothing is reported or logged as unhandled."""
        cancelled: list[Deferred[Any]] = []
        handshake = self.handshake(credentials=lambda: Deferred(cancelled.append))
        self.start(handshake)
        handshake.stop()
        handshake.stop()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual((self.sent, self.done, self.failures), ([], [], []))

    def test_credentials_that_come_when_it_is_over(self) -> None:
        """C3.1, R28: a source that answers although it was cancelled: nothing secret leaves any more."""
        handshake = self.handshake(credentials=lambda: Deferred(lambda d: d.callback(PlainCredentials("u", CANARY))))
        self.start(handshake)
        handshake.stop()
        self.assertEqual((self.sent, self.done, self.failures), ([], [], []))
        self.assertIsNone(handshake._credentials)

    def test_a_challenge(self) -> None:
        """E-08: credentials with an answer give it in secure-ok, as often as they are asked, at once or later."""
        later: Deferred[bytes] = Deferred()

        class Challenged(PlainCredentials):
            def respond(self, challenge: bytes) -> Any:
                return b"<" + challenge + b">" if challenge == b"one" else later

        handshake = self.handshake(credentials=Challenged("u", "p"))
        self.start(handshake)
        handshake.receive(connection.Secure(challenge=b"one"))
        handshake.receive(connection.Secure(challenge=b"two"))
        self.assertEqual([m.response for m in self.sent if isinstance(m, connection.SecureOk)], [b"<one>"])
        later.callback(b"later")
        self.assertEqual([m.response for m in self.sent if isinstance(m, connection.SecureOk)], [b"<one>", b"later"])
        self.assertEqual(self.failures, [])

    def test_a_challenge_without_an_answer(self) -> None:
        """E-08: PLAIN has none; that is an authentication failure of ours."""
        handshake = self.handshake()
        self.start(handshake)
        handshake.receive(connection.Secure(challenge=b"?"))
        error = self.failure(AuthenticationFailed)
        self.assertIn("challenge", str(error))
        self.assertEqual(error.initiator, "client")

    def test_the_end_while_a_challenge_is_answered(self) -> None:
        """R28: the answer that is still being made is cancelled and not sent."""
        answers: list[Deferred[Any]] = []
        cancelled: list[Deferred[Any]] = []

        class Slow(PlainCredentials):
            def respond(self, challenge: bytes) -> Any:
                answers.append(Deferred(cancelled.append))
                return answers[0]

        handshake = self.handshake(credentials=Slow("u", "p"))
        self.start(handshake)
        handshake.receive(connection.Secure(challenge=b"?"))
        handshake.stop()
        self.assertEqual(cancelled, answers)
        self.assertEqual(self.log, ["connection.start-ok"])
        self.assertEqual(self.failures, [])

    def test_refused(self) -> None:
        """24.2, E-11, G-09, F-07: the class by stage and code, the broker's code and text kept."""
        start = connection.Start(mechanisms="PLAIN", locales="en_US")
        tune = connection.Tune(2047, 131072, 60)
        cases: list[tuple[list[Method], int, type[ConnectionClosed]]] = [
            ([start], 403, AuthenticationFailed),
            ([start, tune], 530, VirtualHostRefused),
            ([start, tune], 403, VirtualHostRefused),
            ([start, tune], 402, VirtualHostRefused),
            ([start, tune], 320, ConnectionForced),
            ([start], 320, ConnectionForced),
            ([], 320, ConnectionForced),
            ([start], 541, ConnectionClosed),
        ]
        for received, code, kind in cases:
            with self.subTest(code=code, stage=len(received)):
                handshake = self.handshake()
                for method in received:
                    handshake.receive(method)
                handshake.receive(connection.Close(reply_code=code, reply_text="the broker's words"))
                error = self.failure(kind)
                self.assertEqual((error.reply_code, error.reply_text), (code, "the broker's words"))
                self.assertEqual(error.initiator, "server")

    def test_a_bad_proposal(self) -> None:
        """R19: it fails instead of answering, and connection.open is not sent."""
        handshake = self.handshake()
        self.start(handshake)
        handshake.receive(connection.Tune(2047, 100, 60))
        self.failure(RemoteProtocolError)
        self.assertEqual(self.log, ["connection.start-ok"])

    def test_lost_at_each_stage(self) -> None:
        """F-07, W-08: where the socket went tells what was probably wrong; the cause is kept."""
        cause = ConnectionDone()
        handshake = self.handshake(virtual_host="vh")
        self.assertIsInstance(handshake.lost(cause, False), IncompatibleProtocol)
        self.assertIs(type(handshake.lost(cause, True)), ConnectionLost)
        self.start(handshake)
        error = handshake.lost(cause, True)
        self.assertIsInstance(error, AuthenticationFailed)
        self.assertEqual((error.initiator, error.reply_code, error.cause), ("transport", 0, cause))
        handshake.receive(connection.Tune(2047, 131072, 60))
        error = handshake.lost(cause, True)
        self.assertIsInstance(error, VirtualHostRefused)
        self.assertIn("vh", str(error))
        handshake = self.handshake(credentials=Deferred[Any])
        self.start(handshake)
        self.assertIn("credentials", str(handshake.lost(cause, True)))
        handshake.stop()

    def test_the_secret_is_not_kept(self) -> None:
        """C2.2: the credentials are let go when the conversation ends, either way."""
        for end in (connection.OpenOk(), None):
            handshake = self.handshake(credentials=PlainCredentials("u", CANARY))
            self.start(handshake)
            handshake.receive(connection.Tune(0, 0, 0))
            if end is not None:
                handshake.receive(end)
            else:
                handshake.stop()
            self.assertIsNone(handshake._credentials)

    def test_a_cancelled_fetch_is_no_failure_of_the_login(self) -> None:
        """A source of credentials that gives up by itself is reported like any other error of it."""
        asked: Deferred[Any] = Deferred()
        self.start(self.handshake(credentials=lambda: asked))
        asked.cancel()
        self.assertIn(CancelledError.__name__, str(self.failure(AuthenticationFailed)))
