from __future__ import annotations

from typing import Any

import pytest

from perennial.errors import ConfigError
from perennial.sweeping.settings import Sweep


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sampler": "tpee"}, "sweep.sampler=tpe"),
        ({"pruner": "hyperband"}, "choices: null, median"),
        ({"trials": None}, "no end"),
        ({"trials": 0}, "sweep.trials"),
        ({"jobs": 0}, "sweep.jobs"),
        ({"objectives": ["accuracy"]}, "combined, retention, plasticity"),
        ({"objectives": "combined"}, "a list"),
        ({"objectives": []}, "a list"),
        ({"objectives": ["combined", "combined"]}, "doubles"),
        ({"promote": "all"}, "null, best"),
        ({"budget": -0.1}, "sweep.budget"),
        ({"study": "a/b"}, "sweep.study"),
        ({"study": ".."}, "sweep.study"),
        ({"study": "."}, "sweep.study"),
        ({"study": "v1.2"}, "sweep.study"),
        ({"study": "--"}, "a letter or a digit"),
        ({"study": "a\n"}, "sweep.study"),
        ({"study": "swé"}, "sweep.study"),
        ({"study": ""}, "sweep.study"),
        ({"warmup": 10}, "sweep.pruner"),
        ({"sampler": "mix", "values": [0.1, 0.2]}, "budget with sweep.sampler=mix"),
        ({"values": [0.1, 0.2]}, "sampler=mix"),
        ({"sampler": "mix"}, "sampler=mix"),
        ({"sampler": "mix", "values": [0.1, 1.0]}, "between 0 and 1"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Sweep(**given)
    assert told in str(refused.value)


def test_length_and_manner_are_no_part_of_the_identity() -> None:
    same = Sweep(trials=40, jobs=4, promote="best", storage="sqlite:///a.db", study="mine")
    assert same.identity() == Sweep().identity()
    for other in ({"sampler": "random"}, {"seed": 1}, {"pruner": "median"}, {"choose": "budget"}):
        assert Sweep(**other).identity() != Sweep().identity()
    narrow, wide = (Sweep(choose="budget", budget=budget) for budget in (0.01, 0.02))
    assert narrow.identity() != wide.identity()


def test_plain_names_are_taken() -> None:
    assert [Sweep(study=name).study for name in ("week_42", "A-b", "7")] == ["week_42", "A-b", "7"]
