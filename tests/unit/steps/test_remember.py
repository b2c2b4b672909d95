"""Remembered rows as they were kept; whose logits are stored, and in which dtype."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from perennial.data.logits import put
from perennial.data.memory import Memory, Remembered
from perennial.data.rows import OWN, Rows
from perennial.data.shards import index_of, to_write, write_index, written
from perennial.data.store import read_rows_file, write_rows
from perennial.errors import MethodError
from perennial.steps.remember import complete, index_path, remembered, shard_path
from support.learners import learner, net, rows


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_without_logits_get_those_of_evaluation_mode(dtype: str) -> None:
    made = learner(net)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    mask = np.array([False, True, False, False, False])
    known = put(rows(5), mask, np.array([[7.0, 8.0, 9.0]]), 3)
    found = complete(made, known, dtype=dtype, version=OWN)
    assert found.logits is not None
    assert found.logits.dtype == dtype
    assert found.logits[1].tolist() == [7, 8, 9]
    assert found.logits_version.tolist() == [0, 3, 0, 0, 0]
    assert made.model.training
    assert all(torch.equal(before[n], v) for n, v in made.model.state_dict().items())
    copy = net().eval()
    copy.load_state_dict(before)
    expected = copy(torch.from_numpy(rows(5).features["x"])).detach().numpy().astype(dtype)
    np.testing.assert_allclose(found.logits[~mask], expected[~mask], rtol=1e-6)
    assert complete(made, found, dtype=dtype, version=9).logits is not None
    nothing = rows(5).take(slice(0, 0))
    assert complete(made, nothing, dtype=dtype, version=1) is nothing


def test_classes_that_the_weights_do_not_know_have_no_logit() -> None:
    mask = np.array([True, False, False, False, False])
    known = put(rows(5), mask, np.array([[7.0, 8.0]]), 1)
    found = complete(learner(net), known, dtype="float32", version=2, known=2).logits
    assert found is not None
    assert found.shape == (5, 3)
    assert np.isnan(found[:, 2]).all()
    assert not np.isnan(found[:, :2]).any()
    assert found[0, :2].tolist() == [7, 8]


def test_a_logit_too_large_for_its_dtype_is_refused() -> None:
    made = learner(net)
    with torch.no_grad():
        made.model[3].bias.fill_(1e6)
    with pytest.raises(MethodError, match="does not fit float16"):
        complete(made, rows(5), dtype="float16", version=1)
    complete(made, rows(5), dtype="float32", version=1)


def named(prefix: str, *, version: int) -> Rows:
    plain = rows(20)
    ids = np.array([f"{prefix}{number}" for number in range(20)])
    named = replace(plain, id=ids, content=ids, cluster=ids)
    return put(named, np.ones(20, dtype=bool), np.zeros((20, 3)), version)


def test_rows_of_several_files_come_back_in_their_order(tmp_path: Path) -> None:
    files: dict[str, Path] = {}
    kept: Remembered | None = None
    for number, prefix in enumerate("ab", start=1):
        new = Remembered.fresh(named(prefix, version=OWN), number)
        kept = Memory(capacity=30, seed=1).update(kept, new)
        which = to_write(kept)
        sha256 = write_rows(path := tmp_path / prefix, kept.rows.take(which), label_names="xyz")
        files[shard_path("train", sha256)] = path
        kept = written(kept, which, sha256, OWN)
        write_index(tmp_path / "index", index_of(kept, "30 rows"))
        files[index_path("train")] = tmp_path / "index"
        version: Any = SimpleNamespace(number=number, files=files, open=files.__getitem__)
        found = remembered(version, "train", "xyz")
        assert found is not None
        assert found.rows.id.tolist() == kept.rows.id.tolist()
        kept = found
    assert len(kept.shards) == 2
    origin = [row[0] for row in kept.rows.id.tolist()]
    assert origin != sorted(origin), "what is in one file stands between what is in the other"
    assert kept.rows.logits_version is not None
    for row, sha256 in enumerate(kept.shard.tolist()):
        there = read_rows_file(files[shard_path("train", sha256)])[0]
        assert there.id[kept.place[row]] == kept.rows.id[row]
        cycle = 1 + "ab".index(origin[row])
        assert (kept.cycle[row], kept.shards[sha256].version) == (cycle, cycle)
        assert kept.rows.logits_version[row] == cycle
