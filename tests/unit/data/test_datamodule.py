from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perennial.data.datamodule import (
    TrainLoader,
    ValidationLoader,
    share_line,
    split_batch_size,
)
from perennial.data.form import to_data
from perennial.data.pool import Pools
from perennial.data.rows import Rows
from perennial.errors import ConfigError


def rows(count: int, prefix: str = "n", **features: Any) -> Rows:
    names = np.array([f"{prefix}{i}" for i in range(count)])
    columns = features or {"x": np.arange(count, dtype=np.float32)[:, None]}
    label = np.arange(count) % 3
    return Rows(features=columns, label=label, id=names, content=names, cluster=names)


def loader(**changes: Any) -> TrainLoader:
    new, history = changes.pop("new", rows(10)), changes.pop("history", rows(20, "h"))
    settings: dict[str, Any] = {
        "pools": Pools(new, history, form="tuple", label="label"),
        "new_per_batch": 3,
        "replayed_per_batch": 5,
        "seed": 0,
    }
    return TrainLoader(**{**settings, **changes})


def test_a_batch_knows_the_origin_and_id_of_each_row() -> None:
    source = loader()
    for inputs, targets in source:
        assert source.current is not None
        assert len(inputs) == len(targets) == len(source.current) == 8
        for value, name, is_new in zip(
            inputs[:, 0].tolist(), source.current.ids, source.current.is_new, strict=True
        ):
            assert name == f"{'n' if is_new else 'h'}{int(value)}"


def test_going_on_from_a_state_gives_the_batches_that_were_still_to_come() -> None:
    whole = loader()
    expected = [inputs.clone() for _ in range(2) for inputs, _ in whole]
    first = loader()
    stream = iter(first)
    for _ in range(3):
        next(stream)
    second = loader()
    second.load_state_dict(first.state_dict())
    rest = [inputs for _ in range(2) for inputs, _ in second]
    assert len(rest) == len(expected) - 3
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[3:], strict=True))
    assert second.replayed == whole.replayed


def test_scalars_become_one_table_and_images_lie_between_0_and_1() -> None:
    table, targets = to_data(
        rows(2, a=np.array([1, 2]), b=np.array([0.5, 0.25])), form="tuple", label="label"
    )
    assert table.tolist() == [[1.0, 0.5], [2.0, 0.25]]
    assert targets.dtype == torch.int64
    image, _ = to_data(
        rows(1, x=np.full((1, 3, 2, 2), 255, dtype=np.uint8)), form="tuple", label="label"
    )
    assert image.dtype == torch.float32
    assert image.max() == 1.0


def test_a_dict_has_the_columns_by_name() -> None:
    data = to_data(rows(2, tokens=np.array([[1, 2], [3, 4]])), form="dict", label="y")
    assert set(data) == {"tokens", "y"}
    assert data["tokens"].dtype == torch.int64


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.form"):
        to_data(rows(1), form="list", label="label")


def test_validation_marks_new_and_history_rows() -> None:
    source = ValidationLoader(
        new=rows(3), history=rows(4, "h"), size=2, form="tuple", label="label"
    )
    seen = [flag for _ in source for flag in source.current.is_new.tolist()]  # type: ignore[union-attr]
    assert seen == [True] * 3 + [False] * 4
    assert len(source) == 4


def test_a_batch_keeps_at_least_one_row_of_each_kind() -> None:
    assert split_batch_size(64, 0.2) == 13
    assert split_batch_size(4, 0.01) == 1
    assert split_batch_size(4, 0.99) == 3
    assert split_batch_size(4, None) == 4
    with pytest.raises(ConfigError, match="one row"):
        split_batch_size(1, 0.2)


@pytest.mark.parametrize(
    ("size", "share", "told"),
    [
        (64, 0.0001, "0.010% of a batch were asked for, and 1 of 64 are 1.562%"),
        (64, 10 / 10_010, "0.100% of a batch were asked for, and 1 of 64 are 1.562%"),
        (64, 0.999, "99.900% of a batch were asked for, and 63 of 64 are 98.438%"),
        (4, 0.3, "30.000% of a batch were asked for, and 1 of 4 are 25.000%"),
        (64, 0.2, ""),
        (20, 0.5, ""),
    ],
)
def test_a_share_that_whole_rows_cannot_make_is_told(size: int, share: float, told: str) -> None:
    line = share_line(size, share)
    assert told in line
    assert bool(told) == bool(line)
    if line:
        enough = int(line.rpartition("trainer.batch_size=")[2].partition(" ")[0])
        assert share_line(enough, share) == ""
        # on the edge itself rounding decides
        assert not any(as_asked(one, share, 0.1 - 1e-9) for one in range(size, enough))
        assert as_asked(enough, share, 0.1 + 1e-9)


def as_asked(size: int, share: float, off: float) -> bool:
    """Whether both kinds of rows are so near to their share, as a part of it."""
    fresh = split_batch_size(size, share)
    kinds = ((fresh, share), (size - fresh, 1 - share))
    return all(abs(kind / size - asked) <= off * asked for kind, asked in kinds)


def test_masked_texts_are_cut_at_the_longest_of_the_batch():
    ids = np.array([[5, 6, 0, 0], [5, 6, 7, 0], [8, 0, 0, 0]], dtype=np.int32)
    none = np.zeros(3, dtype=np.str_)
    rows = Rows(
        features={"input_ids": ids, "attention_mask": (ids > 0).astype(np.uint8), "n": np.ones(3)},
        label=np.zeros(3, dtype=np.int64),
        id=none,
        content=none,
        cluster=none,
    )
    data = to_data(rows, form="dict", label="y")
    assert data["input_ids"].tolist() == ids[:, :3].tolist()
    assert data["attention_mask"].tolist() == (ids > 0)[:, :3].tolist()
    assert data["n"].tolist() == [1, 1, 1]
    assert to_data(rows.take([2]), form="dict", label="y")["input_ids"].tolist() == [[8]]
