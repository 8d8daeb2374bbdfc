"""Publishing: the checks and their texts, returns, direct replies, what consumers see (peers 18)."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tests.broker.channel_client import Client, ClientTestCase, acks, deliveries, returns
from txmsg.broker.connection.connection import BrokerConnection
from txmsg.broker.faults import Fault
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.queues.expiry import check_expiration
from txmsg.broker.script import Script
from txmsg.broker.vhost.direct_reply import REPLY_TO
from txmsg.wire.events import MethodReceived
from txmsg.wire.methods import basic, channel, connection, exchange, queue
from txmsg.wire.properties import BasicProperties


class Checks(ClientTestCase):
    """What is refused, with RabbitMQ's texts."""

    def refused(self, code: int, text: str, *, exchange_name: str = "amq.direct", **properties: Any) -> None:
        client = self.other()
        client.publish(exchange_name, "k", b"x", properties=BasicProperties(**properties))
        self.assert_channel_closed(code, text, basic.Publish, client)

    def test_immediate(self) -> None:
        self.client.send(1, (basic.Publish(exchange="missing", immediate=True), b"\0\0", b"x"))
        self.assert_connection_closed(540, "NOT_IMPLEMENTED - immediate=true", basic.Publish)

    def test_a_missing_exchange(self) -> None:
        self.refused(404, "NOT_FOUND - no exchange 'missing' in vhost '/'", exchange_name="missing")

    def test_an_internal_exchange(self) -> None:
        self.client.call(exchange.Declare(exchange="inside", internal=True))
        text = "ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '/'"
        self.refused(403, text, exchange_name="inside")

    def test_the_exchange_comes_before_the_properties(self) -> None:
        text = "NOT_FOUND - no exchange 'missing' in vhost '/'"
        self.refused(404, text, exchange_name="missing", expiration="abc", user_id="bob")

    def test_user_id(self) -> None:
        for claimed in ("bob", ""):
            text = f"PRECONDITION_FAILED - user_id property set to '{claimed}' but authenticated user was 'guest'"
            self.refused(406, text, user_id=claimed)

    def test_user_id_that_is_right(self) -> None:
        self.client.publish("amq.direct", "k", b"x", properties=BasicProperties(user_id="guest"))
        self.assertEqual(self.client.events(), [])

    def test_user_id_of_an_impersonator(self) -> None:
        self.broker.users.add("proxy", "proxy", tags=("impersonator",))
        self.broker.users.set_permissions("proxy", "/", ".*", ".*", ".*")
        client = self.other(user="proxy")
        client.publish("amq.direct", "k", b"x", properties=BasicProperties(user_id="bob"))
        self.assertEqual(client.events(), [])

    def test_delivery_mode(self) -> None:
        for mode in (0, 3, 255):
            text = f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}"
            self.refused(406, text, delivery_mode=mode)

    def test_expiration(self) -> None:
        self.refused(406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer", expiration="abc")

    def test_cc_and_bcc(self) -> None:
        for header in ("CC", "BCC"):
            text = f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{header}",longstr}}'
            self.refused(406, text, headers={header: "k"})

    def test_undecodable_properties(self) -> None:
        method = basic.Publish(exchange="amq.direct")
        self.client.send(1, (method, b"\x20\x00\x00\x00\x00\x09", b"x"))
        (event,) = self.client.events()
        self.assertIsInstance(event.method, connection.Close)
        self.assertIn(event.method.reply_code, (501, 502))
        self.assertIn("message properties: ", event.method.reply_text)

    def test_nothing_is_remembered_of_what_was_refused(self) -> None:
        """The second of two equal publishes meets the same checks."""
        properties = BasicProperties(expiration="abc")
        for _ in range(2):
            client = self.other(channels=2)
            for number in (1, 2):
                client.publish("amq.direct", "k", b"x", b"x", number=number, properties=properties)
                (event,) = client.events()
                self.assertEqual(event.method.reply_code, 406)


@pytest.mark.parametrize(
    ("expiration", "reason"),
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("1.5", '{leftover_string,".5"}'),
        ("5 ", '{leftover_string," "}'),
        ("5abc", '{leftover_string,"abc"}'),
        ('5\n"', '{leftover_string,"\\n\\""}'),
        ("-1", "{value_negative,-1}"),
        ("1099511627776", "{value_too_large,1099511627776}"),
        ("\u0665", "no_integer"),  # a digit, but none of ASCII's
        ("\u00b2", "no_integer"),
    ],
)
def test_expirations_that_are_none(expiration: str, reason: str) -> None:
    with pytest.raises(Fault) as caught:
        check_expiration(expiration)
    assert caught.value.reply_text == f"PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}"


@pytest.mark.parametrize("expiration", ["0", "007", "+5", "-0", "4294967296", "315360000000", "60000"])
def test_expirations(expiration: str) -> None:
    check_expiration(expiration)


class Expiration(ClientTestCase):
    """What passes the check is understood by the queue."""

    def test_every_form_that_is_accepted(self) -> None:
        self.client.declare("q")
        for expiration in ("0", "007", "+5", "-0"):
            self.client.publish("", "q", b"x", properties=BasicProperties(expiration=expiration))
        self.assertEqual(self.client.events(), [])
        self.clock.advance(1)
        self.assertEqual(self.depth("q"), 0)


class Sizes(ClientTestCase):
    """reliability 4.4: the body."""

    limits = BrokerLimits(max_message_size=100)

    def test_the_largest(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"x" * 100)
        self.assertEqual(self.depth("q"), 1)


class Permission(ClientTestCase):
    """C7.5: writing to an exchange."""

    def setUp(self) -> None:
        super().setUp()
        self.broker.users.add("bob", "bob")
        self.broker.users.set_permissions("bob", "/", "", "^amq.direct$", "")
        self.bob = self.other(user="bob")

    def test_before_existence(self) -> None:
        self.bob.publish("missing", "k", b"x")
        text = "ACCESS_REFUSED - access to exchange 'missing' in vhost '/' refused for user 'bob'"
        self.assert_channel_closed(403, text, basic.Publish, self.bob)

    def test_the_default_exchange(self) -> None:
        self.bob.publish("amq.direct", "k", b"x")
        self.bob.publish("", "k", b"x")
        text = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'bob'"
        self.assert_channel_closed(403, text, basic.Publish, self.bob)

    def test_a_change_is_seen(self) -> None:
        self.bob.publish("amq.direct", "k", b"x")
        self.broker.users.set_permissions("bob", "/", "", "", "")
        self.bob.publish("amq.direct", "k", b"x")
        text = "ACCESS_REFUSED - access to exchange 'amq.direct' in vhost '/' refused for user 'bob'"
        self.assert_channel_closed(403, text, basic.Publish, self.bob)


class Returns(ClientTestCase):
    """Mandatory messages that go nowhere."""

    def test_what_is_returned(self) -> None:
        properties = BasicProperties(headers={"a": 1}, message_id="7")
        self.client.publish("amq.direct", "k", b"body", mandatory=True, properties=properties)
        (event,) = self.client.events()
        self.assertEqual(event[2:6], (312, "NO_ROUTE", "amq.direct", "k"))
        self.assertEqual((event[6], event[7]), (properties, b"body"))

    def test_not_without_mandatory(self) -> None:
        self.client.publish("amq.direct", "k", b"body")
        self.assertEqual(self.client.events(), [])

    def test_not_when_it_is_routed(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"body", mandatory=True)
        self.assertEqual(self.client.events(), [])

    def test_before_the_ack(self) -> None:
        """R2 from the other side: the return of a publish comes before its confirm."""
        self.client.select_confirms()
        self.client.declare("q")
        self.client.send(
            1,
            (basic.Publish(routing_key="q"), b"\0\0", b"1"),
            (basic.Publish(routing_key="nowhere", mandatory=True), b"\0\0", b"2"),
            (basic.Publish(routing_key="q"), b"\0\0", b"3"),
        )
        events = self.client.events()
        self.assertEqual(len(returns(events)), 1)
        self.assertEqual(acks(events), [("ack", 3, True)])
        self.assertIs(events[0], returns(events)[0])

    def test_without_bcc(self) -> None:
        headers = {"BCC": ["nowhere"], "a": 1}
        self.client.publish("amq.direct", "k", b"x", mandatory=True, properties=BasicProperties(headers=headers))
        (event,) = self.client.events()
        self.assertEqual(event[6].headers, {"a": 1})

    def test_a_large_body(self) -> None:
        body = b"x" * 300_000
        self.client.publish("amq.direct", "k", body, mandatory=True)
        self.assertEqual(self.client.events()[0][7], body)

    def test_to_a_client_that_has_closed(self) -> None:
        publish = (basic.Publish(routing_key="nowhere", mandatory=True), b"\0\0", b"x")
        self.client.send(1, publish, channel.Close(200, "bye"))
        self.assertEqual(self.client.methods(), [channel.CloseOk()])


class PassedThrough(ClientTestCase):
    """Octets of properties go through as they came."""

    def test_what_would_be_encoded_otherwise(self) -> None:
        """A table whose int was sent with more octets than needed."""
        self.client.declare("q")
        raw = b"\x20\x00" + b"\x00\x00\x00\x0b" + b"\x01al" + (1).to_bytes(8, "big")
        self.client.publish("", "q", b"x", properties=raw)
        self.assertEqual(self.client.get("q")[7].received, raw)

    def test_cc_stays_and_bcc_goes(self) -> None:
        self.client.declare("q")
        self.client.declare("cc")
        self.client.declare("bcc")
        properties = BasicProperties(headers={"CC": ["cc"], "BCC": ["bcc"]}, type="t")
        self.client.publish("", "q", b"x", properties=properties)
        for name in ("q", "cc", "bcc"):
            event = self.client.get(name)
            self.assertEqual(event[7], BasicProperties(headers={"CC": ["cc"]}, type="t"))
            self.assertEqual(event[5], "q")


class DirectReplies(ClientTestCase):
    """https://www.rabbitmq.com/docs/direct-reply-to."""

    def consume(self, client: Client, tag: str = "r") -> None:
        answer = client.call(basic.Consume(queue=REPLY_TO, consumer_tag=tag, no_ack=True))
        self.assertEqual(answer, basic.ConsumeOk(tag))

    def request(self) -> str:
        """Send a request; the reply_to that its receiver sees."""
        self.client.declare("server")
        self.client.publish("", "server", b"?", properties=BasicProperties(reply_to=REPLY_TO, correlation_id="7"))
        event = self.client.get("server")
        self.assertEqual(event[7].correlation_id, "7")
        assert isinstance(event[7].reply_to, str)
        return event[7].reply_to

    def test_a_round(self) -> None:
        self.consume(self.client)
        name = self.request()
        self.assertTrue(name.startswith(REPLY_TO + "."))
        server = self.other()
        server.publish("", name, b"!", properties=BasicProperties(correlation_id="7"))
        (event,) = self.client.events()
        self.assertEqual(event[2:7], ("r", 2, False, "", name))
        self.assertEqual((event[7].correlation_id, event[8]), ("7", b"!"))

    def test_the_same_request_again(self) -> None:
        """What was replaced once is replaced every time."""
        self.consume(self.client)
        self.client.declare("server")
        properties = BasicProperties(reply_to=REPLY_TO)
        self.client.publish("", "server", b"?", b"?", properties=properties)
        self.client.publish("", "server", b"?", properties=properties)
        names = {self.client.get("server")[7].reply_to for _ in range(3)}
        self.assertEqual(len(names), 1)
        self.assertNotIn(REPLY_TO, names)

    def test_the_tag_is_not_used_up(self) -> None:
        self.consume(self.client)
        name = self.request()
        self.other().publish("", name, b"!", b"!")
        self.assertEqual([tag for _, tag, _, _ in deliveries(self.client.events())], [2, 2])

    def test_a_reply_is_returned_if_mandatory(self) -> None:
        self.consume(self.client)
        name = self.request()
        server = self.other()
        server.select_confirms()
        server.publish("", name, b"!", mandatory=True)
        events = server.events()
        self.assertEqual(len(returns(events)), 1)
        self.assertEqual(acks(events), [("ack", 1, False)])
        self.assertEqual(len(self.client.events()), 1)

    def test_with_acknowledgement(self) -> None:
        self.client.send(1, basic.Consume(queue=REPLY_TO))
        text = "PRECONDITION_FAILED - reply consumer cannot acknowledge"
        self.assert_channel_closed(406, text, basic.Consume)

    def test_twice(self) -> None:
        self.consume(self.client)
        self.client.send(1, basic.Consume(queue=REPLY_TO, consumer_tag="r", no_ack=True))
        self.assert_channel_closed(406, "PRECONDITION_FAILED - reply consumer already set", basic.Consume)

    def test_a_request_without_a_consumer(self) -> None:
        self.client.publish("amq.direct", "k", b"?", properties=BasicProperties(reply_to=REPLY_TO))
        text = "PRECONDITION_FAILED - fast reply consumer does not exist"
        self.assert_channel_closed(406, text, basic.Publish)

    def test_cancel_and_again(self) -> None:
        self.consume(self.client)
        first = self.request()
        self.assertEqual(self.client.call(basic.Cancel("r")), basic.CancelOk("r"))
        self.other().publish("", first, b"!")
        self.assertEqual(self.client.events(), [])
        self.consume(self.client)
        self.assertNotEqual(self.request(), first)

    def test_the_channel_goes(self) -> None:
        self.consume(self.client)
        name = self.request()
        self.client.call(channel.Close(200, "bye"))
        server = self.other()
        server.publish("", name, b"!", mandatory=True)
        self.assertEqual(len(returns(server.events())), 1)
        self.assertEqual(len(self.vhost.direct_reply), 0)

    def test_a_tag_is_made(self) -> None:
        answer = self.client.call(basic.Consume(queue=REPLY_TO, no_ack=True))
        self.assertTrue(answer.consumer_tag.startswith("amq.ctag-"))

    def test_nowait(self) -> None:
        self.client.send(1, basic.Consume(queue=REPLY_TO, no_ack=True, nowait=True))
        self.assertEqual(self.client.events(), [])
        self.request()

    def test_declare(self) -> None:
        self.consume(self.client)
        name = self.request()
        other = self.other()
        for declared in (REPLY_TO, name):
            for passive in (False, True):
                answer = other.call(queue.Declare(queue=declared, passive=passive))
                self.assertEqual(answer, queue.DeclareOk(declared, 0, 1))
        other.send(1, queue.Declare(queue=REPLY_TO + ".abc"))
        text = f"NOT_FOUND - no queue '{REPLY_TO}.abc' in vhost '/'"
        self.assert_channel_closed(404, text, queue.Declare, other)

    def test_other_methods_know_no_such_queue(self) -> None:
        for method in (
            basic.Get(queue=REPLY_TO),
            queue.Purge(queue=REPLY_TO),
            queue.Bind(queue=REPLY_TO, exchange="amq.direct"),
            basic.Consume(queue=REPLY_TO + ".abc", no_ack=True),
        ):
            client = self.other()
            client.send(1, method)
            (event,) = client.events()
            self.assertEqual(event.method.reply_code, 404)

    def test_a_client_that_does_not_read_loses_them(self) -> None:
        self.consume(self.client)
        name = self.request()
        self.client.connection.can_publish = False
        self.client.connection._written_ahead = 16 * 1024 * 1024
        self.other().publish("", name, b"!")
        self.assertEqual(self.client.events(), [])

    def test_a_client_whose_socket_is_full(self) -> None:
        """Some replies that are large are no reason to lose the next."""
        self.consume(self.client)
        name = self.request()
        self.client.connection.can_publish = False
        self.client.connection._written_ahead = 1024 * 1024
        self.other().publish("", name, b"!")
        self.assertEqual(len(self.client.events()), 1)

    def test_headers_that_do_not_fit_its_frames(self) -> None:
        small = self.other(frame_max=4096)
        self.consume(small)
        small.publish("", "server", b"?", properties=BasicProperties(reply_to=REPLY_TO))
        name = small.connection.channels[1].consuming.reply_name
        self.client.publish("", name, b"!", properties=BasicProperties(headers={"a": "x" * 5000}))
        (event,) = small.events()
        self.assertIsInstance(event, MethodReceived)
        self.assertEqual(event.method.reply_code, 406)
        self.assertIn("a reply cannot be sent", event.method.reply_text)


class FaultsOnPurpose(ClientTestCase):
    """A test's script has its say about each publish."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")
        self.client.select_confirms()
        self.answers: list[Literal["nack", "drop"] | Fault | None] = []
        self.asked: list[tuple[int, str, str]] = []
        case = self

        class Answers(Script):
            def accepted(self, connection: BrokerConnection) -> bool:
                return True

            def data_received(self, connection: BrokerConnection, data: bytes) -> bytes:
                return data

            def method_received(self, connection: BrokerConnection, channel_number: int, method: Any) -> None:
                return None

            def publish_received(
                self, connection: BrokerConnection, channel_number: int, exchange: str, routing_key: str
            ) -> Literal["nack", "drop"] | Fault | None:
                case.asked.append((channel_number, exchange, routing_key))
                return case.answers.pop(0) if case.answers else None

            def sending(self, connection: BrokerConnection, data: bytes) -> bytes:
                return data

            def connection_lost(self, connection: BrokerConnection) -> None:
                pass

        self.broker.script = Answers()

    def test_let_be(self) -> None:
        self.client.publish("", "q", b"a")
        self.assertEqual(acks(self.client.events()), [("ack", 1, False)])
        self.assertEqual(self.asked, [(1, "", "q")])

    def test_nack(self) -> None:
        self.answers = [None, "nack"]
        self.client.publish("", "q", b"a", b"b", b"c")
        self.assertEqual(acks(self.client.events()), [("nack", 2, False), ("ack", 3, True)])
        self.assertEqual(self.depth("q"), 2)

    def test_drop(self) -> None:
        """Nothing is ever said about it, so no ack with `multiple` may pass over it."""
        self.answers = [None, "drop"]
        self.client.publish("", "q", b"a", b"b", b"c")
        self.assertEqual(acks(self.client.events()), [("ack", 1, False), ("ack", 3, False)])
        self.client.publish("", "q", b"d", b"e")
        self.assertEqual(acks(self.client.events()), [("ack", 4, False), ("ack", 5, False)])
        self.assertEqual(self.depth("q"), 4)

    def test_fault(self) -> None:
        self.answers = [Fault(406, "because")]
        self.client.publish("", "q", b"a")
        self.assert_channel_closed(406, "because", basic.Publish)

    def test_without_confirms(self) -> None:
        other = self.other()
        self.answers = ["nack", "drop"]
        other.publish("", "q", b"a", b"b", b"c")
        self.assertEqual(other.events(), [])
        self.assertEqual(self.depth("q"), 1)
