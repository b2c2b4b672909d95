from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.perennial_sweeper._reading import first, quoted, read
from perennial.errors import ConfigError
from perennial.sweeping.space import Parameter, check_space, points, size


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
    assert by["c"].values == (1, 3, 5, 7)
    assert by["d"].values == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert by["e"].values == (1, 2, 3, 4, 5)
    assert first(found) == {"method": "replay", "a": 0.1, "b": 1e-4, "c": 1, "d": 0.0, "e": 1}


def test_choices_keep_their_words() -> None:
    _, found = space("a=[1,2],[3]", "b='x,y',z", "c=null,1.5")
    assert [one.values for one in found] == [("[1,2]", "[3]"), ("'x,y'", "z"), ("null", "1.5")]


def test_points_are_every_combination() -> None:
    _, found = space("a=1,2,3", "b=range(0,2)")
    assert len(points(found)) == size(found) == 6
    assert points(found)[1] == {"a": "1", "b": 1}


def test_a_quoted_path_comes_back() -> None:
    odd = "/tmp/it's a, {folder}=1\\"
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
        (["sweep.seed=1,2"], "tpe", "several values"),
    ],
)
def test_what_cannot_be_searched_is_refused(words: list[str], sampler: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_space(space(*words)[1], sampler=sampler, promises=("model_name", "registry"))
