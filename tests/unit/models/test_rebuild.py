"""A version's model is built from data, and only where its class is allowed and still fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perennial.errors import RegistryError
from perennial.models.rebuild import rebuild
from perennial.models.reference import MLP

OURS = {"target": "perennial.models.reference.MLP", "arguments": {"inputs": 3, "classes": 2}}


def built(target: str, allow: tuple[str, ...] = (), **arguments: object) -> torch.nn.Module:
    weights = torch.nn.Linear(1, 1).state_dict()
    return rebuild(
        {"target": target, "arguments": arguments}, weights=weights, allow=allow, ref="m@1",
        how="allow={target}",
    )  # fmt: skip


def test_ours_is_built_and_takes_its_weights() -> None:
    weights = MLP(inputs=3, classes=2).state_dict()
    model = rebuild(OURS, weights=weights, allow=(), ref="m@1", how="")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def test_a_class_of_somebody_else_is_imported_only_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "their_net.py").write_text(
        f"import pathlib, torch\npathlib.Path({str(mark)!r}).touch()\n"
        "class Net(torch.nn.Linear): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RegistryError, match=r"allow=their_net\.Net"):
        built("their_net.Net", in_features=1, out_features=1)
    assert not mark.exists()
    assert type(built("their_net.Net", ("their_net.Net",), in_features=1, out_features=1))
    assert mark.exists()


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("perennial.models.checkpoint.read_state", "no torch.nn.Module"),
        ("perennial.models.checkpoint.Path", "no torch.nn.Module"),
        ("perennial.models.adapter.nn.Linear", "cannot be imported"),
        ("perennial.models.gone.Net", "cannot be imported"),
        ("perennial.models.reference.Gone", "cannot be imported"),
        ("perennial.models.reference.MLP", "could not be built"),
    ],
)
def test_what_is_no_such_class_is_refused(target: str, what: str) -> None:
    with pytest.raises(RegistryError, match=what):
        built(target, path="x")


def test_weights_of_a_class_that_changed_are_refused() -> None:
    weights = MLP(inputs=4, classes=2).state_dict()
    with pytest.raises(RegistryError, match="do not fit MLP as it is now"):
        rebuild(OURS, weights=weights, allow=(), ref="m@1", how="")


def test_a_model_that_reads_elsewhere_is_not_built_without_its_record() -> None:
    with pytest.raises(RegistryError, match="does not hold what a"):
        built("perennial.models.huggingface.HuggingFace", path="org/name")


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    ("hidden", "words"),
    [([0] * 67, "lists 67 sizes"), ([0] * 60, "more layers than the 2 tensors"),
     ([99], "a larger model than the 2 numbers")],
)  # fmt: skip
def test_arguments_that_claim_more_than_is_stored_are_refused(
    hidden: list[int], words: str
) -> None:
    with pytest.raises(RegistryError, match=words):
        built("perennial.models.reference.MLP", inputs=0, classes=0, hidden=hidden)


def test_what_a_constructor_says_is_told_in_few_words() -> None:
    with pytest.raises(RegistryError) as raised:
        built("perennial.models.reference.MLP", **{"x" * 9000: 1})
    assert len(str(raised.value)) < 1000
