"""Thirty hostile checkpoints and version manifests: refused in words, nothing run, memory bounded.

Each is read in a process of its own with a limit on address space and on CPU seconds, so that
neither a bomb nor a loop could bring the machine down, and with an eye on what is executed.
"""

from __future__ import annotations

import json
import pickle
import resource
import signal
import struct
import sys
import tarfile
import traceback
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from perennial.errors import PerennialError
from perennial.models.checkpoint import match, read_state
from perennial.models.rebuild import rebuild
from perennial.models.reference import MLP
from perennial.promotion.store import check_paths

MEMORY = 1 << 30  # beyond what the process has when it begins
WEIGHTS = dict(MLP(inputs=2, classes=2, hidden=(2,)).state_dict())
RUN = b"cos\nsystem\n(X\x0e\x00\x00\x00touch executedtR"


class Runs:
    """Pickles as a call that leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('executed', 'w').close()",)


def _zip(path: Path, entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def _torch(path: Path, data: bytes, **more: bytes) -> Path:
    return _zip(path, {"a/data.pkl": data, "a/byteorder": b"little", **more})


def _saved(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def _nested_zip(folder: Path) -> Path:
    inner = _saved(folder / "inner.pt", {**WEIGHTS, "x": Runs()}).read_bytes()
    return _zip(folder / "w.pt", {"a/data.pkl": inner, "a/byteorder": b"little"})


def _tar(folder: Path) -> Path:
    content = pickle.dumps(Runs())
    with tarfile.open(folder / "w.pt", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return folder / "w.pt"


def _safetensors(path: Path, header: bytes, length: int | None = None, data: bytes = b"") -> Path:
    size = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + header + data)
    return path


def _claims(shape: list[int], end: int) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


def _index(folder: Path, weight_map: Any) -> Path:
    _saved(folder / "outside.bin", WEIGHTS)
    (folder / "model").mkdir()
    _saved(folder / "model" / "shard.bin", {**WEIGHTS, "x": Runs()})
    path = folder / "model" / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path.parent


def _lightning(folder: Path, **more: Any) -> Path:
    content = {"pytorch-lightning_version": "2.6.6", "state_dict": WEIGHTS, **more}
    return _saved(folder / "last.ckpt", content)


def _twice(folder: Path) -> Path:
    path = _saved(folder / "w.pt", WEIGHTS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", pickle.dumps(Runs()))
    return path


def _doubled_tuples(_: Path) -> bytes:
    return b"\x80\x02})" + b"2\x86" * 80 + b"K\x01s."


def _dimensions(count: int) -> bytes:
    """A tensor of that many dimensions of 2^62, of which multiplying alone takes a minute."""
    pid = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
    )
    size = b"(\x8a\x08" + (1 << 62).to_bytes(8, "little") + b"q\x01" + b"h\x01" * (count - 1) + b"t"
    stride = b"(" + b"K\x00" * count + b"t"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00" + size + stride + b"NtR."
    )


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "a torch zip that runs": lambda f: _saved(f / "w.pt", Runs()),
    "weights beside what runs": lambda f: _saved(f / "w.pt", {**WEIGHTS, "x": Runs()}),
    "the old format of torch": lambda f: _saved(
        f / "w.pt", {**WEIGHTS, "x": Runs()}, _use_new_zipfile_serialization=False
    ),
    "the tar format of torch": _tar,
    "a plain pickle": lambda f: _written(f / "w.pkl", pickle.dumps(Runs())),
    "a plain pickle of the oldest protocol": lambda f: _written(
        f / "w.bin", pickle.dumps({"w": Runs()}, protocol=0)
    ),
    "hyperparameters that run": lambda f: _lightning(f, hyper_parameters={"a": [{"b": Runs()}]}),
    "an optimizer's state that runs": lambda f: _lightning(f, optimizer_states=[Runs()]),
    "a namespace around what runs": lambda f: _lightning(f, hparams=Namespace(a=Runs())),
    "a zip in a zip": _nested_zip,
    "two pickles in one zip": _twice,
    "a global by its opcode": lambda f: _torch(
        f / "w.pt", b"\x80\x02}X\x01\x00\x00\x00w" + RUN + b"s."
    ),
    "a global by the stack": lambda f: _torch(
        f / "w.pt", b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."
    ),
    "an extension code": lambda f: _torch(f / "w.pt", b"\x80\x02\x82\x01."),
    "TorchScript": lambda f: _torch(f / "w.pt", b"\x80\x02}.", **{"a/code/__torch__.py": b"1"}),
    "paths that climb in a zip": lambda f: _zip(
        f / "w.pt", {"../../../etc/data.pkl": b"\x80\x02}.", "../../../etc/byteorder": b"little"}
    ),
    "a storage that climbs": lambda f: _torch(
        f / "w.pt",
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x0f\x00\x00\x00../../../passwd"
        b"X\x03\x00\x00\x00cpuK\x01tQ.",
    ),
    "a decompression bomb": lambda f: _zip(
        f / "w.pt",
        {"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(256 << 20)},
        zipfile.ZIP_DEFLATED,
    ),
    "a pickle of absurd size": lambda f: _torch(
        f / "w.pt", b"\x80\x02}" + b"N0" * (40 << 20) + b"."
    ),
    "a memo beyond all bounds": lambda f: _torch(f / "w.pt", b"\x80\x02}r\xff\xff\xff\x7f."),
    "keys that take for ever to hash": lambda f: _torch(f / "w.pt", _doubled_tuples(f)),
    "a tensor of absurd dimensions": lambda f: _torch(
        f / "w.pt", _dimensions(100_000), **{"a/data/0": bytes(4)}
    ),
    "a safetensors header of absurd length": lambda f: _safetensors(
        f / "w.safetensors", b"{}", length=1 << 62
    ),
    "a safetensors shape beyond the file": lambda f: _safetensors(
        f / "w.safetensors", _claims([1 << 40], 4 << 40)
    ),
    "a safetensors shape that overflows": lambda f: _safetensors(
        f / "w.safetensors", _claims([1 << 33, 1 << 33], 16), data=bytes(16)
    ),
    "an index that climbs": lambda f: _index(f, dict.fromkeys(WEIGHTS, "../outside.bin")),
    "an index with an absolute path": lambda f: _index(f, {"w": "/etc/passwd.bin"}),
    "an index of a shard that runs": lambda f: _index(f, dict.fromkeys(WEIGHTS, "shard.bin")),
    "an index that is none": lambda f: _index(f, [["w", "shard.bin"]]),
}


def _dots(path: Path) -> Path:
    """A tensor whose name is 400,000 prefixes."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return _safetensors(path, json.dumps({"." * 400_000: entry}).encode(), data=bytes(4))


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _manifest(target: str, arguments: dict[str, Any], **more: Any) -> Callable[[], object]:
    constructor = {"target": target, "arguments": arguments, **more}
    return lambda: rebuild(constructor, weights=WEIGHTS, allow=[], ref="m@1", how="allow {target}")


HF = "perennial.models.huggingface.HuggingFace"
OURS = "perennial.models.reference.MLP"
SMALL = {"inputs": 2, "classes": 2, "hidden": [2]}
BERT = {"model_type": "bert"}
MANIFESTS: dict[str, Callable[[], object]] = {
    "a constructor that is a command": _manifest("os.system", {"command": "touch executed"}),
    "a constructor that evaluates": _manifest("builtins.exec", {"source": "open('executed','w')"}),
    "a constructor that unpickles": _manifest("torch.load", {"f": "w.pt", "weights_only": False}),
    "a function of ours": _manifest("perennial.models.checkpoint.read_state", {"path": "w"}),
    "a module that ours imports": _manifest("perennial.models.unpickle.io", {}),
    "a class that ours imports": _manifest("perennial.training.root.TaskModule", {}),
    "a module of somebody else": _manifest("trojan.Net", {}),
    "a model of absurd width": _manifest(OURS, {**SMALL, "hidden": [1 << 40]}),
    "a model of absurd depth": _manifest(OURS, {**SMALL, "hidden": [1] * 3_000_000}),
    "an output layer of absurd width": _manifest(
        OURS, SMALL, head={"name": "layers.3", "outputs": 1 << 40}
    ),
    "factors of absurd rank": _manifest(
        OURS, SMALL, adapter={"layers": ["layers.1"], "rank": 1 << 40}
    ),
    "a model of the hub": _manifest(HF, {"path": "evil/model", "classes": 2}),
    "a configuration that names code": _manifest(
        HF,
        {"path": "x"},
        recorded={"config": {"model_type": "x", "auto_map": {"AutoModel": "a.B"}}},
    ),
    "a configuration of absurd depth": _manifest(
        HF, {"path": "x"}, recorded={"config": {**BERT, "num_hidden_layers": 1 << 40}}
    ),
    "a configuration of absurd width": _manifest(
        HF, {"path": "x"}, recorded={"config": {**BERT, "hidden_size": 12 << 30}}
    ),
    "a model of layers without a number": _manifest(
        OURS, {"inputs": 0, "classes": 0, "hidden": [0] * 1_000_000}
    ),
    "a configuration of absurd labels": _manifest(
        HF, {"path": "x"}, recorded={"config": {"model_type": "bert", "num_labels": 10**9}}
    ),
    "a name of absurdly many prefixes": lambda: match(
        read_state(_dots(Path("w.safetensors"))).weights, MLP(**SMALL), where="w"
    ),
    "a file that climbs": lambda: check_paths(["../../evil"], where="m@1"),
    "a file with an absolute path": lambda: check_paths(["/etc/passwd"], where="m@1"),
}


def _attempt(action: Callable[[], object], folder: str, told: Any) -> None:
    """In a fork: what happened, in words."""
    import os

    os.chdir(folder)
    (Path(folder) / "trojan.py").write_text("open('executed', 'w').close()")
    sys.path.insert(0, folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.alarm(60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        action()
        outcome = "read"
    except PerennialError as error:
        outcome = f"refused: {error}"
    except BaseException:
        outcome = traceback.format_exc()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    told.send((outcome, grown))
    os._exit(0)


def _outcome(action: Callable[[], object], folder: Path) -> tuple[str, int]:
    import transformers  # noqa: F401  what is foreign to the attempt is imported before the fork

    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_attempt, args=(action, str(folder), theirs))
    process.start()
    theirs.close()
    try:
        result: tuple[str, int] = ours.recv()
    except EOFError:
        result = ("the process died", 0)
    process.join()
    return result


def _check(outcome: str, grown: int, folder: Path) -> None:
    assert outcome.startswith("refused: "), outcome
    assert "mend:" in outcome
    assert not (folder / "executed").exists()
    assert grown < 300 << 20, f"{grown >> 20} MiB"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    path = CHECKPOINTS[name](tmp_path)
    outcome, grown = _outcome(lambda: read_state(path), tmp_path)
    _check(outcome, grown, tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_refused(tmp_path: Path, name: str) -> None:
    outcome, grown = _outcome(MANIFESTS[name], tmp_path)
    _check(outcome, grown, tmp_path)


def test_what_is_not_hostile_is_read_in_the_same_way(tmp_path: Path) -> None:
    path = _lightning(tmp_path)
    assert _outcome(lambda: read_state(path), tmp_path)[0] == "read"
    assert _outcome(_manifest(OURS, SMALL), tmp_path)[0] == "read"
    assert len(CHECKPOINTS) + len(MANIFESTS) >= 30
