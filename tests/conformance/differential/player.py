"""Runs a program on one broker, and takes down what came of it.

After a step everything has to come to rest, without waiting for long.  So every channel is asked for something that
it answers in its turn (channel.flow), every queue is looked at (a passive declaration passes through the queue's own
process) until nothing changes any more, and then the channels again: what the queues sent them has passed by then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeAlias, cast

from tests.conformance.differential.session import FIRST_WATCHER, ChannelView, Session
from tests.conformance.differential.steps import (
    LAST_GENERATED,
    Abort,
    Call,
    Close,
    Now,
    Program,
    Publish,
    Raw,
    Reply,
    Settle,
    Step,
    Wait,
)
from tests.conformance.differential.transcript import Names, Record, differences
from tests.conformance.differential.wire_client import Account, content_frames, method_frame
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, connection, exchange, queue
from txmsg.wire.properties import BasicProperties

__all__ = ["Player", "compare", "play"]

_TEXT = re.compile(r"(connection\.close\(reply_code=\d+).*")
_AT = re.compile(r"([a-z])(\d*)")
#: Looks at the queues after a step, at most.
_LOOKS = 20
#: Seconds for confirms, which may have to wait for a disk.
_CONFIRMS = 3.0
#: How long an aborted connection may go unnoticed.
_ABORT = 0.05

#: Ready messages and consumers, or why that is not known.
State: TypeAlias = "tuple[int, int] | str"


def play(program: Program, accounts: Callable[[str], Account]) -> list[Record]:
    """The transcript of `program`; `accounts` gives the account for the first letter of a connection's name."""
    player = Player(accounts)
    try:
        return player.play(program)
    finally:
        player.clean_up(program)


def compare(
    program: Program,
    rabbitmq: Callable[[str], Account],
    embedded: Callable[[str], Account],
    how: Callable[[list[Record], list[Record]], str] = differences,
) -> str:
    """Where the transcripts of the two differ; "" if they do not."""
    with ThreadPoolExecutor(1) as pool:  # both spend their time waiting
        expected = pool.submit(play, program, rabbitmq)
        actual = play(program, embedded)
        return how(expected.result(), actual)


class Player:
    """The clients of one run."""

    def __init__(self, accounts: Callable[[str], Account]) -> None:
        self._accounts = accounts
        self._sessions: dict[str, Session] = {}
        self._watcher = Session("watcher", accounts("a"), None)
        self._queues: list[str] = []
        self._states: dict[str, State] = {}
        self._names = Names()
        self._record = Record("")
        self._has_texts = True

    # -- the whole ----------------------------------------------------------------------------------------

    def play(self, program: Program) -> list[Record]:
        """Play it."""
        records = []
        self._has_texts = program.has_texts
        for step in program.steps:
            self._record = Record(str(step))
            self._perform(step)
            self._settle(program)
            self._report()
            records.append(self._record)
        records.append(self._end(program))
        return records

    def _report(self) -> None:
        lines = self._record.lines
        for name in sorted(self._sessions):
            session = self._sessions[name]
            lines += session.report(self._record.choices)
            if not session.is_alive:
                del self._sessions[name]
        if not self._has_texts:
            lines = [_TEXT.sub(r"\1)", line) for line in lines]
        self._record.lines = [self._names.replace(line) for line in lines]
        self._record.choices = [self._names.replace(line) for line in self._record.choices]

    def _end(self, program: Program) -> Record:
        """What is left in the queues when everybody has gone."""
        self._record = Record("the end")
        # First go those who could take away what others return.
        for session in self._sessions.values():
            for number, view in session.channels.items():
                for tag in [each.tag for each in view.consumers.values() if each.no_ack]:
                    session.client.send(number, basic.Cancel(tag))
        self._ping()
        for session in self._sessions.values():
            session.client.send(0, connection.Close(200, "", 0, 0))
        for session in self._sessions.values():
            session.until(lambda: False)
        self._sessions.clear()
        if program.watches:
            self._look()
        view = self._watcher.open(1)
        for name in self._queues:
            for _ in range(100):
                if self._states.get(name, "") in ("missing", "locked", "") or 1 not in self._watcher.channels:
                    break
                seen = len(view.replies)
                self._watcher.note(1, basic.Get())
                self._watcher.client.send(1, basic.Get(queue=name, no_ack=True))
                self._watcher.until(lambda seen=seen: len(view.replies) > seen)  # type: ignore[misc]
                if view.gets:
                    self._record.lines.append("no answer to basic.get")
                    break
                if "get-empty" in view.replies[-1]:
                    break
        view.tags.clear()
        self._record.lines += self._watcher.report([])
        self._record.lines = [self._names.replace(line) for line in self._record.lines]
        return self._record

    def clean_up(self, program: Program) -> None:
        """Delete all that the program may have left."""
        for session in self._sessions.values():
            if session.is_alive:
                session.client.close()
        methods: list[Method] = [queue.Delete(queue=name) for name in self._queues]
        for step in program.steps:
            for each in step.steps if isinstance(step, Now) else [step]:
                method = each.method if isinstance(each, Call) else None
                if isinstance(method, exchange.Declare) and not method.exchange.startswith("amq.") and method.exchange:
                    methods.append(exchange.Delete(exchange=method.exchange))
                elif isinstance(method, exchange.Bind) and method.source and method.destination:
                    methods.append(
                        exchange.Unbind(
                            0, method.destination, method.source, method.routing_key, False, method.arguments
                        )
                    )
        watcher = self._watcher
        for method in methods:
            view = watcher.open(2)
            seen = len(view.replies)
            watcher.client.send(2, method)
            watcher.until(lambda view=view, seen=seen: len(view.replies) > seen)  # type: ignore[misc]
        if watcher.is_alive:
            watcher.client.close()

    # -- steps --------------------------------------------------------------------------------------------

    def _perform(self, step: Step) -> None:
        match step:
            case Wait(seconds):
                time.sleep(seconds)
            case Close(at):
                session = self._session(at)
                session.client.send(0, connection.Close(200, "", 0, 0))
                session.until(lambda: False)
            case Abort(at):
                session = self._session(at)
                session.client.abort()
                del self._sessions[session.name]
                time.sleep(_ABORT)
            case Raw(at, octets):
                session, _, _ = self._place(at)
                session.client.write(octets)
            case Now(steps):
                session = self._session(steps[0].at)
                session.client.write(b"".join(self._octets(each) for each in steps))
            case Settle():
                self._settle_delivery(step)
            case Reply():
                self._reply(step)
            case _:
                octets = self._octets(step)
                self._session(step.at).client.write(octets)

    def _octets(self, step: Call | Publish) -> bytes:
        session, number, _ = self._place(step.at)
        if isinstance(step, Call):
            method_sent = self._with_generated_name(step.method)
            self._learn(method_sent)
            if number in session.channels:
                session.note(number, method_sent)
            return method_frame(number, method_sent)
        method = basic.Publish(0, step.exchange, step.routing_key, step.mandatory, step.immediate)
        if number in session.channels:
            session.note(number, method)
        return content_frames(number, method, BasicProperties(**step.properties), step.body)

    def _with_generated_name(self, method: Method) -> Method:
        if getattr(method, "queue", "") != LAST_GENERATED:
            return method
        generated = [name for name in self._queues if name.startswith("amq.gen-")]
        changed: Method = replace(cast(Any, method), queue=generated[-1])
        return changed

    def _settle_delivery(self, step: Settle) -> None:
        session, number, view = self._place(step.at)
        if not view.held:
            return
        chosen = view.held[step.index % len(view.held)]
        settled = [one for one in view.held if one is chosen or (step.multiple and one.tag < chosen.tag)]
        if step.multiple:
            self._record.choices.append(" ".join(sorted(one.name for one in settled)))
        view.held = [one for one in view.held if one not in settled]
        if view.in_transaction:
            view.uncommitted += settled
        method: Method
        if step.how == "ack":
            method = basic.Ack(chosen.tag, step.multiple)
        elif step.how == "nack":
            method = basic.Nack(chosen.tag, step.multiple, step.requeue)
        else:
            method = basic.Reject(chosen.tag, step.requeue)
        session.client.send(number, method)

    def _reply(self, step: Reply) -> None:
        keys = [session.reply_to for session in self._sessions.values() if session.reply_to]
        if keys:
            octets = self._octets(Publish(step.at, step.exchange, keys[-1], step.body, step.mandatory))
            self._session(step.at).client.write(octets)

    def _session(self, at: str) -> Session:
        found = _AT.match(at)
        assert found is not None, at
        name = found[1]
        session = self._sessions.get(name)
        if session is None:
            session = Session(name, self._accounts(name), {} if name == "n" else None)
            self._sessions[name] = session
        return session

    def _place(self, at: str) -> tuple[Session, int, ChannelView]:
        session = self._session(at)
        number = int(at[1:] or 1)
        return session, number, session.open(number)

    def _learn(self, method: Method) -> None:
        """Remember the names of queues."""
        if isinstance(method, queue.Declare):
            name = method.queue.replace("\r", "").replace("\n", "")
            if name and name not in self._queues:
                self._queues.append(name)

    # -- coming to rest -----------------------------------------------------------------------------------

    def _settle(self, program: Program) -> None:
        self._await_commits()
        time.sleep(program.pause)
        self._ping()
        if program.watches:
            self._look()
        self._ping()
        self._ping()
        self._await_confirms()

    def _await_commits(self) -> None:
        """Whoever goes on before tx.commit-ok may be told 504 by RabbitMQ."""
        for session in self._sessions.values():

            def are_done(session: Session = session) -> bool:
                return not any(view.is_committing for view in session.channels.values())

            session.until(are_done)

    def _ping(self) -> None:
        for session in self._sessions.values():
            asked = b""
            for number, view in session.channels.items():
                if view.is_closing:  # RabbitMQ may or may not still know the channel
                    continue
                view.pings += 1
                asked += method_frame(number, channel.Flow(True))
            session.client.write(asked)
        for session in self._sessions.values():

            def are_there(session: Session = session) -> bool:
                return not any(view.pings or view.is_closing for view in session.channels.values())

            if not session.until(are_there):
                session.lines.append("no answer")
                session.client.abort()
                session.is_alive = False

    def _await_confirms(self) -> None:
        for session in self._sessions.values():

            def are_there(session: Session = session) -> bool:
                return not any(view.unconfirmed for view in session.channels.values())

            if not session.until(are_there, _CONFIRMS):
                missing = {number: sorted(view.unconfirmed) for number, view in session.channels.items()}
                session.lines.append(f"no confirms: {missing}")

    def _look(self) -> None:
        """Look at all queues until two looks are the same."""
        for session in self._sessions.values():
            for view in session.channels.values():
                for reply in view.replies:
                    found = re.match(r"queue.declare-ok\(queue='(amq\.gen-[^']+)'", reply)
                    if found and found[1] not in self._queues:
                        self._queues.append(found[1])
        before: dict[str, State] | None = None
        for _ in range(_LOOKS):
            states = self._ask(self._watcher, self._queues)
            for session in self._sessions.values():
                locked = [name for name, state in states.items() if state == "locked"]
                if locked and session.is_alive:
                    states |= self._ask(session, locked)
            if states == before:
                break
            before = states
        for name, state in (before or {}).items():
            if self._states.get(name, "missing") != state:
                self._record.lines.append(f"queue {name}: {state}")
        self._states = before or {}

    def _ask(self, session: Session, names: Sequence[str]) -> dict[str, State]:
        numbers = {name: FIRST_WATCHER + self._queues.index(name) for name in names}
        asked = b""
        for name, number in numbers.items():
            answer = session.answers.pop(number, None)
            if not isinstance(answer, queue.DeclareOk):
                asked += method_frame(number, channel.Open())
            asked += method_frame(number, queue.Declare(queue=name, passive=True))
        session.client.write(asked)

        def are_there() -> bool:
            return all(
                isinstance(session.answers.get(number), (queue.DeclareOk, channel.Close)) for number in numbers.values()
            )

        if not session.until(are_there):
            session.lines.append("no answer to the watcher")
        states: dict[str, State] = {}
        for name, number in numbers.items():
            match session.answers.get(number):
                case queue.DeclareOk(_, ready, consumers):
                    states[name] = (ready, consumers)
                case channel.Close(404):
                    states[name] = "missing"
                case channel.Close(405):
                    states[name] = "locked"
                case other:
                    states[name] = repr(other)
        return states
