"""/api/users, /api/permissions, /api/vhosts, /api/whoami, and what the tags allow."""

from __future__ import annotations

from tests.broker.management_cases import ManagementTestCase
from tests.broker.server_peer import Peer

NOT_FOUND = (404, "Object Not Found", "Not Found")
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


class UserTests(ManagementTestCase):
    def log_in(self, name: str, password: str) -> bool:
        return self.successResultOf(self.broker.users.check(name, password)) is not None

    def test_whoami(self) -> None:
        self.assertEqual(self.get("whoami"), {"name": "guest", "tags": ["administrator"]})

    def test_create_change_delete(self) -> None:
        self.assertEqual(self.do("PUT", "users/u1", {"password": "p1", "tags": "monitoring,policymaker"}), 201)
        found = self.get("users/u1")
        self.assertEqual((found["name"], found["tags"], found["limits"]), ("u1", ["monitoring", "policymaker"], {}))
        self.assertTrue(self.log_in("u1", "p1"))
        self.assertEqual(self.do("PUT", "users/u1", {"password": "p2", "tags": ["management"]}), 204)
        self.assertFalse(self.log_in("u1", "p1"))
        self.assertTrue(self.log_in("u1", "p2"))
        self.assertEqual([item["name"] for item in self.get("users")], ["guest", "u1"])
        self.assertEqual(self.do("DELETE", "users/u1"), 204)
        self.assertEqual(self.refused("DELETE", "users/u1"), NOT_FOUND)
        self.assertEqual(self.refused("GET", "users/u1"), NOT_FOUND)

    def test_hashes(self) -> None:
        """A hash of RabbitMQ's (of the word guest, made by RabbitMQ 3.10.8) is one here."""
        made = "/RviMuWc729AaB7bOiwcDpb2Y4bt6YbmmNP9jvoZcJwTqCp2"
        self.do("PUT", "users/u3", {"password_hash": made, "tags": "administrator"})
        self.assertEqual(self.get("users/u3")["password_hash"], made)
        self.assertTrue(self.log_in("u3", "guest"))
        self.assertFalse(self.log_in("u3", "Guest"))

    def test_an_export_is_taken_back(self) -> None:
        exported = self.get("users/guest")
        self.do("PUT", "users/copy", exported)
        self.assertTrue(self.log_in("copy", "guest"))

    def test_without_a_password(self) -> None:
        """It exists, and cannot log in with any password, the empty one included."""
        for document in ({"tags": ""}, {"tags": "", "password_hash": ""}):
            self.do("PUT", "users/u2", document)
            self.assertFalse(self.log_in("u2", ""))

    def test_refusals(self) -> None:
        for document in (
            {"password": "p"},
            {"password": "", "tags": ""},
            {"password": 5, "tags": ""},
            {"tags": 5},
            {"tags": [5]},
            {"password_hash": "!!", "tags": ""},
            {"password_hash": 5, "tags": ""},
            {"password_hash": "AAAA", "tags": "", "hashing_algorithm": "rot13"},
        ):
            with self.subTest(document=document):
                self.assertEqual(self.refused("PUT", "users/u", document)[:2], (400, "bad_request"))
        self.assertEqual(self.refused("PUT", "users/u", {"password": "p"})[2], "tags_not_present")
        self.assertEqual(self.refused("PUT", "users/" + "u" * 300, {"tags": ""})[0], 400)

    def test_bulk_delete(self) -> None:
        self.add_user("a")
        self.add_user("b")
        self.assertEqual(self.do("POST", "users/bulk-delete", {"users": ["a", "b", "c"]}), 204)
        self.assertEqual(self.broker.users.names(), ["guest"])
        self.assertEqual(self.refused("POST", "users/bulk-delete", {"users": "guest"})[0], 400)

    def test_deleting_closes_connections(self) -> None:
        self.add_user("u")
        peer = Peer(self.broker).open(user="u", password="secret")
        self.do("DELETE", "users/u")
        peer.pump()
        self.assertFalse(peer.server.is_open)

    def test_permissions(self) -> None:
        self.add_user("u1", permissions=None)
        self.assertEqual([item["name"] for item in self.get("users/without-permissions")], ["u1"])
        self.assertEqual(self.do("PUT", "permissions/%2F/u1", EVERYTHING), 201)
        self.assertEqual(self.do("PUT", "permissions/%2F/u1", EVERYTHING | {"read": "^a"}), 204)
        wanted = {"user": "u1", "vhost": "/", "configure": ".*", "write": ".*", "read": "^a"}
        self.assertEqual(self.get("permissions/%2F/u1"), wanted)
        self.assertEqual(self.get("users/u1/permissions"), [wanted])
        self.assertEqual(len(self.get("vhosts/%2F/permissions")), 2)
        self.assertEqual(len(self.get("permissions")), 2)
        self.assertEqual(self.get("topic-permissions"), [])
        self.assertEqual(self.do("DELETE", "permissions/%2F/u1"), 204)
        self.assertEqual(self.refused("DELETE", "permissions/%2F/u1"), NOT_FOUND)
        self.assertEqual(self.refused("GET", "permissions/%2F/u1"), NOT_FOUND)

    def test_permission_refusals(self) -> None:
        self.assertEqual(
            self.refused("PUT", "permissions/%2F/guest", {"configure": "", "write": ""}),
            (400, "bad_request", "[{key_missing,read}]"),
        )
        for path in ("permissions/%2F/nope", "permissions/nope/guest"):
            self.assertEqual(self.refused("PUT", path, EVERYTHING), (400, "bad_request", "vhost_or_user_not_found"))
        status, _, reason = self.refused("PUT", "permissions/%2F/guest", EVERYTHING | {"read": "("})
        self.assertEqual((status, reason[0]), (400, "invalid_regexp"))
        self.assertEqual(self.refused("PUT", "permissions/%2F/guest", EVERYTHING | {"read": 5})[0], 400)
        self.assertEqual(self.refused("GET", "users/nope/permissions"), NOT_FOUND)
        self.assertEqual(self.refused("GET", "vhosts/nope/permissions"), NOT_FOUND)


class VirtualHostTests(ManagementTestCase):
    def test_create_and_delete(self) -> None:
        """Whoever makes one may do everything in it."""
        self.assertEqual(self.do("PUT", "vhosts/v%2F1"), 201)
        self.assertEqual(self.do("PUT", "vhosts/v%2F1", {"description": "d", "tags": "a,b"}), 204)
        self.assertEqual(self.get("vhosts/v%2F1")["name"], "v/1")
        self.assertEqual(self.get("permissions/v%2F1/guest")["configure"], ".*")
        self.assertEqual(self.do("PUT", "queues/v%2F1/q", {}), 201)
        self.assertEqual(self.do("DELETE", "vhosts/v%2F1"), 204)
        self.assertEqual(self.refused("DELETE", "vhosts/v%2F1"), NOT_FOUND)
        self.assertEqual(self.refused("GET", "vhosts/v%2F1"), NOT_FOUND)
        self.assertEqual(self.refused("PUT", "vhosts/" + "v" * 300)[0], 400)

    def test_the_list(self) -> None:
        self.broker.add_vhost("other")
        self.assertEqual([item["name"] for item in self.get("vhosts")], ["/", "other"])
        (first, _) = self.get("vhosts")
        self.assertEqual((first["messages"], first["tracing"], first["tags"]), (0, False, []))

    def test_deleting_one_with_policies(self) -> None:
        self.do("PUT", "vhosts/v")
        self.do("PUT", "policies/v/p", {"pattern": "", "definition": {"max-length": 1}})
        self.assertEqual(self.do("DELETE", "vhosts/v"), 204)


class TagTests(ManagementTestCase):
    """C7.5; https://www.rabbitmq.com/docs/management#permissions"""

    def setUp(self) -> None:
        super().setUp()
        for tag in ("management", "policymaker", "monitoring", "administrator"):
            self.add_user(tag, tag)
        self.add_user("nobody")
        self.broker.add_vhost("other")

    def test_levels(self) -> None:
        """Who is answered, by path: without a tag nobody."""
        everybody = ["management", "policymaker", "monitoring", "administrator"]
        for path, allowed, reason in (
            ("overview", everybody, "Not management user"),
            ("whoami", everybody, "Not management user"),
            ("queues", everybody, "Not management user"),
            ("nodes", ["monitoring", "administrator"], "Not monitor user"),
            ("users", ["administrator"], "Not administrator user"),
            ("permissions", ["administrator"], "Not administrator user"),
            ("definitions", ["administrator"], "Not administrator user"),
        ):
            for user in ("nobody", *everybody):
                with self.subTest(path=path, user=user):
                    if user in allowed:
                        self.get(path, user=user)
                    else:
                        self.assertEqual(self.refused("GET", path, user=user), (401, "not_authorised", reason))

    def test_policies(self) -> None:
        policy = {"pattern": "^q", "definition": {"max-length": 5}}
        for user, status in (("management", 401), ("monitoring", 401), ("policymaker", 201), ("administrator", 204)):
            with self.subTest(user=user):
                self.assertEqual(self.answer("PUT", "policies/%2F/p", policy, user=user).status, status)
        self.assertEqual(self.refused("PUT", "policies/%2F/p", policy, user="management")[2], "Not policymaker user")

    def test_what_only_administrators_change(self) -> None:
        for method, path in (
            ("PUT", "users/x"),
            ("DELETE", "users/guest"),
            ("POST", "users/bulk-delete"),
            ("PUT", "vhosts/x"),
            ("DELETE", "vhosts/%2F"),
            ("PUT", "permissions/%2F/guest"),
            ("DELETE", "permissions/%2F/guest"),
            ("POST", "definitions"),
            ("POST", "definitions/%2F"),
        ):
            for user in ("management", "policymaker", "monitoring"):
                with self.subTest(method=method, path=path, user=user):
                    refusal = (401, "not_authorised", "Not administrator user")
                    self.assertEqual(self.refused(method, path, {}, user=user), refusal)

    def test_other_virtual_hosts(self) -> None:
        """What one has no permissions in is not shown, but to monitoring; nobody changes anything there."""
        self.broker.vhosts["other"].declare_queue("theirs")
        self.vhost.declare_queue("ours")
        self.assertEqual([item["name"] for item in self.get("queues", user="management")], ["ours"])
        self.assertEqual([item["name"] for item in self.get("queues", user="monitoring")], ["ours", "theirs"])
        self.assertEqual([item["name"] for item in self.get("vhosts", user="management")], ["/"])
        refusal = (401, "not_authorised", "User not authorised to access virtual host")
        for method, path in (
            ("GET", "queues/other"),
            ("GET", "queues/other/theirs"),
            ("PUT", "queues/other/mine"),
            ("DELETE", "queues/other/theirs"),
            ("DELETE", "queues/other/theirs/contents"),
            ("GET", "exchanges/other"),
            ("PUT", "exchanges/other/x"),
            ("GET", "bindings/other"),
            ("POST", "bindings/other/e/amq.direct/q/theirs"),
            ("POST", "queues/other/theirs/get"),
            ("POST", "exchanges/other/amq.default/publish"),
            ("GET", "aliveness-test/other"),
            ("GET", "consumers/other"),
            ("GET", "policies/other"),
        ):
            for user in ("management", "administrator"):
                with self.subTest(method=method, path=path, user=user):
                    self.assertEqual(self.refused(method, path, {}, user=user), refusal)
        self.assertEqual(self.refused("GET", "vhosts/other", user="management"), refusal)
        self.get("vhosts/other", user="monitoring")

    def test_patterns(self) -> None:
        """C7.5: what AMQP would refuse, the API refuses: configure, write and read, both ends of a binding."""
        self.broker.users.set_permissions("management", "/", "^c", "^(w|c)", "^(r|c)")
        for name in ("c", "w", "r", "n"):
            self.vhost.declare_queue(name)
            self.vhost.declare_exchange(name)
        get = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        message = {"properties": {}, "routing_key": "", "payload": "", "payload_encoding": "string"}
        allowed = {
            ("PUT", "queues/%2F/{}"): "c",
            ("PUT", "exchanges/%2F/{}"): "c",
            ("DELETE", "queues/%2F/{}/contents"): "cr",
            ("POST", "queues/%2F/{}/get"): "cr",
            ("POST", "exchanges/%2F/{}/publish"): "cw",
            ("POST", "bindings/%2F/e/c/q/{}"): "cw",
            ("POST", "bindings/%2F/e/c/e/{}"): "cw",
            ("POST", "bindings/%2F/e/{}/q/c"): "cr",
            ("DELETE", "queues/%2F/{}"): "c",
            ("DELETE", "exchanges/%2F/{}"): "c",
        }
        for (method, path), names in allowed.items():
            for name in "nrwc":
                with self.subTest(method=method, path=path, name=name):
                    document = get if path.endswith("get") else message if path.endswith("publish") else {}
                    answer = self.answer(method, path.format(name), document, user="management")
                    if name in names:
                        self.assertLess(answer.status, 300, answer)
                    elif path.endswith("publish"):
                        self.assertEqual((answer.status, answer.body["error"]), (400, "bad_request"))
                        self.assertTrue(answer.body["reason"].startswith("403 ACCESS_REFUSED"))
                    else:
                        self.assertEqual((answer.status, answer.body["reason"]), (401, "Access refused."))

    def test_dead_letter_and_alternate_exchanges(self) -> None:
        """As over AMQP: naming one needs the right to write to it."""
        self.broker.users.set_permissions("management", "/", ".*", "^mine", ".*")
        for path, argument in (
            ("queues/%2F/mine1", "x-dead-letter-exchange"),
            ("exchanges/%2F/mine1", "alternate-exchange"),
        ):
            for exchange, status in (("theirs", 401), ("mine", 201)):
                with self.subTest(path=path, exchange=exchange):
                    document = {"arguments": {argument: exchange}}
                    self.assertEqual(self.answer("PUT", path, document, user="management").status, status)
