"""Batches for Lightning: rows gathered by an index vector, in the form a user's module takes.

Shapes: B rows of a batch, N rows of a set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from perennial.data.augment import Augmentation, augmented
from perennial.data.form import to_data
from perennial.data.lengths import WINDOW, grouped
from perennial.data.mixing import SAMPLINGS, batches_per_epoch, draw, of_rank
from perennial.data.permutation import Index
from perennial.data.placement import check_placement, free_bytes, on_device, require_batch
from perennial.data.pool import Pools
from perennial.data.rows import Rows, concatenate
from perennial.errors import ConfigError
from perennial.stopwatch import Stopwatch
from perennial.types import Batch, Booleans


def batches(
    rows: Rows, *, size: int, form: str, label: str | None, is_new: Booleans | bool = True
) -> Iterator[Batch]:
    """Rows in order, in batches of ``size``, the last one smaller."""
    origin = np.broadcast_to(np.asarray(is_new), len(rows))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        taken = rows.take(part)
        data = to_data(taken, form=form, label=label)
        yield Batch(data=data, ids=taken.id, is_new=origin[part])


def move(data: Any, device: torch.device) -> Any:
    """A tuple or dict of tensors on a device."""
    if isinstance(data, Mapping):
        return {name: value.to(device) for name, value in data.items()}
    return tuple(value.to(device) for value in data)


class TrainLoader:
    """An iterable of training batches that knows where it stands.

    It yields ``Batch.data`` so that a module and its hooks see the form they were written for;
    `current` holds the whole `Batch` until the next one, `place` its epoch and position; `watch`
    is told how long each batch took. In ``passes``, texts of like length share batches: see
    `perennial.data.lengths`. Sized, so that Lightning does not prefetch and `current` is
    always the step's own.

    Args:
        pools: What is drawn from.
        new_per_batch: New rows of a batch.
        replayed_per_batch: Replayed rows of a batch; 0 where there is no history.
        seed: Of the run.
        sampling: ``passes`` or ``replacement``.
        rank: Of this process among those that train together, from 0.
        ranks: How many there are; a pass over the new rows is theirs together.
    """

    def __init__(
        self,
        *,
        pools: Pools,
        new_per_batch: int,
        replayed_per_batch: int,
        seed: int,
        sampling: str = "passes",
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.pools = pools
        self.new_per_batch = new_per_batch
        self.replayed_per_batch = replayed_per_batch
        self.seed = seed
        self.sampling = sampling
        self.rank, self.ranks = rank, ranks
        self.epoch = 0
        self.position = 0
        self.replayed = 0
        self.current: Batch | None = None
        self.place = (0, 0)
        self.watch = Stopwatch()
        self._kept: tuple[tuple[int, ...], list[tuple[Index, Index]]] = ((), [])

    def __len__(self) -> int:
        return batches_per_epoch(self.pools.counts[0], self.new_per_batch * self.ranks)

    def rows(self, epoch: int, position: int) -> tuple[Index, Index]:
        """Positions of this rank's rows in each pool, a pure function of place, rank and seed."""
        if not self.pools.lengths or self.sampling != "passes":
            drawn = self._drawn(epoch, position)
        else:
            window, place = divmod(position, WINDOW)
            drawn = self._window(epoch, window)[place]
        return of_rank(drawn, rank=self.rank, ranks=self.ranks)

    def _window(self, epoch: int, window: int) -> list[tuple[Index, Index]]:
        """The batches of all ranks in a window, drawn where they are not those of the last one."""
        key = (self.seed, 3, epoch, window)
        if self._kept[0] != (*key, self.ranks):
            first = window * WINDOW
            places = range(first, min(first + WINDOW, len(self)))
            drawn = [self._drawn(epoch, place) for place in places]
            self._kept = (*key, self.ranks), grouped(drawn, self.pools.lengths, key=key)
        return self._kept[1]

    def _drawn(self, epoch: int, position: int) -> tuple[Index, Index]:
        """Positions in each pool of the batch of all ranks."""
        new_rows, history_rows = self.pools.counts
        return draw(
            seed=self.seed,
            epoch=epoch,
            batch=position,
            new_rows=new_rows,
            history_rows=history_rows,
            new_per_batch=self.new_per_batch * self.ranks,
            replayed_per_batch=self.replayed_per_batch * self.ranks,
            sampling=self.sampling,
        )

    def batch(self, epoch: int, position: int) -> Batch:
        """The batch at a place."""
        return self.pools.batch(*self.rows(epoch, position))

    def __iter__(self) -> Iterator[Any]:
        while self.position < len(self):
            self.watch.step()
            began = self.watch.now()
            self.place = (self.epoch, self.position)
            self.current = self.batch(*self.place)
            self.position += 1
            self.replayed += len(self.current) - int(np.count_nonzero(self.current.is_new))
            self.watch.add("data", began)
            yield self.current.data
        self.epoch += 1
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands; Lightning keeps it in its checkpoints."""
        return {"epoch": self.epoch, "position": self.position, "replayed": self.replayed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.epoch, self.position = state["epoch"], state["position"]
        self.replayed = state["replayed"]


class ValidationLoader:
    """New and history validation rows in order, with the origin of each in `current`."""

    def __init__(self, *, new: Rows, history: Rows | None, size: int, form: str, label: str | None):
        parts = [new] if history is None else [new, history]
        self.rows = concatenate(parts)
        self.is_new = np.arange(len(self.rows)) < len(new)
        self.size = size
        self.form = form
        self.label = label
        self.current: Batch | None = None

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Any]:
        options: dict[str, Any] = {"size": self.size, "form": self.form, "label": self.label}
        for batch in batches(self.rows, is_new=self.is_new, **options):
            self.current = batch
            yield batch.data


class CycleData(pl.LightningDataModule):
    """Both loaders of one fit.

    Args:
        new: New training rows.
        history: History rows to replay from, or None.
        new_validation: New validation rows.
        history_validation: History validation rows, or None.
        batch_size: Rows of a batch, new and replayed together.
        new_fraction: Share of new rows in a batch; None means new rows alone.
        form: ``tuple`` or ``dict``.
        label: Key of the labels in a dict.
        seed: Of the run.
        sampling: ``passes``, or ``replacement``, which draws every row on its own.
        augment: Changes the inputs of training batches on the device; see `augmented`.
        placement: ``auto``, ``host`` or ``device``; see `perennial.data.placement`.

    Raises:
        ConfigError: Another sampling or placement.
    """

    def __init__(
        self,
        *,
        new: Rows,
        history: Rows | None,
        new_validation: Rows,
        history_validation: Rows | None,
        batch_size: int,
        new_fraction: float | None,
        form: str,
        label: str | None,
        seed: int,
        sampling: str = "passes",
        augment: Augmentation | None = None,
        placement: str = "auto",
    ) -> None:
        super().__init__()
        check_placement(placement)
        if sampling not in SAMPLINGS:
            raise ConfigError(
                f"{sampling!r} is not a way to draw rows.",
                where="data.sampling",
                mend=f"use {' or '.join(SAMPLINGS)}",
            )
        self.sampling, self.augment, self.placement = sampling, augment, placement
        self.batch_size = batch_size
        self.new_fraction = new_fraction if history is not None and len(history) else None
        self.label, self.seed = label, seed
        self.rank, self.ranks = 0, 1
        replayed = history if self.new_fraction is not None else None
        self.pools = Pools(new, replayed, form=form, label=label)
        self.train_loader = self.build_train_loader()
        self.validation_loader = ValidationLoader(
            new=new_validation,
            history=history_validation,
            size=max(batch_size, 256),
            form=form,
            label=label,
        )

    def settle(self, device: torch.device, *, rank: int, ranks: int) -> None:
        """Make ready for the processes that train together: each loads its own rows.

        Args:
            device: That this one trains on.
            rank: Its number, from 0.
            ranks: How many there are.

        Raises:
            ConfigError: The rows cannot lie where they are to.
            DataError: A batch is larger than the memory that is free.
        """
        self.rank = self.train_loader.rank = rank
        self.ranks = self.train_loader.ranks = ranks
        needed = self.batch_size * self.pools.row_bytes
        for where in {torch.device("cpu"), device}:
            name = "memory" if where.type == "cpu" else f"{where}'s memory"
            require_batch(needed=needed, rows=self.batch_size, free=free_bytes(where), where=name)
        free = free_bytes(device)
        if on_device(self.placement, device=device, needed=self.pools.bytes, free=free):
            self.pools.place(device)

    def build_train_loader(self) -> TrainLoader:
        """A loader at the start of the first epoch, at the present batch size."""
        fresh = split_batch_size(self.batch_size, self.new_fraction)
        return TrainLoader(
            pools=self.pools,
            new_per_batch=fresh,
            replayed_per_batch=self.batch_size - fresh,
            seed=self.seed,
            sampling=self.sampling,
            rank=self.rank,
            ranks=self.ranks,
        )

    def augmented(self, data: Any, *, rank: int) -> Any:
        """The loader's current batch, on the device, as training sees it.

        The draws depend on seed, epoch, position and rank alone, so that a resumed run makes the
        same ones.
        """
        if self.augment is None:
            return data
        key = (self.seed, *self.train_loader.place, rank)
        return augmented(data, self.augment, label=self.label, key=key)

    def train_dataloader(self) -> TrainLoader:
        """Training batches."""
        expected = split_batch_size(self.batch_size, self.new_fraction)
        if self.train_loader.new_per_batch != expected:
            self.train_loader = self.build_train_loader()
        return self.train_loader

    def val_dataloader(self) -> ValidationLoader:
        """Validation batches."""
        return self.validation_loader


def split_batch_size(batch_size: int, new_fraction: float | None) -> int:
    """New rows of a batch: the fraction, rounded, but at least one row of either kind."""
    if new_fraction is None:
        return batch_size
    if batch_size < 2:
        raise ConfigError(
            "A batch of one row cannot mix new and replayed rows.",
            where="trainer.batch_size",
            mend="use at least 2, or method=none",
        )
    return min(max(round(batch_size * new_fraction), 1), batch_size - 1)


def share_line(batch_size: int, new_fraction: float) -> str:
    """Says where whole rows make the share of either kind another than asked; else empty.

    More than a tenth of it, that is.
    """
    if _close(batch_size, new_fraction):
        return ""
    least = min(new_fraction, 1 - new_fraction)
    # rounding is off by half a row at most, which is a tenth of five
    sizes = range(batch_size + 1, batch_size + math.ceil(5 / least) + 2)
    enough = next(size for size in sizes if _close(size, new_fraction))
    fresh = split_batch_size(batch_size, new_fraction)
    return (
        f"new rows: {new_fraction:.3%} of a batch were asked for, and {fresh} of {batch_size} are "
        f"{fresh / batch_size:.3%}; trainer.batch_size={enough} would do"
    )


def _close(batch_size: int, new_fraction: float) -> bool:
    fresh = split_batch_size(batch_size, new_fraction)
    off = abs(fresh - batch_size * new_fraction)
    return off <= 0.1 * batch_size * min(new_fraction, 1 - new_fraction)
