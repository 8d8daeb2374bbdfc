"""Programs as Python source, to be kept among those of `fixed`."""

from __future__ import annotations

from dataclasses import fields

from tests.conformance.differential.steps import Call, Now, Program, Step
from txmsg.wire.layout import Method

__all__ = ["program_source"]


def program_source(program: Program) -> str:
    """An expression for `program`; defaults are left out."""
    steps = "".join(f"    {_step(step)},\n" for step in program.steps)
    return f"Program({program.name!r}, (\n{steps}))"


def _step(step: Step) -> str:
    if isinstance(step, Call):
        return f"Call({step.at!r}, {_method(step.method)})"
    if isinstance(step, Now):
        return f"Now(({', '.join(_step(each) for each in step.steps)},))"
    given = []
    for index, each in enumerate(fields(step)):
        value = getattr(step, each.name)
        if index < 3 and each.name in ("at", "exchange", "routing_key", "seconds", "octets"):
            given.append(repr(value))
        elif value != each.default and not (each.name == "properties" and not value):
            given.append(f"{each.name}={value!r}")
    return f"{type(step).__name__}({', '.join(given)})"


def _method(method: Method) -> str:
    kind = type(method)
    try:
        usual = kind()
    except TypeError:
        usual = None
    given = []
    for argument in method.ARGUMENTS:
        value = getattr(method, argument.name)
        if usual is None or value != getattr(usual, argument.name):
            given.append(f"{argument.name}={value!r}")
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}({', '.join(given)})"
