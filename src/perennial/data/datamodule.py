"""Batches for Lightning: rows gathered by an index vector, in the form a user's module takes.

Shapes: B rows of a batch, N rows of a set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from perennial.data.augment import Augmentation, augmented
from perennial.data.mixing import SAMPLINGS, batches_per_epoch, draw
from perennial.data.rows import Rows, concatenate
from perennial.errors import ConfigError
from perennial.types import Batch, Booleans

FORMS = ("tuple", "dict")
MASK = "attention_mask"


def to_data(rows: Rows, *, form: str, label: str | None) -> Any:
    """Rows to a batch in a module's own form.

    Columns of one number per row become one float32 tensor (B, F), in the order of the columns;
    uint8 columns of three and more dimensions a row are images and become float32 in [0, 1]; other
    floats become float32, whole numbers int64. Texts (B, L), which have an ``attention_mask``, are
    cut at the longest of the batch, since what is masked for all rows only costs time. Targets come
    last, numbers as float32, others int64.

    Args:
        rows: B rows.
        form: ``tuple`` gives (inputs, ..., targets), ``dict`` gives tensors by column name.
        label: Key of the targets in a dict; None where there are none beside the inputs.

    Raises:
        ConfigError: The form is neither.
    """
    if form not in FORMS:
        raise ConfigError(
            f"{form!r} is not a form of batch.", where="data.form", mend="use tuple or dict"
        )
    dtype = np.float32 if rows.label.dtype.kind == "f" else np.int64
    target = torch.from_numpy(np.asarray(rows.label, dtype=dtype).copy())
    # where inputs are targets too, each position has a prediction, alike in every batch
    cuts = target.ndim == 1 and label is not None
    features = _cut(rows.features) if cuts else rows.features
    columns = {name: _tensor(column) for name, column in features.items()}
    if form == "dict":
        return columns if label is None else {**columns, label: target}
    targets = () if label is None else (target,)
    if len(columns) > 1 and all(column.ndim == 1 for column in columns.values()):
        table = torch.stack([column.float() for column in columns.values()], dim=1)
        return table, *targets
    return (*columns.values(), *targets)


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
    `current` holds the whole `Batch` until the next one, `place` its epoch and position. Sized, so
    that Lightning does not prefetch and `current` is always the step's own.
    """

    def __init__(
        self,
        *,
        new: Rows,
        history: Rows | None,
        new_per_batch: int,
        replayed_per_batch: int,
        form: str,
        label: str | None,
        seed: int,
        sampling: str = "passes",
    ) -> None:
        self.new = new
        self.history = history if history is not None and replayed_per_batch else None
        self.new_per_batch = new_per_batch
        self.replayed_per_batch = replayed_per_batch if self.history is not None else 0
        self.form = form
        self.label = label
        self.seed = seed
        self.sampling = sampling
        self.epoch = 0
        self.position = 0
        self.replayed = 0
        self.current: Batch | None = None
        self.place = (0, 0)

    def __len__(self) -> int:
        return batches_per_epoch(len(self.new), self.new_per_batch)

    def batch(self, epoch: int, position: int) -> Batch:
        """The batch at a place, a pure function of the arguments and the seed."""
        new, replayed = draw(
            seed=self.seed,
            epoch=epoch,
            batch=position,
            new_rows=len(self.new),
            history_rows=len(self.history) if self.history is not None else 0,
            new_per_batch=self.new_per_batch,
            replayed_per_batch=self.replayed_per_batch,
            sampling=self.sampling,
        )
        rows = self.new.take(new)
        if self.history is not None:
            rows = concatenate([rows, self.history.take(replayed)])
        data = to_data(rows, form=self.form, label=self.label)
        return Batch(
            data=data,
            ids=rows.id,
            is_new=np.arange(len(rows)) < len(new),
            logits=None if rows.logits is None else torch.from_numpy(rows.logits),
        )

    def __iter__(self) -> Iterator[Any]:
        while self.position < len(self):
            self.place = (self.epoch, self.position)
            self.current = self.batch(*self.place)
            self.position += 1
            self.replayed += int((~self.current.is_new).sum())
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

    Raises:
        ConfigError: Another sampling.
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
    ) -> None:
        super().__init__()
        if sampling not in SAMPLINGS:
            raise ConfigError(
                f"{sampling!r} is not a way to draw rows.",
                where="data.sampling",
                mend=f"use {' or '.join(SAMPLINGS)}",
            )
        self.sampling, self.augment = sampling, augment
        self.new, self.history = new, history
        self.new_validation, self.history_validation = new_validation, history_validation
        self.batch_size = batch_size
        self.new_fraction = new_fraction if history is not None and len(history) else None
        self.form, self.label, self.seed = form, label, seed
        self.train_loader = self.build_train_loader()
        self.validation_loader = ValidationLoader(
            new=new_validation,
            history=history_validation,
            size=max(batch_size, 256),
            form=form,
            label=label,
        )

    def build_train_loader(self) -> TrainLoader:
        """A loader at the start of the first epoch, at the present batch size."""
        fresh = split_batch_size(self.batch_size, self.new_fraction)
        return TrainLoader(
            new=self.new,
            history=self.history,
            new_per_batch=fresh,
            replayed_per_batch=self.batch_size - fresh,
            form=self.form,
            label=self.label,
            seed=self.seed,
            sampling=self.sampling,
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


def _cut(features: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
    mask = features.get(MASK)
    if mask is None or mask.ndim != 2 or not len(mask):
        return features
    used = np.flatnonzero(mask.any(axis=0))
    longest = int(used[-1]) + 1 if len(used) else 1
    return {
        name: column[:, :longest] if column.shape == mask.shape else column
        for name, column in features.items()
    }


def _tensor(column: Any) -> torch.Tensor:
    values = np.ascontiguousarray(column)
    if not values.flags.writeable:
        values = values.copy()
    tensor = torch.from_numpy(values)
    if tensor.dtype == torch.uint8 and tensor.ndim >= 4:
        return tensor.float() / 255
    if tensor.is_floating_point():
        return tensor.float()
    return tensor.long()
