"""Weights in a folder: of Hugging Face, in shards that an index lists, or a file alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from perennial import files
from perennial.errors import CheckpointError

INDEX = ".index.json"
MAX_INDEX_BYTES = 32 << 20
_NAMED = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")


def weights_file(folder: Path) -> Path:
    """The file in a folder that holds its weights, or lists the files that do.

    Raises:
        CheckpointError: There is none, or there are several.
    """
    for name in _NAMED:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    indices = sorted(p for p in folder.iterdir() if p.name.endswith(INDEX) and p.is_file())
    if len(indices or found) == 1:
        return (indices or found)[0]
    several = ", ".join(path.name for path in found[:6])
    raise CheckpointError(
        f"The folder holds {f'several checkpoints: {several}' if found else 'no checkpoint'}.",
        where=f"checkpoint={folder}",
        mend="name the file, or a folder with model.safetensors or pytorch_model.bin",
    )


def read_shards(
    index: Path, read: Callable[[Path], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], str]:
    """Tensors of all the shards that an index lists, and a SHA-256 over them and their names.

    Args:
        index: ``*.index.json`` as transformers writes it.
        read: Reads the tensors of one shard.

    Raises:
        CheckpointError: The index is malformed, leads out of its folder, or does not agree with
            what the shards hold.
    """
    listed = _listed(index)
    weights: dict[str, Tensor] = {}
    hashes = []
    for name in sorted(set(listed.values())):
        path = index.parent / name
        if not path.is_file():
            raise _refused(index, f"the shard {name!r} is not there", "download it again")
        held = read(path)
        wanted = {tensor for tensor, shard in listed.items() if shard == name}
        if held.keys() != wanted:
            odd = sorted(held.keys() ^ wanted)[0]
            raise _refused(
                index,
                f"it and the shard {name!r} do not agree about {odd!r}",
                "download both again",
            )
        weights |= held
        hashes.append((name, files.hash_file(path)))
    return weights, hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _listed(index: Path) -> dict[str, str]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise _refused(index, f"it is larger than {MAX_INDEX_BYTES >> 20} MiB", "download it again")
    try:
        content: Any = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _refused(index, f"it is no JSON ({error})", "download it again") from error
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise _refused(index, "it lists no weight_map", "download it again")
    for shard in listed.values():
        # a name alone: a path could lead to any file of the machine
        plain = isinstance(shard, str) and not set("/\\\0") & set(shard)
        if not plain or shard.startswith(".") or not shard.endswith(_SUFFIXES):
            raise _refused(
                index,
                f"it names {str(shard)[:80]!r}, which is no file of weights beside it",
                "do not use this folder; get the weights from a source you trust",
            )
    return listed


def _refused(index: Path, why: str, mend: str) -> CheckpointError:
    return CheckpointError(f"The index of shards is not read: {why}.", where=str(index), mend=mend)
