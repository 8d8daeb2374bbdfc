"""Permissions: what a user may configure, write to and read from in one virtual host.

https://www.rabbitmq.com/docs/access-control#authorisation.  Three patterns, searched for anywhere in the name unless
they have anchors, as RabbitMQ's are; an empty one matches the empty name only, which no resource has, because the
default exchange goes by "amq.default".

Invariant (C7.5): every check is made against the patterns as they are at that moment; a change is seen by the next
check on every connection.  Patterns come from the operator, never from a client (C7.6).
"""

from __future__ import annotations

import re
from typing import Final

from txmsg.broker import faults
from txmsg.errors import ConfigurationError, clip

__all__ = ["CONFIGURE", "DEFAULT_EXCHANGE", "READ", "WRITE", "Permissions"]

CONFIGURE: Final = 0
WRITE: Final = 1
READ: Final = 2

#: The name under which the default exchange is checked.
DEFAULT_EXCHANGE: Final = "amq.default"

#: Verdicts kept; beyond it they are forgotten.
_MAX_CACHED: Final = 1024


class Permissions:
    """One user's patterns for one virtual host.

    user, vhost: str -- for the texts.
    configure, write, read: str -- regular expressions; the default allows everything.
    version: int -- grows with each change, for whoever keeps verdicts.

    ConfigurationError for a pattern that is no regular expression.
    """

    __slots__ = ("_patterns", "_texts", "_verdicts", "user", "version", "vhost")

    def __init__(self, user: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        self.user = user
        self.vhost = vhost
        self.version = 0
        self._verdicts: dict[tuple[int, str], bool] = {}
        self.set(configure, write, read)

    @classmethod
    def everything(cls, user: str = "", vhost: str = "/") -> Permissions:
        """What code in the broker's own process has."""
        return cls(user, vhost)

    def set(self, configure: str, write: str, read: str) -> None:
        """Replace the patterns; from now on these hold, on open connections too."""
        patterns = tuple(_compile(text) for text in (configure, write, read))
        self._texts: tuple[str, str, str] = (configure, write, read)
        self._patterns = patterns
        self._verdicts.clear()
        self.version += 1

    def clear(self) -> None:
        """Take everything away."""
        self.set("", "", "")

    @property
    def configure(self) -> str:
        """The pattern of what may be declared and deleted."""
        return self._texts[CONFIGURE]

    @property
    def write(self) -> str:
        """The pattern of what may be published to, and be bound to something."""
        return self._texts[WRITE]

    @property
    def read(self) -> str:
        """The pattern of what may be consumed from, and be bound from."""
        return self._texts[READ]

    def allows(self, operation: int, name: str) -> bool:
        """Whether the pattern for `operation` (CONFIGURE, WRITE, READ) matches `name`."""
        key = (operation, name)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._patterns[operation].search(name or DEFAULT_EXCHANGE) is not None
            if len(self._verdicts) >= _MAX_CACHED:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        return verdict

    def check_configure(self, kind: str, name: str) -> None:
        """Raise the Fault 403 unless the user may declare and delete this `kind` ("queue", "exchange")."""
        if not self.allows(CONFIGURE, name):
            raise self._refusal(kind, name)

    def check_write(self, kind: str, name: str) -> None:
        """Raise the Fault 403 unless the user may publish to it, or bind it to something."""
        if not self.allows(WRITE, name):
            raise self._refusal(kind, name)

    def check_read(self, kind: str, name: str) -> None:
        """Raise the Fault 403 unless the user may take messages from it, or bind something to it."""
        if not self.allows(READ, name):
            raise self._refusal(kind, name)

    def _refusal(self, kind: str, name: str) -> faults.Fault:
        if kind == "exchange" and not name:
            name = DEFAULT_EXCHANGE
        return faults.access_refused(self.user, kind, name, self.vhost)

    def __repr__(self) -> str:
        return f"<Permissions of {clip(self.user)!r} in {clip(self.vhost)!r}>"


def _compile(text: str) -> re.Pattern[str]:
    if not text:
        text = "^$"
    # PCRE's name for the very end; Python's own differs.
    try:
        return re.compile(text.replace(r"\z", r"\Z"))
    except re.error as error:
        problem = str(error)
    raise ConfigurationError(f"the permission pattern {clip(text)!r} is no regular expression: {problem}")
