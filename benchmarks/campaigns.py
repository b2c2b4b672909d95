"""Ten windows of bank calls, retrained after each; every window is scored before the model sees it.

python benchmarks/campaigns.py [backtest.last=7] [seed=1] ...
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from harness import replayed

# what is held against the experiment serves whatever the gate says
ARMS = {
    "campaigns": (),
    "latest window alone": ("method=none", "~method.replay", "backtest.promotion=always"),
}
METRICS = {"AUC": "BinaryAUROC", "AP": "BinaryAveragePrecision"}
LATEST = 3


def main() -> None:
    for arm, own in ARMS.items():
        with tempfile.TemporaryDirectory() as folder:
            given = ("experiment=campaigns", f"folder={folder}", *own, *sys.argv[1:])
            told = {
                name: replayed(*given, f"backtest.metric={metric}", policy="every:1")
                for name, metric in METRICS.items()
            }
        for windows in zip(*(one["windows"] for one in told.values()), strict=True):
            scores = "  ".join(
                f"{name} {one['score']:.3f}" for name, one in zip(told, windows, strict=True)
            )
            verdict = windows[0]["cycle"]["verdict"] if windows[0]["cycle"] else "none"
            line = (
                f"{arm}, window {windows[0]['window']:>2}  {scores}  (the cycle after: {verdict})"
            )
            sys.stdout.write(f"{line}\n")
        means = "  ".join(f"{n} {np.mean(one['scores'][-LATEST:]):.4f}" for n, one in told.items())
        sys.stdout.write(f"{arm}, mean of the last three windows: {means}\n")


if __name__ == "__main__":
    main()
