"""Publisher confirms: one answer for each publish, in order, together, and never before its time (R35)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.broker.channel_client import ClientTestCase, WaitingJournal, acks
from txmsg.wire.methods import basic, confirm, tx
from txmsg.wire.properties import BasicProperties

PERSISTENT = BasicProperties(delivery_mode=2)
FULL = {"x-max-length": 0, "x-overflow": "reject-publish"}


class Mode(ClientTestCase):
    """confirm.select."""

    def test_twice(self) -> None:
        self.client.select_confirms()
        self.client.select_confirms()

    def test_nowait(self) -> None:
        self.client.declare("q")
        self.client.send(1, confirm.Select(nowait=True))
        self.assertEqual(self.client.events(), [])
        self.client.publish("", "q", b"a")
        self.assertEqual(acks(self.client.events()), [("ack", 1, False)])

    def test_not_with_transactions(self) -> None:
        self.client.select_tx()
        self.client.send(1, confirm.Select(nowait=True))
        text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
        self.assert_channel_closed(406, text, confirm.Select)

    def test_transactions_not_with_it(self) -> None:
        self.client.select_confirms()
        self.client.send(1, tx.Select())
        text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
        self.assert_channel_closed(406, text, tx.Select)

    def test_counted_from_the_select(self) -> None:
        self.client.declare("q")
        self.client.publish("", "q", b"before")
        self.client.select_confirms()
        self.client.publish("", "q", b"after")
        self.assertEqual(acks(self.client.events()), [("ack", 1, False)])

    def test_for_each_channel(self) -> None:
        client = self.other(channels=2)
        client.declare("q")
        client.select_confirms(2)
        client.publish("", "q", b"a", number=1)
        client.publish("", "q", b"b", number=2)
        (event,) = client.events()
        self.assertEqual(event[:4], (4, 2, 1, False))


class Answers(ClientTestCase):
    """What comes at the end of a turn."""

    def setUp(self) -> None:
        super().setUp()
        self.client.declare("q")
        self.client.declare("full", arguments=FULL)
        self.client.select_confirms()

    def heard(self) -> list[tuple[str, int, bool]]:
        return acks(self.client.events())

    def test_one_for_all_of_a_turn(self) -> None:
        self.client.publish("", "q", *[b"x"] * 100)
        self.assertEqual(self.heard(), [("ack", 100, True)])
        self.client.publish("", "q", b"x")
        self.assertEqual(self.heard(), [("ack", 101, False)])

    def test_what_goes_nowhere_is_accepted(self) -> None:
        self.client.publish("", "nowhere", b"x", b"y")
        self.assertEqual(self.heard(), [("ack", 2, True)])

    def test_what_is_refused(self) -> None:
        self.client.publish("", "full", b"x", b"y")
        self.assertEqual(self.heard(), [("nack", 1, False), ("nack", 2, False)])

    def test_some_are_refused(self) -> None:
        """The nacks first, so that the ack with `multiple` speaks of the others only."""
        publishes = [(basic.Publish(routing_key=key), b"\0\0", b"x") for key in ("q", "full", "q", "full")]
        self.client.send(1, *publishes)
        self.assertEqual(self.heard(), [("nack", 2, False), ("nack", 4, False), ("ack", 3, True)])
        self.client.publish("", "q", b"x")
        self.assertEqual(self.heard(), [("ack", 5, False)])

    def test_the_nack_has_the_requeue_bit(self) -> None:
        """As RabbitMQ's has, for what it is worth."""
        self.client.publish("", "full", b"x")
        (event,) = self.client.events()
        self.assertIs(event[4], True)

    def test_refused_by_one_of_several(self) -> None:
        self.vhost.bind_queue("q", "amq.fanout", "")
        self.vhost.bind_queue("full", "amq.fanout", "")
        self.client.publish("amq.fanout", "", b"x")
        self.assertEqual(self.heard(), [("nack", 1, False)])
        self.assertEqual(self.depth("q"), 1)

    def test_without_confirms_nothing_is_said(self) -> None:
        other = self.other()
        other.publish("", "full", b"x")
        self.assertEqual(other.events(), [])


class Kept(ClientTestCase):
    """Persistent messages in durable queues are confirmed once they are on disk (R35)."""

    journal: WaitingJournal

    def make_journal(self) -> Any:
        return WaitingJournal()

    def setUp(self) -> None:
        super().setUp()
        self.vhost.declare_queue("d", durable=True)
        self.vhost.declare_queue("q")
        self.client.select_confirms()

    def heard(self) -> list[tuple[str, int, bool]]:
        return acks(self.client.events())

    def publish(self, *keys: str) -> None:
        self.client.send(1, *[(basic.Publish(routing_key=key), PERSISTENT, b"x") for key in keys])

    def test_not_before(self) -> None:
        self.publish("d", "d")
        self.assertEqual(self.heard(), [])
        self.journal.commit()
        self.assertEqual(self.heard(), [("ack", 2, True)])

    def test_the_journal_is_asked_once_in_a_turn(self) -> None:
        self.publish("d", "d", "d")
        self.clock.advance(0)
        self.assertEqual(len(self.journal.waiting), 1)

    def test_turn_by_turn(self) -> None:
        self.publish("d", "d")
        self.publish("d")
        self.journal.commit(1)
        self.assertEqual(self.heard(), [("ack", 2, True)])
        self.journal.commit(1)
        self.assertEqual(self.heard(), [("ack", 3, False)])

    def test_what_need_not_wait_does_not_overtake(self) -> None:
        self.publish("d")
        self.publish("q", "q")
        self.assertEqual(self.heard(), [])
        self.journal.commit()
        self.assertEqual(self.heard(), [("ack", 3, True)])

    def test_what_is_refused_meanwhile(self) -> None:
        self.vhost.declare_queue("full", arguments=FULL)
        self.publish("d")
        self.publish("full", "q")
        self.journal.commit()
        self.assertEqual(self.heard(), [("nack", 2, False), ("ack", 3, True)])

    def test_transient_messages_do_not_wait(self) -> None:
        self.client.publish("", "d", b"x")
        self.publish("q")
        self.assertEqual(self.heard(), [("ack", 1, False), ("ack", 2, False)])

    def test_what_could_not_be_kept(self) -> None:
        self.publish("d", "q")
        self.journal.fail()
        self.assertEqual(self.heard(), [("nack", 1, False), ("nack", 2, False)])
        self.publish("d")
        self.journal.commit()
        self.assertEqual(self.heard(), [("ack", 3, False)])

    def test_a_prompt_journal(self) -> None:
        self.journal.is_prompt = True
        self.publish("d")
        self.assertEqual(self.heard(), [("ack", 1, False)])

    def test_the_channel_is_closed_before(self) -> None:
        self.publish("d")
        self.client.publish("missing", "k", b"x")
        self.client.events()
        self.journal.commit()
        self.assertEqual(self.client.events(), [])

    def test_the_client_is_gone_before(self) -> None:
        self.publish("d")
        self.client.lose()
        self.journal.commit()


class Whatever(ClientTestCase):
    """Whatever happens in whatever order, each publish is answered once and right."""

    def make_journal(self) -> Any:
        return WaitingJournal()

    @given(
        st.lists(
            st.one_of(
                st.lists(st.sampled_from(["q", "d", "full", "nowhere"]), min_size=1, max_size=6),
                st.sampled_from(["commit one", "fail", "commit"]),
            ),
            max_size=12,
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_each_once(self, steps: list[Any]) -> None:
        ClientTestCase.setUp(self)
        self.vhost.declare_queue("d", durable=True)
        self.vhost.declare_queue("q")
        self.vhost.declare_queue("full", arguments=FULL)
        self.client.select_confirms()
        published: list[str] = []
        answers: dict[int, str] = {}
        told = 0

        def listen() -> None:
            nonlocal told
            for kind, tag, multiple in acks(self.client.events()):
                for one in range(told + 1 if multiple else tag, tag + 1):
                    if multiple and one in answers:
                        continue
                    assert one not in answers, f"{one} is answered twice"
                    answers[one] = kind
                    if published[one - 1] == "full":
                        assert kind == "nack", one
                    if kind == "nack" and published[one - 1] != "full":
                        assert "fail" in steps
                while told + 1 in answers:
                    told += 1

        for step in steps:
            if step == "commit one":
                self.journal.commit(1)
            elif step == "commit":
                self.journal.commit()
            elif step == "fail":
                self.journal.fail()
            else:
                published += step
                self.client.send(1, *[(basic.Publish(routing_key=key), PERSISTENT, b"x") for key in step])
            listen()
        self.journal.commit()
        listen()
        assert sorted(answers) == list(range(1, len(published) + 1))
