"""Run a published example of pika's on our classes: `example_program.py FILE PORT SECONDS`.

Its import is changed; the ports that it names are led to PORT; after SECONDS the reactor is stopped.  A file that makes
an `application` is run as twistd would.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application import service
from twisted.internet import reactor as installed_reactor

__all__: list[str] = []

OLD = "from pika.adapters import twisted_connection"
NEW = "from txmsg.compat import pika as twisted_connection"

reactor: Any = installed_reactor


def _connect(connect: Any, to: int, *arguments: Any, **more: Any) -> Any:
    if "port" in more:
        return connect(*arguments, **(more | {"port": to}))
    host, _, *rest = arguments
    return connect(host, to, *rest, **more)


def main(file: str, port: int, seconds: float) -> None:
    """Run it."""
    text = Path(file).read_text(encoding="utf-8")
    assert OLD in text, f"{file} does not import the adapter"
    for name in ("connectTCP", "connectSSL"):
        setattr(reactor, name, partial(_connect, getattr(reactor, name), port))
    names: dict[str, Any] = {"__name__": "__main__", "__file__": file}
    reactor.callLater(seconds, reactor.stop)
    exec(compile(text.replace(OLD, NEW), file, "exec"), names)
    application = names.get("application")
    if application is not None:
        started: Any = service.IService(application)
        started.startService()
        reactor.addSystemEventTrigger("before", "shutdown", started.stopService)
        reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
