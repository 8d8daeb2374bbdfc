"""URLs of brokers: ``transport://userid:password@hostname:port/virtual_host?option=value``.

What is decided here where the tradition is unclear (kombu A10 to A14):

- Every part may be left out, and one that is left out is not the same as an empty one: ``amqp://h`` says nothing of the
  virtual host, ``amqp://h/`` names the empty one, ``amqp://h//`` and ``amqp://h/%2F`` name "/", ``amqp://h//foo`` names
  "/foo": exactly one slash is taken away.
- Each part is percent-decoded once, as UTF-8.  A "+" is itself, but in the query it is a space.
- ``;`` separates URLs only where the next URL begins, so in a password it is itself.
- An IPv6 address is in brackets.  A fragment is refused: a # in a password must be %23.

Invariant: no error, repr or local variable of a frame that raises shows a part of the URL that may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.connection.hidden import MASK, HiddenText

__all__ = ["BrokerURL", "host_and_port", "parse_url", "split_urls"]

#: RFC 3986 section 3.1.
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*"
_NEXT_URL: Final = re.compile(rf";\s*(?={_SCHEME}://)")
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([^:]*))?")


@dataclass(frozen=True, slots=True)
class BrokerURL:
    """The parts of a URL, decoded; None for one that is not there.

    scheme: str -- in small letters.   hostname, userid, password: str | None.   port: int | None.
    virtual_host: str | None -- "" is the empty one.   options: the query, each key with its text.
    """

    scheme: str
    hostname: str | None = None
    port: int | None = None
    userid: str | None = None
    password: HiddenText | None = field(default=None, repr=False)
    virtual_host: str | None = None
    options: dict[str, str] = field(default_factory=dict, repr=False, hash=False)

    def as_uri(self, include_password: bool = False, mask: str = MASK) -> str:
        """The URL, with `mask` in place of the password; include_password: with everything, the query too."""
        text = [f"{self.scheme}://"]
        if self.userid is not None or self.password is not None:
            text.append(quote(self.userid or "", safe=""))
            if self.password is not None:
                text.append(f":{quote(self.password, safe='') if include_password else mask}")
            text.append("@")
        if self.hostname:
            text.append(f"[{self.hostname}]" if ":" in self.hostname else quote(self.hostname, safe=""))
        if self.port is not None:
            text.append(f":{self.port}")
        if self.virtual_host is not None:
            # Behind a scheme such as redis+socket the path is one of a file system, or of another library.
            text.append(f"/{quote(self.virtual_host, safe='/' if '+' in self.scheme else '')}")
        if include_password and self.options:
            text.append("?" + "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in self.options.items()))
        return "".join(text)

    def __str__(self) -> str:
        return self.as_uri()


def split_urls(urls: str | Iterable[str]) -> list[HiddenText]:
    """The URLs, or names of hosts, in one text with ``;`` between them, or in a list of such texts; at least one.

    ConfigurationError for anything else, which is not shown.
    """
    texts = [urls] if isinstance(urls, str) else list(urls) if isinstance(urls, Iterable) else [urls]
    if not all(isinstance(text, str) for text in texts):
        problem = f"a URL is a str, not {next(type(text).__name__ for text in texts if not isinstance(text, str))}"
        del urls, texts
        raise ConfigurationError(problem)
    found: list[HiddenText] = []
    for text in texts:
        pieces = _NEXT_URL.split(text) if "://" in text else text.split(";")
        found.extend(HiddenText(piece.strip().rstrip(";")) for piece in pieces)
    found = [piece for piece in found if piece]
    del urls, texts
    if not found:
        raise ConfigurationError("there is no URL")
    return found


def parse_url(url: str) -> BrokerURL:
    """Take a URL apart.  ConfigurationError says what is wrong, and shows none of it."""
    outcome = _outcome(url)
    del url
    if isinstance(outcome, ConfigurationError):
        raise outcome
    return outcome


def _outcome(url: object) -> BrokerURL | ConfigurationError:
    """The error is made anew: the frames of one that was raised hold the parts of the URL."""
    try:
        if not isinstance(url, str):
            return ConfigurationError(f"the URL must be a str, not {type(url).__name__}")
        return _parse(url)
    except ConfigurationError as error:
        text = str(error)
    except Exception as error:  # not expected; and what it says may quote the URL
        text = f"it cannot be read ({type(error).__name__})"
    return ConfigurationError(f"the URL cannot be used: {text}")


def _parse(url: str) -> BrokerURL:
    if not url.isprintable() or " " in url:
        raise ConfigurationError("it holds white space or a control character")
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(_SCHEME, scheme):
        raise ConfigurationError("it starts with its scheme, as in amqp://host/vhost")
    rest, question, query = rest.partition("?")
    if "#" in rest or "#" in query:
        raise ConfigurationError("it has no fragment: a # in a password or a virtual host must be written %23")
    authority, slash, path = rest.partition("/")
    if "@" in path or (question and "@" in query):
        raise ConfigurationError(
            "there is an @ behind the host: in a password, / must be written %2F and ? %3F, elsewhere @ is %40"
        )
    userinfo, at, address = authority.rpartition("@")
    if "@" in userinfo:
        raise ConfigurationError("there are two @ before the path: in a user name or password, @ is written %40")
    userid = password = None
    if at:
        name, colon, secret = userinfo.partition(":")
        if ":" in secret:
            raise ConfigurationError("there are two colons before the @: in a password, : is written %3A")
        userid = _decoded("user name", name)
        password = HiddenText(_decoded("password", secret)) if colon else None
    hostname, port = host_and_port(address)
    return BrokerURL(
        scheme=scheme.lower(),
        hostname=hostname,
        port=port,
        userid=userid or None,
        password=password,
        virtual_host=_decoded("virtual host", path) if slash else None,
        options=_options(query),
    )


def _decoded(what: str, value: str) -> str:
    """Percent-decode one part, once and strictly.  The error does not show it."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", value):
        raise ConfigurationError(f"there is a % without two hexadecimal digits in the {what}: % itself is %25")
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise ConfigurationError(f"the {what} is not UTF-8 when it is percent-decoded")


def host_and_port(address: str) -> tuple[str | None, int | None]:
    """Take ``host:port`` apart; None for what is not there.  The error does not show it: it may be a password."""
    match = _HOST.fullmatch(address)
    if match is None:
        raise ConfigurationError("the host and port cannot be read: an IPv6 address is written in brackets, [::1]:5672")
    host, port = match[1], match[2] or ""
    if port and not (re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) and 1 <= int(port) <= 65535):
        raise ConfigurationError("the port must be a number from 1 to 65535")
    host = _decoded("host", host)
    if host.startswith("["):
        host = host[1:-1]
        if ":" not in host:
            raise ConfigurationError("there is no IPv6 address in the brackets")
    elif re.search(r"[\s:;,/\[\]]", host):
        raise ConfigurationError(
            "that is no name of a host: write a list as amqp://one;amqp://two, an IPv6 address in brackets"
        )
    return host or None, int(port) if port else None


def _options(query: str) -> dict[str, str]:
    """The query's keys and decoded values; each key once."""
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        key, separator, value = pair.partition("=")
        key = _decoded("query", key.replace("+", " "))
        if not separator or not key:
            raise ConfigurationError("the query is written ?key=value&key=value")
        if key in options:
            raise ConfigurationError(f"the option {clip(key, 40)!r} is given twice")
        options[key] = _decoded(f"option {clip(key, 40)!r}", value.replace("+", " "))
    return options
