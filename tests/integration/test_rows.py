"""A holdout row never trains and never enters memory, over all cycles: judged row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from perennial import cycle as story
from perennial.data.rows import Rows
from perennial.data.split import split_salt, uniform
from perennial.data.store import read_rows_file
from perennial.models.reference import MLP
from perennial.promotion.registry import Registry
from perennial.steps import candidate
from support.remembered import memories, stored

Run = Callable[..., dict[str, Any]]
TABLE = (
    *("trainer.max_steps=6", "trainer.validate_every=3", "data=files", "model_name=animals"),
    "gate.retention.margin=0.3",
    "gate.retention.total=0.3",
    *("data.label=animal", "data.features=[x0,x1,x2,code]", "model.inputs=4", "model.classes=3"),
)
GROUPED = ("data.id_column=rid", "data.group_column=user")


def frame(rows: int, *, seed: int, first_id: int, users: range) -> pd.DataFrame:
    """Rows of users; the column ``code`` tells the user to whoever sees features alone."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, size=rows)
    values = generator.normal(size=(rows, 3)).astype(np.float32)
    values[:, 0] += 4 * label
    user = generator.choice(np.array(users), size=rows)
    return pd.DataFrame(
        {
            "rid": np.arange(first_id, first_id + rows),
            **{f"x{i}": values[:, i] for i in range(3)},
            "code": user.astype(np.float32),
            "user": [f"u{number:04}" for number in user],
            "animal": np.array(["cat", "dog", "eel"])[label],
        }
    )


def copies(rows: pd.DataFrame, *, first_id: int, user: int | None = None) -> pd.DataFrame:
    """The same features under other ids and, where one is named, of another user."""
    copied = rows.assign(rid=np.arange(first_id, first_id + len(rows)))
    return copied if user is None else copied.assign(user=f"u{user:04}")


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Rows]]:
    """Every set of rows that a fit or a method was handed, as it was handed."""
    seen: list[tuple[str, Rows]] = []
    built, context = candidate.CycleData, candidate.method_context

    def spied_data(**options: Any) -> Any:
        for name in ("new", "history", "new_validation", "history_validation"):
            if options[name] is not None:
                seen.append((f"fit {name}", options[name]))
        return built(**options)

    def spied_context(learner: Any, **options: Any) -> Any:
        for name in ("new", "history"):
            if options[name] is not None:
                seen.append((f"context {name}", options[name]))
        return context(learner, **options)

    monkeypatch.setattr(candidate, "CycleData", spied_data)
    monkeypatch.setattr(candidate, "method_context", spied_context)
    return seen


@pytest.fixture
def promoting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate is promoted, so that short fits make a lineage."""
    decide = story.decide
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def kept(home: Path, kind: str, name: str = "animals") -> Iterator[tuple[str, Rows]]:
    for version in registry(home).versions(name):
        if kind == "memory":
            yield from ((f"{version.id} {part}", rows) for part, rows in memories(version))
            continue
        for path in version.files:
            if path.startswith(f"{kind}/"):
                yield f"{version.id} {path}", read_rows_file(version.open(path))[0]


def contents(rows: Rows) -> set[bytes]:
    """Features and label as bytes: what makes two rows copies, found without hashes."""
    if not len(rows):
        return set()
    parts = [np.asarray(rows.features[name]).reshape(len(rows), -1) for name in rows.features]
    table = np.concatenate([*parts, rows.label[:, None]], axis=1).astype(np.float64)
    return {row.tobytes() for row in table}


def users(rows: Rows) -> set[float]:
    return set(np.asarray(rows.features["code"]).tolist())


def judge(home: Path, pools: list[tuple[str, Rows]], *, grouped: bool, by_id: bool = True) -> None:
    """No pool and no memory shares an id, a content or a user with any holdout, ever."""
    held = list(kept(home, "holdout"))
    assert held
    learned = [*pools, *kept(home, "memory")]
    assert len(learned) > len(held)
    for where, rows in held:
        ids, own, theirs = set(rows.id.tolist()), contents(rows), users(rows)
        for place, pool in learned:
            if by_id:
                assert not ids & set(pool.id.tolist()), (where, place)
            assert not own & contents(pool), (where, place)
            if grouped:
                assert not theirs & users(pool), (where, place)


def write(path: Path, *frames: pd.DataFrame) -> str:
    pd.concat(frames).to_parquet(path, index=False)
    return str(path)


@pytest.mark.usefixtures("promoting")
@pytest.mark.parametrize("duplicates", ["group", "drop"])
def test_three_cycles_of_users_under_another_seed_never_train_on_what_is_held_out(
    run: Run, home: Path, tmp_path: Path, pools: list[tuple[str, Rows]], duplicates: str
) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(300))
    second = frame(1000, seed=1, first_id=10_000, users=range(200, 500))
    third = frame(1000, seed=2, first_id=20_000, users=range(100, 600))
    settings = (
        *TABLE,
        *GROUPED,
        f"data.duplicates={duplicates}",
        f"data.history={write(tmp_path / 'old.parquet', old)}",
    )
    # each later file repeats a tenth of an earlier one under new ids
    again = copies(old[::10], first_id=90_000)
    new = write(tmp_path / "second.parquet", second, again)
    first = run(*settings, f"data.new={new}", "seed=0")
    assert (first["error"], first["status"]) == (None, "promoted")
    second_new = write(tmp_path / "third.parquet", third, copies(second[::10], first_id=95_000))
    result = run(*settings, f"data.new={second_new}", "seed=5")
    assert (result["error"], result["status"]) == (None, "promoted")
    last = frame(900, seed=3, first_id=30_000, users=range(700))
    result = run(*settings, f"data.new={write(tmp_path / 'last.parquet', last)}", "history=memory")
    assert (result["error"], result["status"]) == (None, "promoted")
    assert len(list(kept(home, "holdout"))) == 1 + 2 + 3 + 4
    judge(home, pools, grouped=True)


@pytest.mark.usefixtures("promoting")
def test_three_cycles_with_ids_and_copies_under_other_ids(
    run: Run, home: Path, tmp_path: Path, pools: list[tuple[str, Rows]]
) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(300))
    history = tmp_path / "old.parquet"
    settings = (*TABLE, "data.id_column=rid", f"data.history={write(history, old)}")
    for turn in range(3):
        fresh = frame(700, seed=10 + turn, first_id=10_000 * (turn + 1), users=range(300))
        again = copies(old[turn::5], first_id=90_000 + 1000 * turn)
        new = write(tmp_path / f"new-{turn}.parquet", fresh, again)
        result = run(*settings, f"data.new={new}", f"seed={7 * turn}")
        assert (result["error"], result["status"]) == (None, "promoted")
    judge(home, pools, grouped=False)


@pytest.mark.usefixtures("promoting")
def test_a_history_file_with_other_ids_replays_no_held_out_row(
    run: Run,
    home: Path,
    tmp_path: Path,
    pools: list[tuple[str, Rows]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(300))
    history = tmp_path / "old.parquet"
    settings = (*TABLE, "data.id_column=rid", f"data.history={write(history, old)}")
    for turn in range(2):
        fresh = frame(800, seed=10 + turn, first_id=10_000 * (turn + 1), users=range(300))
        result = run(*settings, f"data.new={write(tmp_path / f'{turn}.parquet', fresh)}")
        assert (result["error"], result["status"]) == (None, "promoted")
        shuffled = old.sample(frac=1, random_state=0)
        write(history, shuffled.assign(rid=np.arange(len(old))))
    told = " ".join(capsys.readouterr().out.split())
    assert "ids stand for other rows than were learned (data.id_column=rid)" in told
    assert "rows left out, held out under another id" in told
    judge(home, pools, grouped=False, by_id=False)
    replayed = [rows for place, rows in pools if place == "fit history"][-1]
    assert len(replayed) > 1000  # what was learned is known by its content, and replayed


def test_a_bundled_image_keeps_its_side_under_another_division(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, pools: list[tuple[str, Rows]]
) -> None:
    decide = story.decide
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )
    short = ("trainer.max_steps=6", "trainer.validate_every=3", "gate.retention=waived")
    assert run(*short)["error"] is None
    skipped = run(*short, "seed=1")
    assert (skipped["status"], skipped["error"]) == ("skipped", None)
    pools.clear()
    moved = run(*short, "data.history.seed=1", "data.new.seed=1")
    # every image is known: what is unmet was trained on in its other form, and judges nothing
    assert (moved["exit_code"], moved["error"]["where"]) == (30, "data.new holdout")
    assert pools == []
    assert len(registry(home).versions("digits")) == 2


@pytest.mark.usefixtures("promoting")
def test_a_shared_row_moves_no_user_to_the_other_side(
    run: Run, home: Path, tmp_path: Path, pools: list[tuple[str, Rows]]
) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(100, 400))
    settings = (
        *TABLE,
        *GROUPED,
        f"data.history={write(tmp_path / 'old.parquet', old)}",
    )
    first = frame(900, seed=1, first_id=10_000, users=range(100, 400))
    assert run(*settings, f"data.new={write(tmp_path / 'a.parquet', first)}")["error"] is None
    second = frame(900, seed=2, first_id=20_000, users=range(100, 400))
    # one stranger with the alphabet's first name per shared row
    strangers = [
        copies(second[i : i + 1], first_id=80_000 + i, user=i).assign(code=second.code.iloc[i])
        for i in range(60)
    ]
    new = write(tmp_path / "b.parquet", second, *strangers)
    assert run(*settings, f"data.new={new}")["error"] is None
    judge(home, pools, grouped=True)


@pytest.mark.usefixtures("promoting")
def test_rows_of_a_version_that_was_rolled_back_are_history(
    run: Run, home: Path, tmp_path: Path, pools: list[tuple[str, Rows]]
) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(300))
    settings = (
        *TABLE,
        *GROUPED,
        f"data.history={write(tmp_path / 'old.parquet', old)}",
    )
    paths = [
        write(
            tmp_path / f"{turn}.parquet",
            frame(900, seed=1 + turn, first_id=10_000 * (turn + 1), users=range(600)),
        )
        for turn in range(3)
    ]
    for path in paths[:2]:
        assert run(*settings, f"data.new={path}")["status"] == "promoted"
    registry(home).rollback("animals")
    assert registry(home).aliases("animals")["champion"] == 2

    again = run(*settings, f"data.new={paths[1]}")
    assert (again["status"], again["exit_code"]) == ("skipped", 10)

    Path(paths[1]).unlink()  # its rows are in the memory of animals@3 alone
    lost = {rows.id.tobytes(): rows for _, rows in kept(home, "memory")}
    pools.clear()
    last = run(*settings, f"data.new={paths[2]}")
    assert (last["error"], last["status"]) == (None, "promoted")
    # the champion never learned it: a gain there would hide a loss of what it did learn
    assert "history/cycle-3" not in last["metrics"]["candidate"]
    former = set(np.concatenate([r.id for r in lost.values()]).tolist())
    learned_then = {key for key in former if 20_000 <= int(key) < 30_000}
    replayed = next(rows for place, rows in pools if place == "fit history")
    assert len(learned_then) > 100
    validated = next(rows for place, rows in pools if place == "fit history_validation")
    assert learned_then <= {*replayed.id.tolist(), *validated.id.tolist()}

    child = registry(home).version("animals@4")
    assert child.parent == 2
    assert {f"{kind}/cycle-{n}.arrow" for kind in ("rows", "holdout") for n in range(1, 5)} <= set(
        child.files
    )
    memory = set(stored(child).id.tolist())
    assert learned_then & memory
    assert "cycle-3" in child.manifest["sources"]
    judge(home, pools, grouped=True)
    assert run(*settings, f"data.new={paths[2]}")["status"] == "skipped"


def test_two_promotions_beside_each_other_keep_both_holdouts(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = story.decide
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )
    old = frame(1200, seed=0, first_id=0, users=range(300))
    settings = (*TABLE, *GROUPED, f"data.history={write(tmp_path / 'old.parquet', old)}")
    paths = [
        write(
            tmp_path / f"{turn}.parquet",
            frame(900, seed=1 + turn, first_id=10_000 * (turn + 1), users=range(600)),
        )
        for turn in range(3)
    ]
    for path in paths[:2]:
        run(*settings, f"data.new={path}", "promote=false")
    assert run(*settings, f"data.new={paths[0]}")["status"] == "promoted"
    registry(home).rollback("animals", to=1)
    assert run(*settings, f"data.new={paths[1]}")["status"] == "promoted"
    result = run(*settings, f"data.new={paths[2]}")
    assert result["status"] == "promoted"
    names = {f"history/cycle-{n}" for n in (1, 2, 3)}
    assert names < set(result["metrics"]["candidate"])
    both = [registry(home).version(f"animals@{n}").files["holdout/cycle-2.arrow"] for n in (2, 3)]
    child = registry(home).version("animals@4").files
    assert both[0] != both[1]
    assert set(both) == {child["holdout/cycle-2.arrow"], child["holdout/cycle-3.arrow"]}


@pytest.mark.usefixtures("promoting")
def test_the_salt_is_that_of_the_founding(run: Run, home: Path, tmp_path: Path) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(300))
    settings = (*TABLE, f"data.history={write(tmp_path / 'old.parquet', old)}")
    for turn, seed in enumerate((3, 5, 8)):
        fresh = frame(900, seed=1 + turn, first_id=10_000 * (turn + 1), users=range(300))
        features = "data.features=[x0,x1,x2,code]"
        new = write(tmp_path / f"{turn}.parquet", fresh)
        assert run(*settings, features, f"data.new={new}", f"seed={seed}")["error"] is None
    salts = {v.manifest["lineage"]["salt"] for v in registry(home).versions("animals")}
    assert salts == {split_salt("animals", 3)}
    seeds = [v.manifest["seed"] for v in registry(home).versions("animals")]
    assert seeds == [3, 3, 5, 8]
    for number in (1, 2, 3, 4):
        version = registry(home).version(f"animals@{number}")
        met, extra = read_rows_file(version.open(f"rows/cycle-{number}.arrow"))
        share = uniform(met.cluster, salt=split_salt("animals", 3))
        assert np.array_equal(extra["role"] == "holdout", share < 0.2), number
        assert np.array_equal(extra["role"] == "train", share >= 0.35), number


def test_salt_depends_on_name_and_seed() -> None:
    salts = {split_salt(name, seed) for name in ("a", "b") for seed in (0, 1)}
    assert len(salts) == 4


def saved(path: Path, **options: int) -> str:
    torch.manual_seed(0)
    torch.save(MLP(inputs=4, classes=3, **options).state_dict(), path)
    return str(path)


ADOPT = ("task.labels=[cat,dog,eel]",)


@pytest.mark.usefixtures("promoting")
def test_held_out_rows_of_an_adopted_model_are_marked_as_seen(
    run: Run, home: Path, tmp_path: Path
) -> None:
    old = write(tmp_path / "old.parquet", frame(1200, seed=0, first_id=0, users=range(300)))
    new = write(tmp_path / "new.parquet", frame(900, seed=1, first_id=9000, users=range(300)))
    settings = (*TABLE, *ADOPT, f"checkpoint={saved(tmp_path / 'net.pt')}")
    run(*settings, f"data.history={old}", f"data.new={new}")
    version = registry(home).version("animals@2")
    seen = [
        read_rows_file(version.open(f"holdout/cycle-{n}.arrow"))[1]["seen"].astype(bool)
        for n in (1, 2)
    ]
    assert seen[0].all()
    assert len(seen[0]) > 100
    assert not seen[1].any()
    predictions = pd.read_parquet(version.open("predictions/holdouts.parquet"))
    told = predictions.groupby("holdout").seen_by_champion.mean().to_dict()
    assert told == {"history/cycle-1": 1.0, "new": 0.0}


@pytest.mark.usefixtures("promoting")
def test_an_own_test_set_serves_without_history(
    run: Run, home: Path, tmp_path: Path, pools: list[tuple[str, Rows]]
) -> None:
    test = frame(600, seed=0, first_id=0, users=range(300))
    fresh = frame(900, seed=1, first_id=9000, users=range(300, 600))
    new = write(tmp_path / "new.parquet", fresh, copies(test[:50], first_id=90_000))
    settings = (
        *(*TABLE, *ADOPT, "method=none", "data.id_column=rid", f"data.new={new}"),
        f"checkpoint={saved(tmp_path / 'net.pt')}",
    )
    missing = run(*settings, f"data.history_holdout={tmp_path / 'none.parquet'}")
    assert (missing["exit_code"], "history_holdout" in missing["error"]["where"]) == (30, True)
    held = write(tmp_path / "test.parquet", test)
    result = run(*settings, f"data.history_holdout={held}")
    assert result["error"] is None
    assert result["metrics"]["champion"]["history/cycle-1"]["n"] == 600
    judge(home, pools, grouped=False)


@pytest.mark.usefixtures("promoting")
def test_history_is_cleaned_of_an_own_test_set_before_the_first_training(
    run: Run, home: Path, tmp_path: Path, pools: list[tuple[str, Rows]]
) -> None:
    old = frame(1200, seed=0, first_id=0, users=range(300))
    test = frame(300, seed=2, first_id=70_000, users=range(280, 400))
    held = write(tmp_path / "test.parquet", test, copies(old[:60], first_id=80_000))
    new = frame(900, seed=1, first_id=10_000, users=range(350, 700))
    settings = (*TABLE, *GROUPED, f"data.history={write(tmp_path / 'old.parquet', old)}")
    result = run(
        *settings,
        f"data.history_holdout={held}",
        f"data.new={write(tmp_path / 'new.parquet', new)}",
    )
    assert (result["error"], result["status"]) == (None, "promoted")
    assert result["metrics"]["champion"]["history/cycle-1"]["n"] == 360
    judge(home, pools, grouped=True)


@pytest.mark.usefixtures("promoting")
def test_an_own_test_set_joins_a_lineage_for_good(
    run: Run,
    home: Path,
    tmp_path: Path,
    pools: list[tuple[str, Rows]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = frame(1500, seed=0, first_id=0, users=range(300))
    settings = (*TABLE, *GROUPED, f"data.history={write(tmp_path / 'old.parquet', old)}")

    def new(turn: int) -> str:
        rows = frame(900, seed=turn, first_id=10_000 * turn, users=range(600))
        return f"data.new={write(tmp_path / f'{turn}.parquet', rows)}"

    assert run(*settings, new(1))["status"] == "promoted"
    missing = run(*settings, new(2), f"data.history_holdout={tmp_path / 'none.parquet'}")
    assert (missing["exit_code"], "history_holdout" in missing["error"]["where"]) == (30, True)

    # users 0 to 29 were met before, 580 to 599 bring a part of the second file
    test = frame(400, seed=50, first_id=70_000, users=range(900, 1000))
    known = frame(60, seed=51, first_id=71_000, users=range(30))
    coming = frame(60, seed=52, first_id=72_000, users=range(580, 600))
    given = f"data.history_holdout={write(tmp_path / 'test.parquet', test, known, coming)}"
    pools.clear()
    result = run(*settings, new(2), given)
    assert (result["error"], result["status"]) == (None, "promoted")
    assert "rows are held out from now on as given-3" in " ".join(capsys.readouterr().out.split())
    assert result["metrics"]["candidate"]["history/given-3"]["n"] > 400

    version = registry(home).version("animals@3")
    rows, extra = read_rows_file(version.open("holdout/given-3.arrow"))
    trained = {
        key
        for place, pool in kept(home, "memory")
        if place.startswith("animals@2 ")
        for key in users(pool)
    }
    expected = np.array([code in trained for code in np.asarray(rows.features["code"]).tolist()])
    assert np.array_equal(extra["seen"].astype(bool), expected)
    assert expected.any()
    assert not expected.all()

    third = run(*settings, new(4))
    assert (third["error"], third["status"]) == (None, "promoted")
    assert "history/given-3" in third["metrics"]["candidate"]
    held_users, held_content = users(rows), contents(rows)
    remembered = [p for p in kept(home, "memory") if p[0].startswith(("animals@3", "animals@4"))]
    for place, pool in [*pools, *remembered]:
        assert not held_users & users(pool), place
        assert not held_content & contents(pool), place

    everything = write(tmp_path / "trained.parquet", old[old.user.isin(["u0001"])])
    refused = run(*settings, new(5), f"data.history_holdout={everything}")
    if "u0001" in {f"u{int(code):04}" for code in trained}:
        assert (refused["exit_code"], refused["error"]["where"]) == (30, "data.history_holdout")
