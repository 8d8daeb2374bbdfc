"""Users: how they prove who they are, and what each may do."""

#: Everything is taken from the modules.
__all__: list[str] = []
