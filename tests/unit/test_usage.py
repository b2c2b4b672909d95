"""Help is read from the comments of the configuration: what it shows must run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from perennial.paths import CONF_DIR
from perennial.usage import help_text

GIVEN = {
    "train": {"data.new": "rows.csv", "model._target_": "net.Net"},
    "adopt": {"model_name": "served", "checkpoint": "a.pt", "model._target_": "net.Net"},
    "evaluate": {"data.new": "rows.csv"},
    "check": {"data.new": "rows.csv", "model._target_": "net.Net"},
    "monitor": {"data.new": "rows.csv", "model._target_": "net.Net"},
    "decide": {"version": "digits@2"},
    "backtest": {"data.new": "rows.csv", "model._target_": "net.Net"},
}
COMMANDS = {
    "train": "python train.py",
    "adopt": "perennial adopt",
    "evaluate": "perennial evaluate",
    "check": "perennial data check",
    "monitor": "perennial monitor",
    "decide": "perennial decide digits@2",
    "backtest": "perennial backtest",
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_example_of_a_verb_is_its_own_and_composes(
    verb: str, compose: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_DATA", "data")
    text = help_text(verb, [CONF_DIR])
    groups = text[text.index("Groups") : text.index("Settings")]
    examples = re.findall(r"^    [* ] \S+ +(\S.*)$", groups, re.MULTILINE)
    assert len(examples) >= 4
    assert text.startswith(COMMANDS[verb])
    settings = text[text.index("Settings") : text.index("Flags")].splitlines()[1:]
    assert all(re.match(r" {2,8}\w+:", line) for line in settings if line), settings
    for example in examples:
        assert example.startswith(f"{COMMANDS[verb]} "), example
        words = shlex.split(example.removeprefix(COMMANDS[verb]))
        # a sweep's own example: what all its trials share
        overrides = [word for word in words if word != "-m" and "(" not in word]
        given = [part.partition("=")[0] for part in overrides]
        missing = [f"{key}={value}" for key, value in GIVEN[verb].items() if key not in given]
        compose(*overrides, *missing, config=verb)


def test_help_tells_of_several_values_only_where_they_are_taken() -> None:
    told = {verb: "--multirun" in help_text(verb, [CONF_DIR]) for verb in ("train", *COMMANDS)}
    assert [verb for verb, is_told in told.items() if not is_told] == ["monitor", "backtest"]


def test_help_shows_the_settings_below_a_commands_own_keys_and_no_others() -> None:
    backtest, monitor = help_text("backtest", [CONF_DIR]), help_text("monitor", [CONF_DIR])
    assert "    label_delay: 0  " in backtest
    assert "    per_point: null  " in backtest
    assert "    labels: null  " in monitor
    assert not any(f"\n  {key}: " in monitor for key in ("checkpoint", "promote", "output_subdir"))


def test_a_cycles_help_shows_the_command_that_was_called() -> None:
    text = help_text("train", [CONF_DIR], train="perennial train")
    assert text.startswith("perennial train [")
    assert "python train.py" not in text


def test_help_marks_every_default_of_a_group() -> None:
    marked = re.findall(r"^    \* (\S+)", help_text("monitor", [CONF_DIR]), re.MULTILINE)
    assert {"drift", "performance", "digits"} <= set(marked)
    assert "continuous" not in marked
