"""Ranks of one fit must mean the same: each compares its resolved configuration at the start.

A launcher may run the whole command line again in every rank. Where that draws settings anew, as an
unseeded sweeper does, the ranks would average gradients of different losses without a word.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist

from perennial.errors import ConfigError
from perennial.nested import leaves

SHOWN = 5
# for rank 0 to tell of a refusal, to its tracker too
PATIENCE_SECONDS = 60.0
_ABSENT = "not set"


class SameConfiguration(pl.Callback):
    """Stops a fit before its first step where ranks were given different settings.

    Args:
        configuration: Resolved, as plain values; secrets in it are masked already.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._text = json.dumps(configuration, sort_keys=True, default=str)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare hashes, and whole configurations only where those differ.

        Raises:
            ConfigError: On every rank, naming the settings that differ.
        """
        if stage == "fit" and trainer.world_size > 1:
            digests = _of_all_ranks(hashlib.sha256(self._text.encode()).hexdigest())
            if len(set(digests)) > 1:
                refusal = _refusal([json.loads(text) for text in _of_all_ranks(self._text)])
                if trainer.global_rank > 0:
                    _await_parent()
                raise refusal


def refuse_a_launcher(*, ranks: int) -> None:
    """Refuse to train where a launcher started more ranks than this fit joins.

    Each would run the whole cycle by itself, on all rows, and decide on a candidate of its own.

    Args:
        ranks: Processes that train together here.

    Raises:
        ConfigError: ``WORLD_SIZE``, which launchers of torch.distributed set, says another number.
    """
    started = os.environ.get("WORLD_SIZE", "1")
    if started in ("1", str(ranks)):
        return
    raise ConfigError(
        f"A launcher started {started} ranks of this command (WORLD_SIZE={started}), and a cycle "
        f"trains in {ranks}: they would train apart, without a word to each other.",
        where="WORLD_SIZE",
        mend="start it without torchrun or its like, as plain perennial train; side by side on "
        "many devices run trials of a sweep, each on a device of its own",
    )


def differences(configurations: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted setting to its value on each rank, for settings that are not the same on all.

    Examples:
        >>> differences([{"seed": 0, "lr": {"max": 0.1}}, {"seed": 0, "lr": {"max": 1}}])
        {'lr.max': [0.1, 1]}
    """
    flat = [leaves(configuration) for configuration in configurations]
    keys = sorted({key for one in flat for key in one})
    values = {key: [one.get(key, _ABSENT) for one in flat] for key in keys}
    return {key: each for key, each in values.items() if any(one != each[0] for one in each)}


def _refusal(configurations: Sequence[Mapping[str, Any]]) -> ConfigError:
    found = differences(configurations)
    told = [
        f"{key} is {', '.join(f'{value!r} on rank {rank}' for rank, value in enumerate(each))}"
        for key, each in list(found.items())[:SHOWN]
    ]
    if len(found) > SHOWN:
        told.append(f"and {len(found) - SHOWN} more")
    return ConfigError(
        f"The ranks of this fit were given different settings: {'; '.join(told)}.",
        where=next(iter(found), "configuration"),
        mend="give every rank the same command line; run each trial of a sweep in a process of its "
        "own, so that no rank samples settings again",
    )


def _await_parent() -> None:
    """Let rank 0 tell what is wrong and end with its own exit code.

    Lightning kills the process that started this rank once this one has failed, and a connection
    that goes while it ends may abort it (SIGABRT, in two of four runs). Ranks of multiprocessing
    are waited for by theirs instead, and raise at once.
    """
    if multiprocessing.parent_process() is not None:
        return
    parent, latest = os.getppid(), time.monotonic() + PATIENCE_SECONDS
    while os.getppid() == parent and time.monotonic() < latest:
        time.sleep(0.05)


def _of_all_ranks(text: str) -> list[str]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, text)
    return [str(one) for one in found]
