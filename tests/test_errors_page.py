"""docs/errors.md names every error, below the one that it is a kind of."""

from __future__ import annotations

import re

from tests.source import ROOT
from txmsg import errors


def test_every_error_is_there() -> None:
    """kombu T1, T2: each that a program can meet; none that there is not."""
    [tree] = re.findall(r"^```\n(TxmsgError\n.*?)^```", (ROOT / "docs" / "errors.md").read_text("utf-8"), re.M | re.S)
    named = set(re.findall(r"\b[A-Z]\w+\b", tree))
    classes = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert classes - named == set()
    assert named - classes <= {"URL"}


def test_what_stands_behind_an_arrow_is_one_of_those() -> None:
    """``A > B, C`` until the end of the item: each is an A."""
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    for base, following in re.findall(r"(\w+) +> (\w+)", text):
        if base != "A":
            assert issubclass(getattr(errors, following), getattr(errors, base)), f"{following} is no {base}"
