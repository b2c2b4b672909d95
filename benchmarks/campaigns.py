"""Ten windows of bank calls, a cycle per window; each is scored before the model sees it.

python benchmarks/campaigns.py [--last 7] [seed=1] ...
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from perennial.backtest import backtest
from perennial.data.calls import calls
from perennial.data.preprocess import restored
from perennial.models.checkpoint import version_weights
from perennial.models.reference import Tabular
from perennial.paths import CONF_DIR
from perennial.predictor import Predictor
from perennial.promotion.registry import Registry
from perennial.steps.collect import Data
from perennial.tasks.classification import Classification

WINDOWS = 10
ARMS = ("campaigns", "latest window alone")


def scores(model: Predictor, path: str, window: int) -> tuple[float, float]:
    """AUC and average precision of a predictor over a whole window."""
    table = calls(path=path, window=window).with_format("arrow")[:]
    yes = model.probabilities(table)[:, model.label_names.index("yes")]
    label = torch.from_numpy(np.array(table["label"].to_pylist()) == "yes").long()
    return float(binary_auroc(yes, label)), float(binary_average_precision(yes, label))


def loaded(registry: Registry, ref: str, model: torch.nn.Module) -> Predictor:
    """A predictor of a version whose model the caller builds."""
    version = registry.version(ref)
    model.load_state_dict(version_weights(version))
    return Predictor(
        model=model,
        label_names=tuple(version.manifest["label_names"]),
        id=version.id,
        schema=version.manifest["schema"],
        form="dict",
        task=Classification(),
        preprocess=restored(
            version.manifest["preprocess"],
            lambda path: version.open(path).read_bytes(),
            allow=(),
            ref=ref,
        ),
    )


def composed(*overrides: str) -> dict[str, Any]:
    """``experiment=campaigns`` with overrides, as plain values."""
    given = ["experiment=campaigns", "trainer.accelerator=cpu", *overrides]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        config: Any = OmegaConf.to_container(compose("train", given), resolve=True)
    return dict(config)


def series(
    overrides: list[str], *, folder: Path, alone: bool = False, last: int = WINDOWS
) -> list[dict[str, Any]]:
    """One row a window from the third: ``auc`` and ``ap`` before the model sees it.

    Args:
        overrides: Of ``train.yaml``.
        folder: For the registry.
        alone: Whether every model is instead fine-tuned on the latest window alone, and serves
            whatever the gate says.
        last: Window to stop after, at least 3.
    """
    config = composed(*overrides)
    path, preprocess = config["data"]["new"]["path"], config["data"]["preprocess"]
    keep = 1 if alone else config["keep"]
    first = calls(path=path, window=1)
    model = partial(
        Tabular,
        numerical=len(preprocess["numerical"]),
        cardinalities=[len(first.unique(name)) + 1 for name in preprocess["categorical"]],
        hidden=config["model"]["hidden"],
    )
    rates = {name: config["optimizer"][name] for name in ("lr", "weight_decay")}
    registry = Registry(url=f"sqlite:///{folder / 'registry.db'}")
    found = backtest(
        [calls(path=path, window=window, keep=keep) for window in range(1, last)],
        model=model,
        optimizer=partial(torch.optim.AdamW, **rates),
        methods=lambda window: [] if alone else list(map(instantiate, config["method"].values())),
        data=Data(
            preprocess=instantiate(preprocess),
            memory=instantiate(config["data"]["memory"]),
            id_column="row",
            form="dict",
            validation_fraction=0.0,
        ),
        training=instantiate(config["trainer"]),
        policy=instantiate(config["gate"]),
        promotion="always" if alone else "gate",
        keep=1,
        seed=config["seed"],
        registry=registry,
        name="campaigns",
    )
    rows = []
    for window, before in enumerate(found.windows[1:], 3):
        auc, ap = scores(loaded(registry, before.serving, model()), path, window)
        rows.append({"window": window, "auc": auc, "ap": ap, "before": before.verdict})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--last", type=int, default=WINDOWS)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    for arm in ARMS:
        with tempfile.TemporaryDirectory() as folder:
            rows = series(
                given.overrides, folder=Path(folder), alone=arm != ARMS[0], last=given.last
            )
        for row in rows:
            sys.stdout.write(
                f"{arm}, window {row['window']:>2}  AUC {row['auc']:.3f}  AP {row['ap']:.3f}  "
                f"(the cycle before: {row['before']})\n"
            )
        auc, ap = (np.mean([row[name] for row in rows[-3:]]) for name in ("auc", "ap"))
        sys.stdout.write(f"{arm}, mean of the last three windows: AUC {auc:.4f}  AP {ap:.4f}\n")


if __name__ == "__main__":
    main()
