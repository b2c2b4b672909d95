"""What remembered rows stand for, against counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from perennial.data.memory import Memory
from perennial.data.rows import Rows
from perennial.data.standing import standing
from support.remembered import shown


def rows(ids: list[str], label: list[int]) -> Rows:
    names = np.array(ids, dtype=np.str_)
    classes = np.array(label, dtype=np.int64)
    return Rows(features={}, label=classes, id=names, content=names, cluster=names)


def weights(sample: Rows, whole: dict[str, Rows]) -> dict[str, float]:
    return dict(zip(sample.id.tolist(), standing(sample, whole).tolist(), strict=True))


def test_rows_share_what_there_is_in_their_cycle_and_class() -> None:
    whole = {
        "cycle-1": rows([f"a{i}" for i in range(10)], [0] * 6 + [1] * 4),
        "cycle-2": rows([f"b{i}" for i in range(5)], [0] * 5),
    }
    sample = rows(["b0", "a0", "a1", "a7"], [0, 0, 0, 1])
    assert weights(sample, whole) == {"b0": 5, "a0": 3, "a1": 3, "a7": 4}


def test_copies_count_and_what_is_not_remembered_is_shared_by_the_nearest() -> None:
    whole = {
        "cycle-1": rows(["a", "a", "a", "b"], [0, 0, 0, 0]),
        "cycle-2": rows(["c", "d"], [0, 0]),
        "cycle-3": rows(["e"], [2]),
    }
    # cycle-2's two rows go to the class, cycle-3's one to all, each in proportion to the copies
    found = weights(rows(["a", "b"], [0, 0]), whole)
    assert found == {"a": pytest.approx(7 * 3 / 4), "b": pytest.approx(7 / 4)}
    assert weights(rows(["x", "b"], [0, 0]), whole) == {"x": 0, "b": 7}
    assert standing(rows([], []), whole).tolist() == []
    assert weights(rows(["x"], [0]), {}) == {"x": 0}


@pytest.mark.parametrize("selection", ["reservoir", "class_balanced"])
def test_a_memorys_weighed_sum_is_the_sum_over_all_rows_in_the_mean(selection: str) -> None:
    generator = np.random.default_rng(0)
    names = [f"r{i}" for i in range(600)]
    label = (generator.random(600) < 0.1).astype(np.int64)
    value = dict(zip(names, 1 + 5 * label + generator.random(600), strict=True))
    for name in names[400:]:
        value[name] += 3
    parts = [rows(names[:400], label[:400].tolist()), rows(names[400:], label[400:].tolist())]
    whole = {f"cycle-{i}": part for i, part in enumerate(parts)}
    found = []
    for seed in range(200):
        memory = Memory(capacity=150, seed=seed, selection=selection)
        sample = shown(memory, *parts)
        weight = standing(sample, whole)
        assert weight.sum() == pytest.approx(600)
        found.append(weight @ [value[name] for name in sample.id.tolist()])
    total = sum(value.values())
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - total) < 4 * error
    assert np.std(found) < 0.02 * total


def test_every_sample_of_a_stratum_is_right_in_the_mean() -> None:
    whole = {"cycle-1": rows(list("abcde"), [0] * 5)}
    value = dict(zip("abcde", (1.0, 2.0, 4.0, 8.0, 16.0), strict=True))
    sums = [
        sum(value[name] * w for name, w in weights(rows(list(drawn), [0, 0]), whole).items())
        for drawn in itertools.combinations("abcde", 2)
    ]
    assert np.mean(sums) == pytest.approx(31)
