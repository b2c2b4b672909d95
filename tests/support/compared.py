"""Made-up ends of cycles, for comparisons."""

from __future__ import annotations

from typing import Any

from perennial.tracking.compare.runs import Run


def make_result(number: int = 2, **changes: Any) -> dict[str, Any]:
    """A result with the levels ``new`` and ``history``; a ``trial`` and a ``curve`` where given."""
    trial = changes.pop("trial", False)
    if (curve := changes.pop("curve", None)) is not None:
        changes["validation"] = {"champion": {}, "candidate": {}, "curve": curve}
    levels = {part: changes.pop(part, 0.9) for part in ("new", "history")}
    score = changes.get("task", {}).get("score", "accuracy")
    metrics = {part: {score: value, "loss": 1 - value, "n": 100} for part, value in levels.items()}
    before = {part: {score: 0.5, "loss": 0.5, "n": 100} for part in levels}
    return {
        "status": "rejected",
        "created": "2026-11-25T10:00:00+00:00",
        "cycle_id": f"cycle{number}",
        "model_name": "m",
        "champion": {"id": "m@1"},
        "candidate": {"id": f"m@{number}"},
        "trigger": {"kind": "manual", "due": True, "reason": "by hand", "evidence": {}},
        "task": {"kind": "class", "score": "accuracy", "unit": "points"},
        "metrics": {"champion": before, "candidate": metrics},
        "decision": {"verdict": "rejected", "applied": False, "charge": {"trial": trial}},
        "cost": {
            "wall_seconds": float(number),
            "optimizer_steps": 100,
            "train_rows": 6400,
            "peak_memory_bytes": 2**20,
        },
        "validation": None,
        "data": {"new": {"rows": 10, "sha256": "a"}},
        "error": None,
        **changes,
    }


def make_run(number: int = 2, *, config: dict[str, Any] | None = None, **changes: Any) -> Run:
    return Run(f"runs/{number}", make_result(number, **changes), config=config or {"seed": number})
