"""The tables of states: complete, symmetric, and kept by both ends whatever is tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.wire.peers import ConnectionPair
from txmsg.errors import LocalProtocolError
from txmsg.wire.connection import WireConnection
from txmsg.wire.constants import CLASS_CONNECTION, Role
from txmsg.wire.events import MethodReceived, ProtocolFailure
from txmsg.wire.layout import Method
from txmsg.wire.methods import METHODS, channel, connection
from txmsg.wire.states import (
    CHANNEL_TRANSITIONS,
    CONNECTION_TRANSITIONS,
    ChannelState,
    ConnectionState,
    ProtocolHeader,
    closed_by,
    to_dot,
)

C, S = Role.CLIENT, Role.SERVER
WITHOUT_CONTENT = [made for made in METHODS.values() if not made.HAS_CONTENT]


def reachable(table: Mapping[Any, Mapping[Any, Any]], start: Any) -> set[Any]:
    """The states that can be come to."""
    found, todo = {start}, [start]
    while todo:
        for after in table[todo.pop()].values():
            if after not in found:
                found.add(after)
                todo.append(after)
    return found


def test_every_state_has_a_row_and_can_be_reached() -> None:
    """A state that cannot be come to, or that has no row, is a mistake in the table."""
    assert set(CONNECTION_TRANSITIONS) == set(ConnectionState)
    assert reachable(CONNECTION_TRANSITIONS, ConnectionState.HEADER) == set(ConnectionState)
    assert set(CHANNEL_TRANSITIONS) == set(ChannelState)
    assert reachable(CHANNEL_TRANSITIONS, ChannelState.CLOSED) == set(ChannelState)


def test_every_state_leads_to_closed() -> None:
    """R28, R30: there is no state that a connection or channel cannot leave."""
    for state in ConnectionState:
        assert ConnectionState.CLOSED in reachable(CONNECTION_TRANSITIONS, state)
    for channel_state in ChannelState:
        assert ChannelState.CLOSED in reachable(CHANNEL_TRANSITIONS, channel_state)


def test_every_method_is_somewhere() -> None:
    """Pika.md section 17: each method is allowed in some state for each of its senders, and for nobody else."""
    for made in METHODS.values():
        table: Mapping[Any, Mapping[Any, Any]]
        table = CONNECTION_TRANSITIONS if made.CLASS_ID == CLASS_CONNECTION else CHANNEL_TRANSITIONS
        senders = {sender for rows in table.values() for sender, method in rows if method is made}
        assert senders == made.SENT_BY, made.NAME


def mirrored(name: str) -> str:
    """The name of a state with the roles exchanged."""
    return {"CLIENT_CLOSING": "SERVER_CLOSING", "SERVER_CLOSING": "CLIENT_CLOSING"}.get(name, name)


@pytest.mark.parametrize(
    ("table", "close", "close_ok"),
    [
        (CONNECTION_TRANSITIONS, connection.Close, connection.CloseOk),
        (CHANNEL_TRANSITIONS, channel.Close, channel.CloseOk),
    ],
)
def test_closing_is_symmetric(
    table: Mapping[Any, Mapping[Any, Any]], close: type[Method], close_ok: type[Method]
) -> None:
    """F30, M-15: what closing does for one side it does for the other."""
    for state, rows in table.items():
        other = table[type(state)[mirrored(state.name)]]
        for (sender, method), after in rows.items():
            if method in (close, close_ok):
                assert other[sender.peer, method].name == mirrored(after.name)


def test_close_is_allowed_at_any_time_after_the_header() -> None:
    """F30: a server closes in every state: a wrong password, an unknown vhost, a shutdown in the handshake."""
    for state in ConnectionState:
        if state in (ConnectionState.HEADER, ConnectionState.CLOSED):
            continue
        for sender in Role:
            if sender not in closed_by(state):
                assert (sender, connection.Close) in CONNECTION_TRANSITIONS[state], (state, sender)


def test_blocked_is_allowed_from_tune_on() -> None:
    """F37: an alarm can be on while the connection is opened."""
    allowed = {state for state, rows in CONNECTION_TRANSITIONS.items() if (S, connection.Blocked) in rows}
    assert allowed == {state for state, rows in CONNECTION_TRANSITIONS.items() if (S, connection.Unblocked) in rows}
    assert allowed == {
        ConnectionState.WANT_TUNE_OK,
        ConnectionState.WANT_OPEN,
        ConnectionState.WANT_OPEN_OK,
        ConnectionState.OPEN,
    }


def test_tables_cannot_be_changed() -> None:
    """They are shared by all connections."""
    with pytest.raises(TypeError):
        CONNECTION_TRANSITIONS[ConnectionState.OPEN] = {}  # type: ignore[index]


def test_closers() -> None:
    """Who has sent close, by state."""
    assert closed_by(ConnectionState.OPEN) == closed_by(ChannelState.OPEN) == set()
    assert closed_by(ConnectionState.CLIENT_CLOSING) == closed_by(ChannelState.CLIENT_CLOSING) == {C}
    assert closed_by(ConnectionState.BOTH_CLOSING) == closed_by(ChannelState.BOTH_CLOSING) == {C, S}


@pytest.mark.parametrize(("name", "states"), [("connection", ConnectionState), ("channel", ChannelState)])
def test_the_tables_can_be_drawn(name: str, states: type[ConnectionState] | type[ChannelState]) -> None:
    """The documentation's graphs come from the tables; every state is in them, and every arrow is balanced."""
    dot = to_dot(name)
    assert dot.startswith(f"digraph {name} {{\n")
    assert dot.endswith("}\n")
    for state in states:
        assert f"  {state.name} [" in dot
    assert "client: connection.open" in to_dot("connection")
    assert "basic.qos" not in to_dot("channel")
    assert "OPEN -> OPEN [" in to_dot("channel", loops=True)


# -- kept by both ends ------------------------------------------------------------------------------------


def joined(state: ConnectionState) -> ConnectionPair:
    """A pair at a given place of the connection's table, by a shortest way."""
    pair = ConnectionPair.__new__(ConnectionPair)
    pair.wire = {role: WireConnection(role) for role in Role}
    pair.client, pair.server = pair.wire[C], pair.wire[S]
    ways: dict[ConnectionState, list[tuple[Role, Any]]] = {ConnectionState.HEADER: []}
    todo = [ConnectionState.HEADER]
    while todo:
        here = todo.pop(0)
        for step, after in CONNECTION_TRANSITIONS[here].items():
            if after not in ways:
                ways[after] = [*ways[here], step]
                todo.append(after)
    for sender, method in ways[state]:
        if method is ProtocolHeader:
            pair.server.receive(pair.client.send_protocol_header())
        else:
            pair.say(sender, 0, method())
            if method is connection.TuneOk:
                for wire in pair.wire.values():
                    wire.set_tuned(0, 0)
    assert pair.client.state is state
    return pair


@pytest.mark.parametrize("state", ConnectionState)
def test_every_row_of_the_connection_is_kept_in_and_out(state: ConnectionState) -> None:
    """F30, F32: what the table has passes and leads where it says; everything else is refused by both ends."""
    for sender in Role:
        for made in WITHOUT_CONTENT:
            pair = joined(state)
            after = CONNECTION_TRANSITIONS[state].get((sender, made))
            speaker, listener = pair.wire[sender], pair.wire[sender.peer]
            if after is not None:
                pair.say(sender, 0, made())
                assert pair.client.state is after
                continue
            with pytest.raises(LocalProtocolError):
                speaker.send_method(0, made())
            assert speaker.state is state
            # The same from a peer that does not care.
            payload = made().encode()
            octets = b"\x01\x00\x00" + len(payload).to_bytes(4, "big") + payload + b"\xce"
            if state is ConnectionState.HEADER and listener is pair.server:
                continue
            events = listener.receive(octets)
            if closed_by(state):
                assert events == []
            else:
                (failure,) = events
                assert isinstance(failure, ProtocolFailure)
                assert failure.error.reply_code == 503


def channel_at(state: ChannelState) -> ConnectionPair:
    """A pair with channel 1 at a given place of the table."""
    pair = ConnectionPair(channels=())
    ways: dict[ChannelState, list[tuple[Role, Any]]] = {ChannelState.CLOSED: []}
    todo = [ChannelState.CLOSED]
    while todo:
        here = todo.pop(0)
        for step, after in CHANNEL_TRANSITIONS[here].items():
            if after not in ways:
                ways[after] = [*ways[here], step]
                todo.append(after)
    for sender, method in ways[state]:
        # Crossing: the second close is sent before the first is heard.
        pair.wire[sender.peer].receive(pair.wire[sender].send_method(1, method()))
    assert pair.client.channel_state(1) is pair.server.channel_state(1) is state
    return pair


@pytest.mark.parametrize("state", ChannelState)
def test_every_row_of_a_channel_is_kept_in_and_out(state: ChannelState) -> None:
    """F32, R17: as above, for a channel; while one side has closed, what it hears is discarded."""
    for sender in Role:
        for made in WITHOUT_CONTENT:
            pair = channel_at(state)
            after = CHANNEL_TRANSITIONS[state].get((sender, made))
            speaker, listener = pair.wire[sender], pair.wire[sender.peer]
            if after is not None:
                assert len(listener.receive(speaker.send_method(1, made()))) == 1
                assert pair.client.channel_state(1) is pair.server.channel_state(1) is after
                continue
            with pytest.raises(LocalProtocolError):
                speaker.send_method(1, made())
            assert speaker.channel_state(1) is state
            payload = made().encode()
            events = listener.receive(b"\x01\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce")
            if closed_by(state) and made is not channel.Open and made.CLASS_ID != CLASS_CONNECTION:
                assert events == []
            elif state is ChannelState.OPENING and (sender, made) in CHANNEL_TRANSITIONS[ChannelState.OPEN]:
                # A client that does not wait for open-ok; a server that does not send it first is wrong.
                (taken,) = events
                assert isinstance(taken, ProtocolFailure) is (sender is Role.SERVER)
                assert sender is Role.SERVER or listener.channel_state(1) is state
            else:
                (failure,) = events
                assert isinstance(failure, ProtocolFailure)
                expected = 504 if state is ChannelState.CLOSED and made is not channel.Open else 503
                if made.CLASS_ID == CLASS_CONNECTION and state is ChannelState.CLOSED:
                    expected = failure.error.reply_code
                assert failure.error.reply_code == expected, made.NAME


# -- crossing closes --------------------------------------------------------------------------------------


class Crossing(RuleBasedStateMachine):
    """Two ends, and what each has on its way to the other, delivered whenever it pleases.

    M-15, R17, F31: whatever crosses, neither end sees a violation, both come to the same state, and a channel
    number is free at the client only when nothing that belongs to the old channel can still come.
    """

    @initialize()
    def join(self) -> None:
        """Two open ends, channel 1 closed."""
        self.pair = ConnectionPair(channels=())
        self.under_way: dict[Role, list[bytes]] = {C: [], S: []}

    def send(self, sender: Role, made: type[Method]) -> None:
        """Send it if the sender may."""
        wire = self.pair.wire[sender]
        if (sender, made) in CHANNEL_TRANSITIONS[wire.channel_state(1)]:
            self.under_way[sender].append(wire.send_method(1, made()))

    @rule()
    def client_opens(self) -> None:
        """The number is used again as soon as our side says it is free."""
        self.send(C, channel.Open)

    @rule(sender=st.sampled_from(Role))
    def closes(self, sender: Role) -> None:
        """Either side closes."""
        self.send(sender, channel.Close)

    @rule(sender=st.sampled_from(Role))
    def talks(self, sender: Role) -> None:
        """Either side uses the channel."""
        self.send(sender, channel.Flow)

    @rule(sender=st.sampled_from(Role), chunk=st.integers(1, 40))
    def arrives(self, sender: Role, chunk: int) -> None:
        """Some of what is under way arrives, and is answered as it must be."""
        octets = b"".join(self.under_way[sender])
        self.under_way[sender] = [octets[chunk:]]
        for event in self.pair.wire[sender.peer].receive(octets[:chunk]):
            assert isinstance(event, MethodReceived), event
            if isinstance(event.method, channel.Open):
                self.send(S, channel.OpenOk)
            elif isinstance(event.method, channel.Close):
                self.send(sender.peer, channel.CloseOk)

    @invariant()
    def settles(self) -> None:
        """When nothing is under way the two ends agree."""
        if hasattr(self, "pair") and not any(map(b"".join, self.under_way.values())):
            self.pair.check_states()


TestCrossing = Crossing.TestCase
TestCrossing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.sampled_from(Role))
def test_crossing_closes_one_by_one(first: Role) -> None:
    """M-15: after both closes the number is free only when our own close-ok has come."""
    pair = ConnectionPair()
    second = first.peer
    from_first = pair.wire[first].send_method(1, channel.Close(200))
    from_second = pair.wire[second].send_method(1, channel.Close(404))
    pair.wire[second].receive(from_first)
    pair.wire[first].receive(from_second)
    assert pair.wire[first].channel_state(1) is ChannelState.BOTH_CLOSING
    answer = pair.wire[first].send_method(1, channel.CloseOk())
    assert pair.wire[first].channel_state(1) is not ChannelState.CLOSED
    with pytest.raises(LocalProtocolError, match=r"channel\.open .* while channel 1 is closing"):
        pair.client.send_method(1, channel.Open())
    pair.wire[first].receive(pair.wire[second].send_method(1, channel.CloseOk()))
    assert pair.wire[first].channel_state(1) is ChannelState.CLOSED
    assert pair.wire[second].channel_state(1) is not ChannelState.CLOSED
    pair.wire[second].receive(answer)
    pair.check_states()
