"""One client connection of a program, and what its channels have been told.

Deliveries are known here by consumer and number, since the order of several consumers' deliveries on one channel, and
so their tags, is the broker's to choose.  Confirms are kept as sets for the same reason.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.conformance.differential.transcript import show_method, show_properties
from tests.conformance.differential.wire_client import Account, Incoming, Lost, WireClient
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, confirm, connection, queue, tx

__all__ = ["FIRST_WATCHER", "ChannelView", "Held", "Session"]

#: Channels from here on belong to the player.
FIRST_WATCHER = 100
#: Seconds for something that must come.
LIMIT = 5.0
_SHOWN_BODY = 60


@dataclass(slots=True)
class Held:
    """A delivery that is not settled."""

    name: str
    tag: int


@dataclass(slots=True)
class _Consumer:
    number: int
    tag: str
    no_ack: bool
    count: int = 0


@dataclass(slots=True)
class ChannelView:
    """What is known of a channel that is open."""

    replies: list[str] = field(default_factory=list)
    deliveries: list[tuple[int, int, str, Held | None]] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)
    nacked: set[int] = field(default_factory=set)
    held: list[Held] = field(default_factory=list)
    uncommitted: list[Held] = field(default_factory=list)
    consumers: dict[str, _Consumer] = field(default_factory=dict)
    consumes: deque[basic.Consume] = field(default_factory=deque)
    gets: deque[bool] = field(default_factory=deque)
    got: int = 0
    published: int = -1
    unconfirmed: set[int] = field(default_factory=set)
    pings: int = 0
    in_transaction: bool = False
    consumer_count: int = 0
    is_opening: bool = False
    is_closing: bool = False
    is_committing: bool = False


class Session:
    """A connection; `lines` is what it was told outside its channels since it was last asked."""

    def __init__(self, name: str, account: Account, capabilities: dict[str, bool] | None) -> None:
        self.name = name
        self.client = WireClient(account, capabilities=capabilities)
        self.is_alive = True
        self.channels: dict[int, ChannelView] = {}
        #: The last channel views, of channels that have ended in this step.
        self.ended: list[tuple[int, ChannelView]] = []
        self.lines: list[str] = []
        self.late: list[str] = []
        self.reply_to = ""
        #: Answers to the player's own questions, by channel.
        self.answers: dict[int, Method] = {}

    # -- out ----------------------------------------------------------------------------------------------

    def open(self, number: int) -> ChannelView:
        """The channel, which is opened if it has to be."""
        if number not in self.channels:
            view = self.channels[number] = ChannelView(is_opening=True)
            self.client.send(number, channel.Open())
            self.until(lambda: not view.is_opening)
        return self.channels.get(number) or ChannelView()

    def note(self, number: int, method: Method) -> None:
        """A method is about to be sent."""
        view = self.channels[number]
        match method:
            case basic.Consume():
                view.consumes.append(method)
            case basic.Get():
                view.gets.append(method.no_ack)
            case basic.Publish() if view.published >= 0:
                view.published += 1
                view.unconfirmed.add(view.published)
            case confirm.Select(nowait=True):
                view.published = max(view.published, 0)
            case basic.RecoverAsync():
                view.held.clear()
            case channel.Close():
                view.is_closing = True
            case tx.Commit():
                view.is_committing = True

    # -- in -----------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], seconds: float = LIMIT) -> bool:
        """Take what comes until `condition()` is true; False if it did not come true in time."""
        end = time.monotonic() + seconds
        while self.is_alive and not condition():
            try:
                self.take(self.client.receive(max(end - time.monotonic(), 0.0)))
            except TimeoutError:
                return False
            except Lost:
                self.lines.append("the stream ends")
                self._end()
        return True

    def take(self, got: Incoming) -> None:
        """One method from the broker."""
        method, number = got.method, got.channel
        if number == 0:
            self._take_of_connection(method)
        elif number >= FIRST_WATCHER:
            self.answers[number] = method
            if isinstance(method, channel.Close):
                self.client.send(number, channel.CloseOk())
        elif (view := self.channels.get(number)) is None:
            # RabbitMQ's queues may deliver behind a channel.close.
            what = self.late if isinstance(method, basic.Deliver) else self.lines
            what.append(f"on channel {number}, which is closed: {show_method(method)}")
        else:
            self._take_on(number, view, got)

    def _take_of_connection(self, method: Method) -> None:
        self.lines.append(show_method(method))
        if isinstance(method, connection.Close):
            self.client.send(0, connection.CloseOk())
            self._end()
            self.client.abort()
        elif isinstance(method, connection.CloseOk):
            self._end()
            self.client.abort()

    def _end(self) -> None:
        self.is_alive = False
        self.ended += self.channels.items()
        self.channels = {}

    def _take_on(self, number: int, view: ChannelView, got: Incoming) -> None:
        match got.method:
            case channel.FlowOk():
                view.pings -= 1
            case channel.OpenOk():
                view.is_opening = False
            case basic.Deliver():
                self._delivered(number, view, got, got.method)
            case basic.GetOk():
                self._got(number, view, got, got.method)
            case basic.Return() as method:
                view.replies.append(f"{show_method(method)} {_content(got)}")
            case basic.Ack(tag, multiple):
                view.acked |= _settled(view, tag, multiple)
            case basic.Nack(tag, multiple):
                view.nacked |= _settled(view, tag, multiple)
            case method:
                view.replies.append(show_method(method))
                self._replied(number, view, method)

    def _replied(self, number: int, view: ChannelView, method: Method) -> None:
        match method:
            case channel.Close():
                self.client.send(number, channel.CloseOk())
                self.ended.append((number, self.channels.pop(number)))
            case channel.CloseOk():
                self.ended.append((number, self.channels.pop(number)))
            case basic.ConsumeOk(tag):
                while view.consumes and view.consumes[0].nowait:
                    _know(view, view.consumes.popleft(), "")
                _know(view, view.consumes.popleft(), tag)
            case basic.CancelOk(tag) | basic.Cancel(tag):
                view.consumers.pop(tag, None)
            case basic.GetEmpty():
                view.gets.popleft()
            case basic.RecoverOk():
                view.held.clear()
            case confirm.SelectOk():
                view.published = max(view.published, 0)
            case tx.SelectOk():
                view.in_transaction = True
            case tx.RollbackOk():
                view.held = sorted([*view.uncommitted, *view.held], key=lambda held: held.name)
                view.uncommitted.clear()
            case tx.CommitOk():
                view.uncommitted.clear()
                view.is_committing = False
            case queue.DeclareOk():
                pass

    def _delivered(self, number: int, view: ChannelView, got: Incoming, method: basic.Deliver) -> None:
        consumer = view.consumers.get(method.consumer_tag)
        if consumer is None:
            waiting = [each for each in view.consumes if each.nowait and each.consumer_tag in ("", method.consumer_tag)]
            if not waiting:
                view.replies.append(f"a delivery for the unknown consumer {method.consumer_tag!r}")
                return
            view.consumes.remove(waiting[0])
            consumer = _know(view, waiting[0], method.consumer_tag)
        consumer.count += 1
        name = f"{self.name}{number} {consumer.tag}#{consumer.count}"
        held = None if consumer.no_ack else Held(name, method.delivery_tag)
        line = f"{name}{_flags(method.redelivered)} {method.exchange!r} {method.routing_key!r} {_content(got)}"
        view.deliveries.append((consumer.number, consumer.count, line, held))
        view.tags.append(method.delivery_tag)
        self._note_reply_to(got)

    def _got(self, number: int, view: ChannelView, got: Incoming, method: basic.GetOk) -> None:
        view.got += 1
        name = f"{self.name}{number} get#{view.got}"
        if not view.gets.popleft():
            view.held.append(Held(name, method.delivery_tag))
        place = f"{method.exchange!r} {method.routing_key!r}"
        view.replies.append(f"{name}{_flags(method.redelivered)} {place} {method.message_count} left {_content(got)}")
        view.tags.append(method.delivery_tag)
        self._note_reply_to(got)

    def _note_reply_to(self, got: Incoming) -> None:
        if got.properties is not None and got.properties.reply_to:
            self.reply_to = got.properties.reply_to

    # -- what it comes to ---------------------------------------------------------------------------------

    def report(self, choices: list[str]) -> list[str]:
        """All that came since this was last called, in an order that does not depend on chance.

        Whether a channel that ends still gets deliveries is the broker's to choose: these go to `choices`.
        """
        lines = []
        for number, view in [*self.ended, *sorted(self.channels.items())]:
            at = f"{self.name}{number}"
            lines += [f"{at} {reply}" for reply in view.replies]
            view.deliveries.sort(key=lambda each: each[:2])
            is_open = self.channels.get(number) is view
            (lines if is_open else choices).extend(line for _, _, line, _ in view.deliveries)
            view.held += [held for _, _, _, held in view.deliveries if held is not None]
            # Confirms, too.
            for what, numbers in (("tags", view.tags), ("acked", view.acked), ("nacked", view.nacked)):
                if numbers and is_open:
                    lines.append(f"{at} {what} {sorted(numbers)}")
            view.replies, view.deliveries, view.tags, view.acked, view.nacked = [], [], [], set(), set()
        lines += [f"{self.name} {line}" for line in self.lines]
        choices += self.late
        self.ended, self.lines, self.late = [], [], []
        return lines


def _know(view: ChannelView, method: basic.Consume, tag: str) -> _Consumer:
    view.consumer_count += 1
    tag = tag or method.consumer_tag
    consumer = _Consumer(view.consumer_count, tag, method.no_ack)
    return view.consumers.setdefault(tag, consumer) if tag else consumer


def _settled(view: ChannelView, tag: int, multiple: bool) -> set[int]:
    numbers = {number for number in view.unconfirmed if number == tag or (multiple and number < tag)}
    view.unconfirmed -= numbers
    return numbers or {-tag}  # one that was not waited for


def _flags(redelivered: bool) -> str:
    return " redelivered" if redelivered else ""


def _content(got: Incoming) -> str:
    assert got.properties is not None
    body = got.body if len(got.body) <= _SHOWN_BODY else got.body[:_SHOWN_BODY] + b"..%d" % len(got.body)
    return f"{body!r} {show_properties(got.properties)}"
