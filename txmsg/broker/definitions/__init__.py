"""Definitions: what a broker can be given from a file, in the JSON of RabbitMQ, and policies."""

#: Everything is taken from the modules.
__all__: list[str] = []
