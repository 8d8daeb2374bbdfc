"""A client's connection: its opening, its octets in and out, its heartbeats, and how it ends."""

#: Everything is taken from the modules.
__all__: list[str] = []
