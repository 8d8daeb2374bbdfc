"""The lab's workload with other clients, as their own documentation says to write it: columns to compare with."""

__all__: list[str] = []
