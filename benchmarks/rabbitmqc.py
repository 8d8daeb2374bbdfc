"""Compiles benchmarks/rabbitmqc.c, where a C compiler and librabbitmq's header are present."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks.task import Task

__all__ = ["Unavailable", "build", "command", "credentials", "library_version"]

SOURCE = Path(__file__).with_name("rabbitmqc.c")


class Unavailable(Exception):
    """The C client cannot be built here; the text says what is missing."""


def build(directory: Path, source: Path = SOURCE) -> Path:
    """Compile the program `source` into `directory` and give back its path.

    :raises Unavailable: without a compiler, or without librabbitmq's header or library.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("no C compiler")
    program = directory / source.stem
    built = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(source), "-lrabbitmq"], capture_output=True, text=True, check=False
    )
    if built.returncode:
        lines = [line for line in built.stderr.splitlines() if "error" in line] or built.stderr.splitlines() or ["?"]
        raise Unavailable(f"librabbitmq-dev is missing or does not fit ({lines[0].strip()})")
    return program


def command(program: Path, task: Task) -> list[str]:
    """The command line of one run."""
    parts = urlsplit(task.url)
    host, port, vhost = parts.hostname or "localhost", str(parts.port or 5672), unquote(parts.path[1:]) or "/"
    return [str(program), host, port, vhost, task.operation.name, str(task.size), str(task.count), task.queue]


def credentials(url: str) -> Mapping[str, str]:
    """The environment variables that carry the user name and the password."""
    parts = urlsplit(url)
    return {"BENCH_USER": unquote(parts.username or "guest"), "BENCH_PASSWORD": unquote(parts.password or "guest")}


def library_version(header: Path = Path("/usr/include/amqp.h")) -> str:
    """The version in librabbitmq's header; "unknown" if it stands elsewhere."""
    for candidate in (header, header.parent / "rabbitmq-c" / "amqp.h", header.parent / "rabbitmq-c" / "amqp_version.h"):
        if candidate.exists():
            numbers = re.findall(r"#define AMQP_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", candidate.read_text())
            if len(numbers) == 3:
                return ".".join(numbers)
    return "unknown"
