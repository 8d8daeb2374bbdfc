"""The fast way out for deliveries gives what the plain way gives, keeps little, and forgets in time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import ConnectionPair, open_server
from tests.wire.strategies import property_lists, short_texts
from txmsg.errors import EncodeError, LocalProtocolError
from txmsg.wire.connection import Role
from txmsg.wire.events import DELIVER
from txmsg.wire.methods import basic, channel
from txmsg.wire.properties import BasicProperties

C, S = Role.CLIENT, Role.SERVER
SMALL = BasicProperties(content_type="text/plain", delivery_mode=2).encode()
TAGS = st.integers(0, 2**64 - 1)
BODIES = st.one_of(st.binary(max_size=50), st.integers(0, 20_000).map(bytes))


class TestWhatComesOut:
    """Octet for octet what send_content gives."""

    @given(
        short_texts(),
        st.lists(st.tuples(TAGS, st.booleans(), property_lists(), BODIES), min_size=1, max_size=5),
        short_texts(),
        short_texts(),
        st.sampled_from([4096, 131072]),
    )
    def test_as_the_plain_way(
        self,
        consumer_tag: str,
        deliveries: list[tuple[int, bool, bytes, bytes]],
        exchange: str,
        routing_key: str,
        frame_max: int,
    ) -> None:
        wire = ConnectionPair(frame_max=frame_max).wire[S]
        for tag, redelivered, encoded, body in deliveries:
            method = basic.Deliver(consumer_tag, tag, redelivered, exchange, routing_key)
            try:
                expected: object = b"".join(wire.send_content(1, method, encoded, body))
            except EncodeError as error:
                expected = str(error)
            try:
                got: object = b"".join(
                    wire.encode_deliver(1, consumer_tag, tag, redelivered, exchange, routing_key, encoded, body)
                )
            except EncodeError as error:
                got = str(error)
            assert got == expected

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([1, 2]),
                st.sampled_from(["c", "d"]),
                st.booleans(),
                st.sampled_from(["e", "f"]),
                st.sampled_from(["k", "l"]),
            ),
            max_size=20,
        )
    )
    def test_nothing_of_the_last_one_stays(self, addresses: list[tuple[int, str, bool, str, str]]) -> None:
        """Each part of an address alone makes it another one."""
        wire = ConnectionPair(channels=(1, 2)).wire[S]
        for number, consumer_tag, redelivered, exchange, routing_key in addresses:
            method = basic.Deliver(consumer_tag, 7, redelivered, exchange, routing_key)
            expected = wire.send_content(number, method, SMALL, b"body")
            got = wire.encode_deliver(number, consumer_tag, 7, redelivered, exchange, routing_key, SMALL, b"body")
            assert got == expected

    def test_headers_that_do_not_fit_a_frame(self) -> None:
        large = BasicProperties(headers={"a": "x" * 5000}).encode()
        with pytest.raises(EncodeError, match="properties and headers"):
            open_server(frame_max=4096).encode_deliver(1, "ct", 1, False, "e", "k", large, b"body")

    def test_the_client_hears_it(self) -> None:
        pair = ConnectionPair(channels=(1, 2))
        parts = []
        for number, tag, key in ((1, 1, "a"), (2, 1, "a"), (1, 2, "b"), (1, 3, "b")):
            parts += pair.wire[S].encode_deliver(number, "ct", tag, tag == 2, "e", key, SMALL, b"body")
        heard = [event[:7] for event in pair.wire[C].receive(b"".join(parts)) if isinstance(event, tuple)]
        assert heard == [
            (DELIVER, 1, "ct", 1, False, "e", "a"),
            (DELIVER, 2, "ct", 1, False, "e", "a"),
            (DELIVER, 1, "ct", 2, True, "e", "b"),
            (DELIVER, 1, "ct", 3, False, "e", "b"),
        ]

    @pytest.mark.parametrize("size", [0, 1, 16 * 1024])
    def test_one_piece(self, size: int) -> None:
        assert len(open_server(frame_max=131072).encode_deliver(1, "ct", 1, False, "e", "k", SMALL, bytes(size))) == 1

    def test_a_large_body_is_not_copied(self) -> None:
        body = bytes(16 * 1024 + 1)
        parts = open_server(frame_max=131072).encode_deliver(1, "ct", 1, False, "e", "k", SMALL, body)
        assert any(part is body for part in parts)

    def test_other_octets_than_bytes(self) -> None:
        wire = open_server()
        expected = wire.encode_deliver(1, "ct", 1, False, "e", "k", SMALL, b"body")
        for body in (bytearray(b"body"), memoryview(b"body")):
            assert wire.encode_deliver(1, "ct", 1, False, "e", "k", SMALL, body) == expected


class TestWhatMayNotBeSent:
    """What is kept is never used where the state forbids the delivery."""

    def test_on_a_closed_channel(self) -> None:
        wire = open_server()
        wire.encode_deliver(1, "ct", 1, False, "e", "k", SMALL, b"")
        wire.send_method(1, channel.Close(200, "over"))
        with pytest.raises(LocalProtocolError, match=r"basic\.deliver by the server while channel 1 is closing"):
            wire.encode_deliver(1, "ct", 2, False, "e", "k", SMALL, b"")

    def test_on_a_channel_never_opened(self) -> None:
        wire = open_server()
        with pytest.raises(LocalProtocolError, match="while channel 2 is not open"):
            wire.encode_deliver(2, "ct", 1, False, "e", "k", SMALL, b"")

    def test_by_a_client(self) -> None:
        wire = ConnectionPair().wire[C]
        with pytest.raises(LocalProtocolError, match="by the client"):
            wire.encode_deliver(1, "ct", 1, False, "e", "k", SMALL, b"")

    def test_names_that_do_not_fit(self) -> None:
        with pytest.raises(EncodeError):
            open_server().encode_deliver(1, "ct", 1, False, "e", "k" * 256, SMALL, b"")


class TestWhatIsKept:
    """Bounded, and quick to find."""

    def test_bounded(self) -> None:
        wire = open_server()
        for number in range(3000):
            wire.encode_deliver(1, f"ct{number}", 1, False, "e", "k", SMALL, b"")
        assert len(wire._addresses) <= 1024

    def test_forgotten_when_a_channel_moves(self) -> None:
        pair = ConnectionPair(channels=(1, 2))
        wire = pair.wire[S]
        wire.encode_deliver(1, "ct", 1, False, "e", "k", SMALL, b"")
        assert wire._addresses
        wire.send_method(2, channel.Close(200, "over"))
        assert not wire._addresses

    def test_the_octets_are_not_encoded_again(self) -> None:
        wire = open_server()
        wire.encode_deliver(1, "ct", 1, False, "e", "k", SMALL, b"")
        wire._learn_address = None  # type: ignore[assignment, method-assign]
        start = time.perf_counter()
        for tag in range(1000):
            wire.encode_deliver(1, "ct", tag, False, "e", "k", SMALL, b"body")
        assert time.perf_counter() - start < 0.1  # a hundred times what it takes
