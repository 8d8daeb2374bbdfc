"""Users: who may log in, with which password, and what each may do.

Passwords are kept as scrypt hashes with a salt of their own (C7.2), or as the salted hashes that RabbitMQ's
definitions files hold.  The invariants:

- a refusal takes the same work for a user that does not exist, one without a password, and a wrong password;
- hashes are compared in constant time;
- no more than one scrypt runs at a time, so that strangers cannot fill the memory with logins;
- a password is nowhere but in the frame that checks it: not kept, not shown by any repr().

There is one user at first, guest with the password guest and all permissions; whoever logs in with it must be on this
machine.  https://www.rabbitmq.com/docs/access-control#loopback-users
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed

from txmsg.broker.addresses import LOCAL, is_loopback
from txmsg.broker.users.permissions import Permissions
from txmsg.errors import ConfigurationError, clip

__all__ = ["ALGORITHMS", "DEFAULT_USER", "PERMISSION", "SCRYPT", "SCRYPT_COST", "USER", "Hidden", "User", "Users"]

_T = TypeVar("_T")

#: The kinds of settings that users are kept as.
USER: Final = "user"
PERMISSION: Final = "permission"

DEFAULT_USER: Final = "guest"

#: scrypt's N: with r = 8 this is 16 MiB and about 50 ms for each login.
SCRYPT_COST: Final = 1 << 14
_SCRYPT_R: Final = 8
_SCRYPT_MEMORY: Final = 1 << 28

#: RabbitMQ's names for the algorithms in a definitions file; and ours.
_DIGESTS: Final = {
    "rabbit_password_hashing_sha256": "sha256",
    "rabbit_password_hashing_sha512": "sha512",
    "rabbit_password_hashing_md5": "md5",
}
SCRYPT: Final = "txmsg_scrypt"
ALGORITHMS: Final = (SCRYPT, *_DIGESTS)
_RABBITMQ_SALT: Final = 4


class Hidden(bytes):
    """Octets that no log shows: a password on its way to being checked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Hidden('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in.

    name: str.
    tags: tuple of str -- "administrator", "monitoring", "management" mean something to the management API, none
        means anything to AMQP.
    password_hash: str -- as :meth:`Users.add_hash` takes it; "" for none.  Not shown.
    hashing_algorithm: str -- one of :data:`ALGORITHMS`.
    """

    name: str
    tags: tuple[str, ...] = ()
    password_hash: str = field(default="", repr=False)
    hashing_algorithm: str = SCRYPT


class _StoredPassword:
    """A password's hash.  algorithm: str -- one of :data:`ALGORITHMS`.  text: str -- as it is kept in a file."""

    __slots__ = ("_check", "algorithm", "text")

    def __init__(self, algorithm: str, text: str) -> None:
        self.algorithm = algorithm
        self.text = text
        if algorithm == SCRYPT:
            cost, salt, digest = _scrypt_parts(text)
            self._check: Callable[[bytes], bool] = lambda password: hmac.compare_digest(
                _scrypt(password, salt, cost), digest
            )
        elif algorithm in _DIGESTS:
            salted = _decoded(text)
            head, tail, name = salted[:_RABBITMQ_SALT], salted[_RABBITMQ_SALT:], _DIGESTS[algorithm]
            if len(tail) != hashlib.new(name, usedforsecurity=False).digest_size:
                raise ConfigurationError(f"the password hash is no {name} hash as RabbitMQ writes them")
            self._check = lambda password: hmac.compare_digest(
                hashlib.new(name, head + password, usedforsecurity=False).digest(), tail
            )
        else:
            raise ConfigurationError(
                f"the password hash algorithm {clip(algorithm)!r} is none of {', '.join(ALGORITHMS)}"
            )

    @classmethod
    def of(cls, password: bytes, cost: int) -> _StoredPassword:
        salt = secrets.token_bytes(16)
        parts = (str(cost), _encoded(salt), _encoded(_scrypt(password, salt, cost)))
        return cls(SCRYPT, "$".join(parts))

    def matches(self, password: bytes, dummy: _StoredPassword) -> bool:
        """Whether it is this one; at the cost of one scrypt, whatever the algorithm and the answer."""
        if self.algorithm != SCRYPT:
            dummy._check(password)
        return self._check(password)

    def __repr__(self) -> str:
        return f"<a password's {self.algorithm} hash>"


class _Account:
    """All that is known of one user."""

    __slots__ = ("former", "password", "permissions", "proof", "user")

    def __init__(self, user: User, password: _StoredPassword | None) -> None:
        self.user = user
        self.password = password
        #: A keyed digest of the password that was right last time, so that the next login is quick.
        self.proof: bytes | None = None
        self.permissions: dict[str, Permissions] = {}
        #: Those that were taken away, which open connections still look at: they may be given back.
        self.former: dict[str, Permissions] = {}


class Users:
    """The users of a broker.

    default_user: bool -- whether guest exists, with the password guest and all permissions in "/".  Default True.
    cost: int -- scrypt's N, a power of two from 2 up.  Tests may choose a small one; default :data:`SCRYPT_COST`.
    run -- how to run a function that takes long, in a thread if there are threads: called with the function, returns
        its result or a Deferred of it.  Default: at once, in place.  The broker sets it.

    loopback_only: set of str -- who may log in from this machine only, whatever the password; {"guest"} at first, and
        only the operator changes it.
    changed: callable, or None -- called as changed(kind, name, value) after every change, for whoever keeps the
        users; kind is :data:`USER` or :data:`PERMISSION`, value a dict for :meth:`restore`, None for what is gone.
    """

    def __init__(
        self,
        *,
        default_user: bool = True,
        cost: int = SCRYPT_COST,
        run: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._cost = cost
        self.run = run
        self.changed: Callable[[str, str, dict[str, Any] | None], object] | None = None
        self.loopback_only: set[str] = {DEFAULT_USER}
        self._accounts: dict[str, _Account] = {}
        self._lock = DeferredLock()
        self._proof_key = secrets.token_bytes(32)
        #: What the passwords of those who do not exist are compared with.
        self._dummy = _StoredPassword.of(secrets.token_bytes(16), cost)
        self._default: User | None = None
        if default_user:
            self._default = self.add(DEFAULT_USER, DEFAULT_USER, ["administrator"])
            self.set_permissions(DEFAULT_USER, "/")

    # -- users ---------------------------------------------------------------------------------------------

    def add(self, name: str, password: str | None, tags: Iterable[str] = ()) -> User:
        """Add a user, or give one another password and other tags; permissions stay.

        password: str or None -- None for one that cannot log in with a password (but with EXTERNAL).

        ConfigurationError for a name that cannot be one.
        """
        stored = None if password is None else _StoredPassword.of(_octets(password), self._cost)
        del password
        return self._put(name, stored, tags)

    def add_hash(
        self, name: str, password_hash: str, algorithm: str = "rabbit_password_hashing_sha256", tags: Iterable[str] = ()
    ) -> User:
        """The same with a hash as RabbitMQ's definitions have it (base64), or as :meth:`password_hash` gives it.

        An empty hash is a user that cannot log in with a password.  ConfigurationError for one that is none.
        """
        return self._put(name, _StoredPassword(algorithm, password_hash) if password_hash else None, tags)

    def add_random(self, name: str, tags: Iterable[str] = ()) -> str:
        """Add a user with a random password of 128 bits, and return it: to be shown once, or kept in a 0600 file."""
        password = secrets.token_urlsafe(16)
        self.add(name, password, tags)
        return password

    def delete(self, name: str) -> bool:
        """Remove a user and all its permissions; says whether there was one.  (The broker ends its connections.)"""
        account = self._accounts.get(name)
        if account is None:
            return False
        for vhost in list(account.permissions):
            self.clear_permissions(name, vhost)
        del self._accounts[name]
        self._tell(USER, name, None)
        return True

    @property
    def has_default_user(self) -> bool:
        """Whether there is guest as it was made at first."""
        return self._default is not None and self.get(DEFAULT_USER) is self._default

    def tell_default_user(self) -> None:
        """Tell :attr:`changed` of guest and of what it may do; nothing if it is not there as it was made at first."""
        if self._default is None or not self.has_default_user:
            return
        self._tell_user(self._default)
        for vhost, patterns in self.permissions_of(DEFAULT_USER).items():
            self.set_permissions(DEFAULT_USER, vhost, *patterns)

    def get(self, name: str) -> User | None:
        """The user of that name."""
        account = self._accounts.get(name)
        return None if account is None else account.user

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._accounts)

    @property
    def has_remote(self) -> bool:
        """Whether anybody could log in from another machine."""
        return any(name not in self.loopback_only for name in self._accounts)

    def _put(self, name: str, stored: _StoredPassword | None, tags: Iterable[str]) -> User:
        _check_name(name)
        text, algorithm = ("", SCRYPT) if stored is None else (stored.text, stored.algorithm)
        user = User(name, tuple(tags), text, algorithm)
        account = self._accounts.get(name)
        if account is None:
            self._accounts[name] = _Account(user, stored)
        else:
            account.user, account.password, account.proof = user, stored, None
        self._tell_user(user)
        return user

    def _tell_user(self, user: User) -> None:
        value = {"hash": user.password_hash, "algorithm": user.hashing_algorithm, "tags": list(user.tags)}
        self._tell(USER, user.name, value)

    def _tell(self, kind: str, name: str, value: dict[str, Any] | None) -> None:
        if self.changed is not None:
            self.changed(kind, name, value)

    def restore(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        """Take back what :attr:`changed` was told once.  ConfigurationError for what it never was."""
        changed, self.changed = self.changed, None
        problem = ""
        try:
            if kind == USER:
                self.add_hash(name, value["hash"], value["algorithm"], value["tags"])
            elif kind == PERMISSION:
                self.set_permissions(*(str(value[key]) for key in ("user", "vhost", "configure", "write", "read")))
            else:
                problem = "unknown kind"
        except (KeyError, TypeError) as error:
            problem = repr(error)
        finally:
            self.changed = changed
        if problem:
            raise ConfigurationError(f"the setting {clip(kind)!r} {clip(name)!r} cannot be used: {problem}")

    # -- logging in ----------------------------------------------------------------------------------------

    def may_come_from(self, name: str, host: str) -> bool:
        """Whether a user may log in from `host`, the address of the peer itself (C7.1)."""
        return name not in self.loopback_only or is_loopback(host)

    def check(self, name: str, password: str | bytes, peer_host: str = LOCAL) -> Deferred[User | None]:
        """Fire with the user if the password is right, with None for whatever else is wrong.

        peer_host: str -- the address it comes from; default: this process.

        Takes about 50 ms in a thread, and waits for others that are being checked.  May be cancelled.
        """
        octets = Hidden(password if isinstance(password, bytes) else _octets(password))
        del password
        account = self._accounts.get(name)
        proof = hmac.digest(self._proof_key, octets, "sha256")
        if account is not None and account.proof is not None and hmac.compare_digest(account.proof, proof):
            return succeed(account.user if self.may_come_from(name, peer_host) else None)
        stored = None if account is None else account.password
        matches = self._dummy.matches if stored is None else stored.matches

        def judge(is_right: bool) -> User | None:
            # It may have been changed meanwhile.
            now = self._accounts.get(name)
            if not is_right or stored is None or now is None or now.password is not stored:
                return None
            now.proof = proof
            return now.user if self.may_come_from(name, peer_host) else None

        verdict: Deferred[bool] = self._one_at_a_time(lambda: matches(octets, self._dummy))
        return verdict.addCallback(judge)

    def _one_at_a_time(self, work: Callable[[], _T]) -> Deferred[_T]:
        run = self.run

        def begin(lock: DeferredLock) -> Deferred[_T]:
            done: Deferred[_T] = maybeDeferred(work) if run is None else maybeDeferred(run, work)
            verdict: Deferred[_T] = Deferred()

            def release(result: Any) -> Any:
                lock.release()
                return result

            # Of a login that is given up only the verdict is cancelled: a thread cannot be stopped, and until it is
            # done no other may begin.
            done.addBoth(release).addCallbacks(verdict.callback, verdict.errback)
            return verdict

        # A login that is given up while it waits costs nothing more: cancelling takes it out of the queue.
        return self._lock.acquire().addCallback(begin)

    # -- permissions ---------------------------------------------------------------------------------------

    def set_permissions(
        self, name: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> Permissions:
        """Let a user into a virtual host, with these patterns; open connections see the change.

        ConfigurationError for a user there is not, and for a pattern that is no regular expression.
        """
        account = self._accounts.get(name)
        if account is None:
            raise ConfigurationError(f"there is no user {clip(name)!r}")
        permissions = account.permissions.get(vhost) or account.former.get(vhost)
        if permissions is None:
            permissions = Permissions(name, vhost, configure, write, read)
        else:
            permissions.set(configure, write, read)
            account.former.pop(vhost, None)
        account.permissions[vhost] = permissions
        value = {"user": name, "vhost": vhost, "configure": configure, "write": write, "read": read}
        self._tell(PERMISSION, _permission_name(name, vhost), value)
        return permissions

    def clear_permissions(self, name: str, vhost: str) -> bool:
        """Shut a user out of a virtual host; says whether it was in."""
        account = self._accounts.get(name)
        permissions = None if account is None else account.permissions.pop(vhost, None)
        if permissions is None:
            return False
        permissions.clear()
        assert account is not None
        account.former[vhost] = permissions
        self._tell(PERMISSION, _permission_name(name, vhost), None)
        return True

    def clear_vhost(self, vhost: str) -> None:
        """A virtual host is gone: so are all permissions in it."""
        for name, account in self._accounts.items():
            self.clear_permissions(name, vhost)
            account.former.pop(vhost, None)  # its connections are closed

    def permissions(self, name: str, vhost: str) -> Permissions | None:
        """What a user may do in a virtual host; None: it may not even connect to it."""
        account = self._accounts.get(name)
        return None if account is None else account.permissions.get(vhost)

    def permissions_of(self, name: str) -> dict[str, tuple[str, str, str]]:
        """A user's (configure, write, read), by virtual host."""
        account = self._accounts.get(name)
        found = {} if account is None else account.permissions
        return {vhost: (given.configure, given.write, given.read) for vhost, given in sorted(found.items())}

    def all_permissions(self) -> list[Permissions]:
        """All there are, by user and virtual host."""
        return [
            account.permissions[vhost]
            for _, account in sorted(self._accounts.items())
            for vhost in sorted(account.permissions)
        ]

    def __repr__(self) -> str:
        return f"<Users: {len(self._accounts)}>"


def _permission_name(user: str, vhost: str) -> str:
    return f"{user}\0{vhost}"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or "\0" in name or len(name.encode("utf-8", "surrogateescape")) > 255:
        raise ConfigurationError("a user's name is a text of 1 to 255 octets without NUL")


def _octets(password: str) -> Hidden:
    return Hidden(password.encode("utf-8", "surrogateescape"))


def _scrypt(password: bytes, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=cost, r=_SCRYPT_R, p=1, maxmem=_SCRYPT_MEMORY, dklen=32)


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise ConfigurationError("the password hash is no base64")


def _scrypt_parts(text: str) -> tuple[int, bytes, bytes]:
    parts = text.split("$")
    if len(parts) == 3 and parts[0].isdecimal() and len(parts[0]) < 9:
        cost, salt, digest = int(parts[0]), _decoded(parts[1]), _decoded(parts[2])
        if 2 <= cost <= 1 << 20 and not cost & (cost - 1) and salt and len(digest) == 32:
            return cost, salt, digest
    raise ConfigurationError("the password hash is no scrypt hash of this broker")
