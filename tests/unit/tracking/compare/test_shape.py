"""Damaged results are listed, whatever is wrong with them; no comparison stops on one."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from perennial.reporting.compare import render_comparison
from perennial.reporting.comparison import print_comparison, to_dict
from perennial.tracking.compare.folders import configuration, parsed, read
from perennial.tracking.compare.runs import Run, Unread
from perennial.tracking.compare.settings import short
from perennial.tracking.compare.table import compare_runs
from perennial.tracking.compare.values import of_run
from support.compared import make_result, make_run

CURVE = [{"step": 0, "new": 0.1, "history": 0.9}, {"step": 5, "new": 0.8, "history": None}]
ODD = [None, {}, [], "x", -1, 1e308, math.nan, True, [1], {"a": 1}, 5.5, 10**400]
DEEP = "[" * 100_000


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*before, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*before, key))


def broken() -> Iterator[tuple[str, str]]:
    """Every value of a result in every odd form, and left out."""
    whole = make_result(3, curve=CURVE)
    for path in paths(whole):
        for odd in (*ODD, "left out"):
            result = copy.deepcopy(whole)
            place = result
            for key in path[:-1]:
                place = place[key]
            if odd == "left out":
                del place[path[-1]]
            else:
                place[path[-1]] = odd
            yield f"{'.'.join(map(str, path))} is {str(odd)[:9]}", json.dumps(result)


def show(runs: list[Run]) -> str:
    """All that is made of a comparison."""
    found = compare_runs(runs)
    json.dumps(to_dict(found), allow_nan=False)
    names = short(found.settings)
    print_comparison(found, Console(file=io.StringIO(), width=150), names=names)
    return render_comparison(found, names=names) if found.rows else ""


def test_any_result_that_is_read_can_be_compared() -> None:
    good, listed, kept = make_run(2, curve=CURVE), 0, []
    for what, text in broken():
        found = parsed(text)
        if isinstance(found, str):
            listed += 1
            continue
        kept.append(Run(what, found))
        try:
            json.dumps(to_dict(compare_runs([good, kept[-1]])), allow_nan=False)
        except Exception as error:
            raise AssertionError(what) from error
    assert listed > 300
    # 40 of one page are drawn
    for start in range(0, len(kept), 20):
        show([good, *kept[start : start + 20]])


def test_every_key_sorts() -> None:
    runs = [
        make_run(2, curve=CURVE, config={"k": [1], "e": {}}),
        make_run(3, config={"k": 2.0, "e": {}}),
    ]
    for run in runs:
        for key in of_run(run):
            if key != "config.k":
                compare_runs(runs, sort=key)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DEEP, "nested too deep"),
        ('{"a":' * 50_000, "nested too deep"),
        ("1" * 5000, "cannot be read"),
        (json.dumps(make_result(new=5.5)), "metrics.candidate.new.accuracy is no share of rows"),
        (json.dumps(make_result(new=math.nan)), "metrics.candidate.new.accuracy is no number"),
        (json.dumps(make_result(curve=[{"step": 0, "new": 5.5}])), "curve holds what is no share"),
        (json.dumps(make_result(candidate={})), "candidate has no id"),
        (json.dumps(make_result(task={"kind": "class", "unit": ""})), "task has no score"),
        (json.dumps(make_result(error={})), "error has no what"),
        (json.dumps(make_result(data={"new": "x"})), "data.new is no mapping"),
        (json.dumps(make_result() | {"validation": "x"}), "validation is no mapping"),
        (json.dumps(make_result() | {"metrics": {"champion": "x"}}), "metrics.champion is no map"),
        (json.dumps(make_result() | {"more": json.loads("[" * 60 + "]" * 60)}), "nested too deep"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    found = read(tmp_path)
    assert isinstance(found, Unread)
    assert why in found.why


def test_a_metric_without_a_unit_may_be_any_number() -> None:
    task = {"kind": "number", "score": "r2", "unit": ""}
    found = parsed(json.dumps(make_result(task=task, new=-5.5, curve=[{"step": 0, "new": 7.0}])))
    assert not isinstance(found, str)


BOMB = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    "text", ["a: &a\n  b: *a\n", BOMB, "a: [" * 3000, "a: 2020-13-45\n", "- 1"]
)
def test_a_configuration_that_cannot_be_read_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(text)
    assert configuration(tmp_path, without=()) is None


def test_settings_of_other_kinds_are_told_as_text(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    text = "1: {2: 3}\nsince: 2026-01-02\nclip: .inf\nlist: [2026-01-02, {1: .nan}]\nlr: 0.1\n"
    (tmp_path / ".hydra" / "config.yaml").write_text(text)
    found = configuration(tmp_path, without=("1",))
    assert found == {
        "1.2": 3,
        "since": "2026-01-02",
        "clip": "inf",
        "list": ["2026-01-02", {"1": "nan"}],
        "lr": 0.1,
    }
    show([make_run(2, config=dict(found)), make_run(3)])


def test_long_numbers_are_shown_short_and_kept_whole() -> None:
    lr = 0.0031622776601683794
    runs = [make_run(2, config={"lr": lr}), make_run(3, config={"lr": 0.001})]
    page = show(runs)
    assert "0.003162<" in page
    assert "0.001<" in page
    assert str(lr) not in page
    told = to_dict(compare_runs(runs))["runs"]
    assert {one["settings"]["lr"] for one in told} == {lr, 0.001}
