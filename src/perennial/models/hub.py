"""Checkpoints of the Hugging Face hub, as files in its local cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perennial.errors import CheckpointError, first_line

_REFERENCE = re.compile(
    r"hf://(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?"
)
_WANTED = ["config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"]


@contextmanager
def without_retries() -> Iterator[None]:
    """Keep the hub's client from telling each of its attempts: what came of them is said once."""
    told = logging.getLogger("huggingface_hub")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.setLevel(level)


def fetch_hub(reference: str) -> Path:
    """Folder with a model's weights, from the local cache or the hub.

    Args:
        reference: ``hf://org/name`` or ``hf://org/name@revision``: a branch, tag or commit.

    Raises:
        CheckpointError: No such reference, or the hub and the cache do not have it.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise CheckpointError(
            "This names no model of the hub.",
            where=f"checkpoint={reference}",
            mend="write hf://org/name, or hf://org/name@revision",
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            "The hub needs huggingface_hub, which is not installed.",
            where=f"checkpoint={reference}",
            mend="pip install 'perennial[hf]'",
        ) from error
    name, revision = found["name"], found["revision"]
    try:
        with without_retries():
            folder = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=_WANTED
            )
    except Exception as error:
        # of a client of the network: whatever it raises is the reason
        reason = first_line(error)
        raise CheckpointError(
            f"{name} could not be had from the hub ({type(error).__name__}: {reason})",
            where=f"checkpoint={reference}",
            mend="check the name and the network (HF_ENDPOINT, HF_TOKEN for private models); "
            f"without network, run `hf download {name}` where there is one, and copy HF_HOME",
        ) from error
    return Path(folder)
