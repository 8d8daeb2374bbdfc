"""The lab's rows with real nodes; two of them are quick enough for every run of the tests."""

from __future__ import annotations

import pytest

from tests.lab.__main__ import run_row
from tests.lab.catalogue import ROWS
from tests.rabbitmq import why_no_rabbitmq

pytestmark = pytest.mark.skipif(bool(why_no_rabbitmq()), reason=why_no_rabbitmq())

_QUICK = ["F1:REAL", "F36:REAL"]
_REAL = [name for name, row in ROWS.items() if row.harness != "SIM"]


@pytest.mark.parametrize("name", _QUICK)
def test_quick(name: str) -> None:
    """R3, R4, R9, R22, R25, F1, F36: RabbitMQ killed and restarted; queues deleted under their consumers."""
    assert run_row(ROWS[name], "txmsg", is_long=False) is not None


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", _REAL)
def test_long(name: str) -> None:
    """F1 to F3, F8 to F11, F13, F14, F16 to F21, F23, F25 to F27, F30, F36, F37, F50 to F53, F55, F58, R31."""
    assert run_row(ROWS[name], "txmsg", is_long=True) is not None
