"""Queues: what waits in them and in which order, who gets it, when it expires, and where it goes when it dies."""

#: Everything is taken from the modules.
__all__: list[str] = []
