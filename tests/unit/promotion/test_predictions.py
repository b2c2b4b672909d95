"""What was decided on comes back to the last bit, or not at all."""

import json
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.errors import EvaluationError
from perennial.promotion.predictions import FACTS, ROWS, read, write
from perennial.types import EvaluationReport, Fitted, Measured, Predictions, Serving

N = 40


def predictions(generator, *, classes=3):
    raw = generator.random((N, classes)).astype(np.float32)
    return Predictions(
        prediction=generator.integers(0, 3, N),
        score=generator.integers(0, 2, N).astype(np.float64),
        loss=generator.exponential(size=N) * 10.0 ** generator.integers(-300, 300, N),
        probabilities=raw / raw.sum(axis=1, keepdims=True) if classes else None,
    )


def made(**changes):
    generator = np.random.default_rng(0)
    new = np.arange(N) < N // 2
    whole = EvaluationReport(
        row_id=np.array([f"row \u00e9 {row % (N // 2)}" for row in range(N)]),
        cluster=np.array([f"c{row // 3}" for row in range(N)]),
        holdout=np.where(new, "new", "history/cycle-1"),
        label=generator.integers(0, 3, N),
        seen_by_champion=np.arange(N) % 7 == 0,
        champion=predictions(generator),
        candidate=predictions(generator),
        label_names=("cat", "dog", "eel"),
        cycle_name="cycle-2",
        slices={"country": np.array(["de", "", "fr", "1"] * (N // 4)), "a b/c": np.full(N, "")},
        best=np.where(new, np.nan, generator.random(N)),
        best_versions={"history/cycle-1": "digits@1"},
        score_name="accuracy",
        fitted=Fitted(
            generator.random(9), generator.random(9), np.array([f"g{i}" for i in "abcabcabc"])
        ),
        serving={
            who: Serving(parameters=7, bytes=99, latency=generator.random(11) / 3)
            for who in ("champion", "candidate")
        },
        measured={"F1(average=macro) on new": Measured(1 / 3, generator.random(200), True, 20)},
    )
    return replace(whole, **changes)


def stored(report, tmp_path):
    contents = write(report)
    assert list(contents) == [ROWS, FACTS]
    paths = [tmp_path / "rows.parquet", tmp_path / "facts.json"]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


def same(a, b):
    """Equal to the last bit, types included; NaN equals NaN."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype.kind == b.dtype.kind
        assert a.dtype.kind == "U" or a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.dtype.kind == "U" or a.tobytes() == b.tobytes()
        assert a.dtype.kind != "U" or a.tolist() == b.tolist()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key, value in a.items():
            same(value, b[key])
    elif hasattr(a, "__dataclass_fields__"):
        for field in fields(a):
            same(getattr(a, field.name), getattr(b, field.name))
    else:
        assert a == b


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"best": None, "best_versions": {}},
        {"fitted": None, "serving": {}, "measured": {}, "slices": {}, "label_names": ()},
    ],
)
def test_round_trip_to_the_last_bit(changes, tmp_path):
    report = made(**changes)
    again = read(*stored(report, tmp_path))
    same(report, again)
    assert write(again) == write(report), "equal reports give equal files"


def test_round_trip_of_a_task_without_probabilities(tmp_path):
    generator = np.random.default_rng(1)
    plain = predictions(generator, classes=0)
    report = made(champion=plain, candidate=replace(plain, score=plain.score + 0.1))
    same(report, read(*stored(report, tmp_path)))


def test_the_columns_that_were_promised(tmp_path):
    rows, facts = stored(made(), tmp_path)
    names = pq.read_schema(rows).names
    assert names[:7] == [
        *("row_id", "cluster", "holdout", "cycle", "label", "seen_by_champion", "best_score"),
    ]
    assert names[7:9] == ["slice_country", "slice_a b/c"]
    kinds = ("prediction", "score", "loss", "probabilities")
    assert names[9:] == [f"{who}_{kind}" for who in ("champion", "candidate") for kind in kinds]
    assert set(pq.read_table(rows)["cycle"].to_pylist()) == {"cycle-1", "cycle-2"}
    assert json.loads(facts.read_text())["cycle_name"] == "cycle-2"


@pytest.mark.parametrize(
    ("kind", "dtype", "shape", "unit"),
    [
        ("classes", np.int8, (3,), "points"),
        ("number", np.float32, (), ""),
        ("tokens", np.int64, (5,), "points"),
        ("item", np.int64, (), ""),
        ("none", np.int64, (), "points"),
    ],
)
def test_every_kind_of_target_comes_back(kind, dtype, shape, unit, tmp_path):
    generator = np.random.default_rng(1)
    shown = {"item": (4,), "none": (5,)}.get(kind, shape)

    def values(form):
        return (generator.random((N, *form)) * (2 if kind == "classes" else 9)).astype(dtype)

    def model():
        score = -generator.random(N)
        return Predictions(values(shown), score, score**2, None)

    names = ("a", "b", "c") if kind in ("classes", "tokens") else ()
    report = made(
        target_kind=kind, score_unit=unit, score_name="s", label_names=names, label=values(shape),
        champion=model(), candidate=model(),
    )  # fmt: skip
    found = read(*stored(report, tmp_path))
    assert (found.target_kind, found.score_unit) == (kind, unit)
    for one, other in (
        (found.label, report.label),
        (found.champion.prediction, report.champion.prediction),
        (found.candidate.prediction, report.candidate.prediction),
    ):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_files_are_refused(which, tmp_path):
    paths = stored(made(), tmp_path)
    whole = paths[which].read_bytes()
    for content in (b"", b"nothing of the kind", whole[: len(whole) // 2], whole[:-9]):
        paths[which].write_bytes(content)
        with pytest.raises(EvaluationError, match="stored predictions cannot be read") as error:
            read(*paths)
        assert error.value.where == str(paths[which])
    paths[which].unlink()
    with pytest.raises(EvaluationError, match="cannot be read"):
        read(*paths)


def test_odd_rows_are_refused(tmp_path):
    rows, facts = stored(made(), tmp_path)
    table = pq.read_table(rows)

    def refused(changed, message):
        pq.write_table(changed, rows)
        with pytest.raises(EvaluationError, match=message):
            read(rows, facts)

    refused(table.drop_columns(["label"]), "no column label")
    refused(table.drop_columns(["candidate_loss", "cycle"]), "no column cycle, candidate_loss")
    refused(pa.concat_tables([table, table[3:5]]), "2 rows are there twice, first 'row é 3' of new")
    label = table.column_names.index("label")
    empty = pa.array([None, *range(N - 1)], type=pa.int64())
    refused(table.set_column(label, "label", empty), "missing in column label")
    refused(table.set_column(label, "label", pa.array(np.ones(N))), "float64 where int64 belongs")
    ragged = pa.array([[0.5]] * N, type=pa.list_(pa.float32()))
    index = table.column_names.index("champion_probabilities")
    refused(table.set_column(index, "champion_probabilities", ragged), "different lengths")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"best_versions": None},
        {"serving": {"champion": {}}},
        {"fitted": {"champion": ["a"], "candidate": [], "cluster": []}},
        {"measured": []},
    ],
)
def test_odd_facts_are_refused(change, tmp_path):
    rows, facts = stored(made(), tmp_path)
    facts.write_text(json.dumps({**json.loads(facts.read_text()), **change}))
    with pytest.raises(EvaluationError, match="cannot be read"):
        read(rows, facts)
