"""What a comparison reads of a result: checked once where it is read, trusted from then on.

A test is a function of a value: None where it is as it must be, else what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Any], str | None]

# above it nothing was measured, and differences of two such numbers overflow
LARGEST = 1e150
DEEPEST, MOST = 50, 1_000_000
_PREDICATES = ("is ", "has ")


def wrong(result: Any) -> str | None:
    """The first thing about a result that cannot be compared; None where there is nothing.

    Args:
        result: As ``result.json`` was read.
    """
    if (found := _RESULT(result)) is not None:
        return f"it {found}" if found.startswith(_PREDICATES) else found
    if not tame(result):
        return "it is nested too deep"
    if not result["metrics"]:
        return None
    lacking = [key for key in ("task", "decision", "candidate", "cost") if not result[key]]
    return f"there are metrics without a {lacking[0]}" if lacking else _beyond_one(result)


def tame(value: Any) -> bool:
    """Whether a value nests a bounded number of mappings and lists, and not around itself.

    >>> loop = {}
    >>> loop["again"] = loop
    >>> tame({"a": [1, {"b": 2}]}), tame(loop)
    (True, False)
    """
    left, seen = [(value, 0)], 0
    while left:
        one, depth = left.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST:
            return False
        inner = one.values() if isinstance(one, dict) else one
        left += [(each, depth + 1) for each in inner if isinstance(each, dict | list)]
    return True


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "is no text"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "is neither true nor false"


def _number(value: Any) -> str | None:
    # a truth value is an int to Python; NaN passes no comparison
    known = type(value) in (int, float) and -LARGEST <= value <= LARGEST
    return None if known else "is no number"


def _count(value: Any) -> str | None:
    return None if type(value) is int and 0 <= value <= 2**53 else "is no number of rows or steps"


def _maybe(test: Test) -> Test:
    return lambda value: None if value is None else test(value)


def _record(**fields: Test) -> Test:
    """A mapping with these keys; others are nobody's business here."""

    def test(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "is no mapping"
        for key, inner in fields.items():
            if key not in value:
                return f"has no {key}"
            if (found := inner(value[key])) is not None:
                return _inside(key, found)
        return None

    return test


def _each(test: Test, **special: Test) -> Test:
    """A mapping whose values all pass, those of some keys by a test of their own."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "is no mapping"
        for key, inner in value.items():
            if (found := special.get(key, test)(inner)) is not None:
                return _inside(key, found)
        return None

    return check


def _list(test: Test) -> Test:
    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return "is no list"
        return next((_inside(str(i), w) for i, one in enumerate(value) if (w := test(one))), None)

    return check


def _inside(key: str, found: str) -> str:
    """A key before what is wrong inside of it: ``cost.wall_seconds is no number``."""
    return f"{key} {found}" if found.startswith(_PREDICATES) else f"{key}.{found}"


_ID = _maybe(_record(id=_text))
_LEVELS = _maybe(_each(_each(_maybe(_number), n=_count)))
_POINT = _each(_maybe(_number), step=_number)


def _curve(value: Any) -> str | None:
    return _POINT(value) or _record(step=_number)(value)


_RESULT = _record(
    status=_text,
    created=_text,
    cycle_id=_maybe(_text),
    model_name=_text,
    champion=_ID,
    candidate=_ID,
    trigger=_record(kind=_text, reason=_text),
    task=_maybe(_record(kind=_text, score=_text, unit=_text)),
    metrics=_maybe(_record(champion=_LEVELS, candidate=_each(_each(_maybe(_number), n=_count)))),
    validation=_maybe(_record(curve=_list(_curve))),
    decision=_maybe(_record(applied=_flag, charge=_record(trial=_flag))),
    cost=_maybe(
        _record(
            wall_seconds=_number,
            optimizer_steps=_count,
            train_rows=_count,
            peak_memory_bytes=_count,
        )
    ),
    data=_maybe(_record(new=_maybe(_record(sha256=_maybe(_text))))),
    error=_maybe(_record(what=_text)),
)


def _beyond_one(result: Mapping[str, Any]) -> str | None:
    """A share of rows that is none."""
    name = str(result["task"]["score"])
    if result["task"]["unit"] != "points":
        return None
    for who, parts in result["metrics"].items():
        for part, values in (parts or {}).items():
            if not 0 <= (values.get(name) or 0) <= 1:
                return f"metrics.{who}.{part}.{name} is no share of rows"
    for point in (result["validation"] or {"curve": []})["curve"]:
        if any(not 0 <= (point.get(part) or 0) <= 1 for part in ("new", "history")):
            return "validation.curve holds what is no share of rows"
    return None
