"""Lists, overview, health, connections, channels, consumers, definitions and policies over the management API."""

from __future__ import annotations

import json
from typing import Any

from tests.broker.management_cases import ManagementTestCase
from tests.broker.server_peer import Peer
from txmsg.broker.interfaces import NoJournal
from txmsg.broker.message import Message
from txmsg.wire.methods import basic, connection
from txmsg.wire.properties import NO_PROPERTIES

NOT_FOUND = (404, "Object Not Found", "Not Found")


class ListTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("abc", "def", "ghi"):
            queue = self.vhost.declare_queue(name)
            for _ in range(ord(name[0]) - ord("a")):
                queue.put(Message.published("", name, NO_PROPERTIES, b"x"))

    def names(self, query: str) -> list[str]:
        found = self.get(f"queues?{query}")
        return [item["name"] for item in (found["items"] if isinstance(found, dict) else found)]

    def test_columns(self) -> None:
        """Members by their names; those that are not there are left out."""
        self.assertEqual(self.get("queues?columns=name,messages,nope")[1], {"name": "def", "messages": 3})
        self.assertEqual(self.get("queues/%2F/abc?columns=name"), {"name": "abc"})
        self.do("PUT", "queues/%2F/q", {"arguments": {"x-max-length": 5, "x-expires": 9000}})
        found = self.get("queues/%2F/q?columns=name,arguments.x-max-length")
        self.assertEqual(found, {"name": "q", "arguments": {"x-max-length": 5}})

    def test_order(self) -> None:
        self.assertEqual(self.names("sort=name&sort_reverse=true"), ["ghi", "def", "abc"])
        self.assertEqual(self.names("sort=messages"), ["abc", "def", "ghi"])
        self.assertEqual(self.names("sort=messages&sort_reverse=true"), ["ghi", "def", "abc"])
        self.assertEqual(self.names("sort=arguments"), ["abc", "def", "ghi"])
        self.assertEqual(self.names("sort=nope.nope"), ["abc", "def", "ghi"])

    def test_pages(self) -> None:
        found = self.get("queues?page=2&page_size=2&columns=name")
        self.assertEqual(
            found,
            {
                "filtered_count": 3,
                "item_count": 1,
                "items": [{"name": "ghi"}],
                "page": 2,
                "page_count": 2,
                "page_size": 2,
                "total_count": 3,
            },
        )
        self.assertEqual(self.get("queues?page=1")["page_size"], 100)

    def test_pages_by_name(self) -> None:
        self.assertEqual(self.names("page=1&name=b"), ["abc"])
        self.assertEqual(self.names("page=1&name=B"), ["abc"])
        self.assertEqual(self.names("page=1&name=^ab&use_regex=true"), ["abc"])
        self.assertEqual(self.names("page=1&name=^ab&use_regex=True"), ["abc"])
        self.assertEqual(self.names("page=1&name=^ab&use_regex=false"), [])
        self.assertEqual(self.get("queues?page=1&name=nope")["page_count"], 1)

    def test_refusals(self) -> None:
        for query in (
            "page=0",
            "page=x",
            "page=-1",
            "page=1&page_size=501",
            "page=1&page_size=0",
            "page=" + "9" * 30,
            "page=1&name=(&use_regex=true",
            "page=1&name=" + "x" * 501,
        ):
            with self.subTest(query=query[:40]):
                self.assertEqual(self.refused("GET", f"queues?{query}")[:2], (400, "bad_request"))
        self.assertEqual(
            self.refused("GET", "queues?page=3&page_size=2"),
            (400, "page_out_of_range", "page out of range, page: 3 page size: 2 page count: 2"),
        )

    def test_regular_expressions_are_for_administrators(self) -> None:
        """C7.6: one that takes for ever must not come from somebody who only looks."""
        self.add_user("m", "monitoring")
        status, _, reason = self.refused("GET", "queues?page=1&name=(a%2B)%2B$&use_regex=true", user="m")
        self.assertEqual((status, reason), (400, "regular expressions are for administrators only"))


class OverviewTests(ManagementTestCase):
    def test_overview(self) -> None:
        queue = self.vhost.declare_queue("q")
        queue.put(Message.published("", "q", NO_PROPERTIES, b"x"))
        found = self.get("overview")
        self.assertEqual(found["queue_totals"], {"messages": 1, "messages_ready": 1, "messages_unacknowledged": 0})
        self.assertEqual(
            found["object_totals"], {"channels": 0, "connections": 0, "consumers": 0, "exchanges": 7, "queues": 1}
        )
        self.assertEqual((found["rabbitmq_version"], found["product_name"]), ("3.10.8", "txmsg"))
        self.assertEqual(found["node"], "txmsg@localhost")

    def test_who_sees_the_listeners(self) -> None:
        self.add_user("m", "management")
        self.assertNotIn("listeners", self.get("overview", user="m"))
        self.assertEqual(self.get("overview")["listeners"], [])

    def test_nodes(self) -> None:
        (node,) = self.get("nodes")
        self.assertEqual((node["name"], node["running"], node["type"]), ("txmsg@localhost", True, "ram"))
        self.assertEqual(self.get("nodes/txmsg%40localhost"), node)
        self.assertEqual(self.refused("GET", "nodes/other"), NOT_FOUND)

    def test_small_things(self) -> None:
        self.assertEqual(self.get("cluster-name"), {"name": "txmsg"})
        for path in ("extensions", "operator-policies", "parameters", "global-parameters", "vhost-limits"):
            self.assertEqual(self.get(path), [])
        self.assertFalse(self.get("auth")["enable_uaa"])

    def test_health(self) -> None:
        for path in (
            "aliveness-test/%2F",
            "healthchecks/node",
            "healthchecks/node/txmsg%40localhost",
            "health/checks/alarms",
            "health/checks/local-alarms",
            "health/checks/virtual-hosts",
        ):
            with self.subTest(path=path):
                self.assertEqual(self.get(path), {"status": "ok"})
        self.assertEqual(self.get("health/checks/node-is-quorum-critical")["status"], "ok")
        self.assertEqual(self.refused("GET", "healthchecks/node/other"), NOT_FOUND)
        self.assertEqual(self.refused("GET", "aliveness-test/nope"), NOT_FOUND)
        self.assertEqual(self.vhost.queues, {})

    def test_alarms(self) -> None:
        """C7.3: what blocks publishers is said."""
        self.broker.block()
        answer = self.answer("GET", "health/checks/alarms")
        self.assertEqual((answer.status, answer.body["status"]), (503, "failed"))
        self.assertEqual(answer.body["alarms"], [{"node": "txmsg@localhost", "resource": "memory"}])
        self.assertEqual(self.get("healthchecks/node")["status"], "failed")
        self.assertTrue(self.get("nodes")[0]["mem_alarm"])

    def test_listeners(self) -> None:
        self.api.http_listeners.append(("127.0.0.1", 15672))
        self.assertEqual(self.get("health/checks/port-listener/15672"), {"status": "ok", "port": 15672})
        self.assertEqual(self.get("health/checks/protocol-listener/http"), {"status": "ok", "protocol": "http"})
        self.assertEqual(self.get("overview")["contexts"][0]["port"], "15672")
        for path in ("port-listener/1", "port-listener/x", "protocol-listener/amqp091"):
            with self.subTest(path=path):
                answer = self.answer("GET", f"health/checks/{path}")
                self.assertEqual((answer.status, answer.body["reason"]), (503, "No active listener"))

    def test_methods(self) -> None:
        answer = self.answer("PATCH", "queues")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD, OPTIONS"))
        answer = self.answer("OPTIONS", "queues/%2F/q")
        self.assertEqual((answer.status, answer.headers["Allow"]), (200, "DELETE, GET, HEAD, OPTIONS, PUT"))
        for path in ("nope", "queues/a/b/c/d", "", "queues/%2F/q/contents/x"):
            self.assertEqual(self.refused("GET", path), NOT_FOUND)


class ConnectionTests(ManagementTestCase):
    def test_connections(self) -> None:
        peer = Peer(self.broker).open(heartbeat=30)
        peer.open_channel()
        (found,) = self.get("connections")
        self.assertEqual(found["name"], peer.server.name)
        self.assertEqual(
            {key: found[key] for key in ("user", "vhost", "channels", "state", "ssl", "timeout", "protocol")},
            {
                "user": "guest",
                "vhost": "/",
                "channels": 1,
                "state": "running",
                "ssl": False,
                "timeout": 30,
                "protocol": "AMQP 0-9-1",
            },
        )
        self.assertTrue(found["client_properties"]["capabilities"]["basic.nack"])
        self.assertGreater(found["recv_oct"], 0)
        path = f"connections/{found['name'].replace(' ', '%20').replace('>', '%3E')}"
        self.assertEqual(self.get(path)["name"], found["name"])
        self.assertEqual(self.get("vhosts/%2F/connections")[0]["name"], found["name"])
        self.assertEqual(self.get("connections/username/guest")[0]["name"], found["name"])
        self.assertEqual(self.get("connections/username/nobody"), [])
        self.assertEqual(self.refused("GET", "connections/nope"), NOT_FOUND)

    def test_one_that_is_not_open(self) -> None:
        Peer(self.broker)
        (found,) = self.get("connections")
        self.assertEqual((found["user"], found["vhost"], found["state"]), (None, None, "starting"))

    def test_close(self) -> None:
        for headers, reason in (({}, "Closed via management plugin"), ({"x-reason": "enough"}, "enough")):
            peer = Peer(self.broker).open()
            path = f"connections/{peer.server.name}"
            self.assertEqual(self.answer("DELETE", path, headers=headers).status, 204)
            peer.pump()
            close = peer.expect(connection.Close)
            self.assertEqual((close.reply_code, close.reply_text), (320, f"CONNECTION_FORCED - {reason}"))
        self.assertEqual(self.refused("DELETE", "connections/nope"), NOT_FOUND)

    def test_those_of_others(self) -> None:
        """Without the tag monitoring one sees and closes one's own connections only."""
        self.add_user("m", "management")
        mine = Peer(self.broker).open(user="m", password="secret")
        theirs = Peer(self.broker).open()
        theirs.open_channel()
        self.assertEqual([item["name"] for item in self.get("connections", user="m")], [mine.server.name])
        self.assertEqual(self.get("channels", user="m"), [])
        path = f"connections/{theirs.server.name}"
        self.assertEqual(self.refused("DELETE", path, user="m"), NOT_FOUND)
        self.assertEqual(self.answer("DELETE", f"connections/{mine.server.name}", user="m").status, 204)
        self.assertEqual(self.get("overview", user="m")["object_totals"]["connections"], 1)

    def test_channels_and_consumers(self) -> None:
        peer = Peer(self.broker).open()
        peer.open_channel(3)
        peer.declare("q", 3)
        peer.send(basic.Qos(prefetch_count=7), 3)
        peer.expect(basic.QosOk, 3)
        peer.consume("q", 3, consumer_tag="ctag", arguments={"x-priority": 5})
        peer.publish(b"x", "q", number=3)
        (channel,) = self.get("channels")
        self.assertEqual(channel["name"], f"{peer.server.name} (3)")
        self.assertEqual(
            {key: channel[key] for key in ("number", "consumer_count", "prefetch_count", "messages_unacknowledged")},
            {"number": 3, "consumer_count": 1, "prefetch_count": 7, "messages_unacknowledged": 1},
        )
        self.assertEqual((channel["confirm"], channel["transactional"], channel["user"]), (False, False, "guest"))
        (consumer,) = self.get("consumers")
        self.assertEqual(
            {key: consumer[key] for key in ("consumer_tag", "ack_required", "active", "prefetch_count", "queue")},
            {
                "consumer_tag": "ctag",
                "ack_required": True,
                "active": True,
                "prefetch_count": 7,
                "queue": {"name": "q", "vhost": "/"},
            },
        )
        self.assertEqual(consumer["arguments"], {"x-priority": 5})
        self.assertEqual(consumer["channel_details"]["name"], channel["name"])
        self.assertEqual(self.get("consumers/%2F"), [consumer])
        self.assertEqual(self.get("queues/%2F/q")["consumer_details"], [consumer])
        self.assertEqual(self.get(f"channels/{channel['name']}")["consumer_details"], [consumer])
        self.assertEqual(self.get(f"connections/{peer.server.name}/channels"), [channel])
        self.assertEqual(self.get("vhosts/%2F/channels"), [channel])
        self.assertEqual(self.refused("GET", "channels/nope"), NOT_FOUND)

    def test_who_an_exclusive_queue_belongs_to(self) -> None:
        peer = Peer(self.broker).open()
        peer.open_channel()
        peer.declare("mine", exclusive=True)
        found = self.get("queues/%2F/mine")
        self.assertEqual(found["owner_pid_details"]["name"], peer.server.name)


class DefinitionTests(ManagementTestCase):
    def test_out_and_in(self) -> None:
        """What is exported can be imported, there and back."""
        self.do("PUT", "queues/%2F/q1", {"durable": True, "arguments": {"x-max-length": 10}})
        self.do("PUT", "exchanges/%2F/x1", {"type": "topic"})
        self.do("POST", "bindings/%2F/e/x1/q/q1", {"routing_key": "a.*", "arguments": {"k": "v"}})
        self.do("PUT", "policies/%2F/p1", {"pattern": "^q", "definition": {"message-ttl": 5}, "apply-to": "queues"})
        self.do("PUT", "vhosts/v1")
        exported = self.get("definitions")
        json.dumps(exported)
        for path in ("queues/%2F/q1", "exchanges/%2F/x1", "policies/%2F/p1", "vhosts/v1"):
            self.do("DELETE", path)
        self.assertEqual(self.do("POST", "definitions", exported), 204)
        self.assertEqual(self.get("definitions"), exported)
        self.assertEqual(self.do("POST", "definitions", exported), 204)
        self.assertEqual(self.get("definitions"), exported)

    def test_of_one_virtual_host(self) -> None:
        document: dict[str, Any] = {"queues": [{"name": "dq", "durable": True, "auto_delete": False, "arguments": {}}]}
        self.assertEqual(self.do("POST", "definitions/%2F", document | {"users": []}), 204)
        self.assertEqual(self.get("definitions/%2F")["queues"], document["queues"])
        self.assertEqual(self.refused("POST", "definitions/nope", {}), NOT_FOUND)

    def test_refusals(self) -> None:
        documents: list[Any] = [
            [],
            {"users": [{"name": "x"}]},
            {"exchanges": [{"name": "x"}]},
            {"queues": [{"name": "q", "vhost": "nope", "durable": True}]},
        ]
        for document in documents:
            with self.subTest(document=document):
                self.assertEqual(self.refused("POST", "definitions", document)[:2], (400, "bad_request"))
        self.assertEqual(self.refused("POST", "definitions", raw=b"{bad"), (400, "bad_request", "not_json"))

    def test_policies(self) -> None:
        policy = {"pattern": "^q", "definition": {"max-length": 2}, "priority": 1, "apply-to": "queues"}
        self.vhost.declare_queue("q")
        self.assertEqual(self.do("PUT", "policies/%2F/p1", policy), 201)
        self.assertEqual(self.do("PUT", "policies/%2F/p1", policy), 204)
        wanted = policy | {"vhost": "/", "name": "p1"}
        self.assertEqual(self.get("policies/%2F/p1"), wanted)
        self.assertEqual(self.get("policies"), [wanted])
        self.assertEqual(self.get("policies/%2F"), [wanted])
        found = self.get("queues/%2F/q")
        self.assertEqual((found["policy"], found["effective_policy_definition"]), ("p1", {"max-length": 2}))
        self.assertEqual(self.get("exchanges/%2F/amq.direct").get("policy"), None)
        self.assertEqual(self.do("DELETE", "policies/%2F/p1"), 204)
        self.assertEqual(self.refused("DELETE", "policies/%2F/p1"), NOT_FOUND)
        self.assertEqual(self.refused("GET", "policies/%2F/p1"), NOT_FOUND)
        self.assertIsNone(self.get("queues/%2F/q")["policy"])
        status, _, reason = self.refused("PUT", "policies/%2F/p2", {"pattern": "", "definition": {"nope": 5}})
        self.assertEqual((status, reason), (400, "Validation failed\n\n'nope' is not a recognised policy setting\n"))

    def test_the_policy_of_an_exchange(self) -> None:
        self.vhost.declare_exchange("x")
        self.do("PUT", "policies/%2F/p", {"pattern": "^x", "definition": {"alternate-exchange": "amq.fanout"}})
        self.assertEqual(self.get("exchanges/%2F/x")["policy"], "p")


class SafeTests(ManagementTestCase):
    def test_a_change_is_answered_when_it_is_safe(self) -> None:
        """R35: durable things are on disk before anybody is told that they are there."""
        waiting = []

        class Journal(NoJournal):
            is_durable = True

            def after_commit(self, callback: Any, failed: Any = None) -> None:
                waiting.append((callback, failed))

        self.broker.journal = Journal()
        user = self.broker.users.get("guest")
        assert user is not None
        for end, status in ((0, 201), (1, 500)):
            asked = self.api.answer(user, "PUT", ["queues", "/", f"q{end}"], {}, {}, b'{"durable": true}')
            self.assertNoResult(asked)
            self.assertEqual(self.get(f"queues/%2F/q{end}")["name"], f"q{end}")
            if end:
                waiting.pop()[1](OSError("disk"))
                self.flushLoggedErrors(OSError)
            else:
                waiting.pop()[0]()
            self.assertEqual(self.successResultOf(asked).status, status)
