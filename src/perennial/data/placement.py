"""Where the rows of a fit lie: on the device they are trained on, or on the host."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from perennial.errors import ConfigError, DataError

PLACEMENTS = ("auto", "host", "device")
# of the memory that is free when training starts: optimizer and activations are still to come
SHARE = 0.25
_CGROUP = Path("/sys/fs/cgroup")


def on_device(placement: str, *, device: torch.device, needed: int, free: int) -> bool:
    """Whether the rows are put on the device.

    With ``auto`` they are where they take at most a quarter of its free memory. The CPU's own
    memory is the host's: there nothing is put anywhere.

    Args:
        placement: ``auto``, ``host`` or ``device``.
        device: That trains.
        needed: Bytes of the rows.
        free: Bytes that are free on the device.

    Raises:
        ConfigError: Another word; ``device`` without one, or with too little memory.
    """
    check_placement(placement)
    if placement == "device" and device.type == "cpu":
        raise ConfigError(
            "Training is on the CPU, so that there is no device to put rows on.",
            where="data.placement, trainer.accelerator",
            mend="use data.placement=auto",
        )
    if placement == "device" and needed > free:
        raise ConfigError(
            f"The rows take {_shown(needed)}, and {_shown(free)} are free on {device}.",
            where="data.placement",
            mend="use data.placement=auto or host",
        )
    if placement == "host" or device.type == "cpu":
        return False
    return placement == "device" or needed <= SHARE * free


def check_placement(placement: str) -> None:
    """Refuse another word.

    Raises:
        ConfigError: It is not one of `PLACEMENTS`.
    """
    if placement not in PLACEMENTS:
        raise ConfigError(
            f"{placement!r} is not a place for rows.",
            where="data.placement",
            mend=f"use {', '.join(PLACEMENTS)}",
        )


def require_batch(*, needed: int, rows: int, free: int, where: str) -> None:
    """Refuse batches that no memory can hold, before the first one is tried.

    Args:
        needed: Bytes of a batch as the model gets it.
        rows: Of a batch.
        free: Bytes that are free.
        where: Whose memory, for the message.

    Raises:
        DataError: They are too large.
    """
    if needed > free:
        most = rows * free // needed
        raise DataError(
            f"A batch of {rows} rows takes {_shown(needed)}, {_shown(needed // rows)} a row, and "
            f"{_shown(free)} of {where} are free.",
            where="data.new, trainer.batch_size",
            mend=f"use trainer.batch_size={most // 2} with trainer.accumulate, or smaller rows"
            if most > 1
            else "use smaller rows: cut, resize or thin them out",
        )


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; for the CPU what the system, or the container, has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_system_bytes(), _container_bytes())


def _system_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(found.split()[1])
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_bytes() -> int:
    try:
        most, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(int(most) - int(used), 0)
    except (OSError, ValueError):  # no container, or no limit
        return 1 << 62


def _shown(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
