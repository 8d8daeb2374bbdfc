"""Drop-ins for code that moves in: the old import changes, the rest of the program stays.

- `txmsg.compat.pika`: pika's Twisted adapter (`pip install txmsg[pika]`);
- `txmsg.compat.txamqp`: txamqp.

Each stands on `txmsg.amqp` and nothing else stands on them.  They are a bridge: what is new is better written
with `txmsg.amqp` itself.
"""

from __future__ import annotations

__all__: list[str] = []
