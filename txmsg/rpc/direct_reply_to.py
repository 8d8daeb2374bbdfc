"""Names of direct reply-to, as brokers put them into `reply_to` (https://www.rabbitmq.com/docs/direct-reply-to).

    amq.rabbitmq.reply-to.<base64 of an Erlang process id>.<base64>         RabbitMQ
    amq.rabbitmq.reply-to.<base64url, 22 characters>.<the same>             the embedded broker

The invariant: what is no such name is not answered.  RabbitMQ decodes the process id with binary_to_term
(https://www.erlang.org/doc/apps/erts/erl_ext_dist), and answers a name that it cannot decode by closing the whole
connection, with 541: a stranger's message would end the connection of everybody who answers it.  Pure.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Final

__all__ = ["DIRECT_REPLY_PREFIX", "is_direct_reply_to"]

DIRECT_REPLY_PREFIX: Final = "amq.rabbitmq.reply-to."

_OWN: Final = re.compile(r"[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{22}")
_RABBITMQ: Final = re.compile(r"([0-9A-Za-z+/]+={0,2})\.[0-9A-Za-z+/]+={0,2}")
#: Of the external term format: a term begins; the tags of process ids, and the octets behind their node.
_TERM: Final = 131
_PIDS: Final = {88: 12, 103: 9}
#: The tags of atoms, and the octets of their length.
_ATOMS: Final = {100: 2, 115: 1, 118: 2, 119: 1}


def is_direct_reply_to(name: str) -> bool:
    """Whether a broker can have made this name."""
    if not name.startswith(DIRECT_REPLY_PREFIX):
        return False
    rest = name[len(DIRECT_REPLY_PREFIX) :]
    if _OWN.fullmatch(rest):
        return True
    found = _RABBITMQ.fullmatch(rest)
    return found is not None and _is_process_id(found[1])


def _is_process_id(encoded: str) -> bool:
    try:
        term = b64decode(encoded, validate=True)
    except ValueError:
        return False
    if len(term) < 3 or term[0] != _TERM or term[1] not in _PIDS or term[2] not in _ATOMS:
        return False
    begin = 3 + _ATOMS[term[2]]
    node = int.from_bytes(term[3:begin], "big")
    try:
        term[begin : begin + node].decode("latin-1" if term[2] in (100, 115) else "utf-8")
    except UnicodeDecodeError:
        return False
    return 0 < node <= 255 and len(term) == begin + node + _PIDS[term[1]]
