"""Other projects' clients on the embedded broker (docs/foreign-clients.md)."""
