"""Content types and charsets as strangers write them.

A media type (RFC 2045 section 5.1) may have parameters and any case; the part before them decides which decoder runs.
A charset comes from the peer and is looked up in a list: Python's own look-up knows codecs that decompress (bz2, zlib)
or whose cost is quadratic (punycode, idna), and imports modules by the name it is given.
"""

from __future__ import annotations

import re
from encodings.aliases import aliases
from typing import Final, NamedTuple

from txmsg.errors import DecodeError, clip

__all__ = [
    "BINARY_ENCODINGS",
    "RAW_TYPE",
    "TEXT_TYPE",
    "TRUSTED_TYPES",
    "MediaType",
    "decode_text",
    "parse_media_type",
]

#: Octets as they are; what a message without a content type is taken for.
RAW_TYPE: Final = "application/data"
#: A str as it is.
TEXT_TYPE: Final = "text/plain"
#: What is handed out without any deserializer, so that every accept list lets it through.
TRUSTED_TYPES: Final = frozenset({RAW_TYPE, "application/text", TEXT_TYPE})
#: Values of content_encoding that say: not text.
BINARY_ENCODINGS: Final = frozenset({"binary", "ascii-8bit"})

#: Those that nearly all messages have, so that nothing of them is parsed again.
_COMMON: Final = (
    *sorted(TRUSTED_TYPES),
    "application/json",
    "application/x-msgpack",
    "application/x-yaml",
    "application/x-python-serialize",
)
_PARAMETER_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_CHARSET = re.compile(
    r"utf_(8(_sig)?|(16|32)(_[bl]e)?)|ascii|latin_1|iso8859_\d{1,2}|cp\d{3,4}|koi8_[rtu]|mac_[a-z]+|gbk?|gb2312|gb18030"
    r"|big5(hkscs)?|euc_(jp|jis_2004|jisx0213|kr)|shift_jis(_2004|x0213)?|iso2022_(jp(_\d|_2004|_ext)?|kr)|hz|johab"
    r"|tis_620|kz1048|ptcp154|hp_roman8"
)


class MediaType(NamedTuple):
    """A content type: `name` in lower case without parameters, and its `charset` parameter, "" if there is none."""

    name: str
    charset: str


#: None is no content type at all.
_KNOWN: Final[dict[str | bytes | None, MediaType]] = {
    None: MediaType(RAW_TYPE, ""),
    **{name: MediaType(name, "") for name in _COMMON},
}


def parse_media_type(content_type: str | bytes | None) -> MediaType:
    """What a content type says; nothing, or None, is :data:`RAW_TYPE`."""
    known = _KNOWN.get(content_type)
    return _parse(content_type) if known is None else known


def _parse(content_type: str | bytes | None) -> MediaType:
    if isinstance(content_type, bytes):
        content_type = content_type.decode("ascii", "replace")
    if not content_type:
        return MediaType(RAW_TYPE, "")
    name, semicolon, _ = content_type.partition(";")
    found = _PARAMETER_CHARSET.search(content_type) if semicolon else None
    return MediaType(name.strip().lower() or RAW_TYPE, found[1] if found else "")


def decode_text(body: bytes, charset: str) -> str:
    """The text of a body; DecodeError for an unknown charset, or octets that are none of its text."""
    normal = re.sub(r"[^a-z0-9]+", "_", charset[:40].lower())
    normal = aliases.get(normal, normal)
    if not _CHARSET.fullmatch(normal):
        raise DecodeError(f"unknown charset {clip(charset)!r}")
    try:
        return body.decode(normal)
    except LookupError:
        raise DecodeError(f"unknown charset {clip(charset)!r}") from None
    except UnicodeError as error:
        raise DecodeError(f"a body that is not {normal}") from error
