"""HeartbeatMonitor under a test clock: when heartbeats leave, when the peer is dead, what stalls do."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from txmsg.amqp.heartbeat import HeartbeatMonitor


class Watched:
    """A monitor on a test clock, with a record of what it did and when."""

    def __init__(self, interval: float, start: bool = True) -> None:
        self.clock = Clock()
        self.sent: list[float] = []
        self.died: list[float] = []
        self.monitor = HeartbeatMonitor(interval, self.clock, self._send, self._dead)
        if start:
            self.monitor.start()

    def _send(self) -> None:
        self.sent.append(self.clock.seconds())

    def _dead(self) -> None:
        assert not self.clock.getDelayedCalls(), "a timer is left when the peer is dead"
        self.died.append(self.clock.seconds())

    def hear(self) -> None:
        self.monitor.last_received = self.monitor.now()

    def write(self) -> None:
        self.monitor.last_sent = self.monitor.now()

    def run(self, seconds: float, step: float = 1 / 16) -> Iterator[float]:
        """Let time pass, in steps that a float represents exactly; yields after each."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - step / 2:
            self.clock.advance(step)
            yield self.clock.seconds()


def pass_time(watched: Watched, seconds: float) -> None:
    for _ in watched.run(seconds):
        pass


@pytest.mark.parametrize("interval", [1, 2, 10, 60, 600])
def test_a_silent_peer_is_dead_between_2t_and_2t_plus_1(interval: float) -> None:
    """R13, H-02: the judgement falls in [2T, 2T + 1 s] after the last byte (kombu D5)."""
    watched = Watched(interval)
    pass_time(watched, 0.3)
    watched.hear()
    heard = watched.clock.seconds()
    pass_time(watched, interval * 2 - 0.1)
    assert watched.died == []
    pass_time(watched, 1.2)
    assert len(watched.died) == 1
    assert interval * 2 <= watched.died[0] - heard + 0.001
    assert watched.died[0] - heard <= interval * 2 + 1


@given(st.integers(1, 20), st.lists(st.floats(0.01, 30), max_size=15))
def test_the_window_holds_for_any_pattern_of_bytes(interval: int, gaps: list[float]) -> None:
    """R13: whatever the gaps between the bytes, never before 2T and never after 2T + 1 s."""
    watched = Watched(interval)
    heard = 0.0
    for gap in gaps:
        if gap > interval * 2 - 0.001:  # nearer to it the rounding of the clock decides
            break
        watched.clock.advance(gap)
        watched.hear()
        heard = watched.clock.seconds()
        assert watched.died == []
    watched.clock.advance(max(0.0, interval * 2 - 0.01))
    assert watched.died == []
    for _ in range(12):
        watched.clock.advance(0.1)
    assert len(watched.died) == 1
    assert watched.died[0] - heard <= interval * 2 + 1.1


def test_own_traffic_does_not_keep_the_peer_alive() -> None:
    """R13, H-02: what we write says nothing about the peer (kombu D5)."""
    watched = Watched(10)
    for _ in watched.run(22):
        watched.write()
    assert len(watched.died) == 1


def test_death_is_told_once_and_leaves_no_timer() -> None:
    """R13, H-05: one call of `dead`, from then on silence."""
    watched = Watched(2)
    pass_time(watched, 30)
    assert len(watched.died) == 1
    assert not watched.monitor.is_running
    assert watched.clock.getDelayedCalls() == []
    assert all(moment <= watched.died[0] for moment in watched.sent)


@pytest.mark.parametrize("factor", [1.5, 4.0, 40.0])
def test_a_blocked_reactor_does_not_kill_a_live_connection(factor: float) -> None:
    """R14, F25: after a stall the pending bytes are read before the peer is judged."""
    watched = Watched(10)
    watched.clock.advance(9)
    watched.hear()
    # One big step: all timers that became due run now, late, before the reactor reads a socket.
    watched.clock.advance(10 * factor)
    assert watched.died == []
    watched.clock.advance(0)
    assert watched.died == []
    watched.hear()  # the bytes that had been waiting
    for _ in watched.run(19.9):
        pass
    assert watched.died == []
    pass_time(watched, 1)
    assert len(watched.died) == 1


def test_a_blocked_reactor_still_finds_a_dead_peer() -> None:
    """R13, R14: when nothing was waiting, the judgement follows within a second of the stall's end."""
    watched = Watched(10)
    watched.clock.advance(100)
    assert watched.died == []
    pass_time(watched, 1)
    assert len(watched.died) == 1


def test_the_judgement_takes_at_least_one_more_turn() -> None:
    """R14: the timer that finds the deadline passed never judges by itself."""
    watched = Watched(10)
    for _ in range(5):
        watched.clock.advance(19.99)
        watched.hear()
    watched.clock.advance(20)
    assert watched.died == []
    watched.hear()
    watched.clock.advance(0.5)
    assert watched.died == []


@pytest.mark.parametrize("interval", [1, 2, 10, 60])
def test_heartbeats_leave_within_half_the_interval(interval: float) -> None:
    """R15, H-01, W-03: at most T/2 + 1 s without a write, and not more often than every T/2 (kombu D5)."""
    watched = Watched(interval)
    for _ in watched.run(interval * 10):
        watched.hear()
    gaps = [b - a for a, b in zip([0.0, *watched.sent], watched.sent, strict=False)]
    assert max(gaps) <= interval / 2 + 1
    assert min(gaps) >= interval / 2 - 0.06
    assert len(gaps) in (19, 20)


def test_no_heartbeat_after_a_recent_write() -> None:
    """H-06: traffic takes the heartbeat's place; after the last write the first comes T/2 later."""
    watched = Watched(10)
    for _ in watched.run(60):
        watched.hear()
        watched.write()
    assert watched.sent == []
    last = watched.clock.seconds()
    for _ in watched.run(11):
        watched.hear()
    assert [round(moment - last, 1) for moment in watched.sent] == [5.0, 10.0]


def test_heartbeats_leave_while_the_peer_floods_us() -> None:
    """R15, W-25: what arrives does not postpone what we owe."""
    watched = Watched(2)
    for _ in watched.run(10, step=1 / 64):
        watched.hear()
    assert len(watched.sent) in (9, 10)


def test_zero_switches_everything_off() -> None:
    """H-04: no timer, no heartbeat, no judgement."""
    watched = Watched(0)
    assert watched.clock.getDelayedCalls() == []
    assert not watched.monitor.is_running
    watched.clock.advance(1_000_000)
    assert watched.sent == []
    assert watched.died == []


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf")])
def test_an_impossible_interval_is_refused(interval: float) -> None:
    """B-07: at construction."""
    with pytest.raises(ValueError, match="heartbeat"):
        HeartbeatMonitor(interval, Clock(), lambda: None, lambda: None)


def test_stop_leaves_no_timer() -> None:
    """H-05, W-34, W-63, J-21, W-66: at any moment, twice, before start and inside the grace period."""
    for moment in (0, 4.9, 5, 19.9, 20.1, 20.4):
        watched = Watched(10)
        pass_time(watched, moment)
        watched.monitor.stop()
        watched.monitor.stop()
        assert watched.clock.getDelayedCalls() == []
        sent = list(watched.sent)
        watched.clock.advance(100)
        assert watched.sent == sent
        assert watched.died == []
    idle = Watched(10, start=False)
    idle.monitor.stop()
    assert idle.clock.getDelayedCalls() == []


def test_stop_inside_send() -> None:
    """H-05: a write that fails closes the connection, which stops the monitor from inside."""
    clock = Clock()

    def send() -> None:
        monitor.stop()

    monitor = HeartbeatMonitor(10, clock, send, lambda: None)
    monitor.start()
    clock.advance(5)
    assert clock.getDelayedCalls() == []


def test_start_twice_makes_one_set_of_timers() -> None:
    """H-05: and a stopped monitor can start again with fresh windows."""
    watched = Watched(10)
    watched.monitor.start()
    assert len(watched.clock.getDelayedCalls()) == 2
    watched.clock.advance(15)
    watched.monitor.stop()
    watched.monitor.start()
    pass_time(watched, 19.9)
    assert watched.died == []
    pass_time(watched, 1)
    assert len(watched.died) == 1


def test_the_peer_is_not_judged_while_we_do_not_read() -> None:
    """R14, I-11: our own back-pressure; afterwards the peer has its two intervals again."""
    watched = Watched(10)
    pass_time(watched, 5)
    watched.monitor.reading_paused = True
    pass_time(watched, 200)
    assert watched.died == []
    assert len(watched.sent) > 30
    watched.monitor.reading_paused = False
    pass_time(watched, 19.9)
    assert watched.died == []
    pass_time(watched, 1.1)
    assert len(watched.died) == 1


def test_a_pause_inside_the_grace_period_suspends_the_judgement() -> None:
    """R14: as above, for the half second between deadline and judgement."""
    watched = Watched(10)
    pass_time(watched, 20.1)
    watched.monitor.reading_paused = True
    pass_time(watched, 60)
    assert watched.died == []
    watched.monitor.reading_paused = False
    pass_time(watched, 21)
    assert len(watched.died) == 1


def test_saying_not_paused_again_is_not_a_sign_of_life() -> None:
    """R13: only the change from paused to reading restarts the window."""
    watched = Watched(10)
    for _ in watched.run(21):
        watched.monitor.reading_paused = False
    assert len(watched.died) == 1


def test_a_jump_of_the_wall_clock_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """F24: with a reactor that reads the wall clock, time is measured with the monotonic one."""

    class WallClock(Clock):
        seconds = staticmethod(time.time)  # what Twisted's reactors do

    monitor = HeartbeatMonitor(10, WallClock(), lambda: None, lambda: None)
    assert monitor.now is time.monotonic
    clock = Clock()
    assert HeartbeatMonitor(10, clock, lambda: None, lambda: None).now() == clock.seconds()


def test_timers_that_run_early_decide_nothing() -> None:
    """F24: a wall clock set forward fires every timer at once; by the monotonic clock nothing is due."""
    clock = Clock()
    monotonic = [1000.0]
    sent: list[float] = []
    died: list[float] = []
    monitor = HeartbeatMonitor(
        10, clock, lambda: sent.append(monotonic[0]), lambda: died.append(monotonic[0]), now=lambda: monotonic[0]
    )
    monitor.start()
    for _ in range(3):
        clock.advance(3600)
        monotonic[0] += 1
    assert sent == []
    assert died == []
    monotonic[0] = 1005.0
    clock.advance(5)
    assert sent == [1005.0]
    monitor.stop()


def test_repr() -> None:
    """It shows the state."""
    watched = Watched(10)
    assert repr(watched.monitor) == "<HeartbeatMonitor 10 s, running>"
    watched.monitor.reading_paused = True
    watched.monitor.stop()
    assert repr(watched.monitor) == "<HeartbeatMonitor 10 s, stopped, reading paused>"
