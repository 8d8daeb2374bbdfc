"""symbol_by_name: a class or function from its name, as settings and plug-ins give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from txmsg.errors import ConfigurationError, clip

__all__ = ["symbol_by_name"]


class _NoDefault:
    """Where None is a default."""


_NO_DEFAULT: Final = _NoDefault()


def symbol_by_name(
    name: Any,
    aliases: Mapping[str, Any] | None = None,
    imp: Callable[..., Any] | None = None,
    package: str | None = None,
    sep: str = ".",
    default: Any = _NO_DEFAULT,
) -> Any:
    """What a name stands for: "package.module:Name", or "package.module.Name".

    name -- what is no text is returned as it is.   aliases -- short names, and what they stand for, names or objects.
    imp(module, package=...) -- imports a module; None: importlib.import_module.
    package: str | None -- what a name that begins with a dot is relative to.
    sep: str -- what stands before the last part, where there is no colon.
    default -- returned where the module or the name is not there; without it:

    ImportError: there is no such module.   AttributeError: it has no such name.   ConfigurationError: an empty name.
    The name must not come from a stranger: importing runs code.
    """
    found: Any = aliases[name] if isinstance(name, str) and aliases and name in aliases else name
    if not isinstance(found, str):
        return found
    module, _, symbol = found.rpartition(":" if ":" in found else sep)
    if not module and not package:
        module, symbol = symbol, ""  # a module alone
    if not (module or symbol):
        raise ConfigurationError(f"{clip(repr(name))} names nothing: give package.module:Name")
    try:
        loaded = (imp or import_module)(module if module.strip(".") else package or "", package=package)
        return getattr(loaded, symbol) if symbol else loaded
    except (ImportError, AttributeError):
        if isinstance(default, _NoDefault):
            raise
        return default
