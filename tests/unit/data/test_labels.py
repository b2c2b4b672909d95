"""Labels are matched with the lineage's by name; with ``grow``, those it lacks follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from perennial.data.labels import read_labels
from perennial.errors import DataError


def read(values: Sequence[Any], known: Sequence[str] | None, **options: Any) -> Any:
    position, names = read_labels(
        pa.chunked_array([pa.array(values)]),
        class_names=options.pop("class_names", None),
        label_names=known,
        where="data.new, column 'label'",
        **options,
    )
    return position.tolist(), list(names)


@pytest.mark.parametrize(
    ("values", "known", "names"),
    [
        (["dog", "ant", "cat", "bee"], ["dog", "cat"], ["dog", "cat", "ant", "bee"]),
        (["cat"], ["dog", "cat"], ["dog", "cat"]),
        ([4, 0, 1], ["0", "1", "2"], ["0", "1", "2", "3", "4"]),
        ([2, 0], ["0", "1", "2"], ["0", "1", "2"]),
        # text digits in the alphabet's order are names, not positions
        ([11, 2], ["0", "1", "10", "2"], ["0", "1", "10", "2", "11"]),
        (["7", "none"], [str(i) for i in range(8)], [*[str(i) for i in range(8)], "none"]),
    ],
)
def test_old_names_keep_their_positions_and_new_ones_follow(
    values: Sequence[Any], known: list[str], names: list[str]
) -> None:
    position, found = read(values, known, new_classes="grow")
    assert found == names
    assert [found[index] for index in position] == [str(value) for value in values]


def test_a_sources_own_class_names_are_matched_too() -> None:
    own = ["zebra", "cat", "unused", "dog", "ant"]
    position, names = read([0, 1, 4, 3], ["dog", "cat"], class_names=own, new_classes="grow")
    assert names == ["dog", "cat", "zebra", "ant"], "those that occur, in the source's order"
    assert position == [2, 1, 3, 0]
    with pytest.raises(DataError, match="'5' in row 0 is unknown"):
        read([5], ["dog", "cat"], class_names=own, new_classes="grow")


def test_without_grow_a_new_class_is_bad_data() -> None:
    with pytest.raises(DataError, match="'ant' in row 1 is unknown") as caught:
        read(["cat", "ant"], ["dog", "cat"], new_classes="refuse")
    assert "data.new_classes=grow" in str(caught.value.mend)
    with pytest.raises(DataError, match="'ant' in row 1 is unknown") as caught:
        read(["cat", "ant"], ["dog", "cat"])
    assert "only data.new may bring" in str(caught.value.mend)
    assert "grow" not in str(caught.value.mend)


def test_numbers_do_not_become_names_among_names() -> None:
    """A file that numbers the classes of a lineage with names was written another way."""
    with pytest.raises(DataError, match=r"whole numbers such as 0.*names such as 'dog'"):
        read([0, 1], ["dog", "cat"], new_classes="grow")
