"""Values that the serializers carry."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

#: Zones as offsets: a name of a zone does not survive any of the formats.
ZONES = st.none() | st.sampled_from(
    [
        datetime.UTC,
        datetime.timezone(datetime.timedelta(hours=5, minutes=30)),
        datetime.timezone(-datetime.timedelta(1) / 4),
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
)
DATES = (
    st.datetimes(timezones=ZONES) | st.dates() | st.times() | st.times(timezones=ZONES)
)  # a date before 1000 has leading zeros in ISO 8601
EXTRAS = DATES | st.decimals(allow_nan=False) | st.uuids() | st.binary(max_size=20)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and objects of these."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=15,
    )


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types, all the way down; NaN and the sign of zero count."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float | Decimal):
        return repr(left) == repr(right)
    if isinstance(left, datetime.datetime | datetime.time):
        return bool(left == right and left.utcoffset() == right.utcoffset())
    return bool(left == right)


#: What JSON itself can say.
JSON_VALUES = nested(SCALARS)
#: What it can say with envelopes.
TYPED_VALUES = nested(SCALARS | EXTRAS)
