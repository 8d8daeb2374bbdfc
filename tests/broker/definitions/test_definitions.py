"""Definitions: what a document may say, what a broker makes of it, and what it exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.server_peer import make_broker
from txmsg.broker.definitions.definitions import (
    BindingDefinition,
    Definitions,
    parse_json,
    parse_tags,
    read_definitions,
)
from txmsg.broker.definitions.importing import export_definitions, export_vhost, import_definitions
from txmsg.broker.definitions.policies import policies_of
from txmsg.broker.users.credentials import Users
from txmsg.errors import ConfigurationError

#: The hash of "guest" as RabbitMQ 3.10.8 made it.
GUEST_HASH = "/RviMuWc729AaB7bOiwcDpb2Y4bt6YbmmNP9jvoZcJwTqCp2"

#: As RabbitMQ 3.10.8 exports it (measured), shortened.
EXPORTED: dict[str, Any] = {
    "rabbit_version": "3.10.8",
    "rabbitmq_version": "3.10.8",
    "product_name": "RabbitMQ",
    "product_version": "3.10.8",
    "users": [
        {
            "name": "guest",
            "password_hash": GUEST_HASH,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"],
            "limits": {},
        },
        {"name": "orders", "password_hash": GUEST_HASH, "tags": "management, policymaker", "limits": {}},
    ],
    "vhosts": [{"name": "/"}, {"name": "shop", "metadata": {"description": "d"}}],
    "permissions": [
        {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
        {"user": "orders", "vhost": "shop", "configure": "", "write": "^x", "read": ".*"},
    ],
    "topic_permissions": [{"user": "orders", "vhost": "/", "exchange": "amq.topic", "write": "", "read": ""}],
    "parameters": [{"component": "federation-upstream", "name": "up", "value": {}, "vhost": "/"}],
    "global_parameters": [{"name": "internal_cluster_id", "value": "rabbitmq-cluster-id-x"}],
    "policies": [
        {
            "vhost": "/",
            "name": "p1",
            "pattern": "^q",
            "apply-to": "queues",
            "definition": {"max-length": 3, "ha-mode": "all"},
            "priority": 1,
        }
    ],
    "queues": [
        {
            "name": "q1",
            "vhost": "/",
            "durable": True,
            "auto_delete": False,
            "arguments": {"x-max-length": 10, "x-message-ttl": 60000},
        },
        {"name": "q2", "vhost": "shop", "durable": True, "type": "quorum", "auto_delete": False, "arguments": {}},
    ],
    "exchanges": [
        {
            "name": "x1",
            "vhost": "/",
            "type": "topic",
            "durable": True,
            "auto_delete": False,
            "internal": False,
            "arguments": {},
        }
    ],
    "bindings": [
        {
            "source": "amq.fanout",
            "vhost": "/",
            "destination": "x1",
            "destination_type": "exchange",
            "routing_key": "",
            "arguments": {},
        },
        {
            "source": "x1",
            "vhost": "/",
            "destination": "q1",
            "destination_type": "queue",
            "routing_key": "a.*",
            "arguments": {"k": "v"},
        },
        {"source": "", "vhost": "/", "destination": "q1", "destination_type": "queue", "routing_key": "q1"},
    ],
}


class ParseTests(SynchronousTestCase):
    def test_an_export(self) -> None:
        """Issue: RabbitMQ's definitions JSON, the hashes included."""
        found = Definitions.parse(json.loads(json.dumps(EXPORTED)))
        self.assertEqual([user.name for user in found.users], ["guest", "orders"])
        self.assertEqual(found.users[1].tags, ("management", "policymaker"))
        self.assertEqual(found.vhosts, ("/", "shop"))
        self.assertEqual(found.queues[1].arguments, {"x-queue-type": "quorum"})
        self.assertEqual(found.bindings[1], BindingDefinition("/", "x1", "q1", "queue", "a.*", {"k": "v"}))
        self.assertEqual(
            found.not_used, ("topic permissions are not used: orders", "run-time parameters are not used: up")
        )
        self.assertNotIn(GUEST_HASH, repr(found))

    def test_of_one_virtual_host(self) -> None:
        """Such a document names no virtual host, and has no users."""
        found = Definitions.parse({"queues": [{"name": "q"}], "users": [{"name": "x"}]}, vhost="shop")
        self.assertEqual((found.queues[0].vhost, found.users), ("shop", ()))

    def test_nothing(self) -> None:
        self.assertEqual(Definitions.parse({}), Definitions())

    def test_tags(self) -> None:
        self.assertEqual(parse_tags("a, b,,"), ("a", "b"))
        self.assertEqual(parse_tags(["a"]), ("a",))
        self.assertIsNone(parse_tags(5))
        self.assertIsNone(parse_tags([5]))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "must be a JSON object"),
        ({"users": {}}, "users must be an array"),
        ({"users": [5]}, "user 1: must be an object"),
        ({"users": [{"tags": ""}]}, "user 1: name is missing"),
        ({"users": [{"name": "x"}]}, "user 1 'x': tags are missing"),
        ({"users": [{"name": "x", "tags": 5}]}, "user 1 'x': tags must be"),
        ({"users": [{"name": "", "tags": ""}]}, "name must have 1 to 255 bytes"),
        ({"users": [{"name": "x", "tags": "", "password": 5}]}, "password must be a string"),
        ({"users": [{"name": "x", "tags": "", "password_hash": 5}]}, "password_hash must be a string"),
        (
            {"users": [{"name": "x", "tags": "", "password_hash": "AAAA", "hashing_algorithm": "rot13"}]},
            "the hashing algorithm 'rot13' is not known",
        ),
        ({"vhosts": [{"name": 5}]}, "vhost 1: name must be a string"),
        ({"vhosts": [{"name": "x" * 256}]}, "1 to 255 bytes"),
        (
            {"permissions": [{"user": "u", "vhost": "/", "configure": "(", "write": "", "read": ""}]},
            "permission of 'u' for '/': configure is not a regular expression",
        ),
        ({"permissions": [{"user": "u", "vhost": "/", "configure": "", "write": ""}]}, "read is missing"),
        ({"queues": [{"name": "q"}]}, "queue 1 'q': vhost is missing"),
        ({"queues": [{"name": "q", "vhost": "/", "durable": 1}]}, "durable must be true or false"),
        ({"queues": [{"name": "q", "vhost": "/", "arguments": 1}]}, "arguments must be an object"),
        ({"queues": [{"name": "q", "vhost": "/", "arguments": {"k" * 256: 1}}]}, "argument's name is too long"),
        ({"queues": [{"name": "q", "vhost": "/", "arguments": {"a": [{"b": 1 << 63}]}}]}, "more than 64 bits"),
        ({"exchanges": [{"name": "x", "vhost": "/"}]}, "exchange 1 'x': type is missing"),
        (
            {"bindings": [{"source": "x", "vhost": "/", "destination": "q", "destination_type": "z"}]},
            "destination_type must be queue or exchange",
        ),
        (
            {"bindings": [{"source": "x", "vhost": "/", "destination": "q", "routing_key": "k" * 256}]},
            "routing_key is too long",
        ),
        (
            {"policies": [{"name": "p", "vhost": "/", "pattern": "(", "definition": {"max-length": 1}}]},
            "policy 1 'p': not a regular expression",
        ),
    ],
)
def test_refused(document: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Definitions.parse(document)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{bad", "not JSON: .* in line 1"),
        (b"\xff", "not UTF-8"),
        (b'{"a": NaN}', "number that is none"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 101 + b"]" * 101, "nested deeper than 100"),
        (b"1" * 5000, "number that is none"),
    ],
)
def test_no_json(content: bytes, said: str) -> None:
    """C5.3: whatever the octets, a document or one error."""
    with pytest.raises(ConfigurationError, match=said):
        parse_json(content)


def test_json() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1.5, null, true]}') == {"a": [1.5, None, True]}
    assert parse_json(b"[" * 100 + b"]" * 100)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(EXPORTED))
    assert read_definitions(str(path)) == Definitions.parse(EXPORTED)
    path.write_text('{"users": [5]}')
    with pytest.raises(ConfigurationError, match=r"definitions\.json' cannot be used: user 1: must be an object"):
        read_definitions(str(path))
    with pytest.raises(ConfigurationError, match="No such file"):
        read_definitions(str(tmp_path / "none"))


class ImportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.broker = make_broker(users=Users(default_user=False, cost=2))
        self.vhost = self.broker.vhosts["/"]

    def log_in(self, name: str, password: str, host: str = "127.0.0.1") -> bool:
        return self.successResultOf(self.broker.users.check(name, password, host)) is not None

    def test_an_export(self) -> None:
        report = import_definitions(self.broker, Definitions.parse(EXPORTED))
        self.assertEqual(
            report.summary,
            "2 users, 2 vhosts, 2 permissions, 1 policies, 1 exchanges, 2 queues, 3 bindings",
        )
        self.assertEqual(
            report.remarks,
            [
                "topic permissions are not used: orders",
                "run-time parameters are not used: up",
                "policy 'p1': without effect here: ha-mode",
            ],
        )
        self.assertTrue(self.log_in("orders", "guest"))
        self.assertFalse(self.log_in("orders", "other"))
        queue = self.vhost.queues["q1"]
        # The policy holds from the beginning: the smaller length counts.
        self.assertEqual((queue.settings.max_length, queue.settings.message_ttl), (3, 60000))
        self.assertEqual(self.broker.vhosts["shop"].queues["q2"].type, "quorum")
        self.assertEqual(len(list(self.vhost.bindings())), 2)
        given = self.broker.users.permissions("orders", "shop")
        assert given is not None
        self.assertEqual((given.configure, given.write, given.read), ("", "^x", ".*"))

    def test_guest_stays_at_home(self) -> None:
        """C7.2: RabbitMQ's exports have guest with its well-known password: it is for this machine only, still."""
        import_definitions(self.broker, Definitions.parse(EXPORTED))
        self.assertTrue(self.log_in("guest", "guest"))
        self.assertFalse(self.log_in("guest", "guest", "192.0.2.1"))
        self.assertTrue(self.log_in("orders", "guest", "192.0.2.1"))

    def test_twice(self) -> None:
        """What is there stays, and a document can be imported at each start."""
        import_definitions(self.broker, Definitions.parse(EXPORTED))
        before = export_definitions(self.broker)
        report = import_definitions(self.broker, Definitions.parse(EXPORTED))
        self.assertEqual(export_definitions(self.broker), before)
        self.assertEqual(len(report.remarks), 3)

    def test_what_is_there_with_other_properties_stays(self) -> None:
        self.broker.add_vhost("shop")
        self.vhost.declare_queue("q1", durable=False)
        self.vhost.declare_exchange("x1", "fanout")
        self.broker.vhosts["shop"].declare_queue("q2", exclusive=True, owner=self)
        report = import_definitions(self.broker, Definitions.parse(EXPORTED))
        self.assertEqual(self.vhost.exchanges["x1"].type, "fanout")
        self.assertFalse(self.vhost.queues["q1"].durable)
        stays = [line for line in report.remarks if "stays as it is" in line]
        self.assertEqual(len(stays), 3)
        self.assertIn("exchange 'x1' stays as it is: PRECONDITION_FAILED - inequivalent arg 'type'", stays[0])

    def test_refusals(self) -> None:
        for document, said in (
            ({"queues": [{"name": "q", "vhost": "nope"}]}, "queue 'q': there is no virtual host 'nope'"),
            (
                {"permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}]},
                "permission of 'u' for '/': there is no such user or virtual host",
            ),
            (
                {"queues": [{"name": "q", "vhost": "/", "arguments": {"x-max-length": "a"}}]},
                "queue 'q': PRECONDITION_FAILED - invalid arg 'x-max-length'",
            ),
            ({"exchanges": [{"name": "x", "vhost": "/", "type": "nope"}]}, "unknown exchange type 'nope'"),
            ({"exchanges": [{"name": "amq.x", "vhost": "/", "type": "direct"}]}, "reserved prefix"),
            ({"bindings": [{"source": "x", "vhost": "/", "destination": "q"}]}, "binding of 'q' to 'x': NOT_FOUND"),
            ({"users": [{"name": "x", "tags": "", "password_hash": "AAAA"}]}, "user 'x': the password hash"),
        ):
            with self.subTest(said=said):
                with self.assertRaises(ConfigurationError) as caught:
                    import_definitions(self.broker, Definitions.parse(document))
                self.assertIn(said, str(caught.exception))

    def test_an_export_of_ours(self) -> None:
        """It holds all but exclusive queues and the standard exchanges, and is a document of its own."""
        import_definitions(self.broker, Definitions.parse(EXPORTED))
        self.vhost.declare_queue("mine", exclusive=True, owner=self)
        self.vhost.bind_queue("mine", "x1", "k", owner=self)
        exported = export_definitions(self.broker)
        other = make_broker(users=Users(default_user=False, cost=2))
        import_definitions(other, Definitions.parse(exported))
        self.assertEqual(export_definitions(other), exported)
        self.assertEqual([queue["name"] for queue in exported["queues"]], ["q1", "q2"])
        self.assertEqual(exported["exchanges"], EXPORTED["exchanges"])
        self.assertEqual(exported["bindings"], EXPORTED["bindings"][:2])
        self.assertEqual(exported["policies"], EXPORTED["policies"])
        self.assertEqual(exported["permissions"], EXPORTED["permissions"])

    def test_names_that_the_broker_gave(self) -> None:
        """A queue that a broker has named is in its export, and comes back from there, as on RabbitMQ."""
        named = self.vhost.declare_queue("", durable=True).name
        self.vhost.bind_queue(named, "amq.topic", "a.#")
        other = make_broker()
        import_definitions(other, Definitions.parse(export_definitions(self.broker)))
        self.assertEqual(list(other.vhosts["/"].queues), [named])
        self.assertEqual(other.vhosts["/"].binding_count, 1)

    def test_an_export_of_one_virtual_host(self) -> None:
        import_definitions(self.broker, Definitions.parse(EXPORTED))
        exported = export_vhost(self.vhost)
        self.assertEqual(exported["queues"][0].get("vhost"), None)
        other = make_broker()
        other.add_vhost("copy")
        import_definitions(other, Definitions.parse(exported, vhost="copy"))
        self.assertEqual(export_vhost(other.vhosts["copy"]), exported)
        self.assertEqual(len(policies_of(other.vhosts["copy"])), 1)
