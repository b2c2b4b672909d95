from __future__ import annotations

import copy
import functools
import importlib
import operator
import os
import pickle
import runpy
import struct
import subprocess
import time
import tracemalloc
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from perennial.errors import CheckpointError
from perennial.models import checkpoint
from perennial.models.reference import MLP


def _model(classes: int = 3) -> MLP:
    return MLP(inputs=4, classes=classes, hidden=(5,))


def _same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert type(value) is Tensor
        assert value.dtype == right[name].dtype
        assert torch.equal(value, right[name])


def _archive(path: Path, data: bytes, *, numbers: int = 4, **entries: bytes) -> Path:
    """A torch zip file with a pickle written by hand and one float storage."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data/0", struct.pack(f"<{numbers}f", *range(numbers)))
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


def _pid(count: int = 4) -> bytes:
    return (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + f"I{count}\n".encode()
        + b"tQ"
    )


def _ints(*values: int) -> bytes:
    return b"(" + b"".join(f"L{value}L\n".encode() for value in values) + b"t"


def _tensor(size: bytes, stride: bytes, offset: int = 0) -> bytes:
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + _pid()
        + f"L{offset}L\n".encode()
        + size
        + stride
        + b"I00\nccollections\nOrderedDict\n(tRtR"
    )


def _named(value: bytes) -> bytes:
    """The pickle of a dictionary with one value, under ``w``."""
    return b"\x80\x02}X\x01\x00\x00\x00w" + value + b"s."


# ---------------------------------------------------------------------------------------- formats


def test_a_checkpoint_that_a_trainer_wrote_is_read(tmp_path: Path) -> None:
    import lightning
    from omegaconf import DictConfig

    class Module(lightning.LightningModule):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = _model()

        def training_step(self, batch: Tensor, _: int) -> Tensor:
            loss: Tensor = self.model(batch).sum()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    path = tmp_path / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about workers and modules in hparams
        module = Module(
            config=DictConfig({"a": [1, {"b": "c"}]}),
            namespace=Namespace(a=1),
            path=Path("x") / "y",
            number=np.float64(0.5),
            partial=functools.partial(torch.optim.SGD, lr=0.1),
            layer=nn.Linear(2, 2),
        )
        trainer = lightning.Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, torch.utils.data.DataLoader(torch.ones(2, 4)))
        trainer.save_checkpoint(path)
    read = checkpoint.read_state(path)
    assert read.kind == "lightning"
    assert len(read.sha256) == 64
    _same(read.weights, dict(module.state_dict()))
    fitted = checkpoint.match(read.weights, _model(), where="checkpoint=x")
    _same(fitted, dict(module.model.state_dict()))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.ckpt", "w"])
def test_a_state_dict_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    model = _model()
    torch.save(model.state_dict(), tmp_path / name)
    read = checkpoint.read_state(tmp_path / name)
    assert read.kind == "state_dict"
    _same(read.weights, dict(model.state_dict()))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.ckpt", "w"])
def test_safetensors_are_told_by_their_content(tmp_path: Path, name: str) -> None:
    weights = dict(_model().state_dict())
    checkpoint.write_safetensors(tmp_path / name, weights)
    read = checkpoint.read_state(tmp_path / name)
    assert read.kind == "safetensors"
    _same(read.weights, weights)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "net", "weights"])
def test_a_nested_state_dict_is_found(tmp_path: Path, key: str) -> None:
    model = _model()
    torch.save({"epoch": 3, key: model.state_dict()}, tmp_path / "w.pt")
    read = checkpoint.read_state(tmp_path / "w.pt")
    assert read.kind == "state_dict"
    _same(read.weights, dict(model.state_dict()))


def test_dtypes_ties_views_and_parameters_survive(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    weights = {
        "half": torch.ones(2, 3, dtype=torch.bfloat16) / 3,
        "tied": base,
        "tied_too": base,
        "turned": base.t(),
        "slice": base[1:, ::2],
        "scalar": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }
    torch.save({**weights, "parameter": nn.Parameter(base)}, tmp_path / "w.pt")
    read = checkpoint.read_state(tmp_path / "w.pt").weights
    _same(read, {**weights, "parameter": base})
    assert not read["parameter"].requires_grad
    written = tmp_path / "w.safetensors"
    checkpoint.write_safetensors(written, read)
    _same(checkpoint.read_safetensors(written), read)


# ------------------------------------------------------------------------------------------ match


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "model._orig_mod."])
def test_a_prefix_is_taken_off(prefix: str) -> None:
    model = _model()
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    _same(checkpoint.match(weights, _model(), where="x"), dict(model.state_dict()))


def test_a_prefix_is_put_on() -> None:
    weights = dict(_model().state_dict())
    wrapped = nn.ModuleDict({"model": _model()})
    fitted = checkpoint.match(weights, wrapped, where="x")
    _same(fitted, {f"model.{name}": value for name, value in weights.items()})


def test_wrappers_of_torch_are_seen_through(tmp_path: Path) -> None:
    model = _model()
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / "w.pt")
    read = checkpoint.read_state(tmp_path / "w.pt").weights
    assert all(name.startswith("module.") for name in read)
    _same(checkpoint.match(read, _model(), where="x"), dict(model.state_dict()))


def _error(weights: dict[str, Tensor], model: nn.Module) -> str:
    with pytest.raises(CheckpointError) as raised:
        checkpoint.match(weights, model, where="checkpoint=x")
    return str(raised.value)


def test_missing_and_left_over_tensors_are_named() -> None:
    weights = dict(_model().state_dict())
    weights["layers.9.weight"] = weights.pop("layers.1.bias")
    text = _error(weights, _model())
    assert "layers.1.bias: not in the checkpoint" in text
    assert "layers.9.weight: not in the model" in text


def test_both_shapes_are_named() -> None:
    weights = dict(_model().state_dict())
    weights["layers.1.weight"] = torch.ones(7, 4)
    text = _error(weights, _model())
    assert "layers.1.weight: (7, 4) in the checkpoint, (5, 4) in the model" in text
    assert "number of classes" not in text


def test_another_number_of_classes_is_said_to_be_one() -> None:
    text = _error(dict(_model(classes=10).state_dict()), _model())
    assert "10 outputs in the checkpoint and 3 in the model" in text
    assert "number of classes" in text


def test_another_class_of_model_is_said_to_be_one() -> None:
    text = _error({f"a{i}": torch.ones(1) for i in range(20)}, _model())
    assert "no name agrees" in text
    assert "more" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    weights = dict(_model().state_dict())
    weights["layers.1.bias"] = torch.full((5,), value)
    text = _error(weights, _model())
    assert "layers.1.bias" in text
    assert "not finite" in text


def test_weights_take_the_models_dtype() -> None:
    weights = {name: value.double() for name, value in _model().state_dict().items()}
    fitted = checkpoint.match(weights, _model().to(torch.bfloat16), where="x")
    assert {value.dtype for value in fitted.values()} == {torch.bfloat16}


def test_a_prefix_is_exchanged_for_another() -> None:
    weights = dict(_model().state_dict())
    wrapped = nn.ModuleDict({"net": _model()})
    given = {f"module.model.{name}": value for name, value in weights.items()}
    fitted = checkpoint.match({**given, "module.loss.weight": torch.ones(1)}, wrapped, where="x")
    _same(fitted, {f"net.{name}": value for name, value in weights.items()})


class Tied(nn.Module):
    """An output layer that shares its weight with the embedding, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5)
        self.output.weight = self.embedding.weight


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("left_out", ["output.weight", "embedding.weight"])
def test_a_tied_weight_may_lie_under_one_of_its_names(left_out: str, prefix: str) -> None:
    weights = dict(Tied().state_dict())
    given = {f"{prefix}{name}": value for name, value in weights.items() if name != left_out}
    _same(checkpoint.match(given, Tied(), where="x"), weights)
    untied = Tied()
    untied.output = nn.Linear(3, 5)
    assert f"{left_out}: not in the checkpoint" in _error(given, untied)


def test_different_values_for_tied_weights_are_refused() -> None:
    weights = dict(Tied().state_dict())
    weights["output.weight"] = weights["output.weight"] + 1
    assert "different values" in _error(weights, Tied())


@pytest.mark.parametrize("auto", ["GPT2LMHeadModel", "BertForMaskedLM"])
def test_a_folder_of_a_language_model_with_tied_weights_is_read(tmp_path: Path, auto: str) -> None:
    import transformers

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    kind = getattr(transformers, auto)
    model = kind(kind.config_class(**small))
    model.save_pretrained(tmp_path)
    read = checkpoint.read_state(tmp_path)
    assert read.kind == "huggingface"
    assert len(read.weights) < len(model.state_dict())  # else nothing would be tied
    fresh = kind(kind.config_class(**small))
    _same(checkpoint.match(read.weights, fresh, where="x"), dict(model.state_dict()))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((5,), 1e300, dtype=torch.float64), "too large for float32"),
        (torch.ones(5, dtype=torch.complex64), "is complex64, and the model's is float32"),
        (torch.ones(5, dtype=torch.int8), "is int8, and the model's is float32"),
        (torch.ones(5, dtype=torch.bool), "is bool, and the model's is float32"),
    ],
)
def test_values_that_would_become_others_are_refused(value: Tensor, words: str) -> None:
    weights = dict(_model().state_dict())
    weights["layers.1.bias"] = value
    assert words in _error(weights, _model())


def test_counts_are_taken_where_they_stay_what_they_are() -> None:
    norm = nn.BatchNorm1d(2)
    weights = dict(norm.state_dict())
    for exact in (torch.tensor(3.0), torch.tensor(3, dtype=torch.int32)):
        weights["num_batches_tracked"] = exact
        assert checkpoint.match(weights, norm, where="x")["num_batches_tracked"].tolist() == 3
    weights["num_batches_tracked"] = torch.tensor(3.7)
    assert "is float32, and the model's is int64" in _error(weights, norm)
    narrow = nn.Module()
    narrow.register_buffer("count", torch.tensor(0, dtype=torch.int8))
    assert "too large for int8" in _error({"count": torch.tensor(300)}, narrow)


def _cause(weights: dict[str, Tensor], model: nn.Module) -> str:
    return _error(weights, model).partition("mend:")[2]


def test_the_likely_cause_is_told_of_what_differs() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1))
    wider = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 7, 1))
    assert "1, has 7 outputs in the checkpoint and 3" in _cause(dict(wider.state_dict()), conv)
    first = nn.ModuleDict({"head": nn.Linear(4, 7), "body": nn.Linear(2, 4)})
    ours = nn.ModuleDict({"head": nn.Linear(4, 3), "body": nn.Linear(2, 4)})
    assert "head alone differs, with 7 rows" in _cause(dict(first.state_dict()), ours)
    items = nn.ModuleDict({"item": nn.Embedding(9, 4), "out": nn.Linear(4, 2)})
    more = nn.ModuleDict({"item": nn.Embedding(12, 4), "out": nn.Linear(4, 2)})
    assert "item alone differs, with 9 rows" in _cause(dict(items.state_dict()), more)
    # a last layer whose inputs differ too is no matter of classes
    deeper = MLP(inputs=4, classes=9, hidden=(6,))
    assert "arguments it was trained with" in _cause(dict(deeper.state_dict()), _model())
    both = {**_model().state_dict(), "layers.3.weight": torch.ones(9, 7)}
    assert "arguments it was trained with" in _cause(both, _model())
    norm = {n: v for n, v in nn.BatchNorm1d(2).state_dict().items() if "tracked" not in n}
    assert "counts of batches" in _cause(norm, nn.BatchNorm1d(2))
    averaged = nn.ModuleDict({"model": _model()})
    ema = {f"ema.{name}": value for name, value in _model().state_dict().items()}
    assert "'ema.' mirrors" in _cause({**averaged.state_dict(), **ema}, averaged)
    other = {f"extra.{i}.weight": torch.ones(1) for i in range(4)}
    assert "was changed since" in _cause({**averaged.state_dict(), **other}, averaged)


def test_a_model_without_plain_weights_is_refused() -> None:
    assert "no shape before it has seen a batch" in _error({"a": torch.ones(1)}, nn.LazyLinear(2))

    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

    assert "is no tensor" in _error({"weight": torch.ones(1)}, Extra(2, 2))


def test_weights_under_two_keys_are_refused(tmp_path: Path) -> None:
    one, other = _model().state_dict(), _model().state_dict()
    torch.save({"model": one, "net": other}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="under 'model' and under 'net'"):
        checkpoint.read_state(tmp_path / "w.pt")
    lightning = {"pytorch-lightning_version": "2.6.6", "state_dict": one, "model": other}
    torch.save(lightning, tmp_path / "w.ckpt")
    _same(checkpoint.read_state(tmp_path / "w.ckpt").weights, dict(one))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "an empty dict"),
        (torch.ones(2), "one tensor without a name"),
        ({"w": torch.ones(2), "epoch": 3}, "tensors beside 'epoch'"),
        ({"w": torch.eye(3).to_sparse()}, "none a plain tensor"),
        ({"w": torch.empty(2, device="meta")}, "none a plain tensor"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_told(
    tmp_path: Path, content: Any, words: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read_state(tmp_path / "w.pt")


def test_an_expanded_tensor_is_read_up_to_a_bound(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(5)}, tmp_path / "w.pt")
    _same(checkpoint.read_state(tmp_path / "w.pt").weights, {"w": torch.ones(5)})
    torch.save({f"w{i}": torch.ones(1).expand(1 << 20) for i in range(5)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="claim far more numbers"):
        checkpoint.read_state(tmp_path / "w.pt")


# ---------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str) -> None:
    weights = dict(_model().state_dict())
    path = tmp_path / f"w.{kind}"
    if kind == "pt":
        torch.save(weights, path)
    else:
        safetensors.torch.save_file(weights, path)
    whole = path.read_bytes()
    for length in {0, 1, 4, 7, 8, 9, 30, len(whole) // 2, len(whole) - 30, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            checkpoint.read_state(path)


def test_changed_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(_model().state_dict(), path)
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            checkpoint.read_state(path)
        except CheckpointError:
            refused += 1
    # a byte of a weight is a weight, which the hash of a version tells; one of the frame is not
    assert refused > 10


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.read_state(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.read_state(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("not weights, but several words of text\n" * 9)
    with pytest.raises(CheckpointError, match="without running code"):
        checkpoint.read_state(tmp_path / "text.pt")
    _archive(tmp_path / "list.pt", pickle.dumps([1, 2]))
    with pytest.raises(CheckpointError, match="holds a list"):
        checkpoint.read_state(tmp_path / "list.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        checkpoint.read_state(tmp_path / "other.zip")


def test_a_file_of_another_byte_order_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("archive/data.pkl", _named(b"N"))
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(CheckpointError, match="big-endian"):
        checkpoint.read_state(tmp_path / "w.pt")


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("archive/data.pkl", _named(b"N"))
        archive.writestr("archive/data/0", bytes(4096))
        for key in range(1, 9):
            shared = copy.copy(archive.getinfo("archive/data/0"))
            shared.filename = f"archive/data/{key}"
            archive.filelist.append(shared)
            archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="entries overlap"):
        checkpoint.read_state(tmp_path / "w.pt")


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(_model(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="a whole pickled object"):
        checkpoint.read_state(tmp_path / "w.pt")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript|compressed"):
        checkpoint.read_state(tmp_path / "w.pt")
    _archive(tmp_path / "code.pt", _named(b"N"), **{"code/a.py": b"1"})
    with pytest.raises(CheckpointError, match="carries code"):
        checkpoint.read_state(tmp_path / "code.pt")


# ---------------------------------------------------------------------------------------- hostile


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _attacks(marker: Path) -> dict[str, Any]:
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    script = marker.with_name("script.py")
    script.write_text(code)
    getter = Call(getattr, Call(importlib.import_module, "os"), "system")
    return {
        "system": Call(os.system, touch),
        "popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, str(marker), "w"),
        "getattr": Call(map, getter, [touch]),
        "getattr_builtins": Call(getattr, 1, "real"),
        "import": Call(importlib.import_module, "antigravity"),
        "run_path": Call(runpy.run_path, str(script)),
        "load": Call(torch.load, str(marker)),
        "attrgetter": Call(operator.attrgetter, "a.b"),
        "methodcaller": Call(operator.methodcaller, "a"),
    }


_ATTACKS = (
    "system", "popen", "eval", "exec", "open", "getattr", "getattr_builtins", "import",
    "run_path", "load", "attrgetter", "methodcaller",
)  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", _ATTACKS)
def test_nothing_in_a_file_is_executed(tmp_path: Path, name: str, zipped: bool) -> None:
    marker = tmp_path / "marker"
    attack = _attacks(marker)[name]
    weights = dict(_model().state_dict())
    lightning = {"pytorch-lightning_version": "2.6.0", "state_dict": weights}
    for content in (
        attack,
        {**weights, "bad": attack},
        {**lightning, "hyper_parameters": {"deep": [({"x": attack},)]}},
        {**lightning, "state_dict": OrderedDict(weights, bad=attack)},
    ):
        for protocol in (2, 4):
            path = tmp_path / "w.ckpt"
            torch.save(
                content,
                path,
                pickle_protocol=protocol,
                _use_new_zipfile_serialization=zipped,
            )
            with pytest.raises(CheckpointError, match="would run" if zipped else "running code"):
                checkpoint.read_state(path)
            assert not marker.exists()


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Call(os.system, f"touch {marker}")))
    with pytest.raises(CheckpointError):
        checkpoint.read_state(tmp_path / "w.pkl")
    assert not marker.exists()


def test_unknown_globals_stay_inert(tmp_path: Path) -> None:
    """Neither imported nor called, whatever the protocol does with them."""
    (tmp_path / "unknown_module.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    call = b"cunknown_module\nrun\n(X\x01\x00\x00\x00atR}b(X\x01\x00\x00\x00aK\x01u(K\x01e"
    data = b"\x80\x02}(X\x05\x00\x00\x00otherX\x00\x00\x00\x00cunknown_module\na.b\n)\x81"
    data = data.replace(b"X\x00\x00\x00\x00", b"") + b"X\x03\x00\x00\x00one" + call
    data += b"X\x05\x00\x00\x00model}X\x01\x00\x00\x00w" + _tensor(_ints(4), _ints(1)) + b"su."
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        read = checkpoint.read_state(_archive(tmp_path / "w.pt", data))
    assert torch.equal(read.weights["w"], torch.arange(4.0))
    assert not (tmp_path / "marker").exists()


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", _named(_tensor(_ints(4), _ints(1))))
        archive.writestr("archive/data/0", bytes(32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="compressed"):
            checkpoint.read_state(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((1 << 40,), (1,), 0),
        ((1 << 40,), (0,), 0),
        ((1 << 20, 1 << 20), (0, 0), 0),
        ((1 << 70,), (1,), 0),
        ((2,), (1 << 62,), 0),
        ((2, 2), (1 << 63, 1), 0),
        ((4,), (1,), 1),
        ((1,), (1,), 1 << 62),
        ((1,), (1,), -1),
        ((-1,), (1,), 0),
        ((2,), (-1,), 1),
        ((2, 2), (1,), 0),
        ((0, 1 << 70), (1, 1), 0),
    ],
)
def test_absurd_tensors_are_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    data = _named(_tensor(_ints(*size), _ints(*stride), offset))
    start = time.perf_counter()
    with pytest.raises(CheckpointError):
        checkpoint.read_state(_archive(tmp_path / "w.pt", data))
    assert time.perf_counter() - start < 2


_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
_STATE = b"}X\x07\x00\x00\x00__doc__K\x01s"


@pytest.mark.parametrize(
    "value",
    [
        _REBUILD + b")R",
        _REBUILD + b"(K\x01K\x02K\x03tR",
        _REBUILD + b"(" + _pid() + b"NNNtR",
        _REBUILD + b"(" + _pid() + b"K\x00ca\nb\nca\nb\ntR",
        _REBUILD + b"(" + _pid(1 << 60) + b"K\x00" + _ints(1) + _ints(1) + b"tR",
        _REBUILD + _STATE + b"b",
        _REBUILD + b"N" + _STATE + b"\x86b",
        b"ccollections\nOrderedDict\n" + _STATE + b"b",
        b"ctorch\nFloatStorage\n" + _STATE + b"b",
        b"ctorch\nfloat32\n" + _STATE + b"b",
        b"ca\nb\n" + _STATE + b"b",
        _tensor(_ints(4), _ints(1)) + b"(" + _pid() + b"K\x00" + _ints(1 << 40) + _ints(1) + b"tb",
        _tensor(_ints(4), _ints(1)) + b"(I01\nNccollections\nOrderedDict\n)Rtb",
        _tensor(_ints(4), _ints(1)) + b"K\x00K\x01s",
        _tensor(_ints(4), _ints(1)) + b"(K\x01\x90",
        b"K\x01Q",
        b"(X\x06\x00\x00\x00moduleNNNNtQ",
        b"r\xff\xff\xff\x7f",
        b"Nr\xff\xff\xff\x7f",
        b"p99999999999\n",
        b"h\x05",
        b"\x82\x01",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R",
        b"(ios\nsystem\n",
        b"(cos\nsystem\nX\x04\x00\x00\x00trueo",
        b"\x8e" + struct.pack("<Q", 1 << 62),
        b"000000",
    ],
)
def test_tricks_of_the_protocol_are_refused(tmp_path: Path, value: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(CheckpointError):
        checkpoint.read_state(_archive(tmp_path / "w.pt", _named(value)))
    assert time.perf_counter() - start < 2


def test_a_method_hidden_by_an_attribute_is_not_called(tmp_path: Path) -> None:
    hidden = b"".join(
        b"X" + struct.pack("<I", len(name)) + name + b"K\x01"
        for name in (b"items", b"keys", b"get", b"values", b"__iter__")
    )
    weights = b"ccollections\nOrderedDict\n)RX\x01\x00\x00\x00w" + _tensor(_ints(4), _ints(1))
    data = b"\x80\x02ccollections\nOrderedDict\n)RX\x05\x00\x00\x00model"
    data += weights + b"s}(" + hidden + b"ubs}(" + hidden + b"ub."
    read = checkpoint.read_state(_archive(tmp_path / "w.pt", data))
    assert read.weights["w"].tolist() == [0, 1, 2, 3]


def test_many_uses_of_one_storage_take_the_memory_of_one(tmp_path: Path) -> None:
    weight = torch.ones(1 << 20)
    torch.save({f"w{i}": weight for i in range(50)}, tmp_path / "w.pt")
    read = checkpoint.read_state(tmp_path / "w.pt").weights
    assert len({value.data_ptr() for value in read.values()}) == 1


def test_paths_of_newer_pythons_are_inert(tmp_path: Path) -> None:
    data = b"\x80\x02}(X\x01\x00\x00\x00pcpathlib._local\nPosixPath\n(X\x01\x00\x00\x00atR"
    data += b"X\x05\x00\x00\x00model}X\x01\x00\x00\x00w" + _tensor(_ints(4), _ints(1)) + b"su."
    assert checkpoint.read_state(_archive(tmp_path / "w.pt", data)).weights["w"].shape == (4,)


def test_dtypes_that_travel_as_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    stored = {
        "eight": torch.tensor([0.5, -2.0, 1.5]).to(torch.float8_e4m3fn),
        "sixteen": torch.tensor([1, 2, 65535], dtype=torch.uint16),
    }
    torch.save(stored, tmp_path / "odd.pt")
    found = checkpoint.read_state(tmp_path / "odd.pt").weights
    for name, value in stored.items():
        assert found[name].dtype == value.dtype
        assert found[name].view(torch.uint8).tolist() == value.view(torch.uint8).tolist()


def test_two_models_in_one_checkpoint_are_not_guessed_between() -> None:
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    weights = {f"student.{n}": v for n, v in one.state_dict().items()}
    weights |= {f"teacher.{n}": v for n, v in two.state_dict().items()}
    with pytest.raises(CheckpointError, match="several models"):
        checkpoint.match(weights, torch.nn.Linear(2, 2), where="both.pt")
