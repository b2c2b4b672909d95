"""Perennial retrains deployed PyTorch models: fine-tune, prove, promote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perennial.predictor import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # `import perennial` stays light: torch comes with the first use
    if name == "load":
        from perennial.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
