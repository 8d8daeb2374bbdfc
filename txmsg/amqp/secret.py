"""Text and bytes that must not be seen: passwords, tokens, pass phrases, SASL responses.

Invariant (C3.1): a :class:`Secret` shows its text to nobody but the caller of :meth:`Secret.reveal`.  Not in
`repr()`, `str()`, a format, a pickle, nor in a verbose traceback (Twisted's `Failure(captureVars=True)` prints the
`repr()` of every local variable on the way).  The last is why our code holds secrets in these types and never in a
local variable of type `str`.
"""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

from txmsg.errors import ConfigurationError

__all__ = ["REDACTED", "Secret", "SecretBytes"]

#: What is shown in place of a secret.
REDACTED = "***"


class Secret:
    """A text that is only shown on request.

    value: str or Secret -- the text; anything else is a ConfigurationError that does not show it.

    Two secrets are equal when their texts are (compared in constant time); an empty one is false.  Copies are the
    object itself.  Pickling raises TypeError: a secret that ends in a file is none.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, value: str | Secret) -> None:
        text = value._text if isinstance(value, Secret) else value
        problem = _problem(text)
        if problem:
            del value, text  # the locals of a frame that raises can be printed
            raise ConfigurationError(problem)
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text.  Use it where it is needed; do not keep it in a variable."""
        return self._text

    def reveal_bytes(self) -> SecretBytes:
        """Return the text as UTF-8."""
        return SecretBytes(self._text.encode("utf-8"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({REDACTED!r})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode("utf-8"), other._text.encode("utf-8"))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not pickled: it would be readable in the pickle")


class SecretBytes(bytes):
    """Bytes that go to the wire but not into a log: `repr()`, `str()` and formats are redacted.

    They are real bytes otherwise, so that the codec can take them as they are.  Slices and sums are plain `bytes`.
    """

    __slots__ = ()

    def reveal(self) -> bytes:
        """Return plain bytes."""
        return bytes(memoryview(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({REDACTED!r})"

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __copy__(self) -> SecretBytes:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SecretBytes:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} are not pickled: they would be readable in the pickle")


def _problem(text: object) -> str:
    """Return what is wrong with a secret's text ("" for nothing), without showing it."""
    if not isinstance(text, str):
        return f"a secret must be a str, not {type(text).__name__}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # carries the text, so it must not be raised or chained
        return "a secret must be valid Unicode: it holds a lone surrogate"
    return ""
