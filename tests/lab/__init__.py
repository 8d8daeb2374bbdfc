"""The lab: the same messages through one fault after the other, and what became of each of them.

    python -m tests.lab               the quick rows (`make lab`)
    python -m tests.lab --long        all of them (`make lab LONG=1`)
    python -m tests.lab F1 F4:SIM     some of them (`make lab FAULT=F1`)

A row is a fault on a harness: SIM (the simulator), PROXY (the proxy before a real RabbitMQ), REAL (a RabbitMQ node of
its own), CLUSTER (three of them).  Each is one JSON line, and one row of the table in docs/reliability.md.
"""

__all__: list[str] = []
