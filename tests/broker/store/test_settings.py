"""Virtual hosts, users, permissions and policies across a restart of any broker with a data directory (R35)."""

from __future__ import annotations

from tests.broker.store.broker_cases import BrokerTestCase
from tests.broker.store_cases import bodies_of, execute, persistent
from txmsg.broker.definitions.policies import Policy, policies_of
from txmsg.broker.message import Message
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users


class DefaultVirtualHostTests(BrokerTestCase):
    """R35: `/` is made where there is nothing yet, and only there, as RabbitMQ does it."""

    def test_deleted(self) -> None:
        """It does not come back by itself; whoever makes it again has it, without what was in it."""
        broker = self.start_broker()
        broker.vhosts["/"].declare_queue("q", durable=True)
        broker.add_vhost("shop")
        broker.delete_vhost("/")
        for _ in range(2):
            broker = self.restart_broker(broker)
            self.assertEqual(list(broker.vhosts), ["shop"])
            self.assertIsNone(broker.users.permissions("guest", "/"))
        broker.add_vhost("/")
        for _ in range(2):
            broker = self.restart_broker(broker)
            self.assertEqual(sorted(broker.vhosts), ["/", "shop"])
            self.assertEqual(list(broker.vhosts["/"].queues), [])

    def test_deleted_and_killed(self) -> None:
        """F56: neither after a kill."""
        broker = self.start_broker()
        broker.delete_vhost("/")
        self.clock.advance(1)
        self.assertEqual(list(self.kill().vhosts), [])


class PolicyTests(BrokerTestCase):
    """R35: what a policy does holds again from the first moment of the next start."""

    def put(self, broker: Broker, definition: dict[str, object], vhost: str = "/", name: str = "p") -> None:
        policies_of(broker.vhosts[vhost]).put(Policy.checked(vhost, name, "^q", definition))

    def test_restored(self) -> None:
        """In its virtual host, for the queues that are there and those to come; nothing else has to ask for it."""
        broker = self.start_broker()
        broker.add_vhost("shop").declare_queue("q", durable=True)
        self.put(broker, {"max-length": 3}, "shop")
        broker = self.restart_broker(broker)
        shop = broker.vhosts["shop"]
        self.assertEqual(shop.queues["q"].settings.max_length, 3)
        self.assertEqual(shop.declare_queue("q2").settings.max_length, 3)
        self.assertEqual([policy.name for policy in policies_of(shop)], ["p"])
        self.assertEqual(list(policies_of(broker.vhosts["/"])), [])

    def test_changed_and_deleted(self) -> None:
        """The last form counts; one that was deleted stays away."""
        broker = self.start_broker()
        self.put(broker, {"max-length": 3})
        broker = self.restart_broker(broker)
        self.put(broker, {"max-length": 4})
        self.put(broker, {"expires": 5}, name="other")
        broker = self.restart_broker(broker)
        policies = policies_of(broker.vhosts["/"])
        self.assertEqual([policy.definition for policy in policies], [{"expires": 5}, {"max-length": 4}])
        policies.delete("other")
        broker = self.restart_broker(broker)
        self.assertEqual([policy.name for policy in policies_of(broker.vhosts["/"])], ["p"])

    def test_dead_letters_of_the_time_between(self) -> None:
        """What expires while the broker is off goes where the policy says: nothing is lost for want of it."""
        broker = self.start_broker()
        vhost = broker.vhosts["/"]
        for name in ("q", "dead"):
            vhost.declare_queue(name, durable=True)
        self.put(broker, {"dead-letter-exchange": "", "dead-letter-routing-key": "dead"})
        properties = persistent(expiration="10000")
        vhost.publish("", "q", Message.published("", "q", properties, b"1"), properties)
        self.stop_broker(broker)
        self.now += 60
        broker = self.start_broker()
        self.clock.advance(0)
        self.assertEqual(bodies_of(broker.vhosts["/"].queue("dead").ready_entries()), [b"1"])

    def test_deleted_virtual_host(self) -> None:
        """Its policies are forgotten with it: they are not there in the next one of that name, nor complained of."""
        broker = self.start_broker()
        broker.add_vhost("shop")
        self.put(broker, {"max-length": 3}, "shop")
        broker = self.restart_broker(broker)
        broker.delete_vhost("shop")
        self.assertEqual(broker.store.settings("policy"), {})
        broker = self.restart_broker(broker)
        self.assertEqual((self.report.damage, list(broker.vhosts)), ([], ["/"]))
        self.assertEqual(list(policies_of(broker.add_vhost("shop"))), [])

    def test_unusable(self) -> None:
        """One that cannot be is reported, and the others hold."""
        broker = self.start_broker()
        self.put(broker, {"max-length": 3})
        broker.store.put_setting("policy", "/\0wrong", {"vhost": "/", "name": "wrong"})
        broker = self.restart_broker(broker)
        [damage] = self.report.damage
        self.assertIn("cannot be restored", damage.what)
        self.assertEqual(broker.vhosts["/"].declare_queue("q").settings.max_length, 3)
        self.flushLoggedErrors()


class UserTests(BrokerTestCase):
    """R35: the users of the last time are the users of this time; guest is made in a new directory only."""

    def test_guest_stays(self) -> None:
        """Another user is no reason for guest to go."""
        broker = self.start_broker()
        broker.users.add("orders", "p")
        broker = self.restart_broker(broker)
        self.assertEqual(broker.users.names(), ["guest", "orders"])
        permissions = broker.users.permissions("guest", "/")
        assert permissions is not None
        self.assertEqual(permissions.configure, ".*")
        self.assertIsNotNone(self.successResultOf(broker.users.check("guest", "guest")))

    def test_guest_stays_away(self) -> None:
        """Once deleted, guest does not come back, even when nobody else is there."""
        broker = self.start_broker()
        broker.delete_user("guest")
        for _ in range(2):
            broker = self.restart_broker(broker)
            self.assertEqual(broker.users.names(), [])

    def test_guest_as_it_was_changed(self) -> None:
        """Another password, and no way into a virtual host any more."""
        broker = self.start_broker()
        broker.users.add("guest", "another")
        broker.users.clear_permissions("guest", "/")
        broker = self.restart_broker(broker)
        self.assertIsNone(self.successResultOf(broker.users.check("guest", "guest")))
        self.assertIsNotNone(self.successResultOf(broker.users.check("guest", "another")))
        self.assertIsNone(broker.users.permissions("guest", "/"))

    def test_killed_after_the_first_start(self) -> None:
        """F56: guest is there whether what was told at the start has been written or not."""
        broker = self.start_broker()
        self.assertEqual(self.kill().users.names(), ["guest"])
        self.clock.advance(0.1)
        self.assertEqual(self.kill().users.names(), ["guest"])
        broker.delete_user("guest")
        self.clock.advance(0.1)
        self.assertEqual(self.kill().users.names(), [])

    def test_damage(self) -> None:
        """C7.4: guest does not come back because what is kept of it cannot be read."""
        broker = self.start_broker()
        broker.delete_user("guest")
        self.stop_broker(broker)
        execute(self.directory / "broker.db", "UPDATE definition SET checksum = 0")
        self.assertEqual(self.start_broker().users.names(), [])
        self.assertEqual(len(self.report.damage), 1)
        self.flushLoggedErrors()

    def test_users_that_were_given(self) -> None:
        """Those that the program makes are its own affair: they are there each time, with the password of that time."""
        for password in ("a", "b"):
            users = Users(default_user=False, cost=2)
            users.add("own", password)
            broker = self.start_broker(users=users)
            self.assertEqual(broker.users.names(), ["own"])
            self.assertIsNotNone(self.successResultOf(broker.users.check("own", password)))
            self.stop_broker(broker)
