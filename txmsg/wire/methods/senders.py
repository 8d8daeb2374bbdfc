"""Who may send a method: the values of `SENT_BY`."""

from __future__ import annotations

from typing import Final

from txmsg.wire.constants import Role

__all__ = ["BOTH", "CLIENT", "SERVER"]

CLIENT: Final = frozenset({Role.CLIENT})
SERVER: Final = frozenset({Role.SERVER})
BOTH: Final = CLIENT | SERVER
