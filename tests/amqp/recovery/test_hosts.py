"""HostList: which host is next, and what a target may be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostResolution, IReactorPluggableNameResolver, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txmsg.amqp import ConnectionParameters, PlainCredentials
from txmsg.amqp.recovery.failures import Verdict
from txmsg.amqp.recovery.hosts import Host, HostList, parameters_of
from txmsg.amqp.secret import Secret
from txmsg.errors import ConfigurationError, ConnectFailed, ConnectTimeout


@implementer(IReactorPluggableNameResolver)
class NamedClock(Clock):
    """A clock with name servers.   names: the addresses; a missing name is not answered at all."""

    def __init__(self, **names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.asked: list[str] = []
        self.cancelled = 0
        self.nameResolver: Any = self

    def installNameResolver(self, resolver: Any) -> Any:
        """Twisted: never."""
        raise NotImplementedError

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, portNumber: int = 0, *rest: Any
    ) -> IHostResolution:
        """Twisted: answer at once, or not."""
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(self)  # type: ignore[arg-type]
        if hostName in self.names:
            for address in self.names[hostName]:
                kind = IPv6Address if ":" in address else IPv4Address
                resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
            resolutionReceiver.resolutionComplete()
        return self  # type: ignore[return-value]

    def cancel(self) -> None:
        """Twisted: the question."""
        self.cancelled += 1
        if self.cancelled == 1:
            raise NotImplementedError


class HostListTests(SynchronousTestCase):
    """Rounds over the hosts."""

    def setUp(self) -> None:
        """A resolver."""
        self.clock = NamedClock(
            a=["10.0.0.1"],
            b=["10.0.0.2"],
            c=["10.0.0.3"],
            many=["10.0.1.1", "fd00::2", "10.0.1.3", "10.0.1.1"],
            none=[],
        )

    def hosts(self, names: Sequence[str], order: str = "listed", seed: int = 0) -> HostList:
        """A list of these."""
        targets = parameters_of([f"amqps://u:p@{name}" for name in names], None, "")
        assert isinstance(targets, list)
        return HostList(targets, self.clock, order=order, random=random.Random(seed).random)

    def take(self, hosts: HostList) -> Host:
        """The next one, looked up."""
        return self.successResultOf(hosts.look_up(hosts.pick(), 10))

    def round(self, hosts: HostList) -> list[str]:
        """A whole round, each looked up."""
        found = [str(self.take(hosts))]
        while hosts.has_more:
            found.append(str(self.take(hosts)))
        return found

    def test_listed(self) -> None:
        """As given, each round the same; after a loss from the next one on, the dead one last."""
        hosts = self.hosts("abc")
        a, b, c = (f"{name}:5671 (10.0.0.{number})" for number, name in enumerate("abc", 1))
        self.assertEqual(self.round(hosts), [a, b, c])
        self.assertEqual(self.round(hosts), [a, b, c])
        hosts.begin_round(Host(hosts.targets[1], "10.0.0.2"))
        self.assertEqual(self.round(hosts), [c, a, b])
        self.assertEqual(self.round(hosts), [a, b, c])

    def test_shuffled(self) -> None:
        """Another order in each round; the dead one last."""
        hosts = self.hosts("abc", "shuffle")
        rounds = {tuple(self.round(hosts)) for _ in range(60)}
        self.assertEqual(len(rounds), 6)
        for _ in range(20):
            hosts.begin_round(Host(hosts.targets[0], "10.0.0.1"))
            self.assertEqual(self.round(hosts)[-1], "a:5671 (10.0.0.1)")

    def test_every_address_is_a_host(self) -> None:
        """R11: a name with several addresses; the dead one comes after all other hosts."""
        hosts = self.hosts(["many", "a"])
        addresses = [f"many:5671 ({address})" for address in ("10.0.1.1", "fd00::2", "10.0.1.3")]
        self.assertEqual(self.round(hosts), [*addresses, "a:5671 (10.0.0.1)"])
        dead = Host(hosts.targets[0], "fd00::2")
        hosts.begin_round(dead)
        self.assertEqual(self.round(hosts), ["a:5671 (10.0.0.1)", addresses[0], addresses[2], addresses[1]])

    def test_looked_up_in_each_round(self) -> None:
        """An address that changes is followed."""
        hosts = self.hosts("a")
        self.round(hosts)
        self.clock.names["a"] = ["10.9.9.9"]
        self.assertEqual(self.round(hosts), ["a:5671 (10.9.9.9)"])
        self.assertEqual(self.clock.asked, ["a", "a"])

    def test_what_failed_comes_later(self) -> None:
        """A silent address costs its time once, not in each round."""
        hosts = self.hosts(["many", "a"], "shuffle", seed=3)
        self.round(hosts)
        hosts.failed(Host(hosts.targets[0], "fd00::2"), Verdict.FAST)
        hosts.failed(Host(hosts.targets[1], "10.0.0.1"), Verdict.FAST)
        for _ in range(20):
            order = self.round(hosts)
            self.assertEqual((order[2][5:], order[3][0]), ("5671 (fd00::2)", "a"))
        hosts.worked(Host(hosts.targets[1], "10.0.0.1"))
        self.assertIn("a", {self.round(hosts)[0][0] for _ in range(20)})

    def test_held(self) -> None:
        """R12: a host that refused us is left out of rounds until its time has passed, by address."""
        hosts = self.hosts(["many", "a"])
        self.round(hosts)
        hosts.hold(Host(hosts.targets[0], "10.0.1.1"), 30)
        self.assertEqual([order[0] for order in self.round(hosts)], ["m", "m", "a"])
        self.assertEqual(hosts.wait(), 0)
        for address in ("fd00::2", "10.0.1.3"):
            hosts.hold(Host(hosts.targets[0], address), 20)
        self.clock.asked.clear()
        self.assertEqual((self.round(hosts), self.clock.asked), (["a:5671 (10.0.0.1)"], ["a"]))
        hosts.hold(Host(hosts.targets[1], "10.0.0.1"), 25)
        hosts.begin_round()
        self.assertEqual((hosts.has_more, hosts.wait()), (False, 20))
        self.clock.advance(20)
        self.assertEqual((hosts.has_more, hosts.wait(), len(self.round(hosts))), (True, 0, 2))
        self.clock.advance(10)
        hosts.begin_round()
        self.assertEqual(len(self.round(hosts)), 4)

    def test_the_same_verdict_twice(self) -> None:
        """failed() says whether a host did the same the last time."""
        hosts = self.hosts("a")
        host = self.take(hosts)
        verdicts = [Verdict.UNSURE, Verdict.UNSURE, Verdict.FAST, Verdict.UNSURE]
        self.assertEqual([hosts.failed(host, verdict) for verdict in verdicts], [False, True, False, False])

    def test_unknown_name(self) -> None:
        """F12: a name without an address is a typed error, and the round goes on."""
        hosts = self.hosts(["none", "a"])
        failure = self.failureResultOf(hosts.look_up(hosts.pick(), 10), ConnectFailed)
        self.assertIn("'none' has no address", str(failure.value))
        self.assertTrue(hosts.has_more)

    def test_silent_resolver(self) -> None:
        """R11, F12: a lookup that is not answered ends after its limit; cancelling is heard, if that can be."""
        for number in range(2):
            hosts = self.hosts(["silent"])
            looking = hosts.look_up(hosts.pick(), 3)
            self.clock.advance(2.9)
            self.assertNoResult(looking)
            self.clock.advance(0.2)
            self.failureResultOf(looking, ConnectTimeout)
            self.assertEqual(self.clock.cancelled, number + 1)
        looking = hosts.look_up(hosts.pick(), 3)
        looking.cancel()
        self.failureResultOf(looking)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_addresses_are_not_looked_up(self) -> None:
        """Nor are hosts of an endpoint of the application's own, nor anything on a reactor without a resolver."""
        hosts = self.hosts(["10.1.2.3", "[fd00::1]"])
        self.assertEqual(self.round(hosts), ["10.1.2.3:5671", "[fd00::1]:5671"])
        self.assertIsNone(hosts.endpoint_of(hosts.pick()))
        given: Deferred[Any] = Deferred()
        with_endpoint = HostList(hosts.targets, self.clock, endpoint=lambda parameters: given)  # type: ignore[arg-type,return-value]
        self.assertIs(with_endpoint.endpoint_of(self.take(with_endpoint)), given)
        plain = HostList(hosts.targets, Clock())
        self.take(plain)
        self.assertEqual(self.clock.asked, [])

    def test_the_name_is_verified(self) -> None:
        """C1.2: what is connected to is the address; the parameters, and so the name for TLS, stay as they were."""
        hosts = self.hosts(["many"])
        host = self.take(hosts)
        self.assertEqual((host.parameters.host, host.address), ("many", "10.0.1.1"))
        endpoint = hosts.endpoint_of(host)
        self.assertEqual(getattr(endpoint, "where", ""), "many:5671 (10.0.1.1)")

    def test_password_in_the_clear(self) -> None:
        """C1.8: refused before anything is tried."""
        targets = parameters_of("amqp://u:p@far.example", None, "")
        assert isinstance(targets, list)
        with self.assertRaisesRegex(ConfigurationError, "without TLS"):
            HostList(targets, self.clock)


class TargetTests(SynchronousTestCase):
    """parameters_of(): all forms of targets."""

    def found(self, *arguments: Any) -> list[str]:
        """The URLs."""
        targets = parameters_of(*arguments)
        assert isinstance(targets, list), targets
        return [each.as_url() for each in targets]

    def test_forms(self) -> None:
        """A URL, a secret one, "url;url", parameters, and lists of them."""
        two = ["amqp://u:***@a:5672/%2F", "amqps://u:***@b:5671/v"]
        url = "amqp://u:p@a;amqps://u:p@b/v"
        parameters = ConnectionParameters(host="a", credentials=PlainCredentials("u", "p"))
        self.assertEqual(self.found(url, None, ""), two)
        self.assertEqual(self.found(Secret(url), None, ""), two)
        self.assertEqual(self.found(url.split(";"), None, ""), two)
        self.assertEqual(self.found([parameters, "amqps://u:p@b/v"], None, ""), two)
        self.assertEqual(self.found((parameters,), None, ""), two[:1])
        self.assertEqual(self.found("amqp://u:p@a ; amqp://u:p@c;", None, "")[-1], "amqp://u:***@c:5672/%2F")

    def test_common(self) -> None:
        """credentials and name are for all of them; a callable stands for a remote host without a login in its URL."""

        def ask() -> PlainCredentials:
            return PlainCredentials("x", "y")

        targets = parameters_of(["amqps://far.example", ConnectionParameters(connection_attempts=5)], ask, "worker")
        assert isinstance(targets, list)
        for each in targets:
            self.assertIs(each.credentials, ask)
            self.assertEqual((each.connection_name, each.connection_attempts), ("worker", 1))

    def test_refused(self) -> None:
        """An error, not raised, that shows nothing secret."""
        for target in ([], 5, [5], "amqp://u:s3cret@a;b", ";", "amqp://u:s3cret@a/b/c", ["amqp://u:s3cret@h:x"]):
            with self.subTest(target=target):
                error = parameters_of(target, None, "")  # type: ignore[arg-type]
                self.assertIsInstance(error, ConfigurationError)
                self.assertNotIn("s3cret", str(error))
