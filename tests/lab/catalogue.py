"""All rows: importing their modules is what registers them."""

from __future__ import annotations

from tests.lab.rows import ROWS
from tests.lab.simulated import load, network, process, protocol

__all__ = ["ROWS"]

#: Where rows come from.
MODULES = (process, network, protocol, load)
