"""Weights in and out of files, checked against the model they are for; no code is ever run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from perennial import files
from perennial.errors import CheckpointError
from perennial.models.adapter import is_factor, plain, under_adapters
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
    """

    weights: dict[str, Tensor]
    kind: str
    sha256: str


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
        weights, digest = read_shards(path, lambda shard: _read_file(shard)[0])
        return Checkpoint(weights=weights, kind="shards", sha256=digest)
    weights, kind = _read_file(path)
    return Checkpoint(weights=weights, kind=kind, sha256=files.hash_file(path))


def _read_file(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors of one file by name, and its kind."""
    if _is_zip(path):
        return _weights(read_archive(path), path)
    try:
        return read_safetensors(path), "safetensors"
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

    A common prefix (``model.``, ``module.``, ``_orig_mod.``) is taken away or put before the names.

    Args:
        weights: As read.
        model: What they are for. Factors of an adapter that the weights know nothing of stay as
            they are in the model.
        where: Shown in messages.
        say: Told which tensors outside of the prefix are not used.

    Raises:
        CheckpointError: Names the tensors that are missing, left over, of another shape, or not
            finite, and the likely cause.
    """
    state = model.state_dict()
    # a checkpoint of before there were factors is for the plain model
    from_before = any(map(is_factor, state)) and not any(map(is_factor, weights))
    wanted = plain(state) if from_before else state
    renamed = _renamed(weights, wanted)
    if unused := _unused(weights, renamed):
        shown = ", ".join(unused[:_SHOWN]) + (", …" if len(unused) > _SHOWN else "")
        say(f"{where}: {len(unused)} tensors are outside of the model and not used: {shown}")
    wrong = [
        f"{name}: {tuple(renamed[name].shape)} in the checkpoint, {tuple(value.shape)} in the model"
        for name, value in wanted.items()
        if name in renamed and renamed[name].shape != value.shape
    ]
    missing = [f"{name}: not in the checkpoint" for name in wanted if name not in renamed]
    extra = [f"{name}: not in the model" for name in renamed if name not in wanted]
    if problems := wrong + missing + extra:
        more = f"\n         and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            "The checkpoint does not fit the model:\n         "
            + "\n         ".join(problems[:_SHOWN])
            + more,
            where=where,
            mend=_cause(wrong, missing, wanted, renamed),
        )
    if odd := not_finite(renamed):
        raise CheckpointError(
            f"The checkpoint's {odd[0]!r} holds values that are not finite.",
            where=where,
            mend="it was saved after training had diverged; use an earlier one",
        )
    fitted = {name: renamed[name].to(value.dtype) for name, value in wanted.items()}
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
    for key in _NESTED if found is None and isinstance(content, dict) else ():
        found = found or _tensors(dict.get(content, key))
    if found is None:
        raise CheckpointError(
            "The file holds a whole pickled object, and no weights by name."
            if isinstance(content, Inert)
            else f"The file holds a {type(content).__name__} and no weights by name.",
            where=f"checkpoint={path}",
            mend="save the weights alone: torch.save(model.state_dict(), path)",
        )
    return found, "lightning" if lightning else "state_dict"


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


def _renamed(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The renaming under which most names agree: none, a prefix off, or a prefix on."""
    candidates = [dict(weights)]
    prefixes = {name[: i + 1] for name in weights for i, c in enumerate(name) if c == "."}
    for prefix in sorted(prefixes):
        candidates.append(
            {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        )
    heads = {name[: i + 1] for name in wanted for i, c in enumerate(name) if c == "."}
    candidates += [{f"{p}{n}": v for n, v in weights.items()} for p in sorted(heads)]
    candidates.sort(key=lambda one: (len(one.keys() & wanted.keys()), len(one)), reverse=True)
    best = candidates[0]
    rivals = [
        other
        for other in candidates[1:]
        if other.keys() == best.keys() and any(other[name] is not best[name] for name in best)
    ]
    if best.keys() & wanted.keys() and rivals:
        raise CheckpointError(
            "The checkpoint holds several models that fit: which one is meant is not clear.",
            where=", ".join(sorted({name.partition(".")[0] for name in weights})),
            mend="save the state_dict of the one that serves, and adopt that",
        )
    return best


def _unused(weights: Mapping[str, Tensor], renamed: Mapping[str, Tensor]) -> list[str]:
    taken = {id(value) for value in renamed.values()}
    return sorted(name for name, value in weights.items() if id(value) not in taken)


def _cause(
    wrong: list[str],
    missing: list[str],
    wanted: Mapping[str, Tensor],
    renamed: Mapping[str, Tensor],
) -> str:
    last = [name for name in wanted if wanted[name].ndim == 2][-1:]
    if last and last[0] in renamed and renamed[last[0]].shape != wanted[last[0]].shape:
        theirs, ours = renamed[last[0]].shape, wanted[last[0]].shape
        if theirs[1:] == ours[1:]:
            return (
                f"the last layer has {theirs[0]} outputs in the checkpoint and {ours[0]} in the "
                "model: another number of classes"
            )
    if wrong:
        return "give the model the arguments it was trained with (model.* in --cfg job)"
    if len(missing) == len(wanted):
        return "no name agrees: the checkpoint is of another model class (model._target_)"
    return "the model was changed since: build the one that was saved (model.*)"


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors with values that are not finite."""
    return [
        name for name, value in tensors.items() if not bool(torch.isfinite(_plain(value)).all())
    ]


def _plain(value: Tensor) -> Tensor:
    # float8 has no kernel of its own for this
    return value.float() if value.is_floating_point() and value.element_size() == 1 else value
