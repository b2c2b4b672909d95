"""Whether the gate keeps its word: false promotions at the margin, losses that add up, power.

python benchmarks/gate_calibration.py --json gate_calibration.json
python benchmarks/gate_calibration.py --reduced        # a quarter of the series
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gate_series as made
from gate_figures import Row, at_margin, counted, equal_candidate, over_cycles, power
from harness import bar, finish

FALSE, KEPT, UNION, POWER = 0.065, 0.94, 0.90, 0.05
CLUSTERS = (("even", 50), ("uneven", 50), ("uneven", 150), ("even", 400), ("few big", 400))


def works(series: int) -> list[tuple[str, Callable[..., Row]]]:
    """Every figure: the bar that it belongs to, and how it comes about.

    Args:
        series: Of candidates for ten holdouts and for power; there are twice as many lineages,
            and eight to twenty times as many candidates at the margin.
    """
    binary, mean = made.binary, made.continuous
    found: list[tuple[str, Callable[..., Row]]] = [
        ("counts", partial(counted, n=n, discordance=share, series=10 * series))
        for n in (200, 600, 2000, 20_000)
        for share in (0.02, 0.05, 0.1, 0.2)
    ]

    def margin(bar: str, name: str, sizes: tuple[str, int], draw: Callable[..., Any]) -> None:
        times = 20 if bar == "continuous" else 8
        work = partial(at_margin, name=name, sizes=sizes, draw=draw, series=times * series)
        found.append((bar, work))

    for n in (500, 1000, 2000):
        for shape in ("normal", "lognormal", "minus lognormal"):
            margin("continuous", f"{shape}, n = {n:,}", ("single", n), partial(mean, shape=shape))
    for shape, clusters in CLUSTERS:
        where = f"{clusters} clusters, {shape}"
        for share in (0.025, 0.05, 0.1, 0.2):
            margin(
                "clusters",
                f"0/1, {where}, discordance {share:.1%}",
                (shape, clusters),
                partial(binary, discordance=share, together=0.5),
            )
        for correlation in (0.1, 0.5):
            margin(
                "clusters",
                f"normal, {where}, correlation {correlation}",
                (shape, clusters),
                partial(mean, shape="normal", correlation=correlation),
            )
    # 6% is where most series lose more than they may
    for share in (0.025, 0.06, 0.1):
        found.append(("cycles", partial(over_cycles, discordance=share, series=2 * series)))
    found.append(
        ("union", partial(equal_candidate, holdouts=10, n=600, discordance=0.04, series=series))
    )
    for name, check, sizes, draw in powers():
        difference = 0.02 if check == "improvement" else 0.0
        found.append(
            (
                "power",
                partial(
                    power,
                    name=f"{check}, {name}",
                    check=check,
                    difference=difference,
                    sizes=sizes,
                    draw=draw,
                    series=series,
                ),
            )
        )
    return found


def powers() -> list[tuple[str, str, tuple[str, int], Callable[..., Any]]]:
    """Settings for which power is compared: name, check, cluster sizes, draws."""
    found: list[tuple[str, str, tuple[str, int], Callable[..., Any]]] = []
    for check in ("retention", "improvement"):
        for n in (600, 2000):
            for share in (0.04, 0.1):
                draw = partial(made.binary, discordance=share)
                found.append(
                    (f"0/1, n = {n:,}, discordance {share:.0%}", check, ("single", n), draw)
                )
        for shape, scale in (("normal", 0.3), ("lognormal", 0.15), ("minus lognormal", 0.15)):
            draw = partial(made.continuous, shape=shape, scale=scale)
            found.append((f"{shape}, n = 1,000", check, ("single", 1000), draw))
    draw = partial(made.binary, discordance=0.05, together=0.5)
    found.append(("0/1, 150 clusters, uneven", "retention", ("uneven", 150), draw))
    return found


def bars(rows: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """What was promised, each over the worst of its figures."""
    names = {"counts": "0/1 scores", "continuous": "continuous scores", "clusters": "clusters"}
    found = [
        bar(
            f"false promotion at the margin, {name}",
            max(row["rate"] for row in rows[part]),
            FALSE,
            higher=False,
        )
        for part, name in names.items()
    ]
    differ = sum(row["differ"] for part in names for row in rows[part])
    gap = max(abs(row["rate"] - row["stated"]) for row in rows["power"])
    return [
        *found,
        bar("series that the whole decision judges otherwise", differ, 0, higher=False),
        bar(
            "never more than three points lost in twelve cycles",
            min(row["rate"] for row in rows["cycles"]),
            KEPT,
            higher=True,
        ),
        bar(
            "an equal candidate passes retention on ten holdouts",
            min(row["rate"] for row in rows["union"]),
            UNION,
            higher=True,
        ),
        bar("power, realised against stated", gap, POWER, higher=False),
    ]


def told(row: Row) -> str:
    """A row of the table."""
    beside = [
        f"{key} {value:.3f}"
        for key, value in row.items()
        if key not in ("name", "rate", "error", "series", "differ", "part")
    ]
    return f"{row['name']:58} {row['rate']:.3f} ± {row['error']:.3f}   {', '.join(beside)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--reduced", action="store_true", help="500 series instead of 2,000")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    todo = works(500 if chosen.reduced else chosen.series)
    rows: dict[str, list[Row]] = {}
    with ProcessPoolExecutor(chosen.workers, get_context("spawn")) as pool:
        waiting = [
            (part, pool.submit(work, seed=chosen.seed + number))
            for number, (part, work) in enumerate(todo)
        ]
        for part, future in waiting:
            row = {"part": part, **future.result()}
            print(told(row), flush=True)
            rows.setdefault(part, []).append(row)
    finish([row for part in rows.values() for row in part], bars(rows), chosen.json)


if __name__ == "__main__":
    main()
