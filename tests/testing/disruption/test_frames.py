"""Frames on their way: found whatever the chunks, and disturbed one by one."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st

from txmsg.errors import ConfigurationError
from txmsg.testing.disruption.frames import TO_BROKER, TO_CLIENT, Frame, FrameCutter, directions_of
from txmsg.testing.disruption.rules import FrameRules
from txmsg.wire.constants import PROTOCOL_HEADER
from txmsg.wire.methods import basic

ACK = Frame.of(1, 1, basic.Ack(delivery_tag=1).encode())
HEADER = Frame.of(2, 1, b"\0\x3c" + bytes(12))
BODY = Frame.of(3, 1, b"some body")
HEARTBEAT = Frame.of(8, 0, b"")
FRAMES = [ACK, HEADER, BODY, HEARTBEAT, ACK]
STREAM = PROTOCOL_HEADER + b"".join(frame.octets for frame in FRAMES)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream, cut there."""
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


cuts = st.lists(st.integers(0, len(STREAM)), max_size=20)


class FrameTests(unittest.TestCase):
    """One frame."""

    def test_parts(self) -> None:
        """Type, channel, payload and name."""
        self.assertEqual((BODY.type, BODY.channel, BODY.payload, BODY.name), (3, 1, b"some body", "body"))
        self.assertEqual([frame.name for frame in FRAMES[:4]], ["basic.ack", "header", "body", "heartbeat"])
        self.assertEqual(Frame.of(1, 0, b"\xff\xff\xff\xff").name, "")
        self.assertIn("basic.ack channel=1", repr(ACK))

    def test_directions(self) -> None:
        """One, or both; nothing else."""
        self.assertEqual(directions_of("both"), (TO_BROKER, TO_CLIENT))
        self.assertEqual(directions_of("to_client"), (TO_CLIENT,))
        with self.assertRaises(ValueError):
            directions_of("upwards")  # type: ignore[arg-type]


class CutterTests(unittest.TestCase):
    """FrameCutter."""

    @given(cuts)
    def test_held(self, places: list[int]) -> None:
        """F7: the same frames whatever the chunks."""
        cutter = FrameCutter()
        found = [each for piece in pieces(STREAM, places) for each in cutter.feed(piece, hold=True)]
        self.assertEqual(found, [PROTOCOL_HEADER, *FRAMES])
        self.assertEqual((cutter.frames, cutter.is_between_frames, cutter.is_raw), (len(FRAMES), True, False))

    @given(cuts)
    def test_not_held(self, places: list[int]) -> None:
        """Nothing waits: what goes in comes out at once, and frames are counted all the same."""
        cutter = FrameCutter()
        for piece in pieces(STREAM, places):
            found = cutter.feed(piece, hold=False)
            self.assertEqual(b"".join(p.octets if isinstance(p, Frame) else p for p in found), piece)
        self.assertEqual((cutter.frames, cutter.is_between_frames), (len(FRAMES), True))

    @given(st.binary(max_size=60), cuts, st.lists(st.booleans(), min_size=21, max_size=21))
    def test_no_octet_is_lost(self, tail: bytes, places: list[int], holds: list[bool]) -> None:
        """Whatever follows, and however often it is switched; only an unfinished frame may wait."""
        cutter = FrameCutter()
        out = b""
        for piece, hold in zip(pieces(STREAM + tail, places), holds, strict=False):
            out += b"".join(p.octets if isinstance(p, Frame) else p for p in cutter.feed(piece, hold=hold))
        out += b"".join(p.octets if isinstance(p, Frame) else p for p in cutter.feed(b"", hold=False))
        self.assertTrue((STREAM + tail).startswith(out))
        rest = len(STREAM + tail) - len(out)
        self.assertTrue(rest == 0 or not cutter.is_between_frames or cutter.is_raw)

    def test_tls_is_raw(self) -> None:
        """A stream that begins like TLS is passed on as it is."""
        cutter = FrameCutter()
        hello = b"\x16\x03\x01\x02\x00\x01\x00" + bytes(100)
        self.assertEqual(b"".join(cutter.feed(hello, hold=True)), hello)  # type: ignore[arg-type]
        self.assertTrue(cutter.is_raw)
        self.assertEqual(cutter.feed(ACK.octets, hold=True), [ACK.octets])


class RuleTests(unittest.TestCase):
    """FrameRules: F32, F34 and F35 are made of these."""

    def setUp(self) -> None:
        self.rules = FrameRules()

    def passed(self, chunk: int = 1000) -> list[Frame | bytes]:
        """What comes out to the broker, as frames."""
        editor = self.rules.editor(TO_BROKER)
        out = b"".join(editor.feed(STREAM[at : at + chunk]) for at in range(0, len(STREAM), chunk))
        return FrameCutter().feed(out, hold=True)[1:]

    def test_drop(self) -> None:
        """One frame is missing, by number or by name; in single octets, too."""
        dropped = self.rules.drop(2)
        self.assertEqual(self.passed(1), [ACK, BODY, HEARTBEAT, ACK])
        self.assertEqual((dropped.count, dropped.is_active, self.rules.active), (1, False, []))
        self.rules.drop(2, method="basic.ack")
        self.assertEqual(self.passed(), FRAMES[:4])

    def test_duplicate(self) -> None:
        """One comes twice."""
        self.rules.duplicate(3)
        self.assertEqual(self.passed(5), [ACK, HEADER, BODY, BODY, HEARTBEAT, ACK])

    def test_swap(self) -> None:
        """One comes behind the next."""
        self.rules.swap(2)
        self.assertEqual(self.passed(5), [ACK, BODY, HEADER, HEARTBEAT, ACK])

    def test_swap_the_last(self) -> None:
        """It waits for one that follows."""
        self.rules.swap(5)
        editor = self.rules.editor(TO_BROKER)
        self.assertEqual(editor.feed(STREAM), STREAM[: -len(ACK.octets)])
        self.assertEqual(editor.feed(BODY.octets[:3]), b"")
        self.assertEqual(editor.feed(BODY.octets[3:]), BODY.octets + ACK.octets)

    def test_inject(self) -> None:
        """Others come before one."""
        self.rules.inject(HEARTBEAT, 1)
        self.rules.inject(BODY.octets, 2, method="basic.ack")
        self.assertEqual(self.passed(), [HEARTBEAT, *FRAMES[:4], BODY, ACK])

    def test_corrupt(self) -> None:
        """One octet of one is another: the end octet, if nothing else is said."""
        self.rules.corrupt(4)
        self.rules.corrupt(3, at=7, to=0)
        self.rules.corrupt(1, at=100)
        editor = self.rules.editor(TO_BROKER)
        expected = [ACK.octets, HEADER.octets, BODY.octets.replace(b"some", b"\0ome"), HEARTBEAT.octets[:-1] + b"\x31"]
        self.assertEqual(editor.feed(STREAM), PROTOCOL_HEADER + b"".join(expected) + ACK.octets)

    def test_each_frame(self) -> None:
        """Without a number: all of them, until it is stopped."""
        with self.rules.drop(None, times=None, method="basic.ack") as rule:
            self.assertEqual(self.passed(), [HEADER, BODY, HEARTBEAT])
            self.assertEqual(rule.count, 2)
        self.assertEqual(self.passed(), FRAMES)

    def test_each_connection_counts_by_itself(self) -> None:
        """`times` is for all of them together."""
        rule = self.rules.drop(5, times=2)
        self.assertEqual([len(self.passed()) for _ in range(3)], [4, 4, 5])
        self.assertFalse(rule.is_active)

    def test_other_direction(self) -> None:
        """What goes the other way is left alone."""
        self.rules.drop(1, TO_CLIENT)
        self.assertEqual(self.passed(), FRAMES)
        self.rules.clear()
        self.assertEqual(self.rules.active, [])

    def test_set_in_the_middle_of_a_frame(self) -> None:
        """The frame that has begun to leave is left alone."""
        editor = self.rules.editor(TO_BROKER)
        half = len(PROTOCOL_HEADER) + 10
        out = editor.feed(STREAM[:half])
        self.assertEqual(out, STREAM[:half])
        self.rules.drop(1)
        out += editor.feed(STREAM[half:])
        self.assertEqual(FrameCutter().feed(out, hold=True)[1:], [ACK, BODY, HEARTBEAT, ACK])

    def test_what_makes_no_sense(self) -> None:
        """It is refused when it is set."""
        for call in (
            lambda: self.rules.drop(0),
            lambda: self.rules.drop(1, method="basic.akc"),
            lambda: self.rules.corrupt(1, to=256),
        ):
            with self.assertRaises(ConfigurationError):
                call()
