"""A look at new rows on the terminal, in its record, on its page and in W&B."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from perennial.reporting.monitor import print_look, schema, score_lines
from perennial.reporting.monitor_page import render_look
from perennial.tracking.monitoring import COLUMNS, rows, summary
from support.made import look

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def printed(told: dict[str, Any]) -> str:
    to = io.StringIO()
    print_look(told, Console(file=to, width=100))
    return to.getvalue()


def test_the_made_look_is_as_the_schema_has_it() -> None:
    jsonschema.validate(look(), schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(look() | {"status": "failed"}, schema())


def test_the_terminal_says_what_moved_and_the_answer() -> None:
    told = look()
    text = printed(told)
    lines = text.splitlines()
    assert lines[0] == ("fraud@1 on 400 rows (no label yet), 2026-11-03 00:00:01 to 23:59:00")
    assert [line.split()[:2] for line in lines if line.startswith("moved")] == [
        ["moved", "amount"],
        ["moved", "channel"],
    ]
    assert "2026-11-02, 2 windows" in text
    assert "estimated AUC" in text
    assert "cannot see concept drift" in " ".join(text.split())
    assert "ALARM" in text
    assert "exit:   40" in text


def test_a_score_that_cannot_be_told_says_why() -> None:
    told = look() | {"performance": None, "untold": "labels have come of 0 rows"}
    assert "labels have come of 0 rows" in printed(told)
    assert score_lines(told) == []
    assert "labels have come of 0 rows" in render_look(told)


def test_a_page_is_one_file_without_scripts_and_shows_all() -> None:
    page = render_look(look())
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page.replace('xlink:href="#', '"'))
    assert page.count('class="card"') == 2
    assert page.count('role="img"') == 2 + 2 + 1  # then and now, effects, the score
    for words in ("never seen before: partner (42)", "since 2026-11-02", "drift, performance"):
        assert words in page
    assert "&lt;b&gt;" in render_look(look() | {"reason": "<b>"})
    assert render_look(look()) == page


def test_calm_and_drift_alone() -> None:
    told = look()
    for shift in told["drift"]["shifts"]:
        shift |= {"moved": False, "since": None}
    told["drift"]["alarm"] = False
    told |= {"status": "calm", "alarm": False, "performance": None}
    page = render_look(told)
    assert "nothing by more than chance" in page
    assert '<span class="tag down">' not in page
    assert "CALM" in printed(told)
    assert "What moved" not in render_look(told | {"drift": None})


def test_every_key_of_wandb_is_documented() -> None:
    text = (REFERENCE / "tracking.md").read_text()
    section = text.partition("## Of a look at new rows")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(monitor/[^`]+)`", section, re.MULTILINE)
    assert sorted(summary(look())) == sorted(documented)
    assert rows(look())[0] == [look()["drift"]["shifts"][0][name] for name in COLUMNS]
    bare = summary(look() | {"drift": None, "performance": None})
    assert sorted(bare) == sorted(documented[:5])
    assert rows(look() | {"drift": None}) == []


def test_every_key_of_the_record_is_documented() -> None:
    text = (REFERENCE / "monitor.md").read_text()
    told = {word for line in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
            for word in re.findall(r"`([a-z_]+)", line)}  # fmt: skip
    missing = set(schema()["properties"]) - told - {"schema_version", "error"}
    assert not missing
