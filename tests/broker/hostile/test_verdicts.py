"""The tables of raw octets: what is answered, that nothing is left, and that RabbitMQ answers the same (R36, R34)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.broker.hostile.beside import BesideCase
from tests.broker.hostile.rabbitmq import DIFFERENCES, ORDER
from tests.broker.hostile.scripts import SCRIPTS
from tests.broker.hostile.transcript import Conversation, PeerStream, SocketStream
from tests.broker.hostile.verdicts import VERDICTS
from tests.broker.server_peer import Peer
from tests.cases import RabbitMQTestCase

#: Conversations with RabbitMQ at a time: most of the time they wait, for it says nothing for seconds.
_AT_ONCE = 32


def _agree(lines: tuple[str, ...], expected: tuple[str, ...]) -> bool:
    """Whether a transcript is as expected."""
    return len(lines) == len(expected) and all(
        line.startswith(wanted[:-3]) if wanted.endswith("...") else line == wanted
        for line, wanted in zip(lines, expected, strict=True)
    )


class VerdictTests(BesideCase):
    """Each script against the embedded broker, beside a healthy client."""

    def play(self, row: str, chunk: int = 0) -> None:
        """All of a row, whole and in chunks; every one leaves nothing."""
        names = [name for name, script in SCRIPTS.items() if script.row == row]
        self.assertTrue(names)
        for name in names:
            with self.subTest(name=name, chunk=chunk):
                script = SCRIPTS[name]
                # Refused logins of one address take longer each time.
                peer = Peer(self.broker, f"127.0.1.{len(names)}")
                self.broker.login_delays.succeeded(peer.server.peer_host)
                stream = PeerStream(peer)
                lines = Conversation(stream, script.stage).play(*script.parts, chunk=chunk)
                difference = DIFFERENCES.get(name)
                agrees = _agree(lines, VERDICTS[name])
                if chunk and difference is not None and difference.why == ORDER:
                    agrees = True
                self.assertTrue(agrees, f"{name}: {lines}")
                stream.close()
                self.healthy.pump()
                self.leave_no_trace(peer)

    def test_all_are_known(self) -> None:
        """No script without a verdict, no verdict without a script."""
        self.assertEqual(set(VERDICTS), set(SCRIPTS))
        self.assertLessEqual(set(DIFFERENCES), set(SCRIPTS))

    def test_frames(self) -> None:
        """F32: sizes, kinds, ends, channels, methods, arguments, names, tables."""
        self.play("F32")

    def test_contents(self) -> None:
        """F33: the order of frames, sizes, classes, properties."""
        self.play("F33")

    def test_tuning(self) -> None:
        """F39: tune-ok, and what is not its turn."""
        self.play("F39")

    def test_start_ok(self) -> None:
        """F40: client properties of every bad kind."""
        self.play("F40")

    def test_logins(self) -> None:
        """F41: mechanisms and responses that are none."""
        self.play("F41")

    def test_closes(self) -> None:
        """F30: connection.close in every state, and crossing the broker's."""
        self.play("F30")

    def test_channel_closes(self) -> None:
        """F31: channel.close, crossing the broker's and in the middle of something."""
        self.play("F31")

    def test_in_pieces(self) -> None:
        """F5: however the octets are cut the answer is the same."""
        for row in ("F40", "F41", "F30", "F31"):
            self.play(row, chunk=1)
        self.play("F32", chunk=7919)
        self.play("F33", chunk=3)


class VerdictsOverRabbitMQ(RabbitMQTestCase):
    """The same scripts to RabbitMQ: the same answers, but for the differences that are known."""

    timeout = 100

    async def test_differences(self) -> None:
        """R34: codes, texts, scopes and the ids of the method to blame."""

        def play(name: str) -> tuple[str, tuple[str, ...]]:
            script = SCRIPTS[name]
            stream = SocketStream(self.node.port)
            try:
                return name, Conversation(stream, script.stage).play(*script.parts)
            finally:
                stream.close()

        def play_all() -> list[tuple[str, tuple[str, ...]]]:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                return [*pool.map(play, SCRIPTS)]

        wrong = []
        for name, lines in await self.in_thread(play_all):
            difference = DIFFERENCES.get(name)
            if not _agree(lines, VERDICTS[name] if difference is None else difference.lines):
                wrong.append(f"{name}: {lines}")
        self.assertEqual(wrong, [])

    def test_they_differ(self) -> None:
        """What is said to differ does, and has a reason."""
        for name, difference in DIFFERENCES.items():
            self.assertNotEqual(difference.lines, VERDICTS[name], name)
            self.assertTrue(difference.why)
