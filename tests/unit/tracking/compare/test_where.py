"""The language of ``--where``, against Python's own reading of the same words."""

from __future__ import annotations

import itertools

import pytest

from perennial.errors import ConfigError
from perennial.tracking.compare.where import parse

VALUES = {"a.x": 0.9, "verdict": "promoted", "trial": True, "none": None, "steps": 1000, "id": "7"}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("a.x>0.5", True),
        ("a.x > 0.9", False),
        ("a.x>=0.9", True),
        ("x<1e3 and verdict=promoted", True),
        ("verdict==rejected or steps<=1000", True),
        ("not verdict=promoted", False),
        ("verdict!=promoted", False),
        ("verdict='promoted'", True),
        ("trial=true", True),
        ("trial=1", False),  # a truth is no number
        ("trial>0", False),
        ("none=null", True),
        ("none<1", False),
        ("id=7", False),  # a text is no number
        ('id="7"', True),
        ("steps=1_000", True),
        ("verdict>0", False),
        ("verdict>about", True),
    ],
)
def test_a_comparison(text: str, passes: bool) -> None:
    assert parse(text, VALUES.keys())(VALUES) is passes


def test_and_or_not_and_brackets_bind_as_in_python() -> None:
    forms = (
        "{a} or {b} and {c}",
        "not {a} and {b} or {c}",
        "({a} or {b}) and not ({b} and {c})",
        "not not {a} or not ({b} or {c})",
    )
    for form in forms:
        test = parse(form.format(a="a=true", b="b=true", c="c=true"), {"a", "b", "c"})
        for a, b, c in itertools.product((False, True), repeat=3):
            by_python = eval(form.format(a=a, b=b, c=c))
            assert test({"a": a, "b": b, "c": c}) is by_python, (form, a, b, c)


def test_a_run_without_the_key_passes_no_comparison() -> None:
    for text in ("a.x=1", "a.x!=1", "a.x>0"):
        assert parse(text, VALUES.keys())({}) is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a key is missing"),
        ("verdict", "comparison after 'verdict' is missing"),
        ("verdict=", "a value after '=' is missing"),
        ("verdict=promoted steps=1", "'steps' is one word too many"),
        ("(verdict=promoted", "closing bracket is missing"),
        ("verdict=promoted)", "')' is one word too many"),
        ("verdict='promoted", "is not closed"),
        ("trial>true", "has no order"),
        ("=1", "a key is missing before '='"),
        ("not " * 60 + "trial=true", "nested too deep"),
        ("(" * 60 + "trial=true" + ")" * 60, "nested too deep"),
        ("verdikt=promoted", "did you mean verdict?"),
        ("__import__('os').system('true')", "'__import__'"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, VALUES.keys())
    assert words in str(caught.value)
