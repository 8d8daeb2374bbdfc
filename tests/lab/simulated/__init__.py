"""Rows in the simulator: everything in one process, on one clock, each choice from a seed."""

__all__: list[str] = []
