"""Two ranks: a method's term enters once, and after a step both hold the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
