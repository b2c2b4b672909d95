"""What a backtest says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from perennial.reporting.backtest import (
    against,
    footnote,
    print_backtest,
    render_backtest,
    sentence,
)


def account(
    policy: str, mean: float, gain: float, seconds: float, net: float | None
) -> dict[str, Any]:
    step = {"window": 1, "score": mean, "labels": 0, "trigger": None, "cycle": None}
    failed = {"verdict": "failed", "applied": False, "reason": "No <b>rows</b>."}
    asked = {"reason": "it could not look: few rows", "evidence": {"failed": policy == "drift"}}
    return {
        "policy": policy,
        "scores": [mean, mean],
        "mean": mean,
        "gain": gain,
        "share": gain / 0.2,
        "cycles": 2,
        "promoted": 1,
        "device_seconds": seconds,
        "train_rows": 1000,
        "labels": 500,
        "money": {
            "device_cost": None if net is None else 1.5,
            "label_cost": None,
            "value": net,
            "net": net,
        },
        "windows": [
            {**step, "trigger": asked, "cycle": failed if policy == "every:1" else None},
            {**step, "window": 2},
        ],
    }


def told(
    policy: str = "drift", *, by: str = "score", net: float | None = None, apart: bool = True
) -> dict[str, Any]:
    accounts = [
        account("never", 0.5, 0.0, 0.0, net and 0.0),
        account("every:1", 0.7, 0.2, 100.0, net and net / 2),
        account("drift", 0.69, 0.19, 40.0, net),
    ]
    others = [one["policy"] for one in accounts if one["policy"] != policy]
    differences = [
        {"policy": one, "mean": 0.19, "interval": [0.1, 0.28], "told_apart": apart}
        if one == "never"
        else {"policy": one, "mean": -0.01, "interval": [-0.03, 0.01], "told_apart": False}
        for one in others
    ]
    return {
        "model_name": "<shop>",
        "folder": "/somewhere",
        "metric": "auc",
        "higher_is_better": True,
        "kept": 0.9,
        "founding_rows": 10,
        "timeline": {
            "key": "week",
            "first": 1,
            "last": 2,
            "days": 7,
            "label_delay": 0,
            "promotion": "gate",
        },
        "prices": {"device_hour": net and 1.0, "label": None, "per_point": net and 1.0},
        "windows": [{"window": 1, "rows": 5}, {"window": 2, "rows": 7}],
        "policies": accounts,
        "recommendation": {
            "policy": policy,
            "by": by,
            "best": "every:1",
            "differences": differences,
        },
    }


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (told(), "keeps 95% of what every:1 gains over never, for 40% of its device-seconds"),
        (told("every:1"), "Take every:1: in these 2 windows it gains most over never"),
        (told("never"), "Take never: no policy gains over it in these 2 windows"),
        (told("never", by="money", net=-5.0), "Take never: over these 2 windows no policy earns"),
        (told(by="money", net=1234.5), "it came out 1,234.50 above never retraining"),
    ],
)
def test_the_recommendation_is_one_sentence(record: dict[str, Any], words: str) -> None:
    assert words in sentence(record)


def test_what_can_be_told_of_it_is_said() -> None:
    lines = against(told())
    assert "Above never by 0.19 (0.1 to 0.28) a window." in lines
    assert "Cannot be told apart from every:1." in lines
    assert not any("do not show" in line for line in lines)
    unsure = against(told(apart=False))
    assert "Cannot be told apart from never and every:1." in unsure
    assert any("do not show that retraining pays" in line for line in unsure)


def test_failures_are_said() -> None:
    lines = against(told())
    assert "every:1: the cycle after 1 failed. No <b>rows</b>." in lines
    assert "drift, after 1: it could not look: few rows" in lines


def test_what_has_no_price_is_said() -> None:
    assert "null: cost.device_hour, cost.label, value.per_point" in footnote(told())
    assert "null: cost.label." in footnote(told(by="money", net=5.0))


def test_the_page_escapes_names_and_is_whole_in_itself() -> None:
    for record in (told(), told(by="money", net=5.0)):
        page = render_backtest(record)
        assert "<shop>" not in page
        assert "<b>rows" not in page
        assert "<script" not in page
        assert page.count("<svg") >= 2 + len(record["policies"])


def test_the_terminal_shows_every_policy_and_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_backtest(told(by="money", net=5.0), Console(width=200))
    out = capsys.readouterr().out
    for words in (
        "never",
        "every:1",
        "drift *",
        "for the device",
        "net",
        "1 of 2",
        "backtest.html",
    ):
        assert words in out
