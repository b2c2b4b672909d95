"""What a sweep tells at its end, by its table, its record and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from perennial.reporting.sweep import print_sweep, render_sweep, sentence, write_sweep
from perennial.sweeping.settings import Sweep
from perennial.sweeping.space import Parameter, overrides
from perennial.sweeping.study import Ended
from perennial.sweeping.summary import summary
from perennial.sweeping.trial import Outcome

CHAMPION = {"new": 0.1, "history": 0.9, "combined": 0.5}
SPACE = [Parameter(name="lr", low=1e-4, high=1e-1, log=True)]
MIX = {"sampler": "mix", "trials": None, "values": [0.1, 0.3, 0.5], "choose": "budget"}


def trial(number: int, new: float, history: float, name: str = "lr", value: float = 0.01) -> Ended:
    scores = {"new": new, "history": history, "combined": (new + history) / 2}
    outcome = Outcome(
        state="finished", scores=scores, champion=CHAMPION, candidate=f"d@{number + 2}"
    )
    return Ended(number, {name: value}, outcome)


def told(ended: list[Ended], **given: Any) -> dict[str, Any]:
    settings = Sweep(**given)
    return summary(
        name="d-1",
        model="d",
        champion="d@1",
        ended=ended,
        space=[] if settings.sampler == "mix" else SPACE,
        settings=settings,
        command="perennial train",
        command_of=lambda params: " ".join(["perennial train", *overrides(params)]),
    )


ENDED = [
    trial(0, 0.8, 0.80, value=0.001),
    trial(1, 0.6, 0.895),
    trial(2, 0.5, 0.79, value=0.05),
    Ended(3, {"lr": 0.02}, Outcome(state="pruned", reason="at step 50: behind")),
    Ended(4, {"lr": 0.03}, Outcome(state="failed", reason="<b>diverged</b>")),
]


def test_the_record_counts_marks_and_chooses(tmp_path: Path) -> None:
    found = told(ENDED)
    assert found["counts"] == {"finished": 3, "pruned": 1, "failed": 1}
    assert found["pareto"] == [0, 1]
    assert found["chosen"] == {
        "number": 0,
        "candidate": "d@2",
        "command": "perennial train lr=0.001",
    }
    assert told(ENDED, choose="budget")["chosen"]["number"] == 1
    write_sweep(tmp_path, found)
    assert json.loads((tmp_path / "sweep.json").read_text()) == found


def test_nothing_within_the_budget_is_said() -> None:
    found = told(ENDED[:1], choose="budget", budget=0.05)
    assert found["chosen"] is None
    assert sentence(found) == "No trial stays within 5.0 points of the champion's retention."
    assert sentence(told(ENDED[4:])) == "No trial came to its end."


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        # equal ones: the first, in the sentence and in the command alike
        ([(0.3, 0.7, 0.9), (0.1, 0.7, 0.9)], "30% new and 70% replayed rows learn most"),
        ([(0.3, 0.7, 0.88), (0.1, 0.5, 0.9)], "10% new and 90% replayed rows learn most"),
        ([(0.3, 0.7, 0.8), (0.1, 0.5, 0.85)], "No share of new rows stays within 1.0 points"),
    ],
)
def test_mix_recommends_what_it_chooses(
    trials: list[tuple[float, float, float]], words: str
) -> None:
    name = "method.replay.new_fraction"
    ended = [trial(n, new, old, name, share) for n, (share, new, old) in enumerate(trials)]
    found = told(ended, **MIX)
    assert found["recommendation"].startswith(words)
    if found["chosen"]:
        share = found["chosen"]["command"].rpartition("=")[2]
        assert f"{100 * float(share):g}% new" in found["recommendation"]


def test_the_table_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_sweep(told(ENDED), Console(width=100), folder=tmp_path)
    printed = capsys.readouterr().out
    lines = [re.sub(" +", " ", line).strip() for line in printed.splitlines()]
    assert ">* 0 0.001 80.0% 80.0% 80.0%" in lines
    assert "2 0.05 79.0% 50.0% 64.5%" in lines
    assert "d@1 90.0% 10.0% 50.0%" in lines
    assert "trial 4 failed: <b>diverged</b>" in lines


def test_the_page_stands_alone_and_escapes() -> None:
    page = render_sweep(told(ENDED, choose="budget"))
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert "&lt;b&gt;diverged&lt;/b&gt;" in page
    assert "<b>diverged" not in page
    assert "at step 50: behind" in page
    assert "the retention budget" in page
    assert "mathdefault" not in page  # a label that is a formula would stand as it is
    assert render_sweep(told(ENDED[3:])).count("<svg role") == 0


def test_the_chosen_trial_stands_first_whatever_its_combined_score() -> None:
    from perennial.reporting.sweep import in_order

    found = told(ENDED, choose="budget")
    assert [one["number"] for one in in_order(found)] == [1, 0, 2]


def test_mix_of_which_nothing_finished_says_so() -> None:
    assert sentence(told(ENDED[4:], **MIX)) == "No trial came to its end."


def test_the_legend_says_what_the_set_is() -> None:
    """A trial that is equal in one and worse in the other is not in it."""
    assert "no trial is as good in both and better in one" in render_sweep(told(ENDED))
