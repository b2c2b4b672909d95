"""Batches are augmented in training, and in nothing else that a cycle does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perennial.promotion.registry import Registry

Run = Callable[..., dict[str, Any]]
SHORT = ("trainer.max_steps=6", "trainer.validate_every=3", "model=conv", "model.classes=10")
NOISE = "data.augment={_target_: perennial.data.augment.Noise, scale: 0.2}"
CALLS: list[int] = []


def counted(inputs: Any, *, generator: torch.Generator, factor: float) -> Any:
    """Augmentation of one's own, as a function."""
    CALLS.append(len(inputs[0]))
    return tuple(one * factor for one in inputs)


def test_what_is_stored_is_as_without_and_the_weights_are_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for name, extra in {"plain": (), "noisy": (NOISE,)}.items():
        monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / name))
        result = run(*SHORT, "method=ewc", "gate.alpha=0.2", *extra)
        assert result["error"] is None, result["error"]
        registry = Registry(url=f"sqlite:///{tmp_path / name / 'registry.db'}")
        version = registry.version("digits@2")
        found[name] = {
            path: version.open(path).read_bytes()
            for path in version.files
            if path.startswith(("memory/", "holdout/")) or path == "model.safetensors"
        }
    plain, noisy = found["plain"], found["noisy"]
    assert set(plain) == set(noisy)
    assert [p for p in plain if plain[p] != noisy[p]] == ["model.safetensors"]


def test_a_function_of_your_own_is_called_once_per_training_batch(run: Run) -> None:
    CALLS.clear()
    own = f"data.augment={{_target_: {__name__}.counted, _partial_: true, factor: 1.1}}"
    result = run(*SHORT, own)
    assert result["error"] is None, result["error"]
    assert CALLS == [64] * 12  # six steps of the first version, six of the second


def test_the_bundled_digits_are_images(run: Run) -> None:
    result = run(*SHORT, "data.augment={_target_: perennial.data.augment.FlipAndCrop, padding: 1}")
    assert result["error"] is None, result["error"]


def test_what_does_not_fit_is_said(run: Run) -> None:
    result = run(*SHORT, NOISE, "method=der")
    assert result["status"] == "failed"
    assert "data.augment changes batches" in result["error"]["what"]
    result = run(*SHORT, NOISE.replace("scale", "scal"))
    assert result["error"]["where"] == "data.augment.scal"
