"""What a training step costs with each method, as a ratio to a plain AdamW step.

python benchmarks/step_cost.py --rounds 9 --json step_cost.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import bar, finish, interleaved, models, ratios
from torch import Tensor, nn

from perennial.methods.agem import AGEM
from perennial.methods.base import Method
from perennial.methods.der import DER
from perennial.methods.ewc import EWC
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.pull import CHUNK
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.training.parts import joined, over_parts
from perennial.types import Batch, MethodContext, StepContext, VersionView

STEPS = {"mlp": 30, "encoder": 2}
LIMITS = {"mlp": 1.25, "encoder": 1.09}
METHODS: dict[str, Callable[[], Method]] = {
    "ewc": lambda: EWC(strength=1.0),
    "ewc proximal": lambda: EWC(strength=1.0, step="proximal"),
    "l2sp": L2SP,
    "si": SI,
    "lwf": LwF,
    "agem": AGEM,
    "der": DER,
    "replay, two forwards": lambda: Replay(new_weight=0.5),
}


def logits_of(model: nn.Module, data: Any) -> Tensor:
    """The model's outputs."""
    found: Tensor = model(data[0])
    return found


def context_of(
    model: nn.Module, left: Mapping[str, Mapping[str, Tensor]], rows: Sequence[Batch] = ()
) -> MethodContext:
    """What a method gets of a cycle whose champion left something for it."""
    return MethodContext(
        model=model,
        champion=VersionView(id="m@1", weights=model.state_dict(), methods=left),
        logits=logits_of,
        per_example_loss=None,
        features=None,
        history=lambda: rows,
        new=lambda: rows,
        validate=dict,
        history_count=1,
        new_count=1000,
        seed=0,
        generator=torch.Generator(),
        device=torch.device("cpu"),
    )


def prepared(method: Method, model: nn.Module) -> Method:
    """A method at work, with some precision."""
    precision = {n: torch.rand(p.shape) for n, p in model.named_parameters()}
    method.prepare(context_of(model, {"ewc": precision, "si": precision}))
    return method


def after_cycles(model: nn.Module, rows: Batch, cycles: int) -> EWC:
    """EWC at work after whole cycles: each leaves a precision, and the next one takes it up."""
    left: dict[str, Mapping[str, Tensor]] = {}
    for _ in range(cycles):
        method = EWC(strength=1.0)
        method.prepare(context_of(model, left, [rows]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1e-3 * torch.randn_like(parameter))
        left = {"ewc": method.finish(context_of(model, left, [rows]))}
    method = EWC(strength=1.0)
    method.prepare(context_of(model, left, [rows]))
    return method


class Loop:
    """A bare training loop with one method, or none, in the phases that the trainer runs."""

    def __init__(self, model: nn.Module, x: Tensor, method: Method | None, steps: int) -> None:
        self.model, self.x, self.method, self.steps = model, x, method, steps
        self.y = torch.randint(0, 10, (len(x),))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        ids = np.array([str(i) for i in range(len(x))])
        new = len(x) // 5
        stored = torch.randn(len(x), 10)
        stored[:new] = float("nan")
        self.batch = Batch(data=(x, self.y), ids=ids, is_new=np.arange(len(x)) < new, logits=stored)

    def __call__(self) -> None:
        """Take the steps."""
        for number in range(self.steps):
            if self.method is None:
                self.optimizer.zero_grad()
                self.forward(self.batch.data)["loss"].backward()
                self.optimizer.step()
                continue
            step = StepContext(
                batch=self.batch,
                model=self.model,
                parameters={n: p for n, p in self.model.named_parameters() if p.requires_grad},
                global_step=number + 1,
                logits_of=logits_of,
                memory_gradients=self.memory_gradients,
                optimizer=self.optimizer,
            )
            parts = self.method.divide(step)
            if parts:
                found = over_parts(self.forward, self.batch.data, self.model, parts)
                step.outputs = joined(found, parts)
            else:
                step.outputs = self.forward(self.batch.data)
            loss = step.outputs["loss"] + sum(self.method.loss_terms(step).values())
            self.optimizer.zero_grad()
            loss.backward()
            self.method.observe_gradients(step)
            self.method.add_gradients(step)
            self.method.project_gradients(step)
            self.optimizer.step()
            with torch.no_grad():
                self.method.after_step(step)

    def forward(self, data: Any) -> dict[str, Tensor]:
        """Cross-entropy, and the logits."""
        logits = self.model(data[0])
        return {"loss": F.cross_entropy(logits, data[1]), "logits": logits}

    def memory_gradients(self, rows: int) -> dict[str, Tensor]:
        """Gradients on as many rows as asked for, at most a batch."""
        parameters = dict(self.model.named_parameters())
        loss = F.cross_entropy(self.model(self.x[:rows]), self.y[:rows])
        return dict(
            zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
        )


class AutogradLoop(Loop):
    """EWC as the common libraries do it: the penalty as a term of the loss, one per anchor."""

    def __init__(self, model: nn.Module, x: Tensor, steps: int, anchors: int) -> None:
        super().__init__(model, x, None, steps)
        self.terms = [
            [(p, torch.rand(p.shape), p.detach().clone()) for p in model.parameters()]
            for _ in range(anchors)
        ]

    def forward(self, data: Any) -> dict[str, Tensor]:
        """Cross-entropy and the penalties."""
        penalty = sum(
            (p * (theta - star).pow(2)).sum() for term in self.terms for theta, p, star in term
        )
        found = super().forward(data)
        return {**found, "loss": found["loss"] + 5e-4 * penalty}


def memory_of(method: EWC, loop: Loop) -> tuple[float, float]:
    """Bytes per parameter that EWC keeps, and that it works in: buffer and allocations."""
    numbers = sum(p.numel() for p in loop.model.parameters())
    kept = [*method.precision.values(), *method.anchor.values()]
    step = StepContext(
        batch=loop.batch,
        model=loop.model,
        parameters=dict(loop.model.named_parameters()),
        optimizer=loop.optimizer,
    )
    with torch.profiler.profile(profile_memory=True) as profile:
        method.add_gradients(step)
    allocated = sum(max(e.self_cpu_memory_usage, 0) for e in profile.events()) + 4 * CHUNK
    return sum(t.numel() * t.element_size() for t in kept) / numbers, allocated / numbers


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="*", default=list(models()))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows, bars = [], []
    for name in chosen.models:
        build, inputs, size = models()[name]
        steps = STEPS[name]

        def fresh(build: Callable[[], nn.Module] = build) -> nn.Module:
            torch.manual_seed(0)
            return build()

        x = inputs(size)
        work: dict[str, Callable[[], None]] = {"plain": Loop(fresh(), x, None, steps)}
        for title, make in METHODS.items():
            model = fresh()
            work[title] = Loop(model, x, prepared(make(), model), steps)
        model = fresh()
        aged = after_cycles(model, work["ewc"].batch, 5)  # type: ignore[attr-defined]
        work["ewc, after 5 cycles"] = Loop(model, x, aged, steps)
        work["autograd loop"] = AutogradLoop(fresh(), x, steps, 1)
        work["autograd loop, 5 anchors"] = AutogradLoop(fresh(), x, steps, 5)
        found = ratios(interleaved(work, rounds=chosen.rounds), to="plain")
        loop = work["ewc"]
        assert isinstance(loop, Loop)
        assert isinstance(loop.method, EWC)
        kept, transient = memory_of(loop.method, loop)
        kept_later, _ = memory_of(aged, loop)
        for title, ratio in found.items():
            print(f"{name:8} {title:28} {ratio:.3f}")
            rows.append({"model": name, "method": title, "ratio": ratio})
        limit = LIMITS[name]
        bars += [
            bar(f"{name}: EWC, ratio", found["ewc"], limit, higher=False),
            bar(
                f"{name}: EWC after 5 cycles, ratio",
                found["ewc, after 5 cycles"],
                limit,
                higher=False,
            ),
            bar(
                f"{name}: EWC after 5 cycles over after one, time",
                found["ewc, after 5 cycles"] / found["ewc"],
                1.05,
                higher=False,
            ),
            bar(
                f"{name}: EWC after 5 cycles over after one, bytes kept",
                kept_later / kept,
                1,
                higher=False,
            ),
            bar(f"{name}: bytes kept per parameter", kept, 8, higher=False),
            bar(f"{name}: transient bytes per parameter", transient, 1, higher=False),
        ]
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
