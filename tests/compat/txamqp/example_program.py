"""Run a published example of txamqp with our modules in the place of txamqp's: its imports are changed from outside.

python example_program.py FILE ARGUMENT...
"""

from __future__ import annotations

import importlib
import runpy
import sys
import types

MODULES = ("client", "content", "delegate", "endpoint", "factory", "message", "protocol", "queue", "spec")


def main() -> None:
    package = types.ModuleType("txamqp")
    sys.modules["txamqp"] = package
    for name in MODULES:
        ours = importlib.import_module(f"txmsg.compat.txamqp.{name}")
        sys.modules[f"txamqp.{name}"] = ours
        setattr(package, name, ours)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
