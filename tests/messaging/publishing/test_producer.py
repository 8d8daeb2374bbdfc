"""What a publish becomes: the body, the properties, the declarations; over a transport that writes it down."""

from __future__ import annotations

import zlib
from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.publishing.producer_case import ProducerCase
from txmsg.errors import (
    CodecNotInstalled,
    ConfigurationError,
    EncodeError,
    NotBoundError,
    NotImplementedByPeer,
    PreconditionFailed,
    SerializerNotInstalled,
)
from txmsg.messaging.entities import Exchange, Queue
from txmsg.messaging.publishing.producer import Producer


class BodyTests(ProducerCase):
    """kombu G4, G5, G12 to G15, G29: the choice of the encoding, in this order."""

    def encoded(self, *args: Any, **kwargs: Any) -> tuple[bytes, str, str]:
        """Body, content type, content encoding."""
        _, _, body, properties, _ = self.publish(*args, **kwargs)
        return body, properties["content_type"], properties["content_encoding"]

    def test_objects_are_json(self) -> None:
        """kombu G4, G29, celery C-07."""
        self.assertEqual(self.encoded({"a": [1]}), (b'{"a":[1]}', "application/json", "utf-8"))
        self.assertEqual(self.encoded(None), (b"null", "application/json", "utf-8"))

    def test_text_and_octets_are_sent_as_they_are(self) -> None:
        """kombu G29, celery C-07."""
        self.assertEqual(self.encoded("é"), ("é".encode(), "text/plain", "utf-8"))
        self.assertEqual(self.encoded(b"\xff"), (b"\xff", "application/data", "binary"))
        self.assertEqual(self.encoded(bytearray(b"\xff")), (b"\xff", "application/data", "binary"))
        self.assertEqual(self.encoded(""), (b"", "text/plain", "utf-8"))

    def test_a_serializer_is_used_for_text_too(self) -> None:
        """kombu G13."""
        self.assertEqual(self.encoded("é", serializer="json")[0], b'"\\u00e9"')
        self.producer.serializer = "json"
        self.assertEqual(self.encoded("x"), (b'"x"', "application/json", "utf-8"))
        self.assertEqual(self.encoded("x", serializer="text")[0], b"x")

    def test_a_content_type_means_that_it_is_encoded(self) -> None:
        """kombu G12, celery C-05: also where a serializer is named."""
        self.assertEqual(self.encoded("é", content_type="text/x"), ("é".encode(), "text/x", "utf-8"))
        self.assertEqual(
            self.encoded("é", content_type="text/x", content_encoding="latin-1", serializer="json"),
            (b"\xe9", "text/x", "latin-1"),
        )
        self.assertEqual(self.encoded(b"\xff", content_type="image/png"), (b"\xff", "image/png", "binary"))
        self.refused(EncodeError, {"a": 1}, content_type="application/json")

    def test_what_cannot_be_encoded(self) -> None:
        """R2: typed, nothing was sent, and the next one goes."""
        self.refused(EncodeError, object())
        self.refused(EncodeError, "é", content_type="text/x", content_encoding="ascii")
        self.refused(SerializerNotInstalled, 1, serializer="nothing")
        self.refused(CodecNotInstalled, 1, compression="nothing")
        self.publish(1)

    def test_compression(self) -> None:
        """kombu G5, G15: after serializing, and the header has the media type, in a mapping of the message's own."""
        headers = {"a": 1}
        _, _, body, properties, _ = self.publish({"a": 1}, compression="zlib", headers=headers)
        self.assertEqual(zlib.decompress(body), b'{"a":1}')
        self.assertEqual(properties["headers"], {"a": 1, "compression": "application/x-gzip"})
        self.assertEqual(headers, {"a": 1})
        self.assertEqual(properties["content_type"], "application/json")

    def test_compression_of_the_producer(self) -> None:
        """kombu G5: each message may have another, or none."""
        self.producer.compression = "gzip"
        self.assertEqual(self.properties("x")["headers"], {"compression": "application/x-gzip"})
        self.assertEqual(self.properties("x", compression="bzip2")["headers"], {"compression": "application/x-bz2"})
        self.assertNotIn("headers", self.properties("x", compression=""))


class PropertiesTests(ProducerCase):
    """kombu G8 to G11, G14, G16, G19 to G23."""

    def test_what_every_message_has(self) -> None:
        """kombu G8, G10, G11, celery C-07: and nothing else."""
        self.assertEqual(
            self.publish(1, "key"),
            (
                "",
                "key",
                b"1",
                {
                    "content_type": "application/json",
                    "content_encoding": "utf-8",
                    "delivery_mode": 2,
                    "priority": 0,
                },
                False,
            ),
        )

    def test_delivery_mode(self) -> None:
        """kombu G10, celery C-03: given, or the exchange's, or 2; on the wire it is a number."""
        for given, sent in ((None, 2), (1, 1), (2, 2), ("transient", 1), ("persistent", 2)):
            self.assertEqual(self.properties(1, delivery_mode=given)["delivery_mode"], sent)
        transient = Exchange("amq.direct", delivery_mode="transient")
        self.assertEqual(self.properties(1, exchange=transient)["delivery_mode"], 1)
        self.assertEqual(self.properties(1, exchange=transient, delivery_mode=2)["delivery_mode"], 2)
        self.producer.exchange = transient
        self.assertEqual(self.properties(1)["delivery_mode"], 1)
        self.refused(ConfigurationError, 1, delivery_mode=3)

    def test_priority(self) -> None:
        """kombu G11: 0 is a value, None is not sent."""
        self.assertEqual(self.properties(1, priority=9)["priority"], 9)
        self.assertNotIn("priority", self.properties(1, priority=None))

    def test_expiration(self) -> None:
        """kombu G19, celery C-08: seconds become whole milliseconds in decimal digits; 0 is a value."""
        for given, sent in ((0, "0"), (1, "1000"), (0.29, "290"), (1.001, "1001"), (3600.5, "3600500")):
            self.assertEqual(self.properties(1, expiration=given)["expiration"], sent)
        self.assertNotIn("expiration", self.properties(1))
        for bad in (-1, float("inf"), "1", True):
            self.refused(ConfigurationError, 1, expiration=bad)

    def test_headers(self) -> None:
        """kombu G14: a copy; an empty mapping is one."""
        headers: dict[str, Any] = {"a": {"b": 1}}
        self.assertEqual(self.properties(1, headers=headers)["headers"], headers)
        self.assertIsNot(self.transport.sent[-1][3]["headers"], headers)
        self.assertEqual(self.properties(1, headers={})["headers"], {})
        self.refused(ConfigurationError, 1, headers=[("a", 1)])

    def test_the_other_properties(self) -> None:
        """kombu G20."""
        given = {
            "correlation_id": "c",
            "reply_to": "r",
            "message_id": "m",
            "timestamp": 1,
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
            "cluster_id": "x",
        }
        found = self.properties(1, **given)
        self.assertEqual({name: found[name] for name in given}, given)
        self.assertNotIn("correlation_id", self.properties(1, correlation_id=None))

    def test_properties_of_one_message_are_not_those_of_the_next(self) -> None:
        """kombu G20: what repeats is shared, and stays what it was."""
        self.properties(1, correlation_id="c", headers={"a": 1}, expiration=1, retry=True)
        self.assertEqual(set(self.properties(1)), {"content_type", "content_encoding", "delivery_mode", "priority"})

    def test_reply_to_a_queue(self) -> None:
        """kombu G21."""
        self.assertEqual(self.properties(1, reply_to=Queue("answers"))["reply_to"], "answers")

    def test_reply_to_a_queue_that_gets_its_name(self) -> None:
        """kombu G21: the name the broker gave it, when it is declared with the message."""
        queue = Queue("", exclusive=True)
        self.assertEqual(self.properties(1, reply_to=queue, declare=[queue])["reply_to"], "made-up")

    def test_routing_key(self) -> None:
        """kombu G9: None is the producer's, "" is a key."""
        self.producer.routing_key = "default"
        self.assertEqual([self.publish(1, key)[1] for key in (None, "", "own")], ["default", "", "own"])

    def test_exchange(self) -> None:
        """kombu G3, G16, G22, celery C-06.

        The producer's, or one for this message by name or as an Exchange; "" is one.
        """
        producer = self.producer = Producer(self.on, Exchange("mine", no_declare=True))
        self.assertEqual(producer.exchange.name, "mine")
        names = [self.publish(1, "k", exchange=given)[0] for given in (None, "", "other", Exchange("amq.topic"))]
        self.assertEqual(names, ["mine", "", "other", "amq.topic"])
        self.assertEqual(Producer(self.on).exchange.name, "")

    def test_mandatory(self) -> None:
        """kombu G23."""
        self.assertEqual([self.publish(1, mandatory=given)[4] for given in (False, True)], [False, True])

    def test_immediate(self) -> None:
        """kombu G23 and CN18: refused here, for RabbitMQ would close the connection."""
        self.refused(NotImplementedByPeer, 1, immediate=True)


class DeclaringTests(ProducerCase):
    """kombu G2, G7, G17, G28."""

    def test_the_exchange_is_declared_once(self) -> None:
        """kombu G2, G28 and CN4: before the first publish, on this connection."""
        self.producer = Producer(self.on, Exchange("mine"))
        self.assertEqual(self.transport.attempts, [])
        for _ in range(3):
            self.publish(1)
        self.assertEqual(self.transport.log, ["exchange mine", *["publish 1"] * 3])

    def test_not_where_it_is_switched_off(self) -> None:
        """kombu G2; and the broker's own exchanges never are."""
        for producer in (
            Producer(self.on, Exchange("mine"), auto_declare=False),
            Producer(self.on, "amq.topic"),
            Producer(self.on),
        ):
            self.successResultOf(producer.publish(1))
        self.assertEqual(self.transport.log, ["publish 1"] * 3)

    def test_declare(self) -> None:
        """kombu G17: before the publish, known ones not again, and the list does not grow."""
        queue = Queue("work", Exchange("tasks"), "key")
        declare: list[Any] = [queue, None]
        self.producer = Producer(self.on, Exchange("mine"))
        self.publish(1, declare=declare)
        self.publish(2, declare=declare)
        self.assertEqual(
            self.transport.log, ["exchange mine", "exchange tasks", "queue work", "bind work", "publish 1", "publish 2"]
        )
        self.assertEqual(declare, [queue, None])
        self.assertFalse(queue.is_bound)

    def test_what_deletes_itself_is_declared_each_time(self) -> None:
        """kombu G17, O2."""
        queue = Queue("passing", auto_delete=True)
        for _ in range(2):
            self.publish(1, declare=[queue])
        self.assertEqual(self.transport.log, ["queue passing", "publish 1"] * 2)

    def test_a_declaration_that_fails(self) -> None:
        """kombu G17: the publish fails so; it is tried again by the next one."""
        self.transport.declares.append(PreconditionFailed("no", 406))
        self.refused(PreconditionFailed, 1, declare=[Queue("work")])
        self.publish(2, declare=[Queue("work")])
        self.assertEqual(self.transport.log, ["queue work", "queue work", "publish 2"])

    def test_what_cannot_be_declared(self) -> None:
        """kombu G17."""
        self.refused(ConfigurationError, 1, declare=["work"])
        self.refused(ConfigurationError, 1, declare=5)

    def test_declare_and_maybe_declare(self) -> None:
        """kombu G7."""
        producer = Producer(self.on, Exchange("mine"))
        self.assertIs(self.successResultOf(producer.declare()), True)
        self.assertIs(self.successResultOf(producer.declare()), False)
        self.assertIs(self.successResultOf(producer.maybe_declare(Queue("work"))), True)
        self.assertIs(self.successResultOf(producer.maybe_declare(None)), False)
        self.successResultOf(producer.publish(1))
        self.assertEqual(self.transport.log, ["exchange mine", "queue work", "publish 1"])
        self.failureResultOf(Producer().declare(), NotBoundError)

    def test_messages_wait_for_the_declaration_in_order(self) -> None:
        """R4: one that needs no declaration does not overtake one that waits for it."""
        self.successResultOf(self.producer.publish("first"))
        held: Deferred[Any] = Deferred()
        self.transport.declares.append(held)
        waiting = [
            self.producer.publish("a", declare=[Exchange("slow")]),
            self.producer.publish("b"),
            self.producer.publish("c", retry=True),
        ]
        self.assertEqual(self.transport.bodies(), ["first"])
        held.callback(None)
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), ["first", "a", "b", "c"])
