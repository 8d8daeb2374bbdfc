"""The options of a transport: settings that are in no URL, given by name (Kombu's `transport_options`).

Each transport documents its own.  One that it does not have is refused with the nearest that it has: a setting that is
misspelt must not be dropped in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from txmsg.errors import ConfigurationError, clip

__all__ = ["check_options"]


def check_options(what: str, options: Mapping[str, Any] | None, known: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `options`, none for None; for a transport's `connect`.

    what: the transport's name in an error, such as "memory://".   known: the options it has.
    ConfigurationError for one that it does not have, and for what is no mapping; values are never shown.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"the options of {what} are a mapping or None, not {type(options).__name__}")
    names = sorted(known)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(str(name).lower(), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            among = f" (there are {', '.join(names)})" if names else ": it has none"
            raise ConfigurationError(f"{what} has no option {clip(repr(name), 80)}{hint or among}")
    return dict(options)
