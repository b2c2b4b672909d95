from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from perennial import files
from perennial.errors import StorageError
from perennial.promotion.gate import decide
from perennial.promotion.multiplicity import Charge
from perennial.promotion.policy import Policy, level
from perennial.reporting.console import print_result
from perennial.reporting.html import render_report
from perennial.reporting.progress import Display
from perennial.reporting.result import schema, write_result
from perennial.types import EvaluationReport, Predictions
from support.checks import check, untested

NAMES = ("cat", "<script>alert(1)</script>")


def report(n: int = 400) -> EvaluationReport:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 2 * n)
    new = np.arange(2 * n) < n

    def predictions(wrong_new: float, wrong_old: float) -> Predictions:
        wrong = generator.random(2 * n) < np.where(new, wrong_new, wrong_old)
        predicted = np.where(wrong, 1 - label, label)
        return Predictions(
            prediction=predicted,
            score=(predicted == label).astype(float),
            loss=np.full(2 * n, 0.5),
            probabilities=np.full((2 * n, 2), 0.5),
        )

    ids = np.array([f"row{i}" for i in range(2 * n)])
    return EvaluationReport(
        row_id=ids,
        cluster=ids,
        holdout=np.where(new, "new", "history/cycle-1"),
        label=label,
        seen_by_champion=np.zeros(2 * n, dtype=bool),
        champion=predictions(0.5, 0.05),
        candidate=predictions(0.1, 0.05),
        label_names=NAMES,
    )


def result(status: str = "promoted") -> dict[str, Any]:
    decision = {**decide(report(), Policy()).to_dict(), "charge": Charge(1).to_dict(), "policy": {}}
    measured = {"accuracy": 0.9, "loss": 0.1, "n": 400}
    both = {"new": measured, "history": measured, "history/cycle-1": measured}
    judged = status in ("promoted", "rejected", "inconclusive")
    source = {"rows": 5, "sha256": "ab" * 32}
    value: dict[str, Any] = {
        "schema_version": 1,
        "status": status,
        "exit_code": {
            "promoted": 0,
            "rejected": 20,
            "inconclusive": 21,
            "skipped": 10,
            "pruned": 0,
        }.get(status, 30),
        "created": "2026-11-25T15:20:31+00:00",
        "cycle_id": "c" * 32 if judged else None,
        "model_name": "m",
        "champion": {"id": "m@1"} if judged else None,
        "candidate": {"id": "m@2"} if judged else None,
        "bootstrap": False,
        "trigger": {
            "kind": "manual",
            "due": True,
            "reason": "nothing new to learn from",
            "evidence": {},
        },
        "task": {"kind": "class", "score": "accuracy", "unit": "points"} if judged else None,
        "validation": None,
        "metrics": {"champion": both, "candidate": both} if judged else None,
        "decision": {**decision, "verdict": status, "applied": status == "promoted"}
        if judged
        else None,
        "forgetting": None,
        "serving": None,
        "cost": {
            "wall_seconds": 1.0,
            "device_seconds": 1.0,
            "train_rows": 10,
            "replayed_rows": 8,
            "optimizer_steps": 1,
            "peak_memory_bytes": 1,
            "labels": 3,
            "energy": None,
            "profile": {"data": 0.1, "other": 0.9},
        }
        if judged
        else None,
        "config_sha256": "d" * 64,
        "data": {"new": source, "history": source, "memory": None} if judged else None,
        "report": "report.html" if judged else None,
        "tracking": {"run_id": None, "url": None, "directory": None},
        "environment": {"python": "3.11"},
        "error": {"what": "w", "where": "h", "mend": "m"} if status == "failed" else None,
    }
    return value


STATUSES = ("promoted", "rejected", "inconclusive", "skipped", "failed", "pruned")


@pytest.mark.parametrize("status", STATUSES)
def test_the_schema_takes_every_status(status: str) -> None:
    jsonschema.validate(result(status), schema())


@pytest.mark.parametrize(
    ("status", "key", "value"),
    [
        ("promoted", "status", "great"),
        ("promoted", "exit_code", 7),
        ("promoted", "surprise", 1),
        ("promoted", "exit_code", 20),
        ("failed", "error", None),
        ("failed", "exit_code", 0),
        ("rejected", "decision", None),
        ("promoted", "metrics", {"champion": {}}),
    ],
)
def test_the_schema_refuses_what_is_broken(status: str, key: str, value: Any) -> None:
    broken = {**result(status), key: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


def page(**changes: Any) -> str:
    settings: dict[str, Any] = {
        "result": result(),
        "curve": [
            {"step": 0, "new": 0.5, "history": 0.95, "combined": 0.7},
            {"step": 9, "new": 0.9, "history": 0.95, "combined": 0.9},
        ],
        "report": report(),
        "features": {f"row{i}": {"image": np.eye(8)} for i in range(800)},
        "label_names": NAMES,
    }
    return render_report(**{**settings, **changes})


def test_the_page_is_self_contained_and_escapes_what_it_shows() -> None:
    html = page()
    assert "<script" not in html
    for marker in ('src="http', 'href="http', "url(http", "@import"):
        assert marker not in html
    text = unescape(html)
    for one in result()["decision"]["checks"]:
        assert one["name"] in text
        assert one["reason"].split(";")[0].replace("→", "")[:20] in text.replace("→", "")
    assert "data:image/png;base64," in html
    assert html == page()


def lineage(size: int = 3) -> dict[str, Any]:
    """A result of a lineage, with what serving costs."""
    cost = {"parameters": 2000, "bytes": 8192, "latency_p50_ms": 0.2, "latency_p95_ms": 0.4}
    return {
        **result(),
        "forgetting": {
            "average_accuracy": 0.9,
            "forgetting": 0.01,
            "backward_transfer": None,
            "forward_transfer": None,
            "matrix": [[0.9] * size for _ in range(size)],
            "versions": [f"m@{i + 1}" for i in range(size)],
            "holdouts": [f"<cycle-{i + 1}>" for i in range(size)],
        },
        "serving": {"champion": cost, "candidate": {**cost, "latency_p50_ms": 0.25}},
    }


def headings(html: str) -> list[str]:
    return re.findall(r"<h2>([^<]+)</h2>", html)


def test_the_page_tells_the_lineage_and_what_serving_costs() -> None:
    versions = [{"number": i + 1, "served": True, "new": 0.9, "history": 0.9} for i in range(3)]
    html = page(result=lineage(), versions=versions)
    assert "The lineage so far" in headings(html)
    assert "What serving costs" in headings(html)
    assert html.count("&lt;cycle-3&gt;</th>") == 1
    assert "m@3 on &lt;cycle-1&gt;: 90.0%" in html
    assert ">0.2 ms</td><td>0.25 ms</td><td>+25.0%<" in html
    assert html.count(">90.0</td>") == 9


def test_what_is_absent_leaves_no_empty_box() -> None:
    alone = report()
    keep = alone.is_new
    bare = {
        who: dataclasses.replace(
            getattr(alone, who),
            **{n: getattr(getattr(alone, who), n)[keep] for n in ("prediction", "score", "loss")},
            probabilities=None,
        )
        for who in ("champion", "candidate")
    }
    alone = dataclasses.replace(
        alone,
        **{
            name: getattr(alone, name)[keep]
            for name in ("row_id", "cluster", "holdout", "label", "seen_by_champion")
        },
        **bare,
    )
    shown = result()
    decision = decide(alone, Policy(retention="waived")).to_dict()
    shown["decision"] |= {"checks": decision["checks"], "verdict": "promoted"}
    shown["metrics"] = {who: {"new": one["new"]} for who, one in shown["metrics"].items()}
    html = page(result=shown, report=alone, curve=[])
    for section in re.findall(r"<section>(.*?)</section>", html, re.DOTALL):
        assert re.search(r"<(svg|td|p|dd|li)\b", section), section[:200]
    found = headings(html)
    for absent in ("The lineage so far", "What serving costs", "Each class, history"):
        assert absent not in found
    assert not [one for one in found if one.startswith(("Calibration", "While"))]
    assert "retention<span" in html
    assert "Retention was waived" in html


def test_a_rejection_says_what_is_missing_and_what_to_try() -> None:
    shown = result("rejected")
    shown["decision"]["checks"] = [check("retention", "reject", -0.09, -0.05)]
    html = page(result=shown)
    assert "What would change the decision" in headings(html)
    assert "3.0 points are missing even at best" in html
    assert "Protect history more" in html
    assert "What came closest" in headings(page())
    assert "Protect history more" not in page()


def test_every_drawing_has_words() -> None:
    html = page(result=lineage())
    drawings = re.findall(r"<svg [^>]*>", html)
    nested = [one for one in drawings if 'overflow="visible"' in one]
    outer = [one for one in drawings if one not in nested]
    assert len(outer) >= 9
    for one in outer:
        assert 'aria-hidden="true"' in one or re.search(r'role="img" aria-label="\w', one), one


def test_a_label_with_a_dollar_sign_and_a_broken_picture_do_no_harm() -> None:
    named = dataclasses.replace(report(), label_names=("$x^$", "b"))
    broken = {f"row{i}": {"image": np.full((8, 8), np.nan)} for i in range(800)}
    assert "$x^$" in page(report=named, label_names=named.label_names, features=broken)


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    write_result(tmp_path / "r.json", {"a": [float("nan"), 1.0], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": [None, 1.0], "b": {"c": None}}


def test_without_columns_the_rows_are_named() -> None:
    html = page(features={})
    assert "data:image/png" not in html
    assert re.search(r">row\d+<", html)


def test_a_row_without_a_picture_shows_its_values() -> None:
    row = {
        "amount": np.float32(0.1),
        "visits": np.int64(3),
        "<night>": np.bool_(True),
        "embedding": np.zeros(300),
        "one": np.array([2.5]),
        "note": np.str_("x" * 50),
        **{f"more{i}": np.float64(i) for i in range(5)},
    }
    html = page(features={f"row{i}": row for i in range(800)})
    shown = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td></tr>", html)
    assert dict(shown) == {
        "amount": "0.1",
        "visits": "3",
        "&lt;night&gt;": "True",
        "embedding": "300 values",
        "one": "2.5",
        "note": "x" * 39 + "…",
        "more0": "0",
        "more1": "1",
    }
    assert "and 3 more" in html
    assert not re.search(r">row\d+<", html)


def test_the_page_tells_each_p_once_and_power_where_a_check_did_not_pass() -> None:
    shown = result()
    retention, improvement = shown["decision"]["checks"][:2]
    retention["outcome"] = improvement["outcome"] = "pass"
    html = page(result=shown)
    assert "(power)" not in html
    assert "=&#34;" not in html  # an attribute that came escaped is none
    # each p once: that of the improvement stands in its sentence
    assert html.count(f"p = {retention['p_value']:.2g}") == 1
    assert html.count(f"p = {improvement['p_value']:.2g}") == 1
    retention["outcome"], improvement["outcome"] = "reject", "inconclusive"
    assert f"p = {retention['p_value']:.2g}" in page(result=shown)
    assert page(result=shown).count("(power)") == 2
    told = f"true difference of +2.0 points passes with {100 * improvement['power']:.1f}% prob"
    assert told in page(result=shown)


def test_the_page_says_when_whose_commit_and_at_what_confidence() -> None:
    shown = result()
    shown["environment"] |= {"git_commit": "abcdef" * 7, "git_dirty": True, "cuda": None}
    shown["decision"] |= {"decision_number": 9, "alpha": 0.05 / 2**8}
    html = page(result=shown)
    assert "m@1 → m@2 · 2026-11-25 15:20 UTC" in html
    assert "m@2 against m@1 · 2026-11-25 15:20 UTC" in page(result=result("rejected"))
    assert "git commit of the folder it ran in</dt><dd>abcdefabcdef<" in html
    assert "uncommitted changes in that folder</dt><dd>yes<" in html
    assert "each at 99.98%" in html
    assert "Decision 9 on these new rows: each test at 0.0002 instead of 0.05." in html


def test_a_promotion_held_back_is_no_plain_promotion() -> None:
    held = result()
    held["decision"]["applied"] = False
    html = page(result=held)
    assert '<h1 class="held">promoted, not applied (promote=false)</h1>' in html
    assert "m@1 serves on; m@2 passed every check" in html


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_verdict_and_exit_code(status: str, width: int) -> None:
    out = io.StringIO()
    shown = result(status)
    if shown["metrics"]:  # nothing was compared: no interval to print
        shown["decision"]["checks"][0] |= {"outcome": "waived", "estimate": None, "reason": ""}
    print_result(shown, Console(file=out, width=width))
    text = out.getvalue()
    assert ("BAD DATA" if shown["exit_code"] == 30 else status.upper()) in text
    assert f"exit:   {shown['exit_code']}" in text
    assert "\x1b" not in text
    if status == "failed":
        assert "mend:  m" in text
    if shown["metrics"]:
        assert "report.html" in text
        assert "retention" in text
    lines = text.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert "\n\n\n" not in text
    assert re.match(r"\n\S", text)


def printed(shown: dict[str, Any], width: int = 80) -> str:
    out = io.StringIO()
    print_result(shown, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("{here}/outputs/report.html", "outputs/report.html"),
        ("{here}-2/report.html", "{here}-2/report.html"),
        ("https://wandb.ai/team/run", "https://wandb.ai/team/run"),
    ],
)
def test_what_lies_below_this_folder_is_told_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = {**result(), "report": path.format(here=tmp_path)}
    assert f"  report: {told.format(here=tmp_path)}\n" in printed(shown, width=20)


def test_the_terminal_says_that_a_promotion_was_held_back() -> None:
    held = result()
    assert "\nPROMOTED\n" in printed(held)
    held["decision"]["applied"] = False
    assert "\nPROMOTED, NOT APPLIED (promote=false)\n" in printed(held)


def test_the_terminal_says_what_a_repeated_decision_costs() -> None:
    shown = result()
    assert "decision" not in printed(shown)
    shown["decision"] |= {"decision_number": 9, "alpha": level(Policy(), 9)}
    assert "  decision 9 on these new rows: each test at 0.0002 instead of 0.05\n" in printed(shown)


def test_the_terminal_stays_short_for_a_long_lineage() -> None:
    shown = result("rejected")
    holdouts = [f"history/cycle-{i}" for i in range(1, 11)]
    slices = [f"slice/{part}/class={i}" for part in ("new", "history") for i in range(10)]
    shown["decision"]["checks"] = [
        check("retention", "reject", -0.09, -0.05),
        check("retention/total", "inconclusive", -0.04, 0.01),
        check("improvement", "pass", 0.1, 0.2),
        *(check(f"harm/{name}", "reject", -0.2, -0.1) for name in holdouts),
        *(check(name, "pass", -0.1, 0.05 + 0.001 * i) for i, name in enumerate(slices)),
        untested("slice/untested"),
    ]
    part = {"accuracy": 0.9, "loss": 0.1, "n": 400}
    worse = {"accuracy": 0.85, "loss": 0.1, "n": 400}
    names = ("new", "history", *holdouts)
    shown["metrics"] = {
        "champion": dict.fromkeys(names, part),
        "candidate": {name: worse if name == "history/cycle-4" else part for name in names},
    }
    text = printed(shown)
    lines = text.splitlines()
    assert len(lines) <= 40
    assert "pass           20 vetoes; closest: slice/new/class=0, -2.5 points [-10.0, +5.0]" in text
    assert "and 6 more vetoes, in the report" in text
    assert "\nhistory/cycle-4 " in text
    assert "5 more holdouts" in text
    assert "from 0.0 points up" in text
    # what did not pass says why, under its own line
    place = next(
        i for i, line in enumerate(lines) if line.startswith("  reject         retention ")
    )
    assert lines[place + 1].strip().startswith("retention is told")


def test_an_equation_is_not_torn_and_a_path_is_not_folded() -> None:
    for width in range(40, 100):
        undecided = result()
        undecided["decision"]["checks"][1]["outcome"] = "inconclusive"
        assert "p = " in printed(undecided, width)
    shown = {**result(), "report": "/" + "long/" * 40 + "report.html"}
    assert shown["report"] in printed(shown, 60)


def test_a_full_disk_sends_the_result_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(files, "write_json", full)
    write_result(tmp_path / "result.json", copy.deepcopy(result("skipped")))
    assert '"status": "skipped"' in capsys.readouterr().err


def test_a_log_gets_a_line_now_and_then() -> None:
    out, now = io.StringIO(), [0.0]
    display = Display(Console(file=out, width=80), clock=lambda: now[0])
    show = display.progress("training")
    for step in range(1, 1001):
        now[0] += 0.05
        show(step, 1000, "new 50.0%")
    lines = out.getvalue().splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[-1] == "training: step 1000 of 1000, new 50.0%"


@pytest.mark.parametrize("terminal", [True, False])
def test_an_early_stop_is_told_at_once_and_once(terminal: bool) -> None:
    out = io.StringIO()
    display = Display(
        Console(file=out, width=120, force_terminal=terminal), clock=itertools.repeat(0.0).__next__
    )
    show = display.progress("retraining")
    show(349, 2000, "new 50.0%")
    show(350, 2000, "new 51.0%")
    show(350, 2000, "new 51.0%", stopped=True)
    display.close()
    told = "retraining: stopped early at step 350 of 2000, new 51.0%\n"
    assert out.getvalue().endswith(told)
    assert (out.getvalue() == told) is not terminal
