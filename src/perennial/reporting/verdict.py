"""A result in one title and one sentence, the same on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perennial.errors import EXIT_BAD_DATA
from perennial.notation import places_apart, points
from perennial.reporting.order import ranked

NAMED = 3


def title(result: Mapping[str, Any]) -> str:
    """The status, and whether what was promoted serves; a trial's is what it would be."""
    if is_trial(result):
        return f"trial (would be {result['status']})"
    if result["exit_code"] == EXIT_BAD_DATA:
        return "bad data"
    return "promoted, not applied (promote=false)" if held_back(result) else str(result["status"])


def is_trial(result: Mapping[str, Any]) -> bool:
    """Whether it is the end of a trial of a sweep, which decides nothing."""
    decided = result["status"] in ("promoted", "rejected", "inconclusive")
    return decided and bool(result["decision"]) and bool(result["decision"]["charge"]["trial"])


def held_back(result: Mapping[str, Any]) -> bool:
    """Whether the candidate passed every check and was not given the alias."""
    decision = result["decision"]
    return result["status"] == "promoted" and bool(decision) and not decision["applied"]


def sentence(result: Mapping[str, Any]) -> str:
    """Which version serves now, and why.

    Args:
        result: As ``result.json`` keeps it.
    """
    if result["status"] == "failed":
        return "registry and champion are as they were"
    champion, candidate = (
        result[who]["id"] if result[who] else None for who in ("champion", "candidate")
    )
    stays = f"{champion} serves on"
    if not result["metrics"]:
        return _without_test(result, champion, candidate)
    checks = result["decision"]["checks"]
    if held_back(result):
        if is_trial(result):
            return f"{stays}; {candidate} passed every check: its settings without -m apply it"
        return (
            f"{stays}; {candidate} passed every check: the same command with promote=true "
            "puts it in service"
        )
    if result["status"] == "promoted":
        waived = any(check["outcome"] == "waived" for check in checks)
        blank = [str(check["name"]) for check in checks if check["outcome"] == "not_evaluable"]
        # slices with too few rows are the rule, and stand among the checks
        untested = [name for name in blank if not name.startswith("slice/")]
        kept = "history was not looked at" if waived else "nothing that matters was forgotten"
        if untested:
            kept += f", as far as can be tested ({', '.join(untested)} could not)"
        return f"{candidate} serves now in place of {champion}: {_gained(checks)}, and {kept}"
    if result["decision"]["applied"]:
        return f"{candidate} serves now whatever the verdict: promotion was set to always"
    if result["status"] == "rejected":
        return f"{stays}; {candidate} failed {_named(checks, 'reject')}"
    untested = _untested(checks)
    undecided = _named(checks, "inconclusive")
    parts = [f"{candidate} leaves {undecided} undecided"] if undecided else []
    parts += [f"{' and '.join(untested)} could not be tested"] if untested else []
    return "; ".join([stays, *parts])


def _gained(checks: Sequence[Mapping[str, Any]]) -> str:
    """What was shown on new rows: a gain, or no loss beyond what was allowed."""
    check = next(each for each in checks if each["name"] == "improvement")
    if check["threshold"] >= 0:
        return "better on new rows"
    most = -float(check["threshold"])
    loss = f"{100 * most:.1f} points" if check["unit"] == "points" else f"{most:.4g}"
    return f"not worse by {loss} or more on new rows"


def _without_test(result: Mapping[str, Any], champion: str | None, candidate: str | None) -> str:
    """Of a cycle that tested nothing, since nothing is new or all was decided before."""
    reason = str(result["trigger"]["reason"])
    if result["status"] == "promoted":
        return f"{candidate} serves now in place of {champion}: {reason}"
    decision = result["decision"]
    if decision and decision["verdict"] == "promoted" and not decision["applied"]:
        reason += f"; {candidate} is not applied: promote=true puts it in service"
    return f"{champion} serves on: {reason}" if champion else reason


def _untested(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of what was asked and could not be tested; a veto that could not has no say."""
    return [
        str(check["name"])
        for check in checks
        if check["outcome"] == "not_evaluable" and not check["veto"]
    ]


def _named(checks: Sequence[Mapping[str, Any]], outcome: str) -> str:
    """The worst checks with an outcome, each with its estimate; three, and how many more."""
    found = [_with_estimate(one) for one in ranked(checks) if one["outcome"] == outcome]
    if len(found) > NAMED:
        found = [*found[: NAMED - 1], f"{len(found) - NAMED + 1} more checks"]
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


def _with_estimate(check: Mapping[str, Any]) -> str:
    if check["estimate"] is None:
        return str(check["name"])
    where = {"retention": " on history", "improvement": " on new"}.get(check["name"], "")
    return f"{check['name']} ({value(check)}{where})"


def value(check: Mapping[str, Any], of: float | None = None) -> str:
    """An estimate in its check's unit, in words.

    Args:
        check: With an estimate.
        of: Another figure of the check; the estimate where it is left out.
    """
    amount = check["estimate"] if of is None else of
    if check["unit"] == "points":
        return f"{points(amount)} points"
    return f"{amount:.3g}" + ("×" if check["unit"] == "ratio" else "")


def interval(check: Mapping[str, Any]) -> str:
    """A check's estimate and bounds against its threshold; empty where nothing was compared."""
    return " ".join(filter(None, interval_parts(check)))


def interval_parts(check: Mapping[str, Any]) -> tuple[str, str, str]:
    """Estimate, bounds with a comma, and what must be; empty texts for what is not known.

    What was counted and leaves nothing to chance has no bounds.
    """
    estimate, threshold = check["estimate"], check["threshold"]
    if estimate is None:
        return "", "", ""
    low, high = check["interval"] or (estimate, estimate)
    shown = amounts(
        [low, estimate, high], estimate if threshold is None else threshold, unit=check["unit"]
    )
    told = shown[1] + (" points" if check["unit"] == "points" else "")
    bounds = "" if low == high else f"[{shown[0]}, {shown[2]}]"
    if threshold is None:
        return told, bounds, ""
    must = f"must be {check['side']}"
    if check["veto"] and bounds:
        must = f"must not lie wholly {'below' if check['side'] == 'above' else 'above'}"
    return told, bounds and f"{bounds},", f"{must} {shown[3]}"


def amounts(values: Sequence[float], threshold: float, *, unit: str) -> list[str]:
    """The values and the threshold in their unit, with as many places as tell them apart.

    Args:
        values: Of one check.
        threshold: Likewise.
        unit: The check's.
    """
    if unit == "points":
        places = places_apart(values, threshold)
        return [points(value, places) for value in (*values, threshold)]
    sign = "×" if unit == "ratio" else ""
    return [f"{value:.3g}{sign}" for value in (*values, threshold)]


def charge(decision: Mapping[str, Any]) -> str:
    """What trying more than once on the same new rows costs; empty for a first and only decision.

    Args:
        decision: As ``result.json`` keeps it.
    """
    number, alpha, tried = decision["decision_number"], decision["alpha"], decision["charge"]
    # the gate halves the level with each repetition
    level = f"each test at {alpha:.2g}"
    if number > 1:
        level += f" instead of {alpha * 2 ** (number - 1):.2g}"
    if tried["trial"]:
        return (
            f"trial {tried['trials']} of a sweep on these new rows, {level}: trials are not "
            "counted; the best one on validation rows counts once, when it is applied"
        )
    repeated = f"decision {number} on these new rows: {level}" if number > 1 else level
    if tried["best"]:
        return (
            f"the best on validation rows of {_trials(tried['trials'])} on these new rows counts "
            f"once; {repeated}"
        )
    if tried["trials"]:
        return (
            f"not the best on validation rows of {_trials(tried['trials'])} on these new rows, so "
            f"charged for all of them; {repeated}"
        )
    return repeated if number > 1 else ""


def _trials(count: int) -> str:
    return f"{count} trial{'s' if count > 1 else ''}"
