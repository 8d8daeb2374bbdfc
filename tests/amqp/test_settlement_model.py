"""Z6: settling on a real channel against a broker that answers 406 to every tag it does not know.

What the broker sends is on its way for some steps, so settlements, basic.recover, tx methods and closes cross
deliveries.  The peer judges every frame (see :mod:`tests.amqp.broker_model`).  After each reactor turn the broker must
have settled exactly what the user settled, and in the way the user did.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pamqp import commands

from tests.amqp.broker_model import ACK, DROP, REQUEUE
from tests.amqp.peer import Frame, Peer, ignore
from txmsg.amqp.channel import Channel
from txmsg.amqp.delivery import Delivery
from txmsg.errors import AlreadySettled, StaleDelivery

Basic = commands.Basic


class SettlementMachine(RuleBasedStateMachine):
    """One connection, one channel at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer().open()
        self.old: list[Delivery] = []
        self.deliveries: list[Delivery] = []
        self.open_channel()

    def open_channel(self) -> None:
        self.peer.read()
        self.channel: Channel = self.peer.channel()
        self.number = self.channel.channel_number
        self.old += self.deliveries
        self.deliveries = []
        self.next_tag = 0
        #: What the broker has sent and the client has not read.
        self.on_its_way: deque[tuple[int, list[Frame]]] = deque()
        self.received: set[int] = set()
        self.no_ack_tags: set[int] = set()
        #: How the user settled each tag, since the last commit and before it.
        self.settled: dict[int, str] = {}
        self.uncommitted: dict[int, str] | None = None
        #: Acks that are given and not written.
        self.unwritten: set[int] = set()
        self.consumer = self.peer.consumer(self.channel, self.deliveries.append)
        self.no_ack_consumer = self.peer.consumer(self.channel, self.deliveries.append, no_ack=True)

    @property
    def broker(self) -> Any:
        return self.peer.channels[self.number]

    def open_tags(self) -> list[int]:
        """The tags that the user may settle now."""
        return [tag for tag in self.broker.outstanding if tag in self.received and tag not in self.unwritten]

    # -- the broker --------------------------------------------------------------------------------

    @rule(count=st.integers(1, 5), no_ack=st.sampled_from([False, False, False, True]))
    def broker_sends(self, count: int, no_ack: bool) -> None:
        consumer = self.no_ack_consumer if no_ack else self.consumer
        for _ in range(count):
            self.next_tag += 1
            if no_ack:
                self.no_ack_tags.add(self.next_tag)
            frames = self.peer.delivery(b".", consumer.consumer_tag, self.next_tag, channel=self.number)
            self.on_its_way.append((self.next_tag, frames))

    @rule(count=st.integers(1, 8))
    @precondition(lambda self: self.on_its_way)
    def client_receives(self, count: int) -> None:
        frames: list[Frame] = []
        for _ in range(min(count, len(self.on_its_way))):
            tag, values = self.on_its_way.popleft()
            frames += values
            if tag:
                self.received.add(tag)
        self.peer.send(*frames, channel=self.number)
        # The chunk's end is the end of its turn.
        self.unwritten.clear()

    def reply(self, value: Frame) -> None:
        self.on_its_way.append((0, [value]))

    # -- the user ----------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        how=st.sampled_from([ACK, ACK, ACK, REQUEUE, DROP]),
        multiple=st.sampled_from([False] * 4 + [True]),
    )
    @precondition(lambda self: self.received)
    def settle(self, data: st.DataObject, how: str, multiple: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.received)), label="tag")
        can_settle = self.open_tags()
        tags = [t for t in can_settle if t <= tag] if multiple else [t for t in can_settle if t == tag]
        delivery = next(d for d in self.deliveries if d.delivery_tag == tag)
        if tag in self.no_ack_tags and not multiple:
            assert delivery.is_settled
        else:
            assert delivery.is_settled == (tag not in can_settle)
        try:
            if how == ACK:
                delivery.ack(multiple)
            elif multiple or data.draw(st.booleans(), label="nack"):
                delivery.nack(how == REQUEUE, multiple)
            else:
                delivery.reject(how == REQUEUE)
        except (AlreadySettled, StaleDelivery):
            assert not tags, f"settling {tags} was refused"
            return
        assert tags, f"{tag} cannot be settled, and was"
        (self.settled if self.uncommitted is None else self.uncommitted).update(dict.fromkeys(tags, how))
        if how == ACK and not multiple:
            self.unwritten.add(tag)
        else:
            self.unwritten.clear()

    @rule()
    def settle_everything(self) -> None:
        tags = self.open_tags()
        assume(tags)
        self.channel.basic_ack(0, multiple=True)
        (self.settled if self.uncommitted is None else self.uncommitted).update(dict.fromkeys(tags, ACK))
        self.unwritten.clear()

    @rule(data=st.data(), multiple=st.booleans())
    @precondition(lambda self: self.old)
    def settle_a_delivery_of_an_old_channel(self, data: st.DataObject, multiple: bool) -> None:
        """R23: its number is in use by another channel with equal tags: nothing may be written."""
        delivery = data.draw(st.sampled_from(self.old), label="old")
        before = len(self.peer.frames)
        try:
            delivery.ack(multiple)
        except StaleDelivery:
            pass
        else:
            raise AssertionError("an old delivery was settled")
        assert delivery.is_settled
        assert len(self.peer.frames) == before

    @rule()
    def the_turn_ends(self) -> None:
        self.peer.read()
        self.unwritten.clear()

    @rule()
    def recover(self) -> None:
        ignore(self.channel.basic_recover())
        self.unwritten.clear()
        self.reply(Basic.RecoverOk())

    @rule()
    @precondition(lambda self: self.uncommitted is None)
    def tx_select(self) -> None:
        ignore(self.channel.tx_select())
        self.unwritten.clear()
        self.uncommitted = {}
        self.reply(commands.Tx.SelectOk())

    @rule()
    @precondition(lambda self: self.uncommitted is not None)
    def tx_commit(self) -> None:
        ignore(self.channel.tx_commit())
        self.unwritten.clear()
        assert self.uncommitted is not None
        self.settled |= self.uncommitted
        self.uncommitted = {}
        self.reply(commands.Tx.CommitOk())

    @rule()
    @precondition(lambda self: self.uncommitted is not None)
    def tx_rollback(self) -> None:
        ignore(self.channel.tx_rollback())
        self.unwritten.clear()
        self.uncommitted = {}
        self.reply(commands.Tx.RollbackOk())

    @rule(by_broker=st.booleans())
    def the_channel_ends_and_another_begins(self, by_broker: bool) -> None:
        unwritten = set(self.unwritten)
        if by_broker:
            self.peer.send(commands.Channel.Close(406, "for a test", 0, 0), channel=self.number)
        else:
            self.channel.close()
            assert not unwritten & set(self.broker.outstanding), "acks given before close() are written"
            self.unwritten.clear()
            self.the_broker_has_what_the_user_settled()
            self.peer.send(commands.Channel.CloseOk(), channel=self.number)
        assert self.channel.is_closed
        self.open_channel()

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def nothing_is_answered_with_406(self) -> None:
        assert self.peer.violations == []
        assert self.channel.is_open

    @invariant()
    def the_broker_has_what_the_user_settled(self) -> None:
        """R22, R23: the same tags in the same way, but for acks that may wait for the end of the turn."""
        brokers = {t: how for t, how in self.broker.settled.items() if t not in self.broker.recovered}
        self.compare(brokers, self.settled)
        assert (self.broker.uncommitted is None) == (self.uncommitted is None)
        self.compare(self.broker.uncommitted or {}, self.uncommitted or {})

    def compare(self, brokers: dict[int, str], users: dict[int, str]) -> None:
        assert brokers.items() <= users.items()
        assert {t: how for t, how in users.items() if t not in self.unwritten}.items() <= brokers.items()

    @invariant()
    def what_is_open_here_is_outstanding_there(self) -> None:
        """R23: `is_settled` tells the truth for every delivery the user holds."""
        can_settle = self.open_tags()
        for delivery in self.deliveries:
            assert delivery.is_settled == (delivery.delivery_tag not in can_settle)

    def teardown(self) -> None:
        self.peer.lose()
        assert self.peer.clock.getDelayedCalls() == []
        assert all(delivery.is_settled for delivery in [*self.old, *self.deliveries])


TestSettlement = SettlementMachine.TestCase
TestSettlement.settings = settings(max_examples=max(100, settings().max_examples), stateful_step_count=40)
