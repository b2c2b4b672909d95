"""The figures of the gate's calibration: the share of a series that passes, and simpler rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import gate_series as made
import numpy as np
from gate_series import ALPHA, MARGIN, TOTAL, Array
from scipy.stats import norm

from perennial import statistics

Row = dict[str, Any]
CYCLES, ROWS, LOSS = 12, 2000, -0.01
Z = float(norm.isf(ALPHA))
# series at the margin that also go through the whole decision
DECIDED = 20


def rate(hits: float, series: int) -> Row:
    """A share of series and its standard error."""
    share = hits / series
    return {"rate": share, "error": math.sqrt(share * (1 - share) / series), "series": series}


def counted(*, n: int, discordance: float, series: int, seed: int) -> Row:
    """0/1 scores of independent rows, for whose tests the counts suffice.

    A sample of the series goes through the whole decision, which has to agree.
    """
    generator = np.random.default_rng(seed)
    shares = [(discordance - MARGIN) / 2, (discordance + MARGIN) / 2, 1 - discordance]
    b, c, _ = generator.multinomial(n, shares, size=series).T
    z = statistics.tango_scores(b, c, n, delta=-MARGIN)
    passed = z >= Z
    rows = made.rows(np.ones(n, dtype=np.int64))
    differ = 0
    for i in range(DECIDED if n < 20_000 else 2):
        champion, candidate = np.ones(n), np.ones(n)
        champion[: b[i]] = 0
        candidate[b[i] : b[i] + c[i]] = 0
        retention = rows.checks(champion, candidate)["retention"]
        differ += (retention.outcome == "pass") != passed[i]
    few = slice(0, 2000)
    return {
        "name": f"0/1, n = {n:,}, discordance {discordance:.0%}",
        **rate(passed.sum(), series),
        "naive": float((b - c > -MARGIN * n).mean()),
        "bootstrap": float(made.bootstrap(generator, b[few], c[few], n).mean()),
        "differ": differ,
    }


def at_margin(
    *, name: str, sizes: tuple[str, int], draw: Callable[..., Any], series: int, seed: int
) -> Row:
    """Candidates that are worse by just the margin, by the test that the gate runs.

    The first of them go through the whole decision, which has to agree.
    """
    generator = np.random.default_rng(seed)
    passed = naive = alone = differ = 0
    rows = made.rows(made.sizes(*sizes, generator))
    for number in range(series):
        if number and number % 100 == 0:  # other sizes, now and then
            rows = made.rows(made.sizes(*sizes, generator))
        champion, candidate = draw(generator, rows.cluster, difference=-MARGIN)
        cleared = _cleared(champion, candidate, rows.cluster)
        if number < DECIDED:
            outcome = rows.checks(champion, candidate)["retention"].outcome
            differ += (outcome == "pass") != cleared
        passed += cleared
        naive += made.naive(champion, candidate)
        alone += made.plain_t(champion, candidate)
    figures = {"naive": naive / series, "plain t": alone / series, "differ": differ}
    return {"name": name, **rate(passed, series), **figures}


def _cleared(champion: Array, candidate: Array, cluster: Array) -> bool:
    difference = candidate - champion
    if np.isin(candidate, (0.0, 1.0)).all():
        counts = statistics.effective_counts(difference, cluster)
        return statistics.tango_test(*counts, delta=-MARGIN) <= ALPHA
    found = statistics.mean_difference(difference, cluster, alpha=ALPHA, threshold=-MARGIN)
    return found.p_above <= ALPHA


def over_cycles(*, discordance: float, series: int, seed: int) -> Row:
    """Twelve cycles, each candidate truly a point worse than the champion it would replace."""
    generator = np.random.default_rng(seed)
    rows = made.rows(np.ones(ROWS, dtype=np.int64), total=TOTAL)
    promoted: dict[str, list[int]] = {"gate": [], "one cycle's test": [], "naive": []}
    for _ in range(series):
        first = (generator.random(ROWS) < 0.9).astype(float)
        for rule, cycles in promoted.items():
            line = made.Lineage(first, first, 0.9)
            for _ in range(CYCLES):
                candidate = made.successor(
                    generator,
                    line.champion,
                    accuracy=line.accuracy,
                    discordance=discordance,
                    difference=LOSS,
                )
                if _kept(rule, rows, line, candidate):
                    line.promote(candidate, LOSS)
            cycles.append(line.cycles)
    most = round(TOTAL / -LOSS)
    kept = {rule: int((np.array(cycles) <= most).sum()) for rule, cycles in promoted.items()}
    return {
        "name": f"{CYCLES} cycles, a point lost in each, discordance {discordance:.1%}",
        **rate(kept["gate"], series),
        "one cycle's test": kept["one cycle's test"] / series,
        "naive": kept["naive"] / series,
        **{f"points lost, {rule}": float(np.mean(one)) for rule, one in promoted.items()},
    }


def _kept(rule: str, rows: made.Rows, line: made.Lineage, candidate: Array) -> bool:
    if rule == "naive":
        return made.naive(line.champion, candidate)
    if rule == "one cycle's test":
        b, c = (int(((candidate - line.champion) == sign).sum()) for sign in (1, -1))
        return statistics.tango_test(b, c, ROWS, delta=-MARGIN) <= ALPHA
    checks = rows.checks(line.champion, candidate, line.best)
    asked = [
        checks["retention"],
        *([checks["retention/total"]] if "retention/total" in checks else []),
    ]
    return all(check.outcome == "pass" for check in asked)


def equal_candidate(*, holdouts: int, n: int, discordance: float, series: int, seed: int) -> Row:
    """An equal candidate under retention, its total and the vetoes of all holdouts and classes."""
    generator = np.random.default_rng(seed)
    rows = made.rows(
        np.ones(holdouts * n, dtype=np.int64), holdouts=holdouts, slices=True, total=TOTAL
    )
    equal = partial(made.successor, accuracy=0.9, discordance=discordance, difference=0.0)
    passed = each = naive = 0
    for _ in range(series):
        best = (generator.random(holdouts * n) < 0.9).astype(float)
        champion = equal(generator, best)
        candidate = equal(generator, champion)
        checks = rows.checks(champion, candidate, best)
        relevant = [
            check
            for name, check in checks.items()
            if name.startswith(("retention", "harm/", "slice/history"))
        ]
        passed += all(check.outcome in ("pass", "not_evaluable") for check in relevant)
        split = (candidate - champion).reshape(holdouts, n)
        counts = [((part > 0).sum(), (part < 0).sum()) for part in split]
        each += all(statistics.tango_test(b, c, n, delta=-MARGIN) <= ALPHA for b, c in counts)
        naive += bool((split.mean(axis=1) > -MARGIN).all())
    return {
        "name": f"{holdouts} holdouts of {n} rows, discordance {discordance:.0%}, equal candidate",
        **rate(passed, series),
        "each must pass": each / series,
        "naive": naive / series,
    }


def power(
    *,
    name: str,
    check: str,
    difference: float,
    sizes: tuple[str, int],
    draw: Callable[..., Any],
    series: int,
    seed: int,
) -> Row:
    """How often a candidate of a known difference passes a check, and what the gate says of it."""
    generator = np.random.default_rng(seed)
    drawn = "new" if check == "improvement" else "history"
    rows = made.rows(made.sizes(*sizes, generator), drawn=drawn)
    passed, stated, naive = 0, [], 0
    for _ in range(series):
        champion, candidate = draw(generator, rows.cluster, difference=difference)
        found = rows.checks(champion, candidate)[check]
        passed += found.outcome == "pass"
        stated.append(found.power)
        naive += bool(np.mean(candidate) - np.mean(champion) > found.threshold)
    return {
        "name": name,
        **rate(passed, series),
        "stated": float(np.mean(stated)),
        "naive": naive / series,
    }
