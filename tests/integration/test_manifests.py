"""A version whose manifest somebody else wrote: a message, and nothing run or allocated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perennial
from perennial.data import preprocess
from perennial.data.columns import TEXT
from perennial.data.preprocess import Table, Text, describe
from perennial.data.preprocess.base import OURS
from perennial.errors import EvaluationError, PerennialError
from perennial.models.checkpoint import WEIGHTS, to_bytes
from perennial.models.reference import Tabular
from perennial.predictor import Predictor
from perennial.promotion.manifest import check_manifest
from perennial.promotion.registry import Registry

ARGUMENTS = {"numerical": 1, "cardinalities": [3], "classes": 2, "hidden": [2], "dropout": 0.0}
ROW = {"age": [1.0], "city": ["ulm"]}
RUN = {"target": "os.system", "arguments": {"command": "touch executed"}, "state": {}, "files": []}
HF = "perennial.models.huggingface.HuggingFace"


def fitted_table() -> Table:
    table = Table(numerical=["age"], categorical=["city"])
    table.fit({"age": np.array([1.0, 3.0]), "city": np.array(["bonn", "ulm"], TEXT)})
    return table


def good() -> dict[str, Any]:
    return {
        "model": {"target": "perennial.models.reference.Tabular", "arguments": dict(ARGUMENTS)},
        "preprocess": describe(fitted_table()),
        "task": {"kind": "class", "arguments": {"label": "label"}},
        "label_names": ["goes", "stays"],
        "schema": {"age": "float64 ()", "city": "str ()"},
        "columns": {"label": "label", "features": ["age", "city"], "form": "dict"},
    }


def loaded(home: Path, manifest: dict[str, Any]) -> Predictor:
    files = {f"preprocess/{name}": content for name, content in fitted_table().files().items()}
    weights = to_bytes(Tabular(**ARGUMENTS).state_dict())  # type: ignore[arg-type]
    Registry(url=f"sqlite:///{home / 'registry.db'}").commit(
        name="m",
        files={WEIGHTS: weights, **files},
        manifest=manifest,
        decision={"verdict": "promoted"},
        verdict="promoted",
        cycle_id="c",
        expected_champion=None,
        promote=True,
        new_holdout="h",
    )
    return perennial.load("m@1", url=f"sqlite:///{home / 'registry.db'}")


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change at a dotted path; Ellipsis takes the entry out."""

    def change(manifest: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        found = manifest
        for parent in parents:
            found = found[parent]
        if value is ...:
            del found[last]
        else:
            found[last] = value

    return change


def configured(**config: Any) -> dict[str, Any]:
    arguments = {"path": "x", "classes": 2}
    return {"target": HF, "arguments": arguments, "recorded": {"config": config}}


NESTED = {
    "target": "perennial.data.preprocess.base.restored",
    "arguments": {"described": RUN, "read": None, "allow": ["os.system"], "ref": "x"},
    "state": {},
    "files": [],
}
READS = {
    "target": "perennial.data.preprocess.text.Text",
    "arguments": {"column": "city", "max_length": 9, "tokenizer": "/etc/passwd"},
    "state": {"pad_id": 0},
    "files": [],
}
LONG = {**READS, "arguments": {"column": "city", "max_length": 10**10}}
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "code behind a function of ours": (put("preprocess", NESTED), "not built unless you allow it"),
    "a file that the manifest names": (put("preprocess", READS), "no 'tokenizer' from a version"),
    "texts of absurd length": (put("preprocess", LONG), "10000000000 tokens"),
    "a class beside ours": (put("preprocess.target", "perennial.data.preprocess.base.Preprocessor"),
                            "not built unless"),
    "text in the fitted state": (put("preprocess.state.numerical.age.mean", "x"), "cannot be rest"),
    "a scale of nothing": (put("preprocess.state.numerical.age.scale", 0), "cannot be the measure"),
    "a state of another form": (put("preprocess.state.numerical", {"age": 5}), "cannot be"),
    "preprocessing that is none": (put("preprocess", []), "preprocess is"),
    "preprocessing without a class": (put("preprocess.target", ...), "target is missing"),
    "no model": (put("model", ...), "model is missing"),
    "a model that is a number": (put("model", 15), "model is 15"),
    "a class that is a number": (put("model.target", 3), "model.target is 3"),
    "arguments in a list": (put("model.arguments", [1]), r"model.arguments is \[1\]"),
    "a head in words": (put("model.head", "x"), "model.head is 'x'"),
    "a head of nothing": (put("model.head", {"name": "output", "outputs": 0}), "outputs is 0"),
    "a task of no kind": (put("task.kind", "evil"), "task.kind is 'evil'"),
    "a task of other arguments": (put("task.arguments", {"nope": 1}), "cannot be built with its"),
    "no columns": (put("schema", ...), "schema is missing"),
    "a column of code": (put("schema.age", "__import__('os') ()"), "schema is"),
    "a column of objects": (put("schema.age", "object ()"), "schema is"),
    "names twice": (put("label_names", ["a", "a"]), "label_names is"),
    "no form": (put("columns.form", "list"), "columns.form is 'list'"),
    "labels beyond bounds": (put("model", configured(model_type="bert", num_labels=10**9)),
                             "num_labels is 1000000000"),
    "layers beyond bounds": (
        put("model", configured(model_type="qwen2", num_hidden_layers=10**9)), "num_hidden_layers"),
    "layers without a number": (put("model.arguments.hidden", [0] * 10**5), "lists 100,000 sizes"),
    "columns without a number": (
        put("model.arguments.cardinalities", [1] * 10**5), "lists 100,000 sizes"),
}  # fmt: skip


def test_a_good_one_is_loaded_and_predicts(home: Path) -> None:
    assert loaded(home, good()).predict(ROW)[0] in ("goes", "stays")


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_or_malformed_one_is_refused(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    change, words = REFUSED[name]
    manifest = copy.deepcopy(good())
    change(manifest)
    with pytest.raises(PerennialError, match=words) as raised:
        loaded(home, manifest)
    assert len(str(raised.value)) < 2000
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("names", [[], ["one"]])
def test_a_class_without_a_name_is_no_prediction(home: Path, names: list[str]) -> None:
    manifest = good() | {"label_names": names}
    served = loaded(home, manifest)
    for parameter in served.model.parameters():
        parameter.data.zero_()
    served.model.output.bias.data[1] = 1  # type: ignore[union-attr,index]
    with pytest.raises(EvaluationError, match="other classes than the"):
        served.predict(ROW)


def test_every_preprocessor_of_ours_may_be_named_by_a_version() -> None:
    kinds = [vars(preprocess)[name] for name in preprocess.__all__]
    own = {one for one in kinds if isinstance(one, type) and hasattr(one, "apply")}
    own -= {preprocess.Preprocessor}
    assert own >= {Table, Text}
    assert {f"{one.__module__}.{one.__qualname__}" for one in own} == OURS


def test_optional_entries_may_be_null_or_left_out(home: Path) -> None:
    manifest = good()
    manifest["model"] |= {"head": None, "adapter": None, "recorded": None}
    assert loaded(home, manifest).predict(ROW)
    del manifest["preprocess"]
    version = Registry(url=f"sqlite:///{home / 'registry.db'}").version("m@1")
    version.manifest.pop("preprocess")
    check_manifest(version)
    version.manifest["model"]["head"] = {"outputs": 3}
    with pytest.raises(PerennialError, match=r"model\.head\.name is missing"):
        check_manifest(version)
