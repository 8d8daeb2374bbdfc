"""The plain client, cut at every octet of a session: every Deferred fires, typed, and nothing is left."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.testing.disruption.sessions import Session
from txmsg.testing.disruption import TO_BROKER, TO_CLIENT, Network
from txmsg.testing.disruption.cuts import How
from txmsg.testing.disruption.frames import DIRECTIONS, Direction


class SweepCase(SynchronousTestCase):
    """Sessions that are cut."""

    def octets(self, direction: Direction) -> int:
        """How many octets go that way in a whole session."""
        session = Session()
        self.assertEqual(session.run(), [])
        return session.simulation.links[0].octets(direction)

    def sweep(self, how: How, direction: Direction, first: int = 0, step: int = 1) -> int:
        """Cut one session after the other, each `step` octets later; how many there were."""
        positions = range(first, self.octets(direction) + 1, step)
        for position in positions:
            session = Session(position)
            left = session.run(how=how, direction=direction, after_bytes=position)
            where = f"{how} {direction} after {position} octets"
            self.assertEqual(left, [], where)
            assert session.outcome is not None
            self.assertTrue(session.outcome.is_typed, where)
            self.assertEqual(session.simulation.links[0].octets(direction), position, where)
            self.assertEqual(session.checker.report().problems(), [], where)
        return len(positions)


class ResetAtEveryOctetTests(SweepCase):
    """F4 (SIM), R2, R18, R28."""

    def test_to_the_broker(self) -> None:
        """Each octet that the client sends is the last one that arrives."""
        self.assertGreater(self.sweep("rst", TO_BROKER), 500)

    def test_to_the_client(self) -> None:
        """Each octet that the broker sends is."""
        self.assertGreater(self.sweep("rst", TO_CLIENT), 500)


class SampledSweepTests(SweepCase):
    """The same with other cuts, at some octets; all of them in `make test-long`."""

    def test_end_of_the_stream(self) -> None:
        """F5: the end of the stream, also within a frame, is a loss."""
        for direction in DIRECTIONS:
            self.sweep("fin", direction, first=3, step=13)

    def test_stall(self) -> None:
        """F6: nothing passes any more; R11 and R13 bound how long that takes."""
        for direction in DIRECTIONS:
            self.sweep("stall", direction, first=5, step=13)

    def test_black_hole(self) -> None:
        """F8: as with a stall; the ends are never told."""
        for direction in DIRECTIONS:
            self.sweep("blackhole", direction, first=7, step=13)


@pytest.mark.long
class EveryOctetTests(SweepCase):
    """F5, F6, F8 (SIM): at every octet."""

    def test_everything(self) -> None:
        """Three kinds of cuts, both directions."""
        for how in ("fin", "stall", "blackhole"):
            for direction in DIRECTIONS:
                self.sweep(how, direction)


class ChunkTests(SynchronousTestCase):
    """F7 (SIM): chunks change nothing."""

    def test_octet_by_octet(self) -> None:
        """One octet at a time, the same frames go both ways; only an ack may pass a publish."""
        whole, single = Session(is_traced=True), Session(is_traced=True, network=Network(chunk=(1, 1)))
        self.assertEqual(whole.run() + single.run(), [])
        self.assertEqual(sorted(single.events), sorted(whole.events))
        for direction in DIRECTIONS:
            frames = [
                sorted(what for _, _, what in session.simulation.transcript if what.startswith(direction))
                for session in (whole, single)
            ]
            self.assertEqual(frames[0], frames[1])
            self.assertGreater(len(frames[0]), 10)

    def test_seeds(self) -> None:
        """R18: whatever the chunks and delays, the session does what it does."""
        expected = Session()
        self.assertEqual(expected.run(), [])
        self.assertEqual(expected.events[-1], "closed")
        for seed in range(40):
            session = Session(seed, network=Network(chunk=(1, 1 + seed * 3), delay=(0.0, 0.001 * (seed % 4))))
            self.assertEqual(session.run(), [], seed)
            self.assertEqual(sorted(session.events), sorted(expected.events), seed)
            self.assertEqual(session.checker.report().confirmed, 3, seed)
