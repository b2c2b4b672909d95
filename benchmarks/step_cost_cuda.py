"""What EWC adds to a bf16 step of a transformer of more than 100 M parameters, by device events.

python benchmarks/step_cost_cuda.py --rounds 9 --json step_cost_cuda.json

Needs a CUDA device; `--trial` runs a small model anywhere, by the clock, to try the script itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from harness import Encoder, bar, finish
from torch import Tensor, nn

from perennial.methods.ewc import EWC
from perennial.methods.pull import Pull

LIMIT = 1.03
ROWS, TOKENS = 32, 512


def pulled(model: nn.Module) -> EWC:
    """EWC at work: anchors beside the weights, any precision."""
    method = EWC(strength=1.0)
    parameters = dict(model.named_parameters())
    anchor = {n: p.detach() + 0.01 * torch.randn_like(p) for n, p in parameters.items()}
    precision = {n: torch.rand_like(p, requires_grad=False) for n, p in parameters.items()}
    method._pull = Pull(anchor, precision, method="ewc")
    method.new_count = 1000
    return method


def stepper(model: nn.Module, x: Tensor, method: EWC | None, steps: int) -> Callable[[], None]:
    """Steps of a plain loop in bf16, with EWC's gradient where the trainer adds it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    y = torch.randint(0, 10, (len(x),), device=x.device)
    parameters = dict(model.named_parameters())

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x).float(), y)
            loss.backward()
            if method is not None:
                method.pull.add_gradients(parameters, method.factor, value=False)
            optimizer.step()

    return run


def milliseconds(run: Callable[[], None], device: torch.device) -> float:
    """Of one call, between two events on the device."""
    if device.type != "cuda":
        began = time.process_time()
        run()
        return 1000 * (time.process_time() - began)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def main() -> None:
    """Print times and the ratio; exit 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if not chosen.trial and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here; --trial tries the script without one.")
    device = torch.device("cpu" if chosen.trial else "cuda")
    sizes = {"width": 48, "layers": 1, "tokens": 500} if chosen.trial else {}
    model = Encoder(**(sizes or {"width": 768, "layers": 12})).to(device)
    rows, length = (2, 16) if chosen.trial else (ROWS, TOKENS)
    x = torch.randint(0, sizes.get("tokens", 30_522), (rows, length), device=device)
    runs = {
        "plain": stepper(model, x, None, chosen.steps),
        "ewc": stepper(model, x, pulled(model), chosen.steps),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(2 + chosen.rounds):
        for name in sorted(runs, reverse=bool(turn % 2)):
            spent = milliseconds(runs[name], device)
            if turn >= 2:
                taken[name].append(spent / chosen.steps)
    ratio = median(a / b for a, b in zip(taken["ewc"], taken["plain"], strict=True))
    count = sum(p.numel() for p in model.parameters())
    name = torch.cuda.get_device_name() if device.type == "cuda" else "trial on the CPU"
    print(f"{name}: {count:,} parameters, {rows} x {length} tokens, bf16")
    for which, times in taken.items():
        print(f"  {which:6} {median(times):8.2f} ms a step")
    record = [{"device": name, "parameters": count, "milliseconds": taken}]
    bars = [] if chosen.trial else [bar("EWC over plain, a step", ratio, LIMIT, higher=False)]
    finish(record, bars, chosen.json)


if __name__ == "__main__":
    main()
