"""The settings that differ, and what they are called."""

from __future__ import annotations

import pytest

from perennial.errors import ConfigError
from perennial.nested import leaves
from perennial.tracking.compare.settings import differing, short
from perennial.tracking.compare.values import meant, of_run, resolved
from support.compared import make_run


def flat(**method: object) -> dict[str, object]:
    return leaves({"seed": 0, "task": {"label": "y"}, "method": method})


def test_only_what_differs_is_told() -> None:
    one, two = flat(a={"_target_": "A", "x": 1}), flat(a={"_target_": "A", "x": 2})
    assert differing([one, two]) == [{"method.a.x": 1}, {"method.a.x": 2}]
    assert differing([one, one]) == [{}, {}]
    assert differing([one]) == [{}]
    assert differing([]) == []


def test_a_part_that_some_lack_is_one_setting() -> None:
    without = flat()
    one, two = (flat(a={"_target_": "A", "x": x, "y": 0}) for x in (1, 2))
    # y is alike in those that have it, and an empty mapping tells nothing of its own
    assert differing([without, one, two]) == [
        {"method.a": None, "method.a.x": None},
        {"method.a": "yes", "method.a.x": 1},
        {"method.a": "yes", "method.a.x": 2},
    ]
    assert differing([without, one]) == [{"method.a": None}, {"method.a": "yes"}]


def test_a_truth_differs_from_a_number_and_a_key_from_none() -> None:
    assert differing([{"k": True}, {"k": 1}]) == [{"k": True}, {"k": 1}]
    assert differing([{"k": None}, {}]) == [{"k": None}, {"k": None}]


def test_short_names_are_told_apart() -> None:
    keys = ["a.b.c", "d.b.c", "e.c", "x", "o._target_", "p.f"]
    assert list(short(keys).values()) == ["a.b.c", "d.b.c", "e.c", "x", "o", "f"]


def test_references_to_settings_are_followed_and_circles_left() -> None:
    given = {"a": "${b}", "b": "${c}", "c": 1, "d": "${d}", "e": "x ${c}"}
    assert resolved(given) == {"a": 1, "b": 1, "c": 1, "d": "${d}", "e": "x ${c}"}


def test_a_key_is_found_by_its_end() -> None:
    known = of_run(make_run(config={"method.replay.new_fraction": 0.2, "data.memory.seed": 1}))
    assert meant("new_fraction", known) == "config.method.replay.new_fraction"
    assert meant("candidate.new.accuracy", known) == "metrics.candidate.new.accuracy"
    assert meant("verdict", known) == "verdict"  # and not decision.verdict
    for key, words in (
        ("new.accuracy", "may be any of metrics.candidate.new.accuracy, metrics.champion"),
        ("wall_second", "did you mean"),
        ("xyzzy", "see the keys"),
    ):
        with pytest.raises(ConfigError, match=words):
            meant(key, known)
