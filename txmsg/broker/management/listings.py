"""Lists as the asker wants them: columns, order, pages.

https://www.rabbitmq.com/docs/management#http-api-query-parameters.  `columns` names members, also within members with
dots; `sort` and `sort_reverse` put an order; `page` (from 1) with `page_size` (100, at most 500) gives an object
around one page, in which `name` selects, with `use_regex=true` as a regular expression.  Regular expressions are for
administrators only, since one can be written that takes for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from txmsg.broker.management.calls import Call, Refusal, bad_request
from txmsg.broker.management.visitors import Level

__all__ = ["listed", "selected"]

_PAGE_SIZE: Final = 100
_MAX_PAGE_SIZE: Final = 500
_MAX_NAME: Final = 500

Item = dict[str, Any]


def listed(call: Call, items: Sequence[Item]) -> Any:
    """`items` as `call` wants them: a list, or the object around a page."""
    if "page" not in call.query:
        return [selected(call, item) for item in _ordered(call, items)]
    page, size = _number(call, "page", 1), _number(call, "page_size", _PAGE_SIZE)
    if size > _MAX_PAGE_SIZE:
        raise bad_request(f"page_size must be at most {_MAX_PAGE_SIZE}")
    matches = _name_filter(call)
    matching = [item for item in items if matches(str(item.get("name", "")))]
    pages = max(1, -(-len(matching) // size))
    if page > pages:
        reason = f"page out of range, page: {page} page size: {size} page count: {pages}"
        raise Refusal(400, "page_out_of_range", reason)
    shown = [selected(call, item) for item in _ordered(call, matching)[(page - 1) * size : page * size]]
    return {
        "filtered_count": len(matching),
        "item_count": len(shown),
        "items": shown,
        "page": page,
        "page_count": pages,
        "page_size": size,
        "total_count": len(items),
    }


def selected(call: Call, item: Item) -> Item:
    """The members of `item` that `columns` names; all without it."""
    columns = call.query.get("columns")
    if not columns:
        return item
    chosen: Item = {}
    for column in columns.split(","):
        _select(item, column.split("."), chosen)
    return chosen


def _select(item: Mapping[str, Any], path: Sequence[str], chosen: Item) -> None:
    name, rest = path[0], path[1:]
    if name not in item:
        return
    value = item[name]
    if rest and isinstance(value, dict):
        part = chosen.setdefault(name, {})
        if isinstance(part, dict):
            _select(value, rest, part)
    elif not rest:
        chosen[name] = value


def _ordered(call: Call, items: Sequence[Item]) -> list[Item]:
    path = call.query.get("sort", "").split(".")
    backwards = call.query.get("sort_reverse", "").lower() == "true"
    if path == [""]:
        return list(items)
    return sorted(items, key=lambda item: _rank(_member(item, path)), reverse=backwards)


def _member(item: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(item, dict):
            return None
        item = item.get(name)
    return item


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers before words before everything else, so that any two values can be compared."""
    if isinstance(value, bool | int | float):
        return (0, float(value), "")
    if isinstance(value, str):
        return (1, 0.0, value)
    return (2, 0.0, "")


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "") or str(default)
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise bad_request(f"{name} must be a number from 1")
    return int(text)


def _name_filter(call: Call) -> Callable[[str], bool]:
    name = call.query.get("name", "")
    if len(name) > _MAX_NAME:
        raise bad_request(f"name must have at most {_MAX_NAME} characters")
    if call.query.get("use_regex", "").lower() != "true":
        wanted = name.lower()
        return lambda found: wanted in found.lower()
    if not call.visitor.is_at_least(Level.ADMINISTRATOR):
        raise bad_request("regular expressions are for administrators only")
    try:
        pattern = re.compile(name, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError):
        raise bad_request("name is not a regular expression") from None
    return lambda found: pattern.search(found) is not None
