"""Stage 1: bytes to AMQP 0-9-1 methods and back, as a pure function of bytes and state.

Nothing here imports Twisted or does I/O, so the same code serves the client, the embedded broker and tests.

From the bottom up: `constants`, `primitives` (strings and moments), `tables` (field tables, with `field_values`,
`table_reader` and `table_writer`), `layout` (declared arguments to codec, made fast by `compiler`), `methods` (the
64 methods), `properties` (the 14 properties of a content); then frames, contents, states and the connection.

The invariant of the package: for any bytes the answer is a value or one
:class:`~txmsg.errors.RemoteProtocolError`; for any Python value it is bytes or one
:class:`~txmsg.errors.EncodeError`, and then nothing was sent.
"""

#: Everything is taken from the modules.
__all__: list[str] = []
