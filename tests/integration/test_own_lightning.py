"""A user's LightningModule and its checkpoint, through the command, with no class of ours in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perennial
from perennial.promotion.registry import Registry

TRAIN = Path(__file__).parents[2] / "train.py"
MODULE = '''
"""What a team has: a module, its optimizer and schedule, its hooks and its own metric."""
import lightning.pytorch as pl
import torch
from torch import nn


class Churn(pl.LightningModule):
    def __init__(self, width=32, lr=0.01, smoothing=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width))
        self.head = nn.Linear(width, 3)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(
            self(x), y, label_smoothing=self.hparams.smoothing
        )
        self.log("train/own_loss", loss)
        return loss

    def on_train_start(self):
        self.epochs += 1

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.steps += 1

    def configure_optimizers(self):
        optimizer = torch.optim.RMSprop(self.parameters(), lr=self.hparams.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
        return {"optimizer": optimizer, "lr_scheduler": schedule}
'''
FIRST = """
import warnings
warnings.simplefilter("ignore")
import lightning.pytorch as pl, pandas as pd, torch
from churn import Churn
frame = pd.read_parquet("old.parquet")
x = torch.tensor(frame[list("abcdef")].to_numpy()); y = torch.tensor(frame["answer"].to_numpy())
pl.seed_everything(0, verbose=False)
module = Churn(width=24)
trainer = pl.Trainer(max_epochs=30, accelerator="cpu", logger=False, enable_progress_bar=False,
                     enable_model_summary=False, enable_checkpointing=False)
rows = torch.utils.data.TensorDataset(x, y)
trainer.fit(module, torch.utils.data.DataLoader(rows, 64, shuffle=True))
trainer.save_checkpoint("serving.ckpt")
"""


def _rows(seed: int, shift: float, count: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 6)).astype(np.float32) + np.float32(shift)
    answer = np.argmax(x[:, :3] - shift + (x[:, 3:] - shift) * 0.5 * (-1 if shift else 1), axis=1)
    return pd.DataFrame(x, columns=list("abcdef")).assign(answer=answer.astype(np.int64))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "churn.py").write_text(MODULE)
    _rows(1, 0.0, 2400).to_parquet(tmp_path / "old.parquet")
    _rows(2, 4.0, 2400).to_parquet(tmp_path / "new.parquet")
    return tmp_path


def _python(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PERENNIAL_HOME": str(home), "COLUMNS": "100"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip


def test_it_goes_from_its_checkpoint_to_a_promotion(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "perennial" not in MODULE
    made = _python(project, home, "-c", FIRST)
    assert made.returncode == 0, made.stderr
    command = (
        str(TRAIN), "model=custom", "model._target_=churn.Churn", "+model.width=24",
        "checkpoint=serving.ckpt", "data=files", "data.history=old.parquet",
        "data.new=new.parquet", "data.label=answer", "model_name=churn", "tracking=none",
        "trainer.accelerator=cpu", "trainer.max_steps=300", "gate.retention.margin=0.05",
        "gate.retention.total=null", "hydra.run.dir=run",
    )  # fmt: skip
    done = _python(project, home, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Adopting serving.ckpt (lightning)" in done.stdout
    assert "Churn brings its own optimizer" in done.stdout
    result = json.loads((project / "run" / "result.json").read_text())
    assert result["status"] == "promoted"

    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    version = registry.version("churn@2")
    assert version.manifest["model"]["target"] == "churn.Churn"
    monkeypatch.syspath_prepend(str(project))
    served = perennial.load("churn@champion", allow=["churn.Churn"])
    frame = _rows(3, 4.0, 400)
    right = np.array(served.predict(frame.drop(columns="answer"))) == frame["answer"].astype(str)
    assert right.mean() > 0.8
    # its hooks ran: one fit more than the checkpoint's, and the steps up to the kept weights
    assert int(served.model.epochs) == 2  # type: ignore[arg-type]
    assert int(served.model.steps) > 1140  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('        return {"optimizer": optimizer, "lr_scheduler": schedule}',
         "gives 2 optimizers"),
        ("        self.save_hyperparameters()", "optimises by hand"),
    ],
)  # fmt: skip
def test_what_cannot_be_protected_is_refused_with_a_message(
    project: Path, home: Path, change: str, words: str
) -> None:
    other = {
        "gives 2 optimizers": "        return [optimizer, torch.optim.SGD(self.parameters(), 0.1)]",
        "optimises by hand": "        self.automatic_optimization = False\n" + change,
    }[words]
    (project / "churn.py").write_text(MODULE.replace(change, other))
    done = _python(
        project, home, str(TRAIN), "model=custom", "model._target_=churn.Churn", "data=files",
        "data.history=old.parquet", "data.new=new.parquet", "data.label=answer",
        "model_name=churn", "tracking=none", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_its_checkpoint_brings_the_arguments_that_the_configuration_does_not_give(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``load_from_checkpoint``: without a default too, and kept with every version."""
    (project / "churn.py").write_text(MODULE.replace("width=32, lr", "width, lr"))
    first = FIRST.replace("width=24", "width=24, lr=0.004, smoothing=0.1")
    first = first.replace("max_epochs=30", "max_epochs=1").replace(
        'save_checkpoint("serving.ckpt")',
        'save_checkpoint("serving.ckpt")\n'
        'c = torch.load("serving.ckpt")\n'
        'c["hyper_parameters"] |= {"_target_": "os.mkdir", "unknown": 1}\n'
        'torch.save(c, "serving.ckpt")',
    )
    assert _python(project, home, "-c", first).returncode == 0
    command = [
        str(TRAIN), "model=custom", "model._target_=churn.Churn", "+model.smoothing=0.2",
        "checkpoint=serving.ckpt", "data=files", "data.history=old.parquet",
        "data.new=new.parquet", "data.label=answer", "model_name=churn", "tracking=none",
        "trainer.accelerator=cpu", "trainer.max_steps=20", "hydra.run.dir=run", "exit_zero=true",
    ]  # fmt: skip
    done = _python(project, home, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "from serving.ckpt: width=24, lr=0.004;" in told
    assert "smoothing=0.2 as configured, where it says 0.1" in told
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    for number in (1, 2):
        stored = registry.version(f"churn@{number}").manifest["model"]
        assert stored["arguments"] == {"width": 24, "lr": 0.004, "smoothing": 0.2}
        assert stored["carried"] == {"width": 24, "lr": 0.004}
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, "churn", raising=False)
    served = perennial.load("churn@2", allow=["churn.Churn"])
    assert served.model.hparams == {"width": 24, "lr": 0.004, "smoothing": 0.2}

    # without the file that founded it, and with an argument that the configuration now gives
    again = [one for one in command if not one.startswith("checkpoint=")]
    done = _python(project, home, *again, "+model.lr=0.001", "trainer.max_steps=30")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from serving.ckpt" not in done.stdout
    stored = registry.version("churn@3").manifest["model"]
    assert stored["arguments"] == {"width": 24, "lr": 0.001, "smoothing": 0.2}


def test_an_argument_that_nothing_gives_is_named(project: Path, home: Path) -> None:
    (project / "churn.py").write_text(MODULE.replace("width=32, lr", "width, lr"))
    done = _python(
        project, home, str(TRAIN), "model=custom", "model._target_=churn.Churn", "data=files",
        "data.history=old.parquet", "data.new=new.parquet", "data.label=answer",
        "model_name=churn", "tracking=none", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == 1
    assert "give +model.width=..." in done.stdout
