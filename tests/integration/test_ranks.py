"""Two ranks: a method's term enters once, and after a step both hold the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import lightning.pytorch as pl
import torch
from torch import nn
from perennial.methods.ewc import EWC
from perennial.methods.base import Method
from perennial.stopwatch import Stopwatch
from perennial.types import Batch, StepContext
from perennial.training.attach import MethodCallback

folder, ranks = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
x, y = torch.randn(32, 6), torch.randint(0, 2, (32,))

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)

class Loader:
    current, watch = None, Stopwatch()
    def __len__(self):
        return 4
    def __iter__(self):
        import numpy as np
        import torch.distributed as dist
        rank = dist.get_rank() if dist.is_initialized() else 0
        for step in range(4):
            rows = torch.arange(8 * step, 8 * step + 8)
            rows = rows[rank::ranks]
            self.current = Batch(data=(x[rows], y[rows]), ids=np.array([str(int(i)) for i in rows]),
                                 is_new=np.ones(len(rows), dtype=bool))
            yield self.current.data

ewc = EWC(strength=3.0)
ewc.anchor = {n: p.detach() - 0.5 for n, p in model.named_parameters()}
ewc.precision = {n: torch.full_like(p, 2.0) for n, p in model.named_parameters()}
ewc.new_count = 4
loader = Loader()
callback = MethodCallback(methods=[ewc], model=model, loader=loader, log_every=1000)
trainer = pl.Trainer(
    accelerator="cpu", devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", max_steps=4,
    max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    default_root_dir=folder,
)

class Keep(pl.Callback):
    def on_train_end(self, trainer, module):
        torch.save(model.state_dict(), f"{folder}/{ranks}-{trainer.global_rank}.pt")

trainer.callbacks.append(Keep())
trainer.fit(Module(), loader)
"""


def weights(folder: Path, ranks: int) -> list[dict[str, object]]:
    import torch

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(ranks)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{ranks}-{rank}.pt", weights_only=True) for rank in range(ranks)]


def test_two_ranks_take_the_steps_of_one(tmp_path: Path) -> None:
    """Half of each batch a rank: gradients are averaged, the penalty is added once by each."""
    import torch

    (one,) = weights(tmp_path, 1)
    first, second = weights(tmp_path, 2)
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)


HAZARD = """
import os, sys, warnings
warnings.simplefilter("ignore")
import lightning.pytorch as pl
import torch
from perennial.training.ranks import SameConfiguration

folder, other = sys.argv[1], float(sys.argv[2])
rank = int(os.environ.get("LOCAL_RANK", 0))
lr = other if rank else 0.1  # what an unseeded sweeper does: each rank runs the command line again


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        open(f"{folder}/stepped-{rank}", "w").close()
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=lr)


trainer = pl.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=2, logger=False,
    callbacks=[SameConfiguration({"seed": 0, "optimizer": {"lr": lr}})], enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
)
trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=2))
"""


FIT = """
import os, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from perennial.data.datamodule import CycleData
from perennial.data.rows import Rows
from perennial.tasks.classification import Classification
from perennial.training import trainer
from perennial.training.fit import fit
from perennial.training.settings import Training

folder = sys.argv[1]
rank = int(os.environ.get("LOCAL_RANK", 0))
two = pl.Trainer
trainer.pl.Trainer = lambda **given: two(**given | {"devices": 2, "strategy": "ddp"})


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, index):
        open(f"{folder}/stepped-{rank}", "w").close()
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows(name):
    x = np.random.default_rng(0).normal(size=(8, 2))
    ids = np.array([f"{name}-{i}" for i in range(8)])
    return Rows(features={"x": x.astype(np.float32)}, label=(x[:, 0] > 0).astype(np.int64), id=ids,
                content=ids, cluster=ids)


data = CycleData(
    new=rows("new"), history=rows("old"), new_validation=rows("v"), history_validation=rows("w"),
    batch_size=4, new_fraction=None, form="tuple", label="label", seed=0,
)
module = Module()
fit(
    module=module, model=module, task=Classification(), data=data, methods=[],
    training=Training(max_steps=2, validate_every=2, accelerator="cpu", keep="last"),
    folder=Path(f"{folder}/work-{rank}"),
    configuration={"seed": 0, "optimizer": {"lr": 0.3 if rank else 0.1}},
)
"""


def test_a_fit_compares_the_settings_of_its_ranks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FIT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert "optimizer.lr is 0.1 on rank 0, 0.3 on rank 1" in done.stderr, done.stderr[-3000:]
    assert (done.returncode, list(tmp_path.glob("stepped-*"))) == (1, [])


def test_ranks_of_a_launcher_do_not_train_apart(
    run: Callable[..., dict[str, Any]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run("trainer.max_steps=4")
    assert (done["status"], done["exit_code"], done["error"]["where"]) == (
        "failed",
        1,
        "WORLD_SIZE",
    )
    assert "A launcher started 2 ranks" in done["error"]["what"]
    assert not home.exists()
    monkeypatch.setenv("WORLD_SIZE", "1")  # as a launcher with one rank says
    assert run("trainer.max_steps=4", "trainer.validate_every=2")["status"] != "failed"


@pytest.mark.parametrize(("other", "trains"), [("0.1", True), ("0.3", False)])
def test_ranks_that_were_given_different_settings_do_not_train(
    other: str, trains: bool, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(HAZARD)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), other],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    stepped = sorted(path.name for path in tmp_path.glob("stepped-*"))
    assert stepped == (["stepped-0", "stepped-1"] if trains else []), done.stderr[-3000:]
    assert (done.returncode == 0) is trains
    refused = "optimizer.lr is 0.1 on rank 0, 0.3 on rank 1"
    assert (refused in done.stderr) is not trains
    assert "seed is" not in done.stderr


def test_many_settings_that_differ_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.errors import ConfigError
    from perennial.training import ranks

    other = json.dumps({f"s{i}": 1 for i in range(7)})
    monkeypatch.setattr(ranks, "_of_all_ranks", lambda text: [text, other])
    callback = ranks.SameConfiguration({f"s{i}": 0 for i in range(7)})
    trainer: Any = SimpleNamespace(world_size=2, global_rank=0)
    with pytest.raises(ConfigError, match=r"s4 is 0 on rank 0, 1 on rank 1; and 2 more\.") as told:
        callback.setup(trainer, cast(Any, None), "fit")
    assert "s5" not in told.value.what
    callback.setup(trainer, cast(Any, None), "validate")  # asked once, where training starts
