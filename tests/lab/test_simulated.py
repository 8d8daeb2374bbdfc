"""The lab's rows in the simulator: F1 to F10, F12 to F15, F22, F24, F25, F27, F30 to F37, F43."""

from __future__ import annotations

import pytest

from tests.lab.__main__ import run_here
from tests.lab.catalogue import ROWS
from tests.lab.rows import chosen

_SIMULATED = [name for name, row in ROWS.items() if row.harness == "SIM"]


@pytest.mark.parametrize("name", _SIMULATED)
def test_quick(name: str) -> None:
    """R1 to R4, R9, R11 to R14, R16, R17, R25, R28, R30.

    F1 to F10, F12 to F15, F22, F24, F25, F27, F30 to F32, F34, F36, F37, F43, F52, F54, F57, F58.
    """
    run_here(name, "txmsg", is_long=False)


@pytest.mark.long
@pytest.mark.parametrize("name", _SIMULATED)
def test_long(name: str) -> None:
    """The same with many more seeds, and at each octet."""
    run_here(name, "txmsg", is_long=True)


def test_choice() -> None:
    assert [row.name for row in chosen(["F8:SIM"], False)] == ["F8:SIM"]
    assert {row.fault for row in chosen(["F8"], False)} == {"F8"}
    assert all(row.is_quick for row in chosen([], False))
    with pytest.raises(KeyError, match="F99"):
        chosen(["F99"], False)
