"""What the mechanisms carry, and the delays of refusals."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.users.authentication import LoginDelays, LoginRefused, authenticate, offered_mechanisms
from txmsg.broker.users.credentials import User, Users
from txmsg.wire.tables import encode_table


class MechanismTests(SynchronousTestCase):
    """Which response means whom."""

    def setUp(self) -> None:
        self.users = Users(cost=2)
        self.users.add("jörg", "påss wort")

    def login(self, mechanism: str, response: bytes, certificate: str | None = None) -> User:
        return self.successResultOf(authenticate(self.users, mechanism, response, "10.0.0.1", certificate))

    def refusal(self, mechanism: str, response: bytes, certificate: str | None = None) -> str:
        failure = self.failureResultOf(authenticate(self.users, mechanism, response, "10.0.0.1", certificate))
        self.assertIs(failure.type, LoginRefused)
        return str(failure.value)

    def test_plain(self) -> None:
        """RFC 4616, without an authorization identity."""
        self.assertEqual(self.login("PLAIN", "\0jörg\0påss wort".encode()).name, "jörg")
        self.assertIn("NUL user NUL password", self.refusal("PLAIN", "jörg\0jörg\0påss wort".encode()))

    def test_amqplain(self) -> None:
        """A table without its length; the passwords may be text or octets that are none."""
        response = encode_table({"LOGIN": "jörg", "PASSWORD": "påss wort"})[4:]
        self.assertEqual(self.login("AMQPLAIN", response).name, "jörg")
        self.refusal("AMQPLAIN", encode_table({"LOGIN": "jörg", "PASSWORD": "\udcff"})[4:])
        self.refusal("AMQPLAIN", encode_table({"PASSWORD": "påss wort"})[4:])
        self.refusal("AMQPLAIN", b"\x05LOGIN")
        self.refusal("AMQPLAIN", b"")

    def test_external(self) -> None:
        """The certificate's name, and no other."""
        self.assertEqual(self.login("EXTERNAL", b"", "jörg").name, "jörg")
        self.refusal("EXTERNAL", b"x", "stranger")
        self.refusal("EXTERNAL", b"x")
        self.assertIn("localhost", self.refusal("EXTERNAL", b"", "guest"))

    def test_offered(self) -> None:
        """EXTERNAL where there is a certificate."""
        self.assertEqual(offered_mechanisms(None), ["AMQPLAIN", "PLAIN"])
        self.assertEqual(offered_mechanisms("jörg"), ["EXTERNAL", "AMQPLAIN", "PLAIN"])

    def test_nothing_secret_is_said(self) -> None:
        """C3.1: neither the reason nor a verbose traceback shows the password."""
        for mechanism, response in (
            ("PLAIN", b"\0stranger\0canary"),
            ("PLAIN", b"x\0canary\0canary"),
            ("AMQPLAIN", encode_table({"LOGIN": "a", "PASSWORD": "canary"})[4:]),
            ("AMQPLAIN", encode_table({"LOGIN": 5, "PASSWORD": "canary"})[4:]),
            ("AMQPLAIN", b"canary"),
        ):
            with self.subTest(mechanism=mechanism, response=response):
                failure = self.failureResultOf(authenticate(self.users, mechanism, response, "10.0.0.1"))
                self.assertNotIn("canary", str(failure.value))
                self.assertNotIn("canary", failure.getTraceback(detail="verbose"))

    def test_names_are_clipped(self) -> None:
        """C3.3: a stranger's name forges no log line."""
        text = self.refusal("PLAIN", b"\0" + b"a\n" * 500 + b"\0x")
        self.assertNotIn("\n", text)
        self.assertLess(len(text), 700)


class DelayTests(SynchronousTestCase):
    """4.4, failed logins."""

    def test_doubled(self) -> None:
        """By address, up to the highest; forgotten after a right one, and after some time."""
        clock = Clock()
        delays = LoginDelays(clock, 1.0, 30.0)
        self.assertEqual([delays.failed("a") for _ in range(8)], [1, 2, 4, 8, 16, 30, 30, 30])
        self.assertEqual(delays.failed("b"), 1)
        delays.succeeded("a")
        self.assertEqual([delays.failed("a"), delays.failed("a")], [1, 2])
        clock.advance(301)
        self.assertEqual(delays.failed("a"), 1)

    def test_bounded(self) -> None:
        """However many addresses: those that failed last are remembered."""
        delays = LoginDelays(Clock(), 1.0, 30.0)
        for number in range(3000):
            delays.failed(str(number))
        self.assertLessEqual(len(delays._failures), 1024)
        self.assertEqual(delays.failed("2999"), 2)
        self.assertEqual(delays.failed("0"), 1)

    def test_for_ever(self) -> None:
        """The arithmetic does not overflow."""
        delays = LoginDelays(Clock(), 1.0, 30.0)
        self.assertEqual({delays.failed("a") for _ in range(3000)}, {1, 2, 4, 8, 16, 30})
