"""Authentication: what the SASL mechanisms carry, and how long a refusal takes.

PLAIN (RFC 4616), AMQPLAIN (RabbitMQ's table with LOGIN and PASSWORD) and EXTERNAL (the user is whom the verified
client certificate names).  https://www.rabbitmq.com/docs/access-control#mechanisms

Invariant (4.4, C7.2): who is refused learns it late, later each time, and learns nothing else: not whether the user
exists, nor which rule refused it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.defer import Deferred, succeed

from txmsg.broker.interfaces import Clock
from txmsg.broker.users.credentials import Hidden, User, Users
from txmsg.errors import RemoteProtocolError, TxmsgError, clip
from txmsg.wire.tables import decode_table

__all__ = ["AMQPLAIN", "EXTERNAL", "PLAIN", "LoginDelays", "LoginRefused", "authenticate", "offered_mechanisms"]

PLAIN: Final = "PLAIN"
AMQPLAIN: Final = "AMQPLAIN"
EXTERNAL: Final = "EXTERNAL"

#: Addresses whose failed logins are remembered; beyond it the oldest is forgotten.
_MAX_ADDRESSES: Final = 1024

#: Seconds without a failed login after which an address begins anew.
_FORGIVEN_AFTER: Final = 300.0


class LoginRefused(TxmsgError):
    """Why a login is refused, for our log; the client is told less."""


def offered_mechanisms(certificate_name: str | None) -> list[str]:
    """What a connection may log in with, in RabbitMQ's order; EXTERNAL where its client certificate names a user."""
    return [AMQPLAIN, PLAIN] if certificate_name is None else [EXTERNAL, AMQPLAIN, PLAIN]


def authenticate(
    users: Users, mechanism: str, response: bytes, peer_host: str, certificate_name: str | None = None
) -> Deferred[User]:
    """Fire with the user who may log in; fail with :class:`LoginRefused`.

    mechanism: one of those offered.  response: the octets of start-ok.
    peer_host: str -- where the connection comes from.
    certificate_name: str or None -- whom the verified client certificate names.
    """
    response = Hidden(response)
    if mechanism == EXTERNAL and certificate_name is not None:
        named = users.get(certificate_name)
        checked: Deferred[User | None] = succeed(named)
        name = certificate_name
    else:
        try:
            name, password = _read_plain(response) if mechanism == PLAIN else _read_amqplain(response)
        except LoginRefused as error:
            refused: Deferred[User] = Deferred()
            refused.errback(error)
            return refused
        checked = users.check(name, password, peer_host)

    def judge(user: User | None) -> User:
        if not users.may_come_from(name, peer_host):
            raise LoginRefused(f"user {clip(name)!r} can only connect via localhost")
        if user is None:
            raise LoginRefused(f"user {clip(name)!r}: invalid credentials")
        return user

    return checked.addCallback(judge)


def _read_plain(response: bytes) -> tuple[str, Hidden]:
    """The user and the password: NUL user NUL password."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        raise LoginRefused("the PLAIN response is not NUL user NUL password")
    return parts[1].decode("utf-8", "surrogateescape"), Hidden(parts[2])


def _read_amqplain(response: bytes) -> tuple[str, Hidden]:
    """The user and the password: a field table without its length."""
    data = Hidden(len(response).to_bytes(4, "big") + response)
    problem = ""
    try:
        table, _ = decode_table(data, 0, len(data), "AMQPLAIN response")
    except RemoteProtocolError:
        problem = "the AMQPLAIN response is no field table"
    if problem:
        raise LoginRefused(problem)
    name, password = table.pop("LOGIN", None), table.pop("PASSWORD", None)
    if not isinstance(name, str) or not isinstance(password, str):
        del password
        raise LoginRefused("the AMQPLAIN response has no LOGIN and PASSWORD")
    return name, Hidden(password.encode("utf-8", "surrogateescape"))


class LoginDelays:
    """How long the next refusal takes, by address: doubled with each, until somebody there gets it right.

    clock -- in seconds.  first, highest: float -- seconds.
    """

    __slots__ = ("_clock", "_failures", "_first", "_highest")

    def __init__(self, clock: Clock, first: float, highest: float) -> None:
        self._clock = clock
        self._first = first
        self._highest = highest
        #: address -> (failures, when the last one was), the oldest first.
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def failed(self, address: str) -> float:
        """A login from `address` was refused: the seconds after which it is to be told so."""
        now = self._clock.seconds()
        count, last = self._failures.pop(address, (0, now))
        if now - last > _FORGIVEN_AFTER:
            count = 0
        self._failures[address] = (count + 1, now)
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return min(self._first * 2.0 ** min(count, 32), self._highest)

    def succeeded(self, address: str) -> None:
        """Somebody there knows a password."""
        self._failures.pop(address, None)
