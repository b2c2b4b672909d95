import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perennial.data.rows import Rows
from perennial.data.source import SourceRows
from perennial.data.split import assign_roles, components, independent, split_salt, uniform
from perennial.errors import ConfigError, DataError

OPTIONS = {"salt": split_salt("m", 0), "validation_fraction": 0.2, "holdout_fraction": 0.3}


def source(content, *, cluster=None, role=None, time=None):
    content = np.array(content, dtype=str)
    ids = np.array([f"{i}" for i in range(len(content))])
    cluster = content if cluster is None else np.array(cluster, dtype=str)
    rows = Rows(
        features={}, label=np.zeros(len(ids), int), id=ids, content=content, cluster=cluster
    )
    role = None if role is None else np.array(role, dtype=str)
    return SourceRows(rows, role, time, ("0",), {}, "")


def test_hash_is_uniform_and_stable():
    keys = np.array([str(i) for i in range(4000)])
    share = uniform(keys, salt="s")
    assert stats.kstest(share, "uniform").pvalue > 0.001
    assert np.array_equal(uniform(keys[::-1], salt="s")[::-1], share)
    assert not np.allclose(uniform(keys, salt="t"), share)
    role = assign_roles(source(keys), **OPTIONS).role
    for kind, fraction in (("holdout", 0.3), ("validation", 0.2)):
        assert stats.binomtest(int((role == kind).sum()), 4000, fraction).pvalue > 0.001


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=25))
def test_components_match_brute_force(pairs):
    cluster = [f"g{a:02}" for a, _ in pairs]
    content = [f"c{b:02}" for _, b in pairs]
    key = list(cluster)
    for _ in pairs:
        for i in range(len(pairs)):
            for j in range(len(pairs)):
                if cluster[i] == cluster[j] or content[i] == content[j]:
                    key[i] = key[j] = min(key[i], key[j])
    found = components(np.array(cluster), np.array(content))
    assert found.tolist() == key
    assigned = assign_roles(source(content, cluster=cluster), **OPTIONS)
    sides = {}
    for k, role in zip(key, assigned.role.tolist(), strict=True):
        assert sides.setdefault(k, role) == role


def test_declared_split():
    role = ["train"] * 200 + ["test"] * 50
    assigned = assign_roles(source(range(250), role=role), **OPTIONS)
    assert (assigned.role[200:] == "holdout").all()
    assert 15 < (assigned.role[:200] == "validation").sum() < 70
    kept = assign_roles(source(range(3), role=["train", "val", "test"]), **OPTIONS)
    assert kept.role.tolist() == ["train", "validation", "holdout"]
    with pytest.raises(DataError, match="'tarin', first in row 1"):
        assign_roles(source(range(2), role=["train", "tarin"]), **OPTIONS)


def test_a_declared_split_without_a_holdout_is_refused_where_one_is_needed():
    plain = source(range(9), role=["train"] * 9)
    with pytest.raises(DataError, match="declares no holdout row"):
        assign_roles(plain, **OPTIONS)
    assert "holdout" not in assign_roles(plain, **OPTIONS | {"holdout_fraction": 0.0}).role


@pytest.mark.parametrize("by", ["declared", "time"])
def test_a_group_on_both_sides_is_said(by):
    how = {"role": ["train", "train", "test"]} if by == "declared" else {"time": np.arange(3)}
    options = OPTIONS | {"validation_fraction": 0.0}
    parted = assign_roles(source(["a", "b", "c"], cluster=["x", "y", "x"], **how), **options)
    assert parted.role.tolist() == ["train", "train", "holdout"]
    assert [note for note in parted.notes if "1 groups have rows both" in note]
    assert not assign_roles(
        source(["a", "b", "c"], cluster=["x", "y", "z"], **how), **options
    ).notes


def test_duplicates_over_a_declared_split():
    parted = source(["a", "b", "a", "c"], role=["train", "val", "test", "train"])
    assigned = assign_roles(parted, **OPTIONS)
    assert assigned.rows.id.tolist() == ["1", "2", "3"]
    assert (assigned.removed, assigned.duplicate_share) == (1, 0.25)
    dropped = assign_roles(source(["a", "a", "b"]), **OPTIONS, duplicates="drop")
    assert dropped.rows.id.tolist() == ["0", "2"]
    assert len(assign_roles(parted, **OPTIONS, duplicates="allow").rows) == 4


def test_time_split_keeps_ties_together():
    time = np.array([1, 2, 3, 4, 5, 6, 7, 8, 8, 8])
    role = assign_roles(source(range(10), time=time), **OPTIONS | {"holdout_fraction": 0.2}).role
    assert np.flatnonzero(role == "holdout").tolist() == [7, 8, 9]
    with pytest.raises(DataError, match="share their time"):
        assign_roles(source(range(3), time=np.ones(3)), **OPTIONS)


@pytest.mark.parametrize(
    ("time", "start", "gap", "early"),
    [
        (np.arange(10), 7, 2, 5),
        (np.arange(10) / 2, 3.5, 1, 5),
        (np.arange("2026-11-01", "2026-11-11", dtype="M8[D]"), "2026-11-08", "2d", 5),
        (np.arange("2026-11-01", "2026-11-11", dtype="M8[D]"), "2026-11-08", "30h", 5),
        (np.arange("2026-11-01", "2026-11-11", dtype="M8[D]").astype("M8[ns]"),
         "2026-11-08", "1w", 0),
        (np.arange("2026-01-04", "2026-03-15", 7, dtype="M8[D]"), "2026-02-22", "2w", 5),
    ],
)  # fmt: skip
def test_a_time_and_a_gap_part_training_from_holdout(time, start, gap, early):
    options = OPTIONS | {"validation_fraction": 0.0}
    assigned = assign_roles(source(range(10), time=time), **options, holdout_from=start, gap=gap)
    found = {
        role: assigned.rows.id[assigned.role == role].astype(int).tolist()
        for role in ("train", "holdout")
    }
    assert found == {"train": list(range(early + 1)), "holdout": [7, 8, 9]}
    assert set(assigned.role) == {"train", "holdout"}
    assert assigned.removed == 6 - early
    assert f"{6 - early} rows left out, less than {gap} before the holdout" in assigned.notes[0]


def test_a_gap_holds_before_the_latest_share_too_and_copies_do_not_bring_its_rows_back():
    content = [0, 1, 2, 3, 4, 4, 6, 7, 8, 0]
    for duplicates, train in (("group", [1, 2, 3, 4]), ("drop", [1, 2, 3, 4])):
        assigned = assign_roles(
            source(content, time=np.arange(10)), **OPTIONS | {"validation_fraction": 0.0},
            gap=3, duplicates=duplicates,
        )  # fmt: skip
        found = assigned.rows.id[assigned.role == "train"].astype(int).tolist()
        assert found == train, duplicates
        assert "gap" not in assigned.role


def test_text_is_compared_as_text_and_has_no_gap():
    time = np.array([f"week {i}" for i in range(10)])
    role = assign_roles(source(range(10), time=time), **OPTIONS, holdout_from="week 8").role
    assert np.flatnonzero(role == "holdout").tolist() == [8, 9]
    with pytest.raises(DataError, match=r"None .* range from week 0 to week 9"):
        assign_roles(source(range(10), time=time), **OPTIONS, holdout_from="week x")
    with pytest.raises(ConfigError, match="no gap between times like week 0"):
        assign_roles(source(range(10), time=time), **OPTIONS, gap="2d")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"holdout_from": 99}, DataError, "None of the 10 rows are from 99 on; .* 0 to 9"),
        ({"holdout_from": 0}, DataError, "All of the 10 rows"),
        ({"holdout_from": "november"}, ConfigError, "no time like 0"),
        ({"gap": 99}, DataError, "No row is 99 earlier"),
        ({"gap": "2d"}, ConfigError, "no gap between times like 0"),
        ({"gap": -1}, ConfigError, "no gap"),
    ],
)
def test_times_that_part_nothing_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        assign_roles(source(range(10), time=np.arange(10)), **OPTIONS, **options)
    dates = np.arange("2026-11-01", "2026-11-11", dtype="M8[D]")
    for bad in ({"holdout_from": "november"}, {"gap": 3}, {"gap": "0d"}, {"gap": "3 months"}):
        with pytest.raises(ConfigError):
            assign_roles(source(range(10), time=dates), **OPTIONS, **bad)


@pytest.mark.parametrize(("validation", "holdout"), [(-0.1, 0.2), (0.5, 0.5), (0.1, 1.0)])
def test_bad_fractions(validation, holdout):
    with pytest.raises(ConfigError, match="Fractions"):
        assign_roles(
            source(range(3)), salt="", validation_fraction=validation, holdout_fraction=holdout
        )


def test_rows_count_once_that_share_a_cluster_or_a_content():
    assert independent(source(["a", "b", "b", "c"], cluster=["x", "x", "y", "z"]).rows) == 2
    assert independent(source([]).rows) == 0


def test_clusters_stay_as_the_source_gave_them():
    given = source(["a", "b", "a"], cluster=["u2", "u1", "u1"])
    assert assign_roles(given, **OPTIONS).rows.cluster.tolist() == ["u2", "u1", "u1"]
