"""All rows: importing their modules is what registers them."""

from __future__ import annotations

from tests.lab import clustered, load, network, process
from tests.lab.rows import ROWS
from tests.lab.simulated import load as simulated_load
from tests.lab.simulated import network as simulated_network
from tests.lab.simulated import process as simulated_process
from tests.lab.simulated import protocol as simulated_protocol

__all__ = ["ROWS"]

#: Where rows come from.
MODULES = (simulated_process, simulated_network, simulated_protocol, simulated_load, process, network, clustered, load)
