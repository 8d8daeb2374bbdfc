"""Damaged data directories (F56, C7.4): the broker starts, serves nothing wrong, and says what it lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.broker.store_cases import Host, StoreTestCase, execute
from txmsg.broker.store import StoreDamaged, StoreTooNew
from txmsg.broker.store.repair import readable_rows
from txmsg.broker.store.schema import connect

#: What the queues of `fill` hold, at most.
Truth = dict[str, list[bytes]]


class DamageTestCase(StoreTestCase):
    """`fill` makes a data directory with something in every table."""

    def setUp(self) -> None:
        super().setUp()
        self.host = self.start()
        self.truth: Truth = {}

    def fill(self, messages: int = 40, start: int = 0) -> None:
        """Two queues, bound; every fifth body has a row of its own, which both share."""
        for name in ("a", "b"):
            if name not in self.truth:
                self.host.queue(name)
                self.host.vhost.bind_queue(name, "amq.fanout")
                self.truth[name] = []
        for number in range(start, start + messages):
            body = b"%d " % number * (2000 if number % 5 == 4 else 40)
            self.host.publish(body, exchange="amq.fanout", headers={"number": number})
            for name in ("a", "b"):
                self.truth[name].append(body)
        assert self.commit(self.host) == ["kept"]

    def restore(self, directory: Path) -> Truth:
        """What a broker serves from `directory`; it must be a part of the truth, in its order."""
        host = self.start(directory)
        found: Truth = {}
        for name in self.truth:
            if name in host.vhost.queues:
                found[name] = host.kept_bodies(name)
                rest = iter(self.truth[name])
                self.assertTrue(all(body in rest for body in found[name]), f"{name}: {found[name]!r}")
        self.check_works(host)
        return found

    def check_works(self, host: Host) -> None:
        """The broker goes on with it: what is told now is kept, and is found by the next one."""
        host.queue("fresh")
        host.publish(b"fresh" * 2000, "fresh")
        assert self.commit(host) == ["kept"]
        left = {name: host.kept_bodies(name) for name in host.vhost.queues}
        damage = self.report.damage
        self.stop(host)
        again = self.start(host.store.directory.path)
        self.assertEqual({name: again.kept_bodies(name) for name in again.vhost.queues}, left)
        self.assertEqual(self.report.damage, [], "said again")
        self.stop(again)
        self.report.damage = damage

    def lost(self, found: Truth) -> int:
        """How many messages are missing."""
        return sum(len(bodies) - len(found.get(name, [])) for name, bodies in self.truth.items())


class RecordTests(DamageTestCase):
    """One changed octet in a row."""

    def damaged(self, statement: str, *values: object) -> Truth:
        """What is served after `statement` was executed on the data."""
        directory = self.copy()
        execute(directory / "broker.db", statement, *values)
        return self.restore(directory)

    def setUp(self) -> None:
        super().setUp()
        self.fill()

    def row(self, select: str) -> int:
        """The number of a row."""
        directory = self.copy()
        number: int = execute(directory / "broker.db", select)[0][0]
        return number

    def test_every_octet_of_a_message(self) -> None:
        """Whatever octet of a record is changed, the message is reported and not served; the others are."""
        row = self.row("SELECT min(id) FROM message")
        for offset in range(0, 60, 7):
            found = self.damaged(
                "UPDATE message SET record = CAST(substr(record, 1, ?) || x'ee' || substr(record, ?) AS BLOB) "
                "WHERE id = ?",
                offset,
                offset + 2,
                row,
            )
            self.assertEqual(self.lost(found), 1)
            [damage] = self.report.damage
            self.assertEqual(damage.messages, 1)
            self.assertIn(f"row {row} of message", damage.what)

    def test_columns_of_a_message(self) -> None:
        """Each column is covered by the checksum: a message never goes to another queue, or gets another body."""
        row = self.row("SELECT min(id) FROM message WHERE body IS NULL")
        other = self.row("SELECT max(queue) FROM message")
        for assignment in (f"queue = {other}", "checksum = checksum + 1", "id = 1000000", "body = 5", "queue = 'x'"):
            self.assertEqual(self.lost(self.damaged(f"UPDATE message SET {assignment} WHERE id = {row}")), 1)
            self.assertEqual(len(self.report.damage), 1)

    def test_body(self) -> None:
        """A long body that is damaged, or missing, costs the messages that share it."""
        row = self.row("SELECT min(id) FROM body")
        for statement in (
            "UPDATE body SET record = CAST(x'00' || substr(record, 2) AS BLOB) WHERE id = ?",
            "UPDATE body SET record = 'text' WHERE id = ?",
            "DELETE FROM body WHERE id = ?",
        ):
            self.assertEqual(self.lost(self.damaged(statement, row)), 2)
            self.assertEqual(sum(damage.messages for damage in self.report.damage), 2)

    def test_definition_of_a_queue(self) -> None:
        """A queue whose definition is damaged is not there; its messages are set aside and counted."""
        found = self.damaged("UPDATE definition SET record = CAST(record || x'00' AS BLOB) WHERE kind = 3 AND id = 1")
        self.assertEqual(found, {"b": self.truth["b"]})
        self.assertEqual(sum(damage.messages for damage in self.report.damage), 40)

    def test_damaged_rows_are_kept_aside(self) -> None:
        """They are moved to a table of their own, for whoever wants to look at them."""
        directory = self.copy()
        execute(directory / "broker.db", "UPDATE message SET checksum = 0 WHERE id = (SELECT min(id) FROM message)")
        self.restore(directory)
        rows = execute(directory / "broker.db", "SELECT origin, origin_id, length(record) > 0 FROM damaged")
        self.assertEqual(rows, [("message", self.row("SELECT min(id) FROM message"), 1)])

    def test_count_of_deliveries(self) -> None:
        """If the count is not known any more, the message counts as redelivered."""
        queue = self.host.vhost.queue("a")
        entries = [entry for entry in (queue.get(no_ack=False) for _ in range(2)) if entry is not None]
        queue.requeue(entries)
        self.stop(self.host)
        execute(self.directory / "broker.db", "UPDATE returned SET delivery_count = 77")
        host = self.start()
        self.assertEqual([entry.delivery_count for entry in host.vhost.queue("a").ready_entries()[:3]], [1, 1, 0])
        self.assertEqual(len(self.report.damage), 2)


class CutTests(DamageTestCase):
    """F56: a write that was torn: the log is as long as the crash left it."""

    def test_log_cut_anywhere(self) -> None:
        """Whatever of the log's tail is missing: what was committed before it is all there, nothing else."""
        wal = self.directory / "broker.db-wal"
        ends: list[tuple[int, int]] = []
        for number in range(12):
            self.fill(3, number * 3)
            ends.append((wal.stat().st_size, 3 * (number + 1)))
        random_lengths = random.Random(56)
        lengths = {random_lengths.randrange(ends[0][0], ends[-1][0] + 1) for _ in range(40)}
        for length in sorted(lengths | {size + by for size, _ in ends for by in (-1, 0, 1, 24, 25)}):
            directory = self.copy()
            with (directory / "broker.db-wal").open("r+b") as file:
                file.truncate(min(length, ends[-1][0]))
            found = self.restore(directory)
            committed = max((count for size, count in ends if size <= length), default=0)
            for name in ("a", "b"):
                self.assertEqual(found.get(name, []), self.truth[name][:committed], f"cut at {length}")
            self.assertEqual(self.report.damage, [], f"cut at {length}")

    def test_garbage_behind_the_log(self) -> None:
        """Octets behind the last commit are nothing."""
        self.fill()
        directory = self.copy()
        with (directory / "broker.db-wal").open("ab") as file:
            file.write(random.Random(1).randbytes(10_000))
        self.assertEqual(self.restore(directory), self.truth)

    def test_missing_log(self) -> None:
        """Without the log the broker starts with what the file has."""
        self.fill()
        directory = self.copy()
        (directory / "broker.db-wal").unlink()
        self.restore(directory)

    def test_file_cut(self) -> None:
        """A file that lost its end is repaired as far as it goes."""
        self.fill(200)
        self.stop(self.host)
        size = (self.directory / "broker.db").stat().st_size
        for length in (size - 1, size - 4096, size // 2, 4096 * 9):
            directory = self.copy()
            with (directory / "broker.db").open("r+b") as file:
                file.truncate(length)
            found = self.restore(directory)
            self.assertTrue(self.report.damage)
            if length > size // 2:
                self.assertLess(self.lost(found), 50)


class FlipTests(DamageTestCase):
    """F56, C7.4: a bit that changed on the disk."""

    def flip(self, path: Path, offset: int, mask: int) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            octet = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([octet ^ mask]))

    def test_flips_in_the_log(self) -> None:
        """Commits behind a changed octet are lost, and that is said; those before it are there."""
        self.fill(1)
        ends = []
        for number in range(1, 10):
            self.fill(1, number)
            ends.append((self.directory / "broker.db-wal").stat().st_size)
        chance = random.Random(5656)
        for _ in range(30):
            directory = self.copy()
            offset = chance.randrange(ends[-1])
            self.flip(directory / "broker.db-wal", offset, 1 << chance.randrange(8))
            found = self.restore(directory)
            before = sum(end <= offset for end in ends)
            if self.lost(found):
                self.assertTrue(self.report.damage, f"offset {offset}")
            if before:
                self.assertGreaterEqual(len(found["a"]), 1 + before)

    def check_flips(self, seed: int, count: int, size: int) -> None:
        """Flip one bit of the database file, `count` times at random; nothing wrong may come of it."""
        self.fill(size)
        self.stop(self.host)
        pages = (self.directory / "broker.db").stat().st_size // 4096
        chance = random.Random(seed)
        lost = []
        for _ in range(count):
            directory = self.copy()
            offset = chance.randrange(pages) * 4096 + chance.choice((chance.randrange(120), chance.randrange(4096)))
            self.flip(directory / "broker.db", offset, 1 << chance.randrange(8))
            try:
                found = self.restore(directory)
            except BaseException:
                print(f"seed {seed}, offset {offset}")  # noqa: T201 -- what to repeat
                raise
            lost.append(self.lost(found))
            if lost[-1]:
                self.assertTrue(self.report.damage, f"offset {offset}")
        # One bit costs a row or a page; a page that leads to others, what is below it.
        self.assertLess(sorted(lost)[len(lost) // 2], 5)

    def test_flips_in_the_file(self) -> None:
        """Some of them."""
        self.check_flips(1, 40, 40)

    @pytest.mark.long
    def test_many_flips_in_the_file(self) -> None:
        """Many of them, in a larger file."""
        self.check_flips(2, 1500, 400)

    def test_every_octet_of_the_header(self) -> None:
        """The first 100 octets, one after the other: all the data is there each time."""
        self.fill(5)
        self.stop(self.host)
        for offset in range(100):
            directory = self.copy()
            self.flip(directory / "broker.db", offset, 0x11)
            self.assertEqual(self.restore(directory), self.truth, f"offset {offset}")

    def test_schema(self) -> None:
        """The page with the schema can be made again."""
        self.fill(5)
        self.stop(self.host)
        content = (self.directory / "broker.db").read_bytes()[:4096]
        for name in (b"CREATE TABLE message", b"message", b"INTEGER PRIMARY"):
            directory = self.copy()
            self.flip(directory / "broker.db", content.index(name) + 1, 0x20)
            self.assertEqual(self.restore(directory), self.truth, f"{name!r}")
        directory = self.copy()
        with (directory / "broker.db").open("r+b") as file:
            file.write(bytes(4096))
        self.assertEqual(self.restore(directory), self.truth)
        self.assertTrue(self.report.damage)
        self.assertTrue(list(directory.glob("broker.db-damaged-*")))

    def test_pages_of_zeros(self) -> None:
        """Whichever page is lost as a whole, the broker starts."""
        self.fill(60)
        self.stop(self.host)
        pages = (self.directory / "broker.db").stat().st_size // 4096
        for page in range(1, pages):
            directory = self.copy()
            with (directory / "broker.db").open("r+b") as file:
                file.seek(page * 4096)
                file.write(bytes(4096))
            found = self.restore(directory)
            if self.lost(found):
                self.assertTrue(self.report.damage, f"page {page}")


class RefusedTests(DamageTestCase):
    """What is not to be repaired."""

    def test_later_version(self) -> None:
        """Is not touched."""
        self.fill(1)
        self.stop(self.host)
        execute(self.directory / "broker.db", "CREATE TABLE news (id INTEGER PRIMARY KEY)")
        execute(self.directory / "broker.db", "PRAGMA user_version = 2")
        before = (self.directory / "broker.db").read_bytes()
        self.failureResultOf(self.make().load(self.host), StoreTooNew)
        self.assertEqual((self.directory / "broker.db").read_bytes(), before)

    def test_later_version_in_the_log(self) -> None:
        """The same where the file has not heard of it yet."""
        self.fill(1)
        self.host.store._database.connection.execute("PRAGMA user_version = 2")
        directory = self.copy()
        self.failureResultOf(self.make(directory).load(self.host), StoreTooNew)
        self.assertEqual(execute(directory / "broker.db", "PRAGMA user_version"), [(2,)])

    def test_other_database(self) -> None:
        """A database that is not ours is not touched."""
        self.stop(self.host)
        other = self.directory.with_name("other.db")
        execute(other, "CREATE TABLE t (a)")
        execute(other, "INSERT INTO t VALUES (1)")
        for content in (b"hello" * 5000, b"x", other.read_bytes()):
            (self.directory / "broker.db").write_bytes(content)
            self.failureResultOf(self.make().load(self.host), StoreDamaged)
            self.assertEqual((self.directory / "broker.db").read_bytes(), content)


class ReadableRowsTests(DamageTestCase):
    """The scan around what cannot be read."""

    def test_page_in_the_middle(self) -> None:
        """Rows on both sides of a page that is no page are found."""
        self.fill(300)
        self.stop(self.host)
        path = self.directory / "broker.db"
        rows = execute(path, "SELECT id FROM message ORDER BY id")
        content = path.read_bytes()
        at = content.index(b"150 150 150")
        with path.open("r+b") as file:
            file.seek(at // 4096 * 4096)
            file.write(b"\xff" * 8)
        connection = connect(path)
        self.addCleanup(connection.close)
        found = list(readable_rows(connection, "message"))
        numbers = [row[0] for row in found if row is not None]
        self.assertEqual(numbers, sorted(numbers))
        self.assertEqual(found.count(None), 1)
        self.assertEqual((numbers[0], numbers[-1]), (rows[0][0], rows[-1][0]))
        self.assertLess(len(rows) - len(numbers), 30)
