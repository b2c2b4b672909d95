from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.perennial_sweeper._reading import first, quoted, read
from perennial.errors import ConfigError
from perennial.sweeping.space import Parameter, check_space, points, size
from perennial.sweeping.storage import sqlite
from support.sweeps import run, study


def space(*words: str) -> tuple[list[str], list[Parameter]]:
    return read(OverridesParser.create().parse_overrides(list(words)))


def test_hydras_grammar_is_read() -> None:
    fixed, found = space(
        "trainer.max_steps=200",
        "sweep=optuna",
        "sweep.objectives=[retention,plasticity]",
        "method=replay,ewc",
        "a=interval(0.1,0.8)",
        "b=tag(log,interval(1e-4,1e-2))",
        "c=range(1,9,2)",
        "d=range(0,0.5,0.1)",
        "e=int(interval(1,5))",
    )
    assert fixed == ["trainer.max_steps=200"]
    by = {one.name: one for one in found}
    assert by["method"].values == ("replay", "ewc")
    assert (by["a"].low, by["a"].high, by["a"].values) == (0.1, 0.8, None)
    assert by["b"].log
    assert list(by["c"].values or ()) == [1, 3, 5, 7]
    assert by["d"].values == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert list(by["e"].values or ()) == [1, 2, 3, 4, 5]
    assert first(found) == {"method": "replay", "a": 0.1, "b": 1e-4, "c": 1, "d": 0.0, "e": 1}


def test_choices_keep_their_words() -> None:
    _, found = space("a=[1,2],[3]", "b='x,y',z", "c=null,1.5")
    assert [one.values for one in found] == [("[1,2]", "[3]"), ("'x,y'", "z"), ("null", "1.5")]


def test_points_are_every_combination() -> None:
    _, found = space("a=1,2,3", "b=range(0,2)")
    assert len(points(found)) == size(found) == 6
    assert points(found)[1] == {"a": "1", "b": 1}


def test_a_quoted_path_comes_back() -> None:
    odd = "runs/it's a, {folder}=1\\"
    (parsed,) = OverridesParser.create().parse_overrides([f"trial={quoted(odd)}"])
    assert parsed.value() == odd


@pytest.mark.parametrize(
    ("words", "sampler", "told"),
    [
        (["a=1"], "tpe", "nothing to search"),
        (["a=interval(0,1)"], "grid", "interval"),
        (["model_name=a,b"], "tpe", "cannot be searched"),
        (["registry.url=a,b"], "tpe", "cannot be searched"),
        (["a=1,2"], "mix", "new_fraction alone"),
        (["a=interval(1,0)"], "tpe", "lower end first"),
        (["a=tag(log,interval(0,1))"], "tpe", "above 0"),
        (["a=tag(x,interval(0,1))"], "tpe", "one tag is log"),
        (["a=range(1,1)"], "tpe", "range"),
        (["a=range(1,5,0)"], "tpe", "range"),
        (["sweep.seed=1,2"], "tpe", "several values"),
        (["++model_name=a,b"], "tpe", "cannot be searched"),
        (["+registry@other=a,b"], "tpe", "cannot be searched"),
        (["data.new.inverted=true,false"], "tpe", "same rows"),
        (["data=a,b"], "tpe", "same rows"),
        (["a=shuffle(1,2,3)"], "tpe", "own seed"),
        (["a=shuffle(range(1,4))"], "tpe", "own seed"),
        (["a=int(interval(0,1000000000))"], "grid", "1,000,000,001 points"),
    ],
)
def test_what_cannot_be_searched_is_refused(words: list[str], sampler: str, told: str) -> None:
    promises = ("model_name", "registry", "data")
    with pytest.raises(ConfigError, match=told):
        check_space(space(*words)[1], sampler=sampler, promises=promises, free=("data.augment",))


def test_what_leaves_the_rows_alone_can_be_searched() -> None:
    _, found = space("data.augment.noise=0.1,0.2", "model.width=1,2")
    check_space(found, sampler="grid", promises=("data",), free=("data.augment",))


def test_a_long_range_is_never_listed() -> None:
    _, found = space("a=int(interval(0,1000000000))", "b=range(0,1000000000)", "c=range(5,-5,-2)")
    assert [one.size for one in found] == [1_000_000_001, 1_000_000_000, 5]
    assert size(found) == 1_000_000_001 * 1_000_000_000 * 5
    assert first(found) == {"a": 0, "b": 0, "c": -3}


@pytest.mark.parametrize("words", ["0.1,0.35,0.1", "0.1,0.4,0.1", "0,1,0.1", "0.35,0.05,-0.1"])
def test_a_range_ends_on_a_step(words: str, tmp_path: Path) -> None:
    _, found = space(f"x=range({words})")
    start, stop, step = (float(word) for word in words.split(","))
    by_hand = [round(start + step * place, 9) for place in range(20)]
    by_hand = sorted(one for one in by_hand if (one - stop) * step < -1e-9)
    assert list(found[0].values or ()) == by_hand
    ended = study(sqlite(tmp_path), found, sampler="random", trials=20).run(run)  # warns of none
    assert sorted(one.params["x"] for one in ended) == pytest.approx(by_hand)


def test_a_wide_interval_of_whole_numbers_is_drawn_from(tmp_path: Path) -> None:
    _, found = space("x=0.5", "n=int(interval(0,1000000000))")
    ended = study(sqlite(tmp_path), found, sampler="random", trials=3).run(run)
    assert len({one.params["n"] for one in ended}) == 3
