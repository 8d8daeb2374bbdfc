"""Which host is tried next.

Targets come as a URL, several of them, "url;url" or ConnectionParameters.  A name with several addresses is several
hosts: one silent address then costs one attempt, and each is verified under the name.  They are tried in rounds: every
host once, without a pause, then the back-off.  A host that refused us is left out until its time has passed.

Invariants: names are looked up anew in each round.  After a loss the dead host comes last; in a shuffled round, and
among the addresses of a name, those that failed when they were last tried come after those that did not.
No error shows any part of a URL that could hold a password.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import random as default_random
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from txmsg.amqp import uri
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.recovery.failures import Verdict
from txmsg.amqp.sasl import CredentialsSource, is_loopback, may_cross_a_network, plaintext_refusal
from txmsg.amqp.secret import Secret
from txmsg.errors import ConfigurationError, ConnectFailed, ConnectTimeout, clip

__all__ = ["Host", "HostList", "Target", "check_plaintext", "parameters_of"]

#: One target: a URL, or several with ";" between them, or parameters.
Target = str | Secret | ConnectionParameters

#: Where a ";" divides URLs: one may be part of a query or, to be lenient, of a password.
_DIVIDER = re.compile(r";(?=\s*(?:amqps?://|$))")


def parameters_of(
    targets: Target | Sequence[Target], credentials: CredentialsSource | None, connection_name: str
) -> list[ConnectionParameters] | ConfigurationError:
    """Return the parameters of each target, or the error; it is not raised, see `uri.parse`.

    credentials: in place of those in the targets.   connection_name: "" for those of the targets.
    """
    common: dict[str, Any] = {"connection_attempts": 1}
    if credentials is not None:
        common["credentials"] = credentials
    if connection_name:
        common["connection_name"] = connection_name
    given = [targets] if isinstance(targets, str | Secret | ConnectionParameters) else targets
    if not isinstance(given, Sequence):
        return ConfigurationError(f"targets must be URLs or ConnectionParameters, not {type(given).__name__}")
    found: list[ConnectionParameters] = []
    try:
        for each in given:
            if isinstance(each, ConnectionParameters):
                found.append(each.replace(**common))
                continue
            if not isinstance(each, str | Secret):
                return ConfigurationError(f"a target must be a URL or ConnectionParameters, not {type(each).__name__}")
            for url in _DIVIDER.split(each.reveal() if isinstance(each, Secret) else each):
                if not url.strip() and found:
                    continue  # after a ";" at the end
                arguments = uri.parse(url.strip())
                if isinstance(arguments, ConfigurationError):
                    return arguments
                if ";" in str(arguments.get("host")):
                    return ConfigurationError('of URLs with ";" between them each needs its amqp:// or amqps://')
                found.append(ConnectionParameters(**(arguments | common)))
    except ConfigurationError as error:
        text = str(error)
    else:
        return found or ConfigurationError("there is no target to connect to")
    return ConfigurationError(text)


def check_plaintext(parameters: ConnectionParameters) -> None:
    """Raise ConfigurationError for a password that would cross a network in the clear (C1.8)."""
    p = parameters
    exposed = p.tls is None and not is_loopback(p.host) and not p.allow_plaintext_auth
    if exposed and not may_cross_a_network(p.credentials):
        raise ConfigurationError(plaintext_refusal(p.host))


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """One place to connect to.

    parameters: ConnectionParameters.   address: str | None -- the IP address; None: not looked up (yet).
    """

    parameters: ConnectionParameters
    address: str | None = None

    @property
    def key(self) -> tuple[int, str | None]:
        """What makes two of them the same host."""
        return id(self.parameters), self.address

    def __str__(self) -> str:
        host = clip(self.parameters.host, 80)
        name = f"{f'[{host}]' if ':' in host else host}:{self.parameters.port}"
        return name if self.address in (None, host) else f"{name} ({self.address})"


class HostList:
    """The hosts, and where in the round over them we are.

    order: "shuffle" -- each round in a new random order; "listed" -- as given, after a loss from the next one on.
    endpoint: a callable from parameters to what to connect with, in place of TCP; names are not looked up then.
    """

    def __init__(
        self,
        targets: list[ConnectionParameters],
        reactor: Any,
        *,
        order: str = "shuffle",
        endpoint: Callable[[ConnectionParameters], IStreamClientEndpoint] | None = None,
        random: Callable[[], float] = default_random,
    ) -> None:
        if order not in ("shuffle", "listed"):
            raise ConfigurationError(f'order must be "shuffle" or "listed", not {clip(repr(order), 40)}')
        if endpoint is None:
            for parameters in targets:
                check_plaintext(parameters)
        self.targets = targets
        self._reactor = reactor
        self._is_shuffled = order == "shuffle"
        self._endpoint = endpoint
        self._random = random
        self._round: deque[Host] = deque()
        #: What the names meant when they were last looked up, by the id of the parameters.
        self._addresses: dict[int, list[str]] = {}
        #: Until when a host is left out, by its key, in seconds of the clock.
        self._held: dict[tuple[int, str | None], float] = {}
        #: Those that did not take us when they were last tried, and why.
        self._failed: dict[tuple[int, str | None], Verdict] = {}
        self._dead: Host | None = None

    def add(self, targets: list[ConnectionParameters]) -> None:
        """More targets, behind the others, from the next round on.  ConfigurationError as at the start."""
        if self._endpoint is None:
            for parameters in targets:
                check_plaintext(parameters)
        self.targets.extend(targets)

    # -- rounds ------------------------------------------------------------------------------------

    def begin_round(self, dead: Host | None = None) -> None:
        """Begin anew.  dead: the host that has just been lost; it comes last."""
        hosts = [Host(parameters) for parameters in self.targets]
        self._dead = dead
        index = next((i for i, host in enumerate(hosts) if dead and host.parameters is dead.parameters), None)
        if self._is_shuffled:
            last = [] if index is None else [hosts.pop(index)]
            hosts = sorted(self._shuffled(hosts), key=self._has_failed) + last
        elif index is not None:
            hosts = hosts[index + 1 :] + hosts[: index + 1]
        self._round = deque(hosts)
        now = self._reactor.seconds()
        known = self._known_keys()
        self._failed = {key: verdict for key, verdict in self._failed.items() if key in known}
        self._held = {key: until for key, until in self._held.items() if until > now}

    @property
    def has_more(self) -> bool:
        """Whether the round goes on: some host that is not left out has not had its turn."""
        return any(not self._hold_of(host) for host in self._round)

    def _known_keys(self) -> set[tuple[int, str | None]]:
        return {key for parameters in self.targets for key in self._keys(Host(parameters))}

    def pick(self) -> Host:
        """Take the next host, of a new round if this one is over.  Without an address: `look_up` it."""
        if not self._round:
            self.begin_round()
        free = [host for host in self._round if not self._hold_of(host)]
        # When all are left out, the caller has not waited; then it is the one whose time comes first.
        chosen = free[0] if free else min(self._round, key=self._hold_of)
        self._round.remove(chosen)
        return chosen

    def hold(self, host: Host, seconds: float) -> None:
        """Leave a host out for a while."""
        self._held[host.key] = self._reactor.seconds() + seconds

    def release(self) -> None:
        """Leave nobody out any longer."""
        self._held.clear()

    def failed(self, host: Host, verdict: Verdict) -> bool:
        """It has not taken us; return whether it said the same last time.

        It comes after those that have not failed, so that a silent one costs its time once.
        """
        is_again = self._failed.get(host.key) is verdict
        self._failed[host.key] = verdict
        return is_again

    def worked(self, host: Host) -> None:
        """It has taken us."""
        self._held.pop(host.key, None)
        self._failed.pop(host.key, None)

    def wait(self) -> float:
        """Return the seconds until the first host may be tried again; 0 if one may now."""
        return min(self._hold_of(Host(parameters)) for parameters in self.targets)

    def _hold_of(self, host: Host) -> float:
        """For how long a host is left out; a name, as long as all its addresses are."""
        now: float = self._reactor.seconds()
        return min(max(0.0, self._held.get(key, 0.0) - now) for key in self._keys(host))

    def _has_failed(self, host: Host) -> bool:
        return all(key in self._failed for key in self._keys(host))

    def _keys(self, host: Host) -> list[tuple[int, str | None]]:
        """A host's key; those of all its addresses for a name that has been looked up before."""
        known = self._addresses.get(id(host.parameters)) if host.address is None else None
        return [host.key] if not known else [(id(host.parameters), address) for address in known]

    def _shuffled(self, hosts: list[Host]) -> list[Host]:
        drawn = [(self._random(), index) for index in range(len(hosts))]
        return [hosts[index] for _, index in sorted(drawn)]

    # -- addresses ---------------------------------------------------------------------------------

    def look_up(self, host: Host, limit: float) -> Deferred[Host]:
        """Find the addresses of a host's name; fires with the first, and puts the others into the round.

        Fails with ConnectFailed (no such name), ConnectTimeout.   limit: seconds.
        """
        name = host.parameters.host
        is_known = host.address is not None or isIPAddress(name) or isIPv6Address(name)
        resolver = IReactorPluggableNameResolver(self._reactor, None)
        if is_known or self._endpoint is not None or resolver is None or not name.isascii():
            return succeed(host)
        lookup = _Lookup()
        resolver.nameResolver.resolveHostName(lookup, name, host.parameters.port)
        found: Deferred[list[str]] = lookup.found.addTimeout(limit, self._reactor, self._took_too_long)
        return found.addCallback(self._looked_up, host)

    def _took_too_long(self, outcome: object, limit: float) -> Any:
        if isinstance(outcome, list):
            return outcome
        raise ConnectTimeout(f"the name lookup did not end within {limit:g} s")

    def _looked_up(self, addresses: list[str], host: Host) -> Host:
        if not addresses:
            raise ConnectFailed(f"unknown host: the name {clip(host.parameters.host)!r} has no address")
        self._addresses[id(host.parameters)] = addresses = list(dict.fromkeys(addresses))
        hosts = [Host(host.parameters, address) for address in addresses]
        free = [each for each in hosts if not self._hold_of(each)]
        if not free:
            raise ConnectFailed(f"each address of {clip(host.parameters.host)!r} has refused us; they are left alone")
        if self._is_shuffled:
            free = self._shuffled(free)
        free.sort(key=self._has_failed)
        dead = None if self._dead is None else self._dead.key
        free.sort(key=lambda each: each.key == dead)  # its name is the last of the round
        self._round.extendleft(reversed(free))
        return self._round.popleft()

    def endpoint_of(self, host: Host) -> IStreamClientEndpoint | None:
        """What to connect with; None: the parameters' host and port."""
        if self._endpoint is not None:
            try:
                return self._endpoint(host.parameters)
            except Exception as error:  # trying again will not mend the application's code
                raise ConfigurationError(f"the endpoint callable failed ({type(error).__name__})") from error
        if host.address is None:
            return None
        return _AddressEndpoint(self._reactor, host)


@implementer(IResolutionReceiver)
class _Lookup:
    """Collects the addresses of one name.   found: Deferred -- fires with them; may be cancelled."""

    def __init__(self) -> None:
        self.found: Deferred[list[str]] = Deferred(self._cancel)
        self._addresses: list[str] = []
        self._resolution: IHostResolution | None = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Twisted: it can be cancelled now, perhaps."""
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        """Twisted: one more."""
        host = getattr(address, "host", None)
        if isinstance(host, str):
            self._addresses.append(host)

    def resolutionComplete(self) -> None:
        """Twisted: that was all."""
        if not self.found.called:
            self.found.callback(self._addresses)

    def _cancel(self, found: Deferred[list[str]]) -> None:
        # Twisted's own resolver asks in a thread, which it cannot stop; its answer is not heard then.
        if self._resolution is not None:
            with suppress(NotImplementedError):
                self._resolution.cancel()
        if not found.called:
            found.errback(CancelledError())


@implementer(IStreamClientEndpoint)
class _AddressEndpoint:
    """TCP to one address of a name.   where: for messages."""

    def __init__(self, reactor: Any, host: Host) -> None:
        assert host.address is not None
        kind = TCP6ClientEndpoint if ":" in host.address else TCP4ClientEndpoint
        self._tcp = kind(reactor, host.address, host.parameters.port, timeout=None)  # type: ignore[arg-type]
        self.where = str(host)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Twisted: connect; our limits are outside."""
        return self._tcp.connect(protocolFactory)
