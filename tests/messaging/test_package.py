"""txmsg.messaging as a package: what it exports, and what it needs to be installed."""

from __future__ import annotations

import ast
import importlib
import tomllib

from tests.source import PACKAGE, ROOT


def test_the_names_of_kombu() -> None:
    """kombu AD4: those at the top of Kombu are here; `import txmsg` itself loads nothing."""
    messaging = importlib.import_module("txmsg.messaging")
    for name in (
        "Connection",
        "Exchange",
        "Queue",
        "Producer",
        "Consumer",
        "binding",
        "eventloop",
        "uuid",
        "parse_url",
    ):
        assert name in messaging.__all__, name
    importlib.import_module("txmsg.messaging.pools")


def test_imports_that_tools_understand() -> None:
    """kombu AD5: each name comes from an import statement; nothing is made up at run time; and there is py.typed."""
    tree = ast.parse((PACKAGE / "messaging" / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(importlib.import_module("txmsg.messaging").__all__) <= imported
    assert "__getattr__" not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert (PACKAGE / "py.typed").exists()


def test_the_extras() -> None:
    """kombu AD1: one for each library that a serializer or compression needs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"msgpack", "yaml", "zstd", "brotli"} <= set(extras)
