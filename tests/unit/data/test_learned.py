import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.data.learned import Learned, Ties, changed_ids, refuse_changed_ids, settle, tied
from perennial.data.rows import Rows
from perennial.errors import DataError
from perennial.steps.lineage import relabelled

KINDS = ("train", "validation", "holdout")
GROUPED = Ties.of(duplicates="group", grouped=True)


def rows(ids, contents, clusters):
    text = [np.array(values, dtype="<U8") for values in (ids, contents, clusters)]
    return Rows({}, np.zeros(len(ids), dtype=np.int64), *text)


def learned(*met):
    """Rows of one cycle as (id, content, cluster, role)."""
    ids, contents, clusters, role = zip(*met, strict=True) if met else ((), (), (), ())
    return Learned.of(rows(ids, contents, clusters), np.array(role, dtype="<U10"))


ROW = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(KINDS))
POLICY = st.sampled_from(["group", "drop", "allow"])


@settings(max_examples=300, deadline=None)
@given(st.lists(ROW, max_size=10), st.lists(ROW, min_size=1, max_size=8), POLICY, st.booleans())
def test_roles_match_brute_force(before, now, duplicates, declared):
    old = [(f"o{i}", f"c{c}", f"g{g}", role) for i, (c, g, role) in enumerate(before)]
    new = [(f"n{i}", f"c{c}", f"g{g}", role) for i, (c, g, role) in enumerate(now)]
    ties = Ties.of(duplicates=duplicates, grouped=True)
    on_both = {g for _, _, g, r in old if r == "holdout"} & {
        g for _, _, g, r in old if r != "holdout"
    }

    def near(a, b):
        by_content = duplicates != "allow" and a[1] == b[1]
        return by_content or (a[2] == b[2] and a[2] not in on_both)

    group = [{i} for i in range(len(new))]
    for _ in new:
        for i, a in enumerate(new):
            for j, b in enumerate(new):
                # a group that is parted is no group, but its rows with equal contents are copies
                same = a[2] == b[2] and a[2] not in on_both
                same |= a[1] == b[1] and (duplicates == "group" or a[2] == b[2])
                if same:
                    group[i] = group[j] = group[i] | group[j]
    expected = []
    for i, row in enumerate(new):
        met = {o[3] for j in group[i] for o in old if near(new[j], o)}
        held, trained = "holdout" in met, met & {"train", "validation"}
        role = row[3]
        if held and trained:
            role = ""
        elif declared:
            role = "" if (held and role != "holdout") or (trained and role == "holdout") else role
        elif held:
            role = "holdout"
        elif trained:
            role = "train" if "train" in trained else "validation"
        expected.append(role)
    ids, contents, clusters, role = zip(*new, strict=True)
    found = settle(
        rows(ids, contents, clusters), np.array(role), learned(*old), ties=ties, declared=declared
    )
    assert found.tolist() == expected


def test_a_group_that_its_own_cycle_parted_ties_nothing():
    cycle = learned(("1", "a", "u1", "train"), ("2", "b", "u1", "holdout"))
    other = learned(("3", "c", "u2", "train"))
    given = rows(["7", "8", "9"], ["x", "b", "y"], ["u1", "u1", "u2"])
    known = Learned.joined([cycle, other])
    role = np.array(["holdout", "train", "holdout"])
    found = settle(given, role, known, ties=GROUPED, declared=True)
    assert found.tolist() == ["holdout", "", ""]
    assert tied(given, known.held, GROUPED).tolist() == [False, True, False]


def test_a_group_that_two_cycles_put_on_two_sides_is_left_out():
    known = Learned.joined(
        [learned(("1", "a", "u1", "train")), learned(("2", "b", "u1", "holdout"))]
    )
    found = settle(rows(["7"], ["x"], ["u1"]), np.array(["train"]), known, ties=GROUPED, declared=0)
    assert found.tolist() == [""]


def test_copies_tie_nothing_where_they_are_allowed():
    known = learned(("1", "a", "a", "holdout"))
    given = rows(["2", "1"], ["a", "z"], ["a", "z"])
    assert tied(given, known, Ties.of(duplicates="allow", grouped=False)).tolist() == [False, True]
    assert tied(given, known, Ties.of(duplicates="drop", grouped=False)).tolist() == [True, True]


def test_ids_that_stand_for_other_rows():
    known = Learned.joined([learned(("1", "a", "a", "train")), learned(("1", "b", "b", "train"))])
    given = rows(["1", "1", "1", "2"], ["a", "b", "c", "a"], list("abca"))
    assert changed_ids(given, known).tolist() == [False, False, True, False]
    with pytest.raises(DataError, match=r"1 of 4 ids .*'1' \(row 2\)[\s\S]*data.id_column=rid"):
        refuse_changed_ids(given, known, name="new", column="rid")
    refuse_changed_ids(given, Learned.joined([]), name="new", column="rid")


def test_labels_are_matched_by_name_and_rows_of_unknown_classes_leave():
    given = rows(list("123"), list("abc"), list("abc"))
    given = Rows({"x": np.arange(3)}, np.array([2, 0, 1]), given.id, given.content, given.cluster)
    found, kept = relabelled(given, ("cat", "dog", "eel"), ("eel", "cat"))
    assert found.id.tolist() == ["1", "2"]
    assert given.take(kept).id.tolist() == ["1", "2"]
    assert found.label.tolist() == [0, 1]
    assert found.features["x"].tolist() == [0, 1]
