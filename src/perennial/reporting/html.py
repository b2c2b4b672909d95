"""``report.html``: one self-contained page that explains a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
from markupsafe import Markup

from perennial.notation import confidence, gain, level, percent, points
from perennial.reporting import flips, forest, past, plots, verdict
from perennial.reporting.advice import to_try, what_would_change
from perennial.reporting.order import ranked
from perennial.reporting.template import pages
from perennial.types import EvaluationReport

HOLDOUTS = 5
OPEN = 8
VERDICTS = ("pass", "reject")
MODELS = (("champion", plots.CHAMPION), ("candidate", plots.CANDIDATE))
ORIGINS = (("new", plots.NEW), ("history", plots.HISTORY))
RELIABILITY = (
    "How often a prediction is right against how sure it says it is; the dashed diagonal is "
    "perfect, below it a model is too sure. Tenths with five rows or more; a larger mark has more."
)
COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("parameters", "parameters", lambda value: f"{value:,.0f}"),
    ("bytes", "stored weights", lambda value: f"{value / 2**20:,.3g} MiB"),
    ("latency_p50_ms", "latency of a batch, median", lambda value: f"{value:.3g} ms"),
    ("latency_p95_ms", "latency of a batch, 95% are below", lambda value: f"{value:.3g} ms"),
)
ENVIRONMENT = {
    "git_commit": "git commit of the folder it ran in",
    "git_dirty": "uncommitted changes in that folder",
    "cpu_count": "CPUs",
}


def render_report(
    *,
    result: Mapping[str, Any],
    curve: Sequence[Mapping[str, float]],
    report: EvaluationReport,
    features: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    label_names: Sequence[str],
    versions: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page.

    Args:
        result: As ``result.json`` keeps it.
        curve: Validation scores by step, the champion's at step 0.
        report: Both models row by row.
        features: Row id to the row's columns, for the flipped examples; a column (H, W) or
            (C, H, W) is shown as a picture.
        label_names: In the order of the labels.
        versions: The lineage's versions up to the candidate, oldest first: ``number``, whether it
            ``served``, and its score on ``new`` rows of its own cycle and on ``history``, or None.

    Returns:
        HTML without scripts and without references to anything outside itself.
    """
    environment = pages()
    environment.filters |= {
        "percent": percent,
        "points": points,
        "level": lambda value: level(value, result["task"]["unit"]),
        "gain": lambda value: gain(value, result["task"]["unit"]),
        "amount": _amount,
        "certainty": _certainty,
        "confidence": confidence,
        "alternative": lambda check: verdict.value(check, of=check["alternative"]),
        "p": lambda value: "" if value is None else f"{value:.2g}",
    }
    decision, checks = result["decision"], result["decision"]["checks"]
    asked = [one for one in checks if not one["veto"] or one["outcome"] not in VERDICTS]
    vetoes = ranked([one for one in checks if one not in asked])
    rejecting = sum(one["outcome"] == "reject" for one in vetoes)
    forgetting = result["forgetting"] or {}
    score, unit = result["task"]["score"], result["task"]["unit"]
    rows = _rows(result["metrics"], score)
    folded = _folded(rows)
    return environment.get_template("report.html.j2").render(
        result=result,
        title=verdict.title(result),
        held_back=verdict.held_back(result),
        headline=verdict.sentence(result),
        shown=[row for row in rows if row not in folded],
        folded=folded,
        pictures=forest.pictures(checks),
        checks=[*asked, *vetoes[: min(rejecting, OPEN)]],
        vetoes=vetoes,
        certainty=forest.certainty(decision),
        intervals={check["name"]: verdict.interval(check) for check in checks},
        changes=what_would_change(decision),
        tries=to_try(decision),
        charge=verdict.charge(decision),
        figures=_figures(
            result["metrics"], curve, report, plots.Score(score.replace("_", " "), unit)
        ),
        score=score.replace("_", " "),
        one_class=report.has_one_class,
        flips=flips.counts(report),
        examples=flips.examples(report, features, label_names),
        heat=past.heat_map(forgetting, unit) if forgetting.get("versions") else None,
        measures=past.measures(forgetting, result["task"]),
        course=_course(versions, plots.Score(score.replace("_", " "), unit)),
        origins=ORIGINS,
        serving=_serving(result["serving"]),
        cost=result["cost"],
        environment=_environment(result["environment"] or {}),
    )


def _figures(
    metrics: Mapping[str, Any],
    curve: Sequence[Mapping[str, float]],
    report: EvaluationReport,
    score: plots.Score,
) -> list[dict[str, Any]]:
    """Title, note, key of the colours and drawing of each plot."""
    classes = "Champion to candidate. A red line is a loss; the largest stand on top."
    parts = [("new", True, "new data"), ("history", False, "history")]
    figures = _learning(curve, score)
    parts = parts if report.has_one_class else []
    for part, new, words in parts:
        if part in metrics["champion"]:
            drawing = plots.per_class(report, new=new)
            figures.append((f"Each class, {words}", classes, MODELS, drawing))
    both = (report.champion.probabilities, report.candidate.probabilities)
    sure = all(one is not None for one in both)
    for part, new, words in parts if sure else []:
        if part in metrics["champion"]:
            drawing = plots.reliability(report, new=new)
            keys = [(f"{who}{_ece(metrics[who][part])}", colour) for who, colour in MODELS]
            figures.append((f"Calibration, {words}", RELIABILITY, keys, drawing))
    return [
        {"title": title, "note": note, "keys": keys, "svg": Markup(svg)}  # noqa: S704
        for title, note, keys, svg in figures
    ]


def _ece(measured: Mapping[str, float]) -> str:
    return f", ECE {percent(measured['ece'])}" if "ece" in measured else ""


def _course(versions: Sequence[Mapping[str, Any]], score: plots.Score) -> Markup | None:
    """The line of the scores over versions; None where there is one version only."""
    if len(versions) < 2:
        return None
    return Markup(plots.course(versions[-past.LATEST :], score))  # noqa: S704


def _serving(serving: Mapping[str, Mapping[str, float]] | None) -> list[dict[str, str]]:
    """Rows of the table of what serving costs; none where it was not measured."""
    if not serving:
        return []
    before, after = serving["champion"], serving["candidate"]
    return [
        {
            "name": name,
            "champion": form(before[key]),
            "candidate": form(after[key]),
            "change": f"{100 * (after[key] / before[key] - 1):+.1f}%" if before[key] else "",
        }
        for key, name, form in COSTS
    ]


def _learning(curve: Sequence[Mapping[str, float]], score: plots.Score) -> list[tuple[Any, ...]]:
    if not curve:  # nothing was validated
        return []
    note = f"{score.title} of validation rows; dashed is where the champion stood."
    return [("While it learned", note, ORIGINS, plots.learning_curve(curve, score))]


def _rows(metrics: Mapping[str, Any], score: str) -> list[dict[str, Any]]:
    # what is pooled first, then what it is pooled from
    names = sorted(metrics["champion"], key=lambda name: name.startswith("history/"))
    return [
        {
            "name": name,
            "n": metrics["champion"][name]["n"],
            "champion": metrics["champion"][name][score],
            "candidate": metrics["candidate"][name][score],
            "sub": name.startswith("history/"),
        }
        for name in names
        if not (
            name.startswith("history/") and sum(one.startswith("history/") for one in names) == 1
        )
    ]


def _folded(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of many single holdouts all but those that lost most, which stay in sight."""
    single = [row for row in rows if row["sub"]]
    if len(single) <= HOLDOUTS:
        return []
    lost_least = sorted(single, key=lambda row: row["candidate"] - row["champion"])[HOLDOUTS:]
    return [row for row in single if row in lost_least]


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run ran on, named for a reader."""
    said = {
        name: ("no", "yes")[value] if isinstance(value, bool) else str(value)
        for name, value in environment.items()
        if value is not None and not isinstance(value, Mapping)
    }
    if "git_commit" in said:
        said["git_commit"] = said["git_commit"][:12]
    return [(ENVIRONMENT.get(name, name.replace("_", " ")), value) for name, value in said.items()]


def _certainty(probability: float) -> str:
    """A model is never entirely sure."""
    return percent(probability) if probability < 0.9995 else ">99.9%"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
