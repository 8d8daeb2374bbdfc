"""Who asks the management API, and what a tag allows.

https://www.rabbitmq.com/docs/management#permissions.  `management` may look at the virtual hosts it has permissions
in, and change there what AMQP would let it change; `policymaker` may also change policies; `monitoring` sees
everything; `administrator` may also change virtual hosts, users, permissions and definitions.
"""

from __future__ import annotations

import enum
from typing import Final

from txmsg.broker.users.credentials import User, Users
from txmsg.broker.users.permissions import Permissions

__all__ = ["Level", "Visitor"]


class Level(enum.IntEnum):
    """How much a visitor may do; each includes those before it."""

    NOTHING = 0
    MANAGEMENT = 1
    POLICYMAKER = 2
    MONITORING = 3
    ADMINISTRATOR = 4


_LEVELS: Final = {
    "management": Level.MANAGEMENT,
    "policymaker": Level.POLICYMAKER,
    "monitoring": Level.MONITORING,
    "administrator": Level.ADMINISTRATOR,
}

#: What RabbitMQ says to somebody who is below a level.
REFUSALS: Final = {
    Level.MANAGEMENT: "Not management user",
    Level.POLICYMAKER: "Not policymaker user",
    Level.MONITORING: "Not monitor user",
    Level.ADMINISTRATOR: "Not administrator user",
}


class Visitor:
    """A user who has logged in to the management API."""

    def __init__(self, user: User, users: Users) -> None:
        self.user = user
        self.name = user.name
        self._users = users
        self.levels = {_LEVELS[tag] for tag in user.tags if tag in _LEVELS}

    def is_at_least(self, level: Level) -> bool:
        """Whether a tag allows what needs `level`."""
        # Monitoring and policymaker stand beside each other: neither includes the other.
        if level is Level.POLICYMAKER:
            return bool(self.levels & {Level.POLICYMAKER, Level.ADMINISTRATOR})
        return any(own >= level for own in self.levels)

    def permissions(self, vhost: str) -> Permissions | None:
        """What it may do in a virtual host by AMQP's rules; None if it has no access."""
        return self._users.permissions(self.name, vhost)

    def has_access(self, vhost: str) -> bool:
        """Whether it has any permissions there."""
        return self.permissions(vhost) is not None

    def may_see(self, vhost: str) -> bool:
        """Whether lists show it what is there."""
        return self.is_at_least(Level.MONITORING) or self.has_access(vhost)

    def __repr__(self) -> str:
        return f"<Visitor {self.name!r}>"
