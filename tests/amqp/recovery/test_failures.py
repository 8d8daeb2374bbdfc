"""classify(): which errors are tried again, and how soon."""

from __future__ import annotations

import unittest

from twisted.internet.error import ConnectionDone

from txmsg import errors
from txmsg.amqp.recovery.failures import Verdict, classify, is_our_defect


class ClassifyTests(unittest.TestCase):
    """R12: no fast loop against a host that refuses what we are."""

    def test_fast(self) -> None:
        """Nobody there, no answer, lost, forced to close: somebody else's trouble, that passes."""
        for error in (
            errors.ConnectFailed(),
            errors.ConnectTimeout(),
            errors.HandshakeTimeout(),
            errors.HeartbeatTimeout(),
            errors.ConnectionLost(),
            errors.ConnectionForced(),
            errors.InternalError(),
            errors.ConnectionBlockedTimeout(),
            errors.OperationTimeout("late"),
            errors.IncompatibleProtocol("without a word", cause=ConnectionDone()),
        ):
            with self.subTest(error=type(error).__name__):
                self.assertIs(classify(error), Verdict.FAST)

    def test_slow(self) -> None:
        """A refusal."""
        for error in (
            errors.AuthenticationFailed(),
            errors.NoCommonMechanism(),
            errors.VirtualHostRefused(),
            errors.InvalidPath(),
            errors.NotAllowed(),
            errors.PeerVerificationFailed(),
            errors.ClientCertificateRequired(),
            errors.TLSFailed(),
            errors.IncompatibleProtocol("HTTP"),
            errors.RemoteProtocolError("bad frame", 501),
            errors.connection_error(530, ""),
            errors.connection_error(402, ""),
        ):
            with self.subTest(error=type(error).__name__):
                self.assertIs(classify(error), Verdict.SLOW)

    def test_unsure(self) -> None:
        """A socket that closes without a word where a refusal would come: the broker may have died just then."""
        for kind in (errors.AuthenticationFailed, errors.VirtualHostRefused):
            with self.subTest(kind=kind.__name__):
                error = kind("without a word", 0, initiator="transport", cause=ConnectionDone())
                self.assertIs(classify(error), Verdict.UNSURE)

    def test_our_defects(self) -> None:
        """501 to 506 and 540 say that what we sent was wrong: slowly, and with an error in the log."""
        for code in (501, 502, 503, 504, 505, 540):
            error = errors.connection_error(code, "")
            with self.subTest(code=code):
                self.assertIs(classify(error), Verdict.SLOW)
                self.assertTrue(is_our_defect(error))
        self.assertIs(classify(errors.connection_error(506, "")), Verdict.SLOW)
        self.assertFalse(is_our_defect(errors.ConnectionForced()))

    def test_fatal(self) -> None:
        """A wrong configuration does not become right by trying."""
        self.assertIs(classify(errors.ConfigurationError("no")), Verdict.FATAL)
