"""/api/exchanges, /api/queues, /api/bindings, as RabbitMQ 3.10 answers them (measured)."""

from __future__ import annotations

from tests.broker.management_cases import ManagementTestCase
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import Queue
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

NOT_FOUND = (404, "Object Not Found", "Not Found")


class ExchangeTests(ManagementTestCase):
    def test_the_standard_ones(self) -> None:
        """The listing of a new virtual host."""
        found = self.get("exchanges")
        self.assertEqual(
            [(item["name"], item["type"], item["internal"]) for item in found],
            [
                ("", "direct", False),
                ("amq.direct", "direct", False),
                ("amq.fanout", "fanout", False),
                ("amq.headers", "headers", False),
                ("amq.match", "headers", False),
                ("amq.rabbitmq.trace", "topic", True),
                ("amq.topic", "topic", False),
            ],
        )
        self.assertEqual(self.get("exchanges/%2F"), found)
        self.assertEqual(
            found[1],
            {
                "arguments": {},
                "auto_delete": False,
                "durable": True,
                "internal": False,
                "name": "amq.direct",
                "type": "direct",
                "user_who_performed_action": "rmq-internal",
                "vhost": "/",
            },
        )

    def test_declare_and_delete(self) -> None:
        path = "exchanges/%2F/x%2F1"
        wanted = {"type": "topic", "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
        self.assertEqual(self.do("PUT", path, wanted), 201)
        self.assertEqual(self.do("PUT", path, wanted), 204)
        self.assertEqual(self.get(path)["type"], "topic")
        self.assertTrue(self.vhost.exchanges["x/1"].durable)
        self.assertEqual(self.do("DELETE", path), 204)
        self.assertEqual(self.refused("DELETE", path), NOT_FOUND)
        self.assertEqual(self.refused("GET", path), NOT_FOUND)

    def test_a_default_type(self) -> None:
        self.assertEqual(self.do("PUT", "exchanges/%2F/x", {}), 201)
        self.assertEqual(self.vhost.exchanges["x"].type, "direct")

    def test_refusals(self) -> None:
        self.do("PUT", "exchanges/%2F/e1", {"type": "direct", "auto_delete": True})
        refused = {
            ("PUT", "e1", "fanout"): (
                400,
                "bad_request",
                "inequivalent arg 'type' for exchange 'e1' in vhost '/': received 'fanout' but current is 'direct'",
            ),
            ("PUT", "e2", "nope"): (400, "bad_request", "unknown exchange type 'nope'"),
            ("PUT", "amq.x", "direct"): (401, "not_authorised", "Access refused."),
            ("DELETE", "amq.direct", "direct"): (401, "not_authorised", "Access refused."),
        }
        for (method, name, kind), expected in refused.items():
            with self.subTest(name=name):
                self.assertEqual(self.refused(method, f"exchanges/%2F/{name}", {"type": kind}), expected)
        self.assertEqual(self.refused("GET", "exchanges/nope"), NOT_FOUND)

    def test_if_unused(self) -> None:
        self.vhost.declare_exchange("x1", "fanout")
        self.vhost.declare_queue("q")
        self.vhost.bind_queue("q", "x1", "")
        self.assertEqual(
            self.refused("DELETE", "exchanges/%2F/x1?if-unused=true"),
            (400, "bad_request", "exchange 'x1' in vhost '/' in use"),
        )
        self.assertEqual(self.do("DELETE", "exchanges/%2F/x1"), 204)

    def test_booleans(self) -> None:
        self.assertEqual(
            self.refused("PUT", "exchanges/%2F/x", {"durable": "x"}), (400, "bad_request", ["not_boolean", "x"])
        )
        self.assertEqual(self.do("PUT", "exchanges/%2F/x", {"durable": "true"}), 201)
        self.assertTrue(self.vhost.exchanges["x"].durable)

    def test_bindings_of_an_exchange(self) -> None:
        self.vhost.declare_queue("q")
        self.vhost.bind_queue("q", "amq.topic", "a.*", {"k": "v"})
        self.vhost.bind_exchange("amq.direct", "amq.topic", "b")
        (first, second) = self.get("exchanges/%2F/amq.topic/bindings/source")
        self.assertEqual(
            (first["destination"], first["destination_type"], first["routing_key"], first["arguments"]),
            ("q", "queue", "a.*", {"k": "v"}),
        )
        self.assertEqual((second["destination"], second["destination_type"]), ("amq.direct", "exchange"))
        self.assertEqual(self.get("exchanges/%2F/amq.direct/bindings/destination"), [second])
        (default,) = self.get("exchanges/%2F/amq.default/bindings/source")
        self.assertEqual((default["source"], default["routing_key"]), ("", "q"))


class QueueTests(ManagementTestCase):
    def put(self, name: str, *bodies: bytes) -> Queue:
        queue = self.vhost.declare_queue(name)
        for body in bodies:
            self.vhost.publish("", name, Message.published("", name, NO_PROPERTIES, body), NO_PROPERTIES)
        return queue

    def test_a_queue(self) -> None:
        queue = self.put("q", b"123", b"45")
        queue.get(no_ack=False)
        found = self.get("queues/%2F/q")
        self.assertEqual((found["messages"], found["messages_ready"], found["messages_unacknowledged"]), (2, 1, 1))
        self.assertEqual((found["message_bytes_ready"], found["consumers"], found["state"]), (2, 0, "running"))
        self.assertEqual(
            (found["name"], found["vhost"], found["type"], found["node"]), ("q", "/", "classic", self.api.node)
        )
        self.assertEqual((found["consumer_details"], found["policy"], found["exclusive"]), ([], None, False))
        (listed,) = self.get("queues")
        self.assertEqual(self.get("queues/%2F"), [listed])
        self.assertEqual(set(found) - set(listed), {"consumer_details", "deliveries", "incoming"})

    def test_declare_and_delete(self) -> None:
        wanted = {"durable": True, "auto_delete": False, "arguments": {"x-max-length": 5}}
        self.assertEqual(self.do("PUT", "queues/%2F/n1", wanted), 201)
        self.assertEqual(self.do("PUT", "queues/%2F/n1", wanted), 204)
        self.assertEqual(self.vhost.queues["n1"].settings.max_length, 5)
        self.assertEqual(self.do("DELETE", "queues/%2F/n1?if-empty=true&if-unused=true"), 204)
        self.assertEqual(self.refused("DELETE", "queues/%2F/n1"), NOT_FOUND)

    def test_refusals(self) -> None:
        self.do("PUT", "queues/%2F/n1", {"durable": False})
        refused = {
            ("n1", '{"durable": true}'): (
                400,
                "bad_request",
                "inequivalent arg 'durable' for queue 'n1' in vhost '/': received 'true' but current is 'false'",
            ),
            ("n3", '{"arguments": {"x-max-length": "a"}}'): (
                400,
                "bad_request",
                "invalid arg 'x-max-length' for queue 'n3' in vhost '/': \"expected integer, got longstr\"",
            ),
            ("amq.n", ""): (401, "not_authorised", "Access refused."),
            ("n4", "{bad"): (400, "bad_request", "not_json"),
            ("n4", '{"durable": NaN}'): (400, "bad_request", "not_json"),
            ("n4", "[1]"): (400, "bad_request", "not_json"),
            ("n4", "[" * 100_000): (400, "bad_request", "not_json"),
            ("n4", '{"durable": "x"}'): (400, "bad_request", ["not_boolean", "x"]),
            ("n4", '{"arguments": 3}'): (400, "bad_request", ["not_a_table", "arguments"]),
        }
        for (name, text), expected in refused.items():
            with self.subTest(text=text[:40]):
                self.assertEqual(self.refused("PUT", f"queues/%2F/{name}", raw=text.encode()), expected)
        self.assertEqual(self.refused("PUT", "queues/nope/n", {}), (404, "not_found", "vhost_not_found"))
        self.assertEqual(self.refused("GET", "queues/%2F/nope"), NOT_FOUND)
        self.assertEqual(self.refused("DELETE", "queues/%2F/nope/contents"), NOT_FOUND)

    def test_an_empty_array_of_arguments(self) -> None:
        """Some clients send it for an empty object."""
        self.assertEqual(self.do("PUT", "queues/%2F/q", {"arguments": []}), 201)

    def test_a_locked_queue(self) -> None:
        self.vhost.declare_queue("q2", exclusive=True, owner=object())
        locked = (
            "cannot obtain exclusive access to locked queue 'q2' in vhost '/'. It could be originally declared on "
            "another connection or the exclusive property value does not match that of the original declaration."
        )
        self.assertEqual(self.refused("DELETE", "queues/%2F/q2"), (400, "bad_request", locked))
        self.assertEqual(self.refused("DELETE", "queues/%2F/q2/contents"), (400, "bad_request", locked))
        asked = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        self.assertEqual(
            self.refused("POST", "queues/%2F/q2/get", asked), (400, "bad_request", f"405 RESOURCE_LOCKED - {locked}")
        )

    def test_purge(self) -> None:
        queue = self.put("q", b"1", b"2")
        self.assertEqual(self.do("DELETE", "queues/%2F/q/contents"), 204)
        self.assertEqual(queue.message_count, 0)

    def test_actions(self) -> None:
        self.put("q")
        self.assertEqual(self.do("POST", "queues/%2F/q/actions", {"action": "sync"}), 204)
        self.assertEqual(self.refused("POST", "queues/%2F/q/actions", {"action": "burn"})[0], 400)

    def test_bindings(self) -> None:
        self.put("q")
        self.vhost.bind_queue("q", "amq.direct", "k")
        default, made = self.get("queues/%2F/q/bindings")
        self.assertEqual((default["source"], default["properties_key"]), ("", "q"))
        self.assertEqual((made["source"], made["properties_key"]), ("amq.direct", "k"))

    # -- taking messages

    def take(self, **document: object) -> list[dict[str, object]]:
        asked = {"count": 10, "ackmode": "ack_requeue_true", "encoding": "auto"} | document
        answer = self.answer("POST", "queues/%2F/q/get", asked)
        self.assertEqual(answer.status, 200, answer)
        found: list[dict[str, object]] = answer.body
        return found

    def test_get(self) -> None:
        self.vhost.declare_queue("q")
        properties = BasicProperties(headers={"a": 1, "e": [True, "x"]}, delivery_mode=2, content_type="text/plain")
        self.vhost.publish("", "q", Message.published("", "q", properties, b"hello"), properties)
        self.vhost.publish("", "q", Message.published("", "q", NO_PROPERTIES, b"\xff\x00bin"), NO_PROPERTIES)
        first, second = self.take()
        self.assertEqual(
            first,
            {
                "payload_bytes": 5,
                "redelivered": False,
                "exchange": "",
                "routing_key": "q",
                "message_count": 1,
                "properties": {
                    "content_type": "text/plain",
                    "headers": {"a": 1, "e": [True, "x"]},
                    "delivery_mode": 2,
                },
                "payload": "hello",
                "payload_encoding": "string",
            },
        )
        self.assertEqual((second["payload"], second["payload_encoding"]), ("/wBiaW4=", "base64"))
        self.assertEqual((second["properties"], second["message_count"]), ([], 0))
        (again,) = self.take(count=1, encoding="base64", truncate=2)
        self.assertEqual((again["payload"], again["payload_bytes"], again["redelivered"]), ("aGU=", 5, True))

    def test_ack_modes(self) -> None:
        dead = self.vhost.declare_queue("dead")
        queue = self.vhost.declare_queue(
            "q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        )
        for mode, left, rejected in (
            ("ack_requeue_true", 1, 0),
            ("reject_requeue_true", 1, 0),
            ("ack_requeue_false", 0, 0),
            ("reject_requeue_false", 0, 1),
        ):
            with self.subTest(mode=mode):
                queue.purge()
                self.vhost.publish("", "q", Message.published("", "q", NO_PROPERTIES, b"x"), NO_PROPERTIES)
                self.assertEqual(len(self.take(ackmode=mode)), 1)
                self.clock.advance(0)
                self.assertEqual((queue.message_count, queue.unacked_count), (left, 0))
                self.assertEqual(dead.message_count, rejected)

    def test_get_has_a_limit(self) -> None:
        """A question cannot make the broker copy all it holds."""
        queue = self.put("q", *[b"x"] * 1001)
        self.assertEqual(len(self.take(count=10**9)), 1000)
        self.assertEqual(queue.message_count, 1001)

    def test_get_refusals(self) -> None:
        self.put("q")
        missing = "[{key_missing,ackmode},{key_missing,count},{key_missing,encoding}]"
        self.assertEqual(self.refused("POST", "queues/%2F/q/get", {}), (400, "bad_request", missing))
        asked: dict[str, object] = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        changes: list[dict[str, object]] = [{"count": -1}, {"count": "x"}, {"ackmode": "zz"}, {"ackmode": []}]
        changes.append({"encoding": "zip"})
        for change in changes:
            with self.subTest(change=change):
                self.assertEqual(self.refused("POST", "queues/%2F/q/get", {**asked, **change})[0], 400)
        self.assertEqual(
            self.refused("POST", "queues/%2F/nope/get", asked),
            (404, "not_found", "NOT_FOUND - no queue 'nope' in vhost '/'"),
        )


class BindingTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.vhost.declare_queue("q1")
        self.path = "bindings/%2F/e/amq.topic/q/q1"

    def test_bind_look_unbind(self) -> None:
        answer = self.answer("POST", self.path, {"routing_key": "my key", "arguments": {"a": 1}})
        self.assertEqual(answer.status, 201)
        location = answer.headers["Location"]
        self.assertRegex(location, r"^q1/my%2Bkey~[\w-]+$")
        (found,) = self.get(self.path)
        self.assertEqual(found["properties_key"], location.removeprefix("q1/").replace("%2B", "+"))
        self.assertEqual(self.get(f"{self.path}/{location.removeprefix('q1/')}"), found)
        self.assertEqual(self.do("DELETE", f"{self.path}/{found['properties_key']}"), 204)
        self.assertEqual(self.get(self.path), [])
        self.assertEqual(self.refused("DELETE", f"{self.path}/{found['properties_key']}"), NOT_FOUND)

    def test_keys_of_rabbitmq(self) -> None:
        """Bindings without arguments have RabbitMQ's names."""
        for key, name in (("", "~"), ("plain", "plain"), ("a.*", "a.%2A"), ("a b", "a+b")):
            with self.subTest(key=key):
                self.do("POST", self.path, {"routing_key": key})
                names = [item["properties_key"] for item in self.get(self.path)]
                self.assertIn(name, names)

    def test_arguments_tell_bindings_apart(self) -> None:
        for arguments in ({"a": 1}, {"a": 2}, {"a": "1"}, {}):
            self.do("POST", self.path, {"routing_key": "k", "arguments": arguments})
        names = {item["properties_key"] for item in self.get(self.path)}
        self.assertEqual(len(names), 4)
        for number, name in enumerate(sorted(names)):
            self.do("DELETE", f"{self.path}/{name}")
            self.assertEqual(len(self.get(self.path)), 3 - number)

    def test_exchange_to_exchange(self) -> None:
        answer = self.answer("POST", "bindings/%2F/e/amq.topic/e/amq.direct", {"routing_key": "e2e"})
        self.assertEqual((answer.status, answer.headers["Location"]), (201, "amq.direct/e2e"))
        (found,) = self.get("bindings/%2F/e/amq.topic/e/amq.direct")
        self.assertEqual(found["destination_type"], "exchange")
        self.assertEqual(self.do("DELETE", "bindings/%2F/e/amq.topic/e/amq.direct/e2e"), 204)

    def test_lists(self) -> None:
        self.vhost.bind_queue("q1", "amq.direct", "k")
        found = [(item["source"], item["destination"], item["routing_key"]) for item in self.get("bindings")]
        self.assertEqual(found, [("", "q1", "q1"), ("amq.direct", "q1", "k")])
        self.assertEqual(len(self.get("bindings/%2F")), 2)
        self.assertEqual(self.get("bindings/%2F/e/amq.default/q/q1")[0]["routing_key"], "q1")
        self.assertEqual(self.get("bindings/%2F/e/nope/q/q1"), [])

    def test_refusals(self) -> None:
        self.assertEqual(
            self.refused("POST", "bindings/%2F/e/amq.topic/q/nope", {}),
            (404, "not_found", "no queue 'nope' in vhost '/'"),
        )
        self.assertEqual(
            self.refused("POST", "bindings/%2F/e/nope/q/q1", {}),
            (404, "not_found", "no exchange 'nope' in vhost '/'"),
        )
        self.assertEqual(self.refused("POST", "bindings/%2F/e/amq.topic/z/q1", {}), NOT_FOUND)
        self.assertEqual(self.refused("POST", self.path, {"routing_key": 5})[0], 400)


class PublishTests(ManagementTestCase):
    def publish(self, **changes: object) -> dict[str, object]:
        return {"properties": {}, "routing_key": "q", "payload": "hi", "payload_encoding": "string"} | changes

    def test_publish(self) -> None:
        queue = self.vhost.declare_queue("q")
        path = "exchanges/%2F/amq.default/publish"
        properties = {"delivery_mode": 2, "headers": {"a": 1}, "timestamp": 5, "nope": 1}
        answer = self.answer("POST", path, self.publish(properties=properties))
        self.assertEqual((answer.status, answer.body), (200, {"routed": True}))
        answer = self.answer("POST", path, self.publish(payload="aGk=", payload_encoding="base64"))
        self.assertEqual(answer.body, {"routed": True})
        first, second = (entry.message for entry in queue.ready_entries())
        self.assertEqual((first.body, second.body, first.is_persistent), (b"hi", b"hi", True))
        self.assertEqual(first.decoded_properties.headers, {"a": 1})
        self.assertEqual(self.answer("POST", path, self.publish(routing_key="nope")).body, {"routed": False})

    def test_refusals(self) -> None:
        path = "exchanges/%2F/amq.default/publish"
        missing = "[{key_missing,properties},{key_missing,payload_encoding}]"
        self.assertEqual(
            self.refused("POST", path, {"routing_key": "q", "payload": "hi"}), (400, "bad_request", missing)
        )
        self.assertEqual(
            self.refused("POST", "exchanges/%2F/nope/publish", self.publish()),
            (400, "bad_request", "404 NOT_FOUND - no exchange 'nope' in vhost '/'"),
        )
        for changes, reason in (
            ({"properties": {"priority": "x"}}, ["not_int", "priority"]),
            ({"properties": {"priority": 256}}, ["not_int", "priority"]),
            ({"properties": {"priority": True}}, ["not_int", "priority"]),
            ({"properties": {"type": 5}}, ["not_a_string", "type"]),
            ({"properties": {"headers": 5}}, ["not_a_table", "headers"]),
            ({"properties": 5}, "properties_not_an_object"),
            ({"payload_encoding": "zip"}, ["unsupported_encoding", "zip"]),
            ({"payload_encoding": "base64", "payload": "!"}, ["not_base64", "payload"]),
            ({"properties": {"user_id": "somebody"}}, "user_id is not the user's name"),
        ):
            with self.subTest(changes=changes):
                self.assertEqual(self.refused("POST", path, self.publish(**changes)), (400, "bad_request", reason))
        for properties in ({"expiration": "soon"}, {"headers": {"k" * 300: 1}}, {"headers": {"n": 1 << 70}}):
            with self.subTest(properties=properties):
                self.assertEqual(self.refused("POST", path, self.publish(properties=properties))[0], 400)

    def test_too_large(self) -> None:
        self.broker.limits = type(self.broker.limits)(max_message_size=4)
        path = "exchanges/%2F/amq.default/publish"
        status, _, reason = self.refused("POST", path, self.publish(payload="12345"))
        self.assertEqual((status, reason), (400, "the payload is longer than 4 bytes"))
