"""Our errors as pika's, and as Twisted's where programs expect those."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any
from unittest import mock

from pika import exceptions
from twisted.internet import error as twisted_error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg import errors as ours
from txmsg.compat.pika.errors import call_error, channel_reason, connection_reason, opening_error

DONE = twisted_error.ConnectionDone("closed")


class ErrorTests(SynchronousTestCase):
    def test_reasons_of_connections(self) -> None:
        """J-09, S-04, S-11 to S-15, S-26."""
        done, lost = twisted_error.ConnectionDone, twisted_error.ConnectionLost
        for reason, kind, also in [
            (ours.ConnectionForced("bye", 320), exceptions.ConnectionClosedByBroker, done),
            (ours.ConnectionClosed("bye", 200, initiator="client"), exceptions.ConnectionClosedByClient, done),
            (ours.ConnectionLost(), exceptions.StreamLostError, lost),
            (ours.ConnectionLost(cause=DONE), exceptions.StreamLostError, done),
            (ours.HeartbeatTimeout("silent"), exceptions.AMQPHeartbeatTimeout, done),
            (ours.ConnectionBlockedTimeout("alarm"), exceptions.ConnectionBlockedTimeout, done),
            (ours.RemoteProtocolError("what?", 501), exceptions.ProtocolSyntaxError, exceptions.AMQPError),
            (RuntimeError("else"), exceptions.AMQPConnectionError, exceptions.AMQPError),
        ]:
            with self.subTest(reason=reason):
                made = connection_reason(reason)
                self.assertIsInstance(made, kind)
                self.assertIsNotNone(Failure(made).check(also))
                self.assertIs(type(copy.copy(made)), type(made))

    def test_text_and_pickle(self) -> None:
        """F-19, S-40: code and text are the arguments and in the text."""
        made: Any = connection_reason(ours.ConnectionForced("bye", 320))
        self.assertEqual(made.args, (320, "bye"))
        self.assertIn("bye", str(made))
        self.assertIn("320", repr(made))
        again = pickle.loads(pickle.dumps(made))
        self.assertEqual((again.reply_code, again.reply_text), (320, "bye"))
        self.assertIsInstance(made, type(again))

    def test_opening(self) -> None:
        """F-07, J-06, S-03, S-05 to S-08: always an AMQPConnectionError."""
        for error, kind in [
            (ours.NoCommonMechanism("none"), exceptions.AuthenticationError),
            (ours.AuthenticationFailed("refused"), exceptions.ProbableAuthenticationError),
            (ours.VirtualHostRefused("no vhost"), exceptions.ProbableAccessDeniedError),
            (ours.IncompatibleProtocol("HTTP"), exceptions.IncompatibleProtocolError),
            (ours.ConnectionLost(), exceptions.StreamLostError),
            (ours.ConnectionForced("shutdown", 320), exceptions.ConnectionClosedByBroker),
            (ours.ConnectionClosed("closed", initiator="client"), exceptions.ConnectionOpenAborted),
            (ours.TLSFailed("bad certificate"), exceptions.AMQPConnectionError),
            (ours.HandshakeTimeout("slow"), exceptions.AMQPConnectionError),
            (RuntimeError("else"), exceptions.AMQPConnectionError),
        ]:
            with self.subTest(error=error):
                made = opening_error(error)
                self.assertIsInstance(made, kind)
                self.assertIsInstance(made, exceptions.AMQPConnectionError)

    def test_reasons_of_channels(self) -> None:
        """M-04: by the broker, by the client (also with its connection), with a connection that was lost."""
        by_broker: Any = channel_reason(ours.NotFound("no queue", 404), None)
        self.assertIs(type(by_broker), exceptions.ChannelClosedByBroker)
        self.assertEqual(by_broker.args, (404, "no queue"))
        by_client = channel_reason(ours.ChannelClosed("done", 0, initiator="client"), None)
        self.assertIs(type(by_client), exceptions.ChannelClosedByClient)
        closed = ours.ConnectionClosed("bye", 200, initiator="client")
        with_connection: Any = channel_reason(closed, connection_reason(closed))
        self.assertIs(type(with_connection), exceptions.ChannelClosedByClient)
        self.assertEqual(with_connection.args, (200, "bye"))
        lost = connection_reason(ours.ConnectionLost())
        self.assertIs(channel_reason(ours.ConnectionLost(), lost), lost)

    def test_calls(self) -> None:
        """K-05, S-09, S-10, S-21, S-25, S-37."""
        for error, given, kind in [
            (ours.EncodeError("x"), ("k" * 256,), exceptions.ShortStringTooLong),
            (ours.EncodeError("x"), (1, -1), ValueError),
            (ours.EncodeError("x"), (None,), TypeError),
            (ours.DuplicateConsumerTag("x"), (), exceptions.DuplicateConsumerTag),
            (ours.ChannelLimitReached("x"), (), exceptions.NoFreeChannels),
            (ours.ChannelNumberInUse("x"), (), exceptions.InvalidChannelNumber),
            (ours.ConnectionWrongState("x"), (), exceptions.ConnectionWrongStateError),
            (ours.AlreadySettled("x"), (), exceptions.AMQPChannelError),
        ]:
            with self.subTest(error=error):
                self.assertIsInstance(call_error(error, given), kind)

    def test_without_pika(self) -> None:
        """The error names the extra."""
        ours_loaded = [name for name in sys.modules if name.startswith("txmsg.compat.pika")]
        without: dict[str, Any] = {"pika": None, "pika.exceptions": None}
        with mock.patch.dict(sys.modules, without):
            for name in ours_loaded:
                del sys.modules[name]
            with self.assertRaisesRegex(ImportError, r"txmsg\[pika\]"):
                __import__("txmsg.compat.pika")
