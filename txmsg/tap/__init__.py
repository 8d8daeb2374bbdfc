"""What `twistd` loads: one module for each of its commands.  Only wiring.

`consumer` is `twistd txmsg-consumer`, `broker` is `twistd txmsg-broker`.
"""

#: Everything is taken from the modules.
__all__: list[str] = []
