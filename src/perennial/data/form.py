"""Rows to batches in the form a user's module takes.

Shapes: B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perennial.data.lengths import cut_at, even_cuts, lengths
from perennial.data.rows import Rows
from perennial.errors import ConfigError

FORMS = ("tuple", "dict")
MASK = "attention_mask"


def to_data(rows: Rows, *, form: str, label: str | None, cuts: Sequence[int] = ()) -> Any:
    """Rows to a batch in a module's own form.

    Columns of one number per row become one float32 tensor (B, F), in the order of the columns;
    uint8 columns of three and more dimensions a row are images and become float32 in [0, 1]; other
    floats become float32, whole numbers int64. Texts (B, L), which have an ``attention_mask``, are
    cut behind the longest of the batch, at one of a few lengths, since what is masked for all rows
    only costs time. Targets come last, numbers as float32, others int64.

    Args:
        rows: B rows.
        form: ``tuple`` gives (inputs, ..., targets), ``dict`` gives tensors by column name.
        label: Key of the targets in a dict; None where there are none beside the inputs.
        cuts: Lengths at which texts are cut; empty for `perennial.data.lengths.even_cuts`.

    Raises:
        ConfigError: The form is neither.
    """
    features = {name: to_tensor(column) for name, column in rows.features.items()}
    target = to_tensor(rows.label)
    cut = None
    if is_cut(rows, label=label) and len(rows):
        mask = rows.features[MASK]
        cut = cut_at(int(lengths(mask).max()), cuts or even_cuts(int(mask.shape[-1])))
    return formed(features, target, form=form, label=label, cut=cut)


def formed(
    features: Mapping[str, Tensor], target: Tensor, *, form: str, label: str | None, cut: int | None
) -> Any:
    """Gathered columns as a batch; see `to_data`.

    Args:
        features: Column to values (B, ...), on any one device, dtypes as they came.
        target: (B, ...).
        form: ``tuple`` or ``dict``.
        label: Key of the targets; None where there are none beside the inputs.
        cut: Positions to keep of texts, or None for all.

    Raises:
        ConfigError: The form is neither.
    """
    if form not in FORMS:
        raise ConfigError(
            f"{form!r} is not a form of batch.", where="data.form", mend="use tuple or dict"
        )
    if cut is not None:
        shape = features[MASK].shape
        features = {
            name: column[:, :cut] if column.shape == shape else column
            for name, column in features.items()
        }
    columns = {name: _as_input(column) for name, column in features.items()}
    targets = {} if label is None else {label: _as_target(target)}
    if form == "dict":
        return {**columns, **targets}
    if len(columns) > 1 and all(column.ndim == 1 for column in columns.values()):
        table = torch.stack([column.float() for column in columns.values()], dim=1)
        return table, *targets.values()
    return (*columns.values(), *targets.values())


def is_cut(rows: Rows, *, label: str | None) -> bool:
    """Whether the rows hold texts that may be cut.

    Where inputs are targets too, each position has a prediction, alike in every batch.
    """
    mask = rows.features.get(MASK)
    return mask is not None and mask.ndim == 2 and label is not None and rows.label.ndim == 1


def to_tensor(column: npt.NDArray[Any]) -> Tensor:
    """A tensor over the same memory, or over a copy where that may not be written to."""
    values = np.ascontiguousarray(column)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values = values.astype(np.int64)  # for which torch lacks most operations
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _as_input(column: Tensor) -> Tensor:
    if column.dtype == torch.uint8 and column.ndim >= 4:
        return column.float().div_(255)
    return column.float() if column.is_floating_point() else column.long()


def _as_target(target: Tensor) -> Tensor:
    return target.float() if target.is_floating_point() else target.long()
