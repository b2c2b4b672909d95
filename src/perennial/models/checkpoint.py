"""Weights in and out of files, checked against the model they are for; no code is ever run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from perennial import files
from perennial.errors import CheckpointError, shortened
from perennial.models.adapter import is_factor, plain, under_adapters
from perennial.models.conversion import converted
from perennial.models.hyperparameters import saved_arguments
from perennial.models.misfit import cause
from perennial.models.renaming import renamed, unused, with_tied
from perennial.models.shards import INDEX, read_shards, weights_file
from perennial.models.unpickle import Inert, read_archive

_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
_SHOWN = 8


class Stored(Protocol):
    """What is read of a version of the registry."""

    @property
    def files(self) -> Mapping[str, str]:
        """Path inside the version to SHA-256."""
        ...

    def open(self, path: str) -> Path:
        """A verified local file."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a user's file.

    Attributes:
        weights: By the names they carry there.
        kind: ``lightning``, ``state_dict``, ``safetensors``, ``shards``, ``huggingface`` or
            ``registry``.
        sha256: Of the file, or over those of the shards.
        hyperparameters: Arguments that a LightningModule saved, plain values alone.
        odd: Names of those that are no plain values.
    """

    weights: dict[str, Tensor]
    kind: str
    sha256: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    odd: tuple[str, ...] = ()


def read_state(path: Path) -> Checkpoint:
    """Read a user's checkpoint, told by its content and not by its name.

    That is a Lightning ``.ckpt``, a ``state_dict``, safetensors, shards that a ``.index.json``
    lists, or a folder with one of these: one of Hugging Face, or any with a single checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another kind, or it would execute code.
    """
    if path.is_dir():
        read = read_state(weights_file(path))
        is_theirs = (path / "config.json").is_file()
        return replace(read, kind="huggingface") if is_theirs else read
    if not path.is_file():
        raise CheckpointError(
            "The checkpoint does not exist.",
            where=f"checkpoint={path}",
            mend="name a .ckpt, .pt, .pth, .bin or .safetensors file, or a folder with one",
        )
    if path.name.endswith(INDEX):
        weights, digest = read_shards(path, lambda shard: _read_file(shard).weights)
        return Checkpoint(weights=weights, kind="shards", sha256=digest)
    return replace(_read_file(path), sha256=files.hash_file(path))


def _read_file(path: Path) -> Checkpoint:
    """What one file holds; its hash is not taken."""
    if _is_zip(path):
        content = read_archive(path)
        weights, kind = _weights(content, path)
        known, odd = saved_arguments(content) if kind == "lightning" else ({}, ())
        return Checkpoint(weights=weights, kind=kind, sha256="", hyperparameters=known, odd=odd)
    try:
        return Checkpoint(weights=read_safetensors(path), kind="safetensors", sha256="")
    except CheckpointError as error:
        raise CheckpointError(
            "This is no checkpoint that can be read without running code.",
            where=f"checkpoint={path}",
            mend="save it again with torch.save(model.state_dict(), path) (torch ≥ 1.6) or as "
            ".safetensors; files of older torch and plain pickles are not read",
        ) from error


def match(
    weights: Mapping[str, Tensor],
    model: nn.Module,
    *,
    where: str,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Tensor]:
    """Weights under the model's own names, checked to fit it.

    A common prefix (``model.``, ``module.``, ``_orig_mod.``) is taken away, put before the names,
    or exchanged for another; a weight that the model ties may lie under one of its names alone.

    Args:
        weights: As read.
        model: What they are for. Factors of an adapter that the weights know nothing of stay as
            they are in the model.
        where: Shown in messages.
        say: Told which tensors outside of the prefix are not used.

    Raises:
        CheckpointError: Names the tensors that are missing, left over, of another shape or kind, or
            not finite, and the likely cause.
    """
    state = _state(model, where)
    # a checkpoint of before there were factors is for the plain model
    from_before = any(map(is_factor, state)) and not any(map(is_factor, weights))
    wanted = plain(state) if from_before else state
    found = renamed(weights, wanted)
    if left := unused(weights, found):
        say(f"{where}: {len(left)} tensors are outside of the model and not used: {_list(left)}")
    found = with_tied(found, wanted)
    if problems := _problems(found, wanted):
        more = f"\n         and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            "The checkpoint does not fit the model:\n         "
            + "\n         ".join(problems[:_SHOWN])
            + more,
            where=where,
            mend=cause(found, wanted),
        )
    fitted = converted(found, wanted, where=where)
    return under_adapters(fitted, state) if from_before else fitted


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors durably; returns the SHA-256."""
    return files.write_bytes(path, to_bytes(tensors))


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors in the safetensors format, on the CPU, each with a memory of its own."""
    return safetensors.torch.save(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        CheckpointError: Truncated or no safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"The weights are unreadable: {error}.",
            where=str(path),
            mend="the file is damaged; restore it from a copy",
        ) from error
    return tensors


WEIGHTS, BASE = "model.safetensors", "base.safetensors"


def version_weights(version: Stored) -> dict[str, Tensor]:
    """The weights that a version keeps, those of its adapter's base among them.

    Raises:
        CheckpointError: A file is damaged.
    """
    parts = [name for name in (BASE, WEIGHTS) if name in version.files]
    return {k: v for name in parts for k, v in read_safetensors(version.open(name)).items()}


def version_files(model: nn.Module, *, adapted: bool) -> dict[str, bytes]:
    """The files that keep a model's weights.

    Args:
        model: The model of record.
        adapted: Whether what does not train is the base of an adapter: it goes into a file of its
            own, whose content, and so whose SHA-256, is the same in every version.
    """
    state = model.state_dict()
    if not adapted:
        return {WEIGHTS: to_bytes(state)}
    fixed = {n for n, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {
        BASE: to_bytes({name: value for name, value in state.items() if name in fixed}),
        WEIGHTS: to_bytes({name: value for name, value in state.items() if name not in fixed}),
    }


def _weights(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    lightning = isinstance(content, dict) and "pytorch-lightning_version" in content
    found = _tensors(content)
    if found is None and isinstance(content, dict):
        found = _nested(content, ("state_dict",) if lightning else _NESTED, path)
    if found is None:
        raise CheckpointError(
            f"The file holds {_held(content)} and no weights by name.",
            where=f"checkpoint={path}",
            mend="save the weights alone: torch.save(model.state_dict(), path)",
        )
    return found, "lightning" if lightning else "state_dict"


def _nested(content: dict[Any, Any], keys: Sequence[str], path: Path) -> dict[str, Tensor] | None:
    """The weights under one of the keys that they are usually saved by."""
    found = {key: one for key in keys if (one := _tensors(dict.get(content, key))) is not None}
    if len(found) > 1:
        raise CheckpointError(
            f"The file holds weights under {' and under '.join(map(repr, found))}: which are meant "
            "is not clear.",
            where=f"checkpoint={path}",
            mend="save the state_dict of the one that serves, and adopt that",
        )
    return next(iter(found.values()), None)


def _held(content: Any) -> str:
    """What was read in the place of weights, in words."""
    if isinstance(content, Inert):
        return "a whole pickled object,"
    if isinstance(content, Tensor):
        return "one tensor without a name"
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    items = list(dict.items(content))
    odd = [key for key, value in items if not (isinstance(key, str) and isinstance(value, Tensor))]
    if not items:
        return "an empty dict"
    if len(odd) < len(items):
        return f"tensors beside {shortened(repr(odd[0]))}, which is none,"
    names = shortened(", ".join(map(repr, odd[:_SHOWN])))
    return f"a dict of {names}, none a plain tensor (dense, with its numbers),"


def _tensors(value: Any) -> dict[str, Tensor] | None:
    if not isinstance(value, dict) or not value:
        return None
    # not value.items(): a pickle may have put attributes over an OrderedDict's methods
    items = list(dict.items(value))
    good = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in items)
    return {k: v.as_subclass(Tensor) for k, v in items} if good else None


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _state(model: nn.Module, where: str) -> dict[str, Tensor]:
    lazy = [n for n, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise CheckpointError(
            f"{lazy[0]!r} of the model has no shape before it has seen a batch.",
            where=where,
            mend="give the layer its number of inputs instead of a lazy one (nn.Linear for "
            "nn.LazyLinear)",
        )
    state = model.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(
            f"{odd[0]!r} of the model's state is no tensor, and versions keep tensors alone.",
            where=where,
            mend="leave get_extra_state out of the model, or register a buffer",
        )
    return state


def _problems(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    wrong = [
        f"{name}: {tuple(found[name].shape)} in the checkpoint, {tuple(value.shape)} in the model"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    missing = [f"{name}: not in the checkpoint" for name in wanted if name not in found]
    extra = [f"{shortened(name)}: not in the model" for name in found if name not in wanted]
    return wrong + missing + extra


def _list(names: list[str]) -> str:
    shown = ", ".join(shortened(name) for name in names[:_SHOWN])
    return shown + (", …" if len(names) > _SHOWN else "")
