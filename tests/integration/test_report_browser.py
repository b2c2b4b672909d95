"""Report, comparison and sweep in a real browser: nothing fetched, nothing overflows, all drawn."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perennial.reporting.compare import render_comparison
from perennial.reporting.monitor_page import render_look
from perennial.reporting.sweep import headline, render_sweep
from perennial.reporting.verdict import title
from perennial.sweeping.settings import Sweep
from perennial.sweeping.space import Parameter
from perennial.sweeping.study import Ended
from perennial.sweeping.summary import summary
from perennial.sweeping.trial import Outcome
from perennial.tracking.compare.settings import short
from perennial.tracking.compare.table import compare_runs
from support import made
from support.compared import make_run

CHROMIUM = next(
    (path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which CI installs"),
]

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
# a frame has any width, where a window has a least one
MEASURE = """<!doctype html>
<iframe id="page" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="found"></pre><script>
const page = document.getElementById("page");
page.onload = () => {{
  const root = page.contentDocument.documentElement;
  // what is folded away is measured too
  root.querySelectorAll("details").forEach(part => part.open = true);
  const boxes = [...root.querySelectorAll("svg, img, table, section")];
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth,
    overflow: root.scrollWidth,
    empty: boxes.filter(box => !box.getBoundingClientRect().height).length,
    broken: [...root.querySelectorAll("img")].filter(image => !image.naturalWidth).length,
    drawings: root.querySelectorAll("svg").length,
    unnamed: [...root.querySelectorAll("svg")].filter(drawing =>
      !drawing.parentElement.closest("svg") && !drawing.hasAttribute("aria-label")
      && !drawing.hasAttribute("aria-hidden")).length,
    outgrown: [...root.querySelectorAll(".row, .flip, table:not(.scroll table)")].filter(box =>
      box.getBoundingClientRect().right > root.clientWidth).length,
    marks: [...root.querySelectorAll(".row .mark > svg > *")].filter(mark =>
      mark.getBoundingClientRect().width > 5).length,
    heading: root.querySelector("h1").textContent.trim(),
    outside: performance.getEntriesByType("resource").length,
  }});
}};
page.srcdoc = {page};
</script>"""


def look(report: Path, width: int, folder: Path) -> dict[str, Any]:
    """What the browser says of a report at a width in CSS pixels."""
    quoted = json.dumps(report.read_text()).replace("</", "<\\/")
    page = folder / f"{width}.html"
    page.write_text(MEASURE.format(width=width, page=quoted))
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    shown = subprocess.run(
        [*command, "--virtual-time-budget=5000", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    found = re.search(r'<pre id="found">(.+?)</pre>', shown, re.DOTALL)
    assert found is not None, shown[-500:]
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


def test_fits_a_phone_and_a_desk(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    done = run("trainer.max_steps=20", "trainer.validate_every=10")
    report = Path(done["report"])
    for who in ("champion", "candidate"):
        assert done[who]["id"] in report.read_text()
    for width in (320, 1200):
        seen = look(report, width, tmp_path)
        assert seen["overflow"] <= seen["width"] <= width
        assert (seen["empty"], seen["broken"], seen["outside"]) == (0, 0, 0)
        assert seen["drawings"] >= 5
        assert (seen["unnamed"], seen["outgrown"]) == (0, 0)
        assert seen["marks"] >= 2
        assert seen["heading"] == title(done)


def test_a_comparison_fits_a_phone_and_a_desk(tmp_path: Path) -> None:
    curve = [{"step": 0, "new": 0.1, "history": 0.9}, {"step": 50, "new": 0.8, "history": 0.88}]
    runs = [make_run(i, curve=curve, new=0.5 + i / 200, config={"k": i}) for i in range(2, 60)]
    found = compare_runs(runs)
    page = tmp_path / "compare.html"
    page.write_text(render_comparison(found, names=short(found.settings)))
    for width in (320, 1200):
        seen = look(page, width, tmp_path)
        assert seen["overflow"] <= seen["width"] <= width
        assert (seen["empty"], seen["outside"], seen["unnamed"], seen["outgrown"]) == (0, 0, 0, 0)
        assert seen["drawings"] == 1 + 24 + 24  # points, curves, costs
        assert seen["heading"] == "58 runs of m"


def swept() -> dict[str, Any]:
    """A sweep over two settings with long names: 30 trials that ended well, one that failed."""
    stood = {"new": 0.1, "history": 0.9, "combined": 0.5}
    names = ("method.replay.new_fraction", "optimizer.lr")
    ended = []
    for number in range(30):
        new, history = 0.5 + number / 100, 0.95 - (number % 7) / 50
        scores = {"new": new, "history": history, "combined": (new + history) / 2}
        outcome = Outcome(
            state="finished", scores=scores, champion=stood, candidate=f"digits@{number + 2}"
        )
        ended.append(Ended(number, {names[0]: number / 40 + 0.01, names[1]: 1e-3}, outcome))
    reason = "Training diverged at " + "a/very/long/folder/" * 12
    ended.append(Ended(30, dict.fromkeys(names, 0.5), Outcome(state="failed", reason=reason)))
    return summary(
        name="digits-1",
        model="digits",
        champion="digits@1",
        ended=ended,
        space=[Parameter(name=name, low=1e-3, high=1.0) for name in names],
        settings=Sweep(),
        command="perennial train " + "trainer.max_steps=1000 " * 8,
        command_of=lambda params: f"perennial train {params}",
    )


def test_a_sweep_fits_a_phone_and_a_desk(tmp_path: Path) -> None:
    page = tmp_path / "sweep.html"
    page.write_text(render_sweep(swept()))
    for width in (320, 1200):
        seen = look(page, width, tmp_path)
        assert seen["overflow"] <= seen["width"] <= width
        assert (seen["empty"], seen["outside"], seen["outgrown"]) == (0, 0, 0)
        assert seen["drawings"] >= 3  # the frontier and each setting's effect
        assert seen["heading"] == headline(swept())


def test_a_look_at_new_rows_fits_a_phone_and_a_desk(tmp_path: Path) -> None:
    told = made.look()
    told["model_name"] = told["version"] = "a_very_long_name_of_a_lineage_" * 4
    told["windows"] = told["windows"] * 20
    told["notes"] = ["a_column_with_a_very_long_name_" * 10]
    page = tmp_path / "monitor.html"
    page.write_text(render_look(told))
    for width in (320, 1200):
        seen = look(page, width, tmp_path)
        assert seen["overflow"] <= seen["width"] <= width
        assert (seen["empty"], seen["outside"], seen["unnamed"], seen["outgrown"]) == (0, 0, 0, 0)
        assert seen["drawings"] == 2 + 2 + 1
        assert seen["heading"] == "Alarm"
