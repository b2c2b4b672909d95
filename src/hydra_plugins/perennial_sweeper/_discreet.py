"""What launchers get to write down: submitit pickles launcher, configuration and overrides."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict


def discreet(config: DictConfig) -> DictConfig:
    """A sweep's configuration without secrets.

    Jobs are composed anew, from Hydra's own settings here and from their own overrides, so that
    the rest is only ever referred to, as by ``hydra.sweep.dir=runs/${model_name}``.
    """
    from perennial.masking import plain

    OmegaConf.select(config, "hydra.sweep.dir")  # before copying: each copy would ask the time anew
    told = copy.deepcopy(config)
    with open_dict(told):
        for name in [str(key) for key in told if key != "hydra"]:
            value: Any = told._get_node(name)
            if OmegaConf.is_config(value):
                told[name] = plain(OmegaConf.to_container(value, resolve=False))
        if "notify" in told:  # an address is as good as a password
            told.notify = None
        if OmegaConf.select(told, "sweep.storage") is not None:
            told.sweep.storage = None
        told.hydra.overrides.task = []
        told.hydra.job.override_dirname = ""
    return told


@contextmanager
def unread(config: DictConfig) -> Iterator[None]:
    """Let nobody else read what submitit writes, and remove its pickles once jobs have ended.

    Where a job was lost they stay: others may not have begun, and need them.
    """
    place = OmegaConf.select(config, "hydra.launcher.submitit_folder")
    if place is None:
        yield
        return
    folder = Path(str(place).partition("%")[0])
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    yield
    for path in folder.rglob("*.pkl"):
        path.unlink()
