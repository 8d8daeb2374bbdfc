"""Virtual hosts: what is declared in them, how it is bound, and how a publish finds its queues."""

#: Everything is taken from the modules.
__all__: list[str] = []
