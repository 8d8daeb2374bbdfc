"""How much a compressed body may become (C4.1).

A compressed body says nothing true about its size: 79 octets of bzip2 hold 64 MiB.  So the output is bounded while it
is made, and not looked at afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from txmsg.errors import ConfigurationError

__all__ = ["DEFAULT_LIMITS", "DecompressionLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecompressionLimits:
    """Bounds of one decompression.

    max_size: int -- octets of output, 16 MiB unless set: the default of `max_message_size`, and of RabbitMQ 4.0.
    max_ratio: int -- octets of output for each octet of input, 200.  zlib reaches 1,032, and ordinary text 3 to 30.
    ratio_from: int -- outputs up to this many octets may have any ratio, 1 MiB: a table of zeros is no attack.
    """

    max_size: int = 16 * 2**20
    max_ratio: int = 200
    ratio_from: int = 2**20

    def __post_init__(self) -> None:
        for name in ("max_size", "max_ratio", "ratio_from"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigurationError(f"{name} is an int from 0, not {value!r}")

    def ceiling(self, size: int) -> int:
        """The most octets that a body of `size` octets may become."""
        return min(self.max_size, max(self.ratio_from, self.max_ratio * size))


#: What is used unless something else is given.
DEFAULT_LIMITS: Final = DecompressionLimits()
