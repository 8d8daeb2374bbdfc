"""Users: passwords kept as hashes, checked in constant time, and never shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import statistics
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.users import credentials
from txmsg.broker.users.credentials import PERMISSION, SCRYPT, USER, User, Users
from txmsg.errors import ConfigurationError


def rabbitmq_hash(password: str, algorithm: str = "sha256", salt: bytes = b"\x01\x02\x03\x04") -> str:
    digest = hashlib.new(algorithm, salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


class CheckTests(SynchronousTestCase):
    """Who gets in."""

    def checked(self, users: Users, name: str, password: str | bytes, host: str = "127.0.0.1") -> User | None:
        return self.successResultOf(users.check(name, password, host))

    def test_check(self) -> None:
        """The right password, and nothing else."""
        users = Users(cost=2, default_user=False)
        users.add("anna", "päss\0wort", ["monitoring"])
        users.add("nobody", None)
        found = self.checked(users, "anna", "päss\0wort")
        assert found is not None
        self.assertEqual((found.name, found.tags), ("anna", ("monitoring",)))
        self.assertIsNotNone(self.checked(users, "anna", "päss\0wort".encode()))
        for name, password in (
            ("anna", "wrong"),
            ("anna", ""),
            ("Anna", "päss\0wort"),
            ("", ""),
            ("nobody", ""),
            ("nobody", "None"),
            ("stranger", "x"),
        ):
            with self.subTest(name=name, password=password):
                self.assertIsNone(self.checked(users, name, password))

    def test_empty_password(self) -> None:
        """It is one like any other."""
        users = Users(cost=2, default_user=False)
        users.add("anna", "")
        self.assertIsNotNone(self.checked(users, "anna", ""))
        self.assertIsNone(self.checked(users, "anna", "x"))

    def test_default_user(self) -> None:
        """C7.1: guest, from this machine only, whatever its password, until the operator says otherwise."""
        users = Users(cost=2)
        self.assertEqual(users.names(), ["guest"])
        self.assertFalse(users.has_remote)
        self.assertIsNotNone(self.checked(users, "guest", "guest", "::1"))
        self.assertIsNone(self.checked(users, "guest", "guest", "192.168.0.1"))
        self.assertIsNone(self.checked(users, "guest", "guest", "::ffff:192.168.0.1"))
        self.assertIsNotNone(self.checked(users, "guest", "guest", "::ffff:127.0.0.1"))
        permissions = users.permissions("guest", "/")
        assert permissions is not None
        permissions.check_configure("queue", "q")
        users.add("guest", "other")
        users.delete("guest")
        users.add_hash("guest", rabbitmq_hash("guest"))
        self.assertFalse(users.has_remote)
        self.assertIsNone(self.checked(users, "guest", "guest", "192.168.0.1"))
        users.loopback_only.discard("guest")
        self.assertTrue(users.has_remote)
        self.assertIsNotNone(self.checked(users, "guest", "guest", "192.168.0.1"))
        self.assertEqual(Users(cost=2, default_user=False).names(), [])

    def test_rabbitmq_hashes(self) -> None:
        """The three kinds of RabbitMQ's definitions files."""
        users = Users(cost=2, default_user=False)
        for algorithm in ("sha256", "sha512", "md5"):
            users.add_hash(algorithm, rabbitmq_hash("secret", algorithm), f"rabbit_password_hashing_{algorithm}")
            self.assertIsNotNone(self.checked(users, algorithm, "secret"))
            self.assertIsNone(self.checked(users, algorithm, "wrong"))
        users.add_hash("none", "")
        self.assertIsNone(self.checked(users, "none", ""))
        # The example of RabbitMQ's page about passwords.
        users.add_hash("doc", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
        self.assertIsNotNone(self.checked(users, "doc", "test12"))

    def test_no_hashes(self) -> None:
        """What is no hash is refused when it is given."""
        users = Users(cost=2)
        for text, algorithm in (
            ("!!!", "rabbit_password_hashing_sha256"),
            (base64.b64encode(b"short").decode(), "rabbit_password_hashing_sha256"),
            (rabbitmq_hash("x"), "rabbit_password_hashing_sha512"),
            (rabbitmq_hash("x"), "plain"),
            ("16$AAAA", SCRYPT),
            ("17$AAAA$" + base64.b64encode(bytes(32)).decode(), SCRYPT),
            ("99999999$AAAA$" + base64.b64encode(bytes(32)).decode(), SCRYPT),
        ):
            with self.subTest(text=text, algorithm=algorithm), self.assertRaises(ConfigurationError):
                users.add_hash("u", text, algorithm)
        self.assertIsNone(users.get("u"))

    def test_hash_comes_back(self) -> None:
        """What get() shows for a file is what add_hash() takes."""
        users, others = Users(cost=2), Users(cost=2, default_user=False)
        users.add("anna", "secret", ["a", "b"])
        anna = users.get("anna")
        assert anna is not None
        self.assertEqual(anna.hashing_algorithm, SCRYPT)
        others.add_hash("anna", anna.password_hash, anna.hashing_algorithm, anna.tags)
        self.assertIsNotNone(self.checked(others, "anna", "secret"))

    def test_names(self) -> None:
        """A name is a text of 1 to 255 octets."""
        users = Users(cost=2)
        for name in ("", "a\0b", "x" * 256, None, b"x"):
            with self.subTest(name=name), self.assertRaises(ConfigurationError):
                users.add(name, "x")  # type: ignore[arg-type]

    def test_random(self) -> None:
        """C7.2: a password nobody has chosen."""
        users = Users(cost=2)
        first, second = users.add_random("a"), users.add_random("b")
        self.assertNotEqual(first, second)
        self.assertGreaterEqual(len(first), 22)
        self.assertIsNotNone(self.checked(users, "a", first))

    def test_changes_while_it_is_checked(self) -> None:
        """A user that is deleted, or gets another password, meanwhile is not let in with the old one."""
        for change in ("delete", "password"):
            with self.subTest(change=change):
                held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

                def run(work: Callable[[], Any], held: list[Any] = held) -> Deferred[Any]:
                    held.append((work, Deferred()))
                    done: Deferred[Any] = held[-1][1]
                    return done

                users = Users(cost=2, run=run)
                users.add("anna", "secret")
                checking = users.check("anna", "secret")
                work, done = held[0]
                answer = work()
                if change == "delete":
                    users.delete("anna")
                else:
                    users.add("anna", "another")
                done.callback(answer)
                self.assertIsNone(self.successResultOf(checking))

    def test_one_at_a_time(self) -> None:
        """However many log in, one scrypt runs; those who give up while they wait cost nothing (R36)."""
        held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

        def run(work: Callable[[], Any]) -> Deferred[Any]:
            held.append((work, Deferred()))
            return held[-1][1]

        users = Users(cost=2, run=run)
        checks = [users.check("guest", "wrong") for _ in range(10)]
        self.assertEqual(len(held), 1)
        for given_up in checks[1:9]:
            given_up.addErrback(lambda _: None)
            given_up.cancel()
        work, done = held[0]
        done.callback(work())
        self.assertIsNone(self.successResultOf(checks[0]))
        self.assertEqual(len(held), 2)
        work, done = held[1]
        done.callback(work())
        self.assertIsNone(self.successResultOf(checks[9]))
        self.assertEqual(len(held), 2)

    def test_cancelled_while_it_runs(self) -> None:
        """No other begins until the one that was given up is done: a thread cannot be stopped (R36)."""
        held: list[Deferred[Any]] = []

        def run(work: Callable[[], Any]) -> Deferred[Any]:
            held.append(Deferred())
            return held[-1]

        users = Users(cost=2, run=run)
        first = users.check("guest", "wrong").addErrback(lambda _: None)
        second = users.check("guest", "wrong")
        first.cancel()
        self.assertEqual(len(held), 1)
        held[0].callback(False)
        self.assertEqual(len(held), 2)
        held[1].callback(False)
        self.assertIsNone(self.successResultOf(second))


class EqualTimeTests(SynchronousTestCase):
    """C7.2: what is refused is refused by the same work."""

    def test_same_work(self) -> None:
        """Each refusal makes exactly one scrypt, of the same cost, and one comparison in constant time or more."""
        users = Users(cost=4)
        users.add("anna", "secret")
        users.add("nobody", None)
        users.add_hash("old", rabbitmq_hash("secret"))
        for name in ("anna", "stranger", "nobody", "old", ""):
            with (
                self.subTest(name=name),
                patch.object(hashlib, "scrypt", wraps=hashlib.scrypt) as scrypt,
                patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compare,
            ):
                self.assertIsNone(self.successResultOf(users.check(name, "wrong")))
                self.assertEqual([call.kwargs["n"] for call in scrypt.call_args_list], [4])
                self.assertGreaterEqual(compare.call_count, 1)

    def test_after_a_right_login(self) -> None:
        """The quick way is for the right password only: a wrong one costs as much as before."""
        users = Users(cost=4)
        self.assertIsNotNone(self.successResultOf(users.check("guest", "guest")))
        with patch.object(hashlib, "scrypt", wraps=hashlib.scrypt) as scrypt:
            self.assertIsNotNone(self.successResultOf(users.check("guest", "guest")))
            self.assertEqual(scrypt.call_count, 0)
            self.assertIsNone(self.successResultOf(users.check("guest", "wrong")))
            self.assertEqual(scrypt.call_count, 1)
            users.add("guest", "new")
            self.assertIsNone(self.successResultOf(users.check("guest", "guest")))
            self.assertEqual(scrypt.call_count, 3)

    def test_medians(self) -> None:
        """C7.2: over 1,000 tries the medians for a known and an unknown user are within 5 %."""
        users = Users(cost=64)
        users.add("anna", "secret")
        difference = 1.0
        for _ in range(5):  # on a machine that is busy with something else the medians may wander
            times: dict[str, list[float]] = {"anna": [], "stranger": []}
            for _ in range(1000):
                for name, seen in times.items():
                    begin = time.process_time()
                    self.successResultOf(users.check(name, "wrong"))
                    seen.append(time.process_time() - begin)
            known, unknown = (statistics.median(seen) for seen in times.values())
            difference = abs(known - unknown) / known
            if difference < 0.05:
                break
        self.assertLess(difference, 0.05)


class SecrecyTests(SynchronousTestCase):
    """C3.1: passwords are shown nowhere."""

    def test_reprs(self) -> None:
        """Neither the password nor its hash is in a repr()."""
        users = Users(cost=2)
        users.add("anna", "canary")
        anna = users.get("anna")
        assert anna is not None
        stored = users._accounts["anna"].password
        for shown in (repr(users), repr(anna), repr(stored), repr(vars(users))):
            self.assertNotIn("canary", shown)
            self.assertNotIn(anna.password_hash, shown)

    def test_hidden(self) -> None:
        """The octets on their way."""
        hidden = credentials.Hidden(b"canary")
        self.assertEqual(hidden, b"canary")
        for shown in (repr(hidden), str(hidden), f"{hidden}", f"{hidden!r}"):
            self.assertNotIn("canary", shown)

    def test_tracebacks(self) -> None:
        """A failure in the middle of a check, printed with all its locals, shows no password."""
        users = Users(cost=2)
        with patch.object(hashlib, "scrypt", side_effect=MemoryError("no")):
            failure = self.failureResultOf(users.check("guest", "canary"))
            self.assertNotIn("canary", failure.getTraceback(detail="verbose"))
        failure.cleanFailure()


class PermissionTests(unittest.TestCase):
    """Patterns by user and virtual host."""

    def test_permissions(self) -> None:
        """The same object for the same user and host, so that open connections see changes."""
        users = Users(cost=2)
        self.assertIsNone(users.permissions("guest", "v"))
        first = users.set_permissions("guest", "v", "^a", "^b", "^c")
        self.assertIs(users.permissions("guest", "v"), first)
        self.assertIs(users.set_permissions("guest", "v"), first)
        self.assertEqual(first.read, ".*")
        self.assertEqual(users.permissions_of("guest"), {"/": (".*",) * 3, "v": (".*",) * 3})
        self.assertEqual([p.vhost for p in users.all_permissions()], ["/", "v"])
        self.assertTrue(users.clear_permissions("guest", "v"))
        self.assertFalse(users.clear_permissions("guest", "v"))
        self.assertFalse(first.allows(0, "q"))
        with self.assertRaises(ConfigurationError):
            users.set_permissions("stranger", "/")
        with self.assertRaises(ConfigurationError):
            users.set_permissions("guest", "w", "(")
        self.assertIsNone(users.permissions("guest", "w"))

    def test_given_back(self) -> None:
        """C7.5: what was taken away and is given back holds on open connections, too."""
        users = Users(cost=2)
        given = users.permissions("guest", "/")
        assert given is not None
        users.clear_permissions("guest", "/")
        with self.assertRaises(ConfigurationError):
            users.set_permissions("guest", "/", "(")
        self.assertIsNone(users.permissions("guest", "/"))
        users.set_permissions("guest", "/", "^a")
        self.assertTrue(given.allows(0, "a"))
        users.clear_vhost("/")
        self.assertFalse(given.allows(0, "a"))
        self.assertIsNot(users.set_permissions("guest", "/"), given)

    def test_deleted(self) -> None:
        """With the user goes all it was allowed."""
        users = Users(cost=2)
        kept = users.permissions("guest", "/")
        assert kept is not None
        self.assertTrue(users.delete("guest"))
        self.assertFalse(users.delete("guest"))
        self.assertFalse(kept.allows(0, "q"))
        self.assertIsNone(users.permissions("guest", "/"))

    def test_password_keeps_permissions(self) -> None:
        """A new password changes nothing else."""
        users = Users(cost=2)
        before = users.permissions("guest", "/")
        users.add("guest", "new")
        self.assertIs(users.permissions("guest", "/"), before)


class KeepingTests(SynchronousTestCase):
    """Users that survive."""

    def test_told_and_restored(self) -> None:
        """What `changed` is told makes the same users again."""
        users = Users(cost=2)
        kept: dict[tuple[str, str], dict[str, Any]] = {}

        def changed(kind: str, name: str, value: dict[str, Any] | None) -> None:
            if value is None:
                del kept[kind, name]
            else:
                kept[kind, name] = value

        users.changed = changed
        users.add("anna", "secret", ["monitoring"])
        users.set_permissions("anna", "/", "^a", "", ".*")
        users.add("gone", "x")
        users.set_permissions("gone", "/")
        users.delete("gone")
        self.assertEqual([kind for kind, _ in kept], [USER, PERMISSION])
        others = Users(cost=2, default_user=False)
        others.changed = lambda *args: self.fail("restoring is no change")
        for (kind, name), value in kept.items():
            others.restore(kind, name, value)
        self.assertIsNotNone(self.successResultOf(others.check("anna", "secret")))
        self.assertEqual(others.permissions_of("anna"), {"/": ("^a", "", ".*")})

    def test_broken_settings(self) -> None:
        """They are refused one by one."""
        users = Users(cost=2)
        for kind, name, value in (
            ("other", "x", {}),
            (USER, "x", {}),
            (USER, "x", {"hash": "!", "algorithm": SCRYPT, "tags": []}),
            (PERMISSION, "x", {"user": "guest"}),
        ):
            with self.subTest(kind=kind, value=value), self.assertRaises(ConfigurationError):
                users.restore(kind, name, value)
