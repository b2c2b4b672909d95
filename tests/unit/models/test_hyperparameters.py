"""What a LightningModule saved of its arguments: plain values alone."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from perennial.models.checkpoint import read_state
from perennial.models.hyperparameters import saved_arguments, taken_by


def test_plain_values_are_kept_as_they_are() -> None:
    plain = {
        "width": 24, "lr": 1e-5, "bias": False, "act": "relu", "seed": None,
        "sizes": [1, 2], "nested": {"a": {"b": [0.5]}},
    }  # fmt: skip
    known, odd = saved_arguments({"hyper_parameters": plain, "hparams_name": "kwargs"})
    assert known == plain
    assert odd == ()


def test_pairs_become_lists_and_one_argument_as_a_whole_has_its_name() -> None:
    content = {"hyper_parameters": OrderedDict(kernel=(3, 3)), "hparams_name": "config"}
    assert saved_arguments(content) == ({"config": {"kernel": [3, 3]}}, ())


def _tangled() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _many() -> list[Any]:
    value: list[Any] = [1]
    for _ in range(7):
        value = [value] * 100
    return value


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2), nn.Linear(1, 1), Path("a"), {1: 2}, float("nan"), 10**30, "x" * 20_000,
     _tangled(), _many(), {"inner": [{"deep": object()}]}],
    ids=["tensor", "module", "path", "keys", "nan", "huge", "long", "tangled", "many", "inner"],
)  # fmt: skip
def test_what_is_not_plain_is_named_and_left_out(value: Any) -> None:
    known, odd = saved_arguments({"hyper_parameters": {"good": 1, "bad": value}})
    assert known == {"good": 1}
    assert odd == ("bad",)


def test_a_whole_that_is_no_mapping_is_named() -> None:
    assert saved_arguments({"hyper_parameters": object()}) == ({}, ("hyper_parameters",))
    assert saved_arguments({}) == ({}, ())


def test_only_lightning_files_have_arguments(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.zeros(2)}, "hyper_parameters": {"width": 2}}
    torch.save(content, tmp_path / "plain.pt")
    torch.save({**content, "pytorch-lightning_version": "2.6.6"}, tmp_path / "lightning.ckpt")
    assert read_state(tmp_path / "plain.pt").hyperparameters == {}
    assert read_state(tmp_path / "lightning.ckpt").hyperparameters == {"width": 2}


def test_names_of_arguments_are_those_of_the_signature() -> None:
    def constructor(a: int, /, b: int, *rest: int, c: int = 1, **others: int) -> None: ...

    assert taken_by(constructor) == {"b", "c"}
