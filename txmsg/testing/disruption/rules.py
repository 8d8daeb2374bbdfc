"""Faults of single frames: drop, duplicate, swap, inject, corrupt, by direction and number.

    rules = FrameRules()
    rules.drop(2, "to_client", method="basic.ack")   # the second ack that the broker sends on a connection is lost

Simulations and proxies have such rules as `frames`.  Frames are counted on each connection by itself, from 1, from the
moment the rule is set or the connection is made; protocol headers do not count.  A stream that is not AMQP, such as
TLS, is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from txmsg.errors import ConfigurationError, clip
from txmsg.testing.disruption.frames import TO_BROKER, Direction, Directions, Frame, FrameCutter, directions_of
from txmsg.testing.scripted import ScriptedFault
from txmsg.wire.methods import METHODS

__all__ = ["FrameEditor", "FrameRule", "FrameRules"]

_NAMES: Final = frozenset({made.NAME for made in METHODS.values()} | {"header", "body", "heartbeat"})

#: From the frame to what passes in its place, and what passes behind the next frame.
_Change = Callable[[Frame], tuple[list[bytes], list[bytes]]]


class FrameRule(ScriptedFault):
    """One fault of frames; see :class:`~txmsg.testing.scripted.ScriptedFault` for count, stop() and `with`."""

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        times: int | None,
        directions: Directions,
        frame: int | None,
        method: str | None,
        change: _Change,
    ) -> None:
        super().__init__(ended, times)
        if frame is not None and frame < 1:
            raise ConfigurationError("frames are counted from 1")
        if method is not None and method not in _NAMES:
            raise ConfigurationError(
                f"{clip(repr(method), 60)} is no frame's name, such as basic.publish, header, body or heartbeat"
            )
        self._directions = directions_of(directions)
        self._frame = frame
        self._method = method
        self._change = change

    def is_for(self, direction: Direction) -> bool:
        """Whether it can still happen that way."""
        return self.is_active and direction in self._directions

    def matches(self, frame: Frame) -> bool:
        """Whether this is one of the frames that are counted."""
        return self._method is None or frame.name == self._method

    def applied(self, number: int, frame: Frame) -> tuple[list[bytes], list[bytes]] | None:
        """What passes in place of the frame with this number, and what behind the next one; None: leave it."""
        if self._frame is not None and number != self._frame:
            return None
        self._happened()
        return self._change(frame)


class FrameEditor:
    """Applies the rules to one direction of one connection; feed it all that goes that way.

    cutter: FrameCutter -- counts the frames, and knows whether there are any.
    """

    def __init__(self, rules: FrameRules, direction: Direction) -> None:
        self.cutter = FrameCutter()
        self._rules = rules
        self._direction: Direction = direction
        #: How many frames each rule has counted here.
        self._numbers: dict[FrameRule, int] = {}
        #: What goes behind the next frame.
        self._late: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What goes on in place of `data`; a part of a frame waits while there are rules."""
        rules = [rule for rule in self._rules.active if rule.is_for(self._direction)]
        passing: list[bytes] = []
        for piece in self.cutter.feed(data, hold=bool(rules or self._late)):
            late, self._late = self._late, []
            if isinstance(piece, Frame):
                passing += self._apply(rules, piece)
            else:
                passing.append(piece)
            passing += late
        return passing[0] if len(passing) == 1 else b"".join(passing)

    def _apply(self, rules: list[FrameRule], frame: Frame) -> list[bytes]:
        changed: tuple[list[bytes], list[bytes]] | None = None
        for rule in rules:
            if rule.is_active and rule.matches(frame):
                number = self._numbers[rule] = self._numbers.get(rule, 0) + 1
                if changed is None:  # of several rules for one frame the oldest counts
                    changed = rule.applied(number, frame)
        if changed is not None:
            self._late += changed[1]
            return changed[0]
        return [frame.octets]


class FrameRules:
    """The faults of frames that are set; each method sets one and returns it.

    frame: int | None -- its number among those that count; None: each of them.
    directions -- "to_broker", "to_client" or "both".
    method: str | None -- count only frames of that name: a method ("basic.ack"), "header", "body" or "heartbeat".
    times: int | None -- how often it happens in all; None: on every connection, until it is stopped.
    """

    def __init__(self) -> None:
        self._rules: list[FrameRule] = []

    @property
    def active(self) -> list[FrameRule]:
        """Those that can still happen, the oldest first."""
        return list(self._rules)

    def clear(self) -> None:
        """Stop all of them."""
        for rule in self.active:
            rule.stop()

    def editor(self, direction: Direction) -> FrameEditor:
        """For one direction of a new connection."""
        return FrameEditor(self, direction)

    def drop(
        self,
        frame: int | None = 1,
        directions: Directions = TO_BROKER,
        *,
        method: str | None = None,
        times: int | None = 1,
    ) -> FrameRule:
        """The frame does not arrive."""
        return self._set(frame, directions, method, times, lambda _: ([], []))

    def duplicate(
        self,
        frame: int | None = 1,
        directions: Directions = TO_BROKER,
        *,
        method: str | None = None,
        times: int | None = 1,
    ) -> FrameRule:
        """The frame arrives twice."""
        return self._set(frame, directions, method, times, lambda found: ([found.octets] * 2, []))

    def swap(
        self,
        frame: int | None = 1,
        directions: Directions = TO_BROKER,
        *,
        method: str | None = None,
        times: int | None = 1,
    ) -> FrameRule:
        """The frame arrives behind the one that follows it."""
        return self._set(frame, directions, method, times, lambda found: ([], [found.octets]))

    def inject(
        self,
        octets: bytes | Frame,
        frame: int | None = 1,
        directions: Directions = TO_BROKER,
        *,
        method: str | None = None,
        times: int | None = 1,
    ) -> FrameRule:
        """These octets arrive before the frame; a Frame, or anything at all."""
        added = octets.octets if isinstance(octets, Frame) else octets
        return self._set(frame, directions, method, times, lambda found: ([added, found.octets], []))

    def corrupt(
        self,
        frame: int | None = 1,
        directions: Directions = TO_BROKER,
        *,
        at: int = -1,
        to: int | None = None,
        method: str | None = None,
        times: int | None = 1,
    ) -> FrameRule:
        """One octet of the frame is another: the one at `at` (default: the end octet) becomes `to` (None: inverted).

        A frame that is too short for `at` stays as it is.
        """
        if to is not None and not 0 <= to <= 255:
            raise ConfigurationError("an octet is 0 to 255")

        def corrupted(found: Frame) -> tuple[list[bytes], list[bytes]]:
            octets = bytearray(found.octets)
            if -len(octets) <= at < len(octets):
                octets[at] = octets[at] ^ 0xFF if to is None else to
            return [bytes(octets)], []

        return self._set(frame, directions, method, times, corrupted)

    def _set(
        self, frame: int | None, directions: Directions, method: str | None, times: int | None, change: _Change
    ) -> FrameRule:
        rule = FrameRule(self._over, times, directions, frame, method, change)
        self._rules.append(rule)
        return rule

    def _over(self, rule: ScriptedFault) -> None:
        self._rules = [each for each in self._rules if each is not rule]

    def __repr__(self) -> str:
        return f"<FrameRules: {', '.join(map(repr, self._rules)) or 'none'}>"
