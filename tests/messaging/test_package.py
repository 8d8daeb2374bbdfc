"""txmsg.messaging as a package: what it exports, and what it needs to be installed."""

from __future__ import annotations

import ast
import importlib
import tomllib

import pytest

from tests.source import PACKAGE, ROOT


def test_the_names_of_kombu() -> None:
    """kombu AD4: those at the top of Kombu are at the top here, and are those of txmsg.messaging."""
    top, messaging = importlib.import_module("txmsg"), importlib.import_module("txmsg.messaging")
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
        "pools",
    ):
        assert name in top.__all__, name
        assert name in dir(top), name
        assert getattr(top, name) is getattr(messaging, name), name
    with pytest.raises(AttributeError, match="no attribute 'Conection'"):
        _ = top.Conection
    with pytest.raises(AttributeError):
        _ = top.__path_of_nothing__


def test_the_top_says_what_it_has() -> None:
    """kombu AD5: what `import txmsg` loads on first use is imported for tools, name by name."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(importlib.import_module("txmsg").__all__) == imported | {"__version__"}


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
