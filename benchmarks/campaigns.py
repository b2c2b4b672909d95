"""Ten windows of bank calls, a cycle per window; each is scored before the model sees it.

PERENNIAL_DATA=/path/to/data python benchmarks/campaigns.py [--last 7] [method=none] ...
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

WINDOWS = 10


def scores(model: Any, path: str, window: int) -> tuple[float, float]:
    """AUC and average precision of a predictor over a whole window."""
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    from perennial.data.calls import calls

    table = calls(path=path, window=window).with_format("arrow")[:]
    yes = model.probabilities(table)[:, model.label_names.index("yes")]
    label = torch.from_numpy(np.array(table["label"].to_pylist()) == "yes").long()
    return float(binary_auroc(yes, label)), float(binary_average_precision(yes, label))


def loaded(registry: Any, ref: str, model: Any) -> Any:
    """A predictor of a version whose model the caller builds."""
    from perennial.data.preprocess import restored
    from perennial.models.checkpoint import version_weights
    from perennial.predictor import Predictor
    from perennial.tasks.classification import Classification

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
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from perennial.paths import CONF_DIR

    given = ["experiment=campaigns", "trainer.accelerator=cpu", *overrides]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        config: Any = OmegaConf.to_container(compose("train", given), resolve=True)
    return dict(config)


def latest_alone(
    overrides: list[str], *, folder: Path, last: int = WINDOWS
) -> list[dict[str, Any]]:
    """The same where every model is fine-tuned on the latest window alone, and serves."""
    from functools import partial

    import torch
    from hydra.utils import instantiate

    from perennial.backtest import backtest
    from perennial.data.calls import calls
    from perennial.models.reference import Tabular
    from perennial.promotion.registry import Registry
    from perennial.steps.collect import Data

    config = composed(*overrides)
    path, columns = config["data"]["new"]["path"], config["data"]["preprocess"]
    windows = [calls(path=path, window=window) for window in range(1, last)]
    values = {name: windows[0].unique(name) for name in columns["categorical"]}
    registry = Registry(url=f"sqlite:///{folder / 'latest.db'}")
    model = partial(
        Tabular,
        numerical=len(columns["numerical"]),
        cardinalities=[len(one) + 1 for one in values.values()],
        hidden=config["model"]["hidden"],
    )
    backtest(
        windows,
        model=model,
        optimizer=partial(torch.optim.AdamW, lr=config["optimizer"]["lr"]),
        methods=lambda window: [],
        data=Data(
            preprocess=instantiate(columns), id_column="row", form="dict", validation_fraction=0.0
        ),
        training=instantiate(config["trainer"]),
        policy=instantiate(config["gate"]),
        promotion="always",
        seed=config["seed"],
        registry=registry,
        name="latest",
    )
    rows = []
    for window in range(3, last + 1):
        auc, ap = scores(loaded(registry, f"latest@{window - 1}", model()), path, window)
        rows.append({"window": window, "auc": auc, "ap": ap, "status": "served"})
    return rows


def series(overrides: list[str], *, folder: Path, last: int = WINDOWS) -> list[dict[str, Any]]:
    """One row a window from the second: verdict, and ``auc`` and ``ap`` before it from the third.

    Args:
        overrides: Of ``train.yaml``.
        folder: Registry and results.
        last: Window to stop after, at least 2.
    """
    import perennial
    from perennial.launch import run_job

    os.environ["PERENNIAL_HOME"] = str(folder)
    rows = []
    for window in range(2, last + 1):
        config = composed(f"window={window}", *overrides)
        row: dict[str, Any] = {"window": window}
        if window > 2:
            champion = perennial.load(f"{config['model_name']}@champion")
            row["auc"], row["ap"] = scores(champion, config["data"]["new"]["path"], window)
        run = folder / f"window-{window}"
        run.mkdir()
        result, _ = run_job(config, folder=run, multirun=False)
        if result["error"]:
            raise SystemExit(result["error"]["what"])
        rows.append({**row, "status": result["status"]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--last", type=int, default=WINDOWS)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    for arm, rows_of in (("campaigns", series), ("latest window alone", latest_alone)):
        with tempfile.TemporaryDirectory() as folder:
            rows = rows_of(given.overrides, folder=Path(folder), last=given.last)
        for row in rows:
            told = f"AUC {row['auc']:.3f}  AP {row['ap']:.3f}" if "auc" in row else " " * 20
            sys.stdout.write(f"{arm}, window {row['window']:>2}  {told}  {row['status']}\n")
        auc, ap = (np.mean([row[name] for row in rows[-3:]]) for name in ("auc", "ap"))
        sys.stdout.write(f"{arm}, mean of the last three windows: AUC {auc:.4f}  AP {ap:.4f}\n")


if __name__ == "__main__":
    main()
