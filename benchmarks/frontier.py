"""Retention against plasticity, for every method over its main knob.

python benchmarks/frontier.py --seeds 3 --json frontier.json --plot docs/frontier.svg

On Split-Digits, through the real cycle with every candidate promoted: retention is the last
version's mean accuracy on the holdouts of all earlier contexts, plasticity the mean accuracy on
each context from the second on, just after it was learned. On the default run's drift, clean
digits and then inverted ones, with the default configuration: the accuracy on either holdout.
Batches hold 64 rows everywhere, replayed ones included.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import Contestant, Setting, compete
from harness import finish
from protocols import load, series

from perennial.backtest import Backtest, backtest
from perennial.data.digits import digits
from perennial.data.memory import Memory
from perennial.methods.agem import AGEM
from perennial.methods.baselines import Joint
from perennial.methods.der import DER
from perennial.methods.ewc import EWC
from perennial.methods.interpolation import Interpolation
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.models.reference import MLP
from perennial.steps.collect import Data
from perennial.training.settings import Training

SETTINGS = ("domain", "class", "drift")
FRACTIONS = (0.1, 0.2, 0.3, 0.5, 0.8)
STRENGTHS = (1.0, 10.0, 100.0, 1e3)
REPLAY = 0.2  # new_fraction of conf/method/replay.yaml

CONTESTANTS: dict[str, Contestant] = {
    "none": Contestant(lambda context, knob: [], grid=(0,)),
    "joint": Contestant(lambda context, knob: [Joint()], grid=(0,), history="all"),
    "replay": Contestant(
        lambda context, knob: [Replay(new_fraction=knob)], knob="new_fraction", grid=FRACTIONS
    ),
    "replay + ewc": Contestant(
        lambda context, knob: [Replay(new_fraction=REPLAY), EWC(strength=knob)],
        knob="EWC's strength",
        grid=(0.001, 0.01, 0.1, 1, 10),
    ),
    "replay + der": Contestant(
        lambda context, knob: [Replay(new_fraction=REPLAY), DER(alpha=knob)],
        knob="DER's alpha",
        grid=(0.03, 0.1, 0.3, 1),
    ),
    "replay + interpolation": Contestant(
        lambda context, knob: [Replay(new_fraction=REPLAY), Interpolation(budget=knob)],
        knob="budget",
        grid=(0, 0.01, 0.02, 0.05),
        validates=True,
    ),
    "ewc": Contestant(lambda context, knob: [EWC(strength=knob)], knob="strength", grid=STRENGTHS),
    "ewc proximal": Contestant(
        lambda context, knob: [EWC(strength=knob, step="proximal")],
        knob="strength",
        grid=STRENGTHS,
    ),
    "si": Contestant(
        lambda context, knob: [SI(strength=knob)], knob="strength", grid=(0.1, 1, 10, 100)
    ),
    "l2sp": Contestant(
        lambda context, knob: [L2SP(strength=knob)], knob="strength", grid=(1e-3, 1e-2, 0.1, 1)
    ),
    "lwf": Contestant(
        lambda context, knob: [LwF(strength=knob)], knob="strength", grid=(0.3, 1, 3, 10)
    ),
    "agem": Contestant(
        lambda context, knob: [AGEM(rows=int(knob))], knob="rows", grid=(16, 64, 256)
    ),
    "interpolation": Contestant(
        lambda context, knob: [Interpolation(budget=knob)],
        knob="budget",
        grid=(0, 0.02, 0.05, 0.1),
        validates=True,
    ),
}


def run(setting: str, contestant: Contestant, knob: float, seed: int) -> Backtest:
    """One seed of one point."""
    if setting != "drift":
        contexts = series(load("digits"), protocol="split", scenario=setting, seed=seed)
        return compete(
            contestant, contexts, scenario=setting, setting=Setting(), seed=seed, knob=knob
        )
    return backtest(
        [
            digits(part=part, inverted=inverted, seed=seed)
            for part, inverted in (("history", False), ("new", True))
        ],
        model=lambda: MLP(inputs=64, classes=10),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        methods=lambda number: contestant.build(number, knob),
        data=Data(memory=Memory(seed=seed), split_column="split", group_column="group"),
        training=Training(),
        promotion="always",
        seed=seed,
    )


def measured(result: Backtest) -> tuple[float, float]:
    """Retention and plasticity, each in [0, 1]."""
    return float(result.matrix[-1, :-1].mean()), float(np.diagonal(result.matrix)[1:].mean())


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other one beats in one coordinate without losing in the other."""
    return [
        not any(a >= x and b >= y and (a > x or b > y) for a, b in points if (a, b) != (x, y))
        for x, y in points
    ]


def summed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds of one setting, with Pareto marks."""
    keys = list(dict.fromkeys((row["method"], row["knob"]) for row in rows))
    points = []
    for method, knob in keys:
        mine = [row for row in rows if (row["method"], row["knob"]) == (method, knob)]
        means = {
            name: float(np.mean([row[name] for row in mine]))
            for name in ("retention", "plasticity")
        }
        points.append({"method": method, "knob": knob, **means})
    # what the bound and the baseline reach is shown, but competes with nobody
    real = [point for point in points if point["method"] not in ("joint", "none")]
    marks = pareto([(point["retention"], point["plasticity"]) for point in real])
    best = {id(point) for point, mark in zip(real, marks, strict=True) if mark}
    return [{**point, "pareto": id(point) in best} for point in points]


def show(setting: str, points: Sequence[Mapping[str, Any]]) -> None:
    """The table of one setting, retention first."""
    print(f"\n{setting}: retention, plasticity and their mean in points; * on the frontier")
    for point in points:
        mean = (point["retention"] + point["plasticity"]) / 2
        print(
            f"{'*' if point['pareto'] else ' '} {point['method']:24} {point['knob']:<8g} "
            f"{100 * point['retention']:6.1f} {100 * point['plasticity']:6.1f} {100 * mean:6.1f}"
        )


# one colour a method: rows of the past are warm, pulls towards old weights cold, baselines grey
STYLES = {
    "none": ("#8d99ae", "X"),
    "joint": ("#1c2430", "*"),
    "replay": ("#e07a1f", "o"),
    "replay + ewc": ("#c1121f", "s"),
    "replay + der": ("#7b2cbf", "D"),
    "replay + interpolation": ("#d4a017", "^"),
    "agem": ("#f28482", "P"),
    "ewc": ("#1d4ed8", "s"),
    "ewc proximal": ("#60a5fa", "s"),
    "si": ("#0f766e", "v"),
    "l2sp": ("#34d399", "<"),
    "lwf": ("#84cc16", "h"),
    "interpolation": ("#b08968", "^"),
}
CORNER = 0.75  # the lower row shows what is above, where the good ones crowd


def draw(points: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Retention over plasticity, all of it and the upper right corner; the frontier is ringed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {"domain": "Split-Digits, domain", "class": "Split-Digits, class", "drift": "inverted"}
    figure, grid = pyplot.subplots(2, len(points), figsize=(4.2 * len(points), 8), squeeze=False)
    for column, (setting, found) in enumerate(points.items()):
        for axes in grid[:, column]:
            for name in dict.fromkeys(one["method"] for one in found):
                colour, marker = STYLES[name]
                line = [one for one in found if one["method"] == name]
                x, y = ([100 * one[key] for one in line] for key in ("plasticity", "retention"))
                axes.plot(x, y, color=colour, marker=marker, label=name, linewidth=1)
            best = [one for one in found if one["pareto"]]
            x, y = ([100 * one[key] for one in best] for key in ("plasticity", "retention"))
            axes.scatter(x, y, s=110, facecolors="none", edgecolors="black", zorder=3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            axes.set_xlabel("plasticity, %")
        grid[0, column].set_title(titles[setting])
        grid[1, column].set_xlim(100 * CORNER, 101)
        grid[1, column].set_ylim(100 * CORNER, 101)
    for row in grid:
        row[0].set_ylabel("retention, %")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Print the tables, write the record and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--method", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG or SVG")
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    points: dict[str, list[dict[str, Any]]] = {}
    for setting in chosen.setting:
        for name in chosen.method:
            contestant = CONTESTANTS[name]
            for knob in contestant.grid:
                for seed in range(chosen.seeds):
                    retention, plasticity = measured(run(setting, contestant, knob, seed))
                    rows.append(
                        {
                            "setting": setting,
                            "method": name,
                            "knob": knob,
                            "seed": seed,
                            "retention": retention,
                            "plasticity": plasticity,
                        }
                    )
        points[setting] = summed([row for row in rows if row["setting"] == setting])
        show(setting, points[setting])
    if chosen.plot:
        draw(points, chosen.plot)
    finish(rows, [], chosen.json)


if __name__ == "__main__":
    main()
