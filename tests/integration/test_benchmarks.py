"""What the benchmarks of retention and recovery are made of, against their definitions."""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import contestants
import false_alarms
import films
import frontier
import intents
import monitor_cost
import performance_alarms
import protocols
import recovery
import retention

from perennial.backtest import backtest
from perennial.data.memory import Memory
from perennial.methods.baselines import Scratch
from perennial.models.checkpoint import read_safetensors
from perennial.models.reference import MLP
from perennial.paths import CONF_DIR
from perennial.promotion.registry import Registry
from perennial.steps.collect import Data
from perennial.training.settings import Training
from perennial.types import Batch, StepContext
from support.remembered import stored


def source(rows: int = 60, classes: int = 6, *, test: bool = False) -> protocols.Source:
    generator = np.random.default_rng(0)
    return protocols.Source(
        features={"image": generator.random((rows, 4, 4)).astype(np.float32)},
        label=np.arange(rows) % classes,
        test=np.arange(rows) % 5 == 0 if test else None,
    )


def columns(window: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(window[name]) for name in window.column_names}


@pytest.mark.parametrize("scenario", protocols.SCENARIOS)
def test_split_gives_each_context_its_own_classes(scenario: str) -> None:
    given = source()
    found = protocols.series(
        given, protocol="split", scenario=scenario, seed=1, classes_per_context=2, test_fraction=0.2
    )
    assert len(found.windows) == 3
    assert found.outputs == (6 if scenario == "class" else 2)
    assert found.inputs == 16
    tests = []
    for number, window in enumerate(map(columns, found.windows)):
        row = np.array([int(one.split("-")[1]) for one in window["id"]])
        assert set(given.label[row]) == {2 * number, 2 * number + 1}
        expected = given.label[row] - (0 if scenario == "class" else 2 * number)
        assert window["label"].tolist() == expected.tolist()
        assert np.array_equal(window["image"], given.features["image"][row])
        tests += row[window["split"] == "test"].tolist()
    order = np.random.default_rng(1).permutation(60)
    assert sorted(tests) == sorted(order[48:].tolist()), "the last fifth of a seeded permutation"


@pytest.mark.parametrize("protocol", ["permuted", "rotated"])
def test_every_context_has_all_classes_and_the_same_test_rows(protocol: str) -> None:
    given = source(test=True)
    found = protocols.series(given, protocol=protocol, scenario="class", seed=1, contexts=3)
    assert (len(found.windows), found.outputs, found.per_context) == (3, 18, 6)
    images = []
    for number, window in enumerate(map(columns, found.windows)):
        assert ((window["split"] == "test") == given.test).all()
        assert window["label"].tolist() == (given.label + 6 * number).tolist()
        images.append(window["image"])
    if protocol == "permuted":
        for other in images:
            assert np.allclose(np.sort(other.reshape(60, -1)), np.sort(images[0].reshape(60, -1)))
    else:
        assert np.array_equal(images[0], given.features["image"])
    assert not np.allclose(images[1], images[2])


def test_a_knob_is_chosen_without_a_test_row() -> None:
    given = source()
    options: dict[str, Any] = {"protocol": "split", "scenario": "class", "seed": 1}
    real = protocols.series(given, test_fraction=0.2, **options)
    tuning = protocols.series(given, test_fraction=0.2, tuning=0.25, **options)
    for whole, part in zip(map(columns, real.windows), map(columns, tuning.windows), strict=True):
        assert set(part["id"]) == set(whole["id"][whole["split"] == "train"])
    held = sum((columns(window)["split"] == "test").sum() for window in tuning.windows)
    assert held == 12


def test_the_loss_is_over_the_classes_seen_so_far() -> None:
    logits = torch.randn(5, 6, requires_grad=True)
    label = torch.tensor([0, 1, 2, 3, 5])
    task = protocols.SeenSoFar(seen=4)
    loss = task.per_example_loss(logits, (torch.zeros(5, 1), label))
    expected = F.cross_entropy(logits[:4, :4], label[:4], reduction="none")
    torch.testing.assert_close(loss[:4], expected)
    assert torch.isfinite(loss).all(), "a class that comes later has a loss too"
    loss[:4].sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:4, 4:] == 0).all()
    assert (task.predictions(torch.eye(6)) == torch.arange(6)).all()


def test_the_density_of_the_classes_seen_is_that_of_the_loss() -> None:
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 1, 2, 3, 1])
    task = protocols.SeenSoFar(seen=4)
    task.per_example_loss(logits, (torch.zeros(5, 1), label)).sum().backward()
    assert logits.grad is not None
    density, fixed = task.likelihood, logits.detach()
    torch.testing.assert_close(density.gradient(fixed, label), -logits.grad)
    p = fixed[:, :4].softmax(dim=1)
    terms = torch.stack(list(density.expectation(fixed)))
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(
        torch.einsum("kbi,kbj->bij", terms, terms), F.pad(expected, (0, 2, 0, 2))
    )
    ids = np.array([str(number) for number in range(5)])
    assert density.draw(fixed, ids, 0).max() < 4


def test_one_optimizer_goes_through_all_contexts(tmp_path: Path) -> None:
    contexts = protocols.series(source(test=True), protocol="split", scenario="domain", seed=1)
    kept = Registry(url=f"sqlite:///{tmp_path / 'registry.db'}")

    def run(registry: Registry, methods: Any) -> dict[str, torch.Tensor]:
        backtest(
            contexts.windows,
            model=lambda: MLP(inputs=16, classes=2, hidden=[8]),
            optimizer=functools.partial(torch.optim.Adam, lr=0.01),
            methods=methods,
            data=Data(
                memory=Memory(), id_column="id", split_column="split", validation_fraction=0.0
            ),
            # a batch of all rows: its gradient does not depend on their order
            training=Training(
                max_steps=6, batch_size=16, keep="last", gradient_clip=None, accelerator="cpu"
            ),
            promotion="always",
            registry=registry,
        )
        stored = registry.version("backtest@champion").open("model.safetensors")
        return dict(read_safetensors(stored))

    found = run(kept, lambda number: [contestants.KeptOptimizer()])
    pl.seed_everything(0, verbose=False)
    model = MLP(inputs=16, classes=2, hidden=[8])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for window in map(columns, contexts.windows):
        train = window["split"] == "train"
        inputs = torch.tensor(window["image"][train], dtype=torch.float32)
        label = torch.tensor(window["label"][train])
        assert len(label) == 16
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), label).backward()
            optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    apart = run(Registry(url=f"sqlite:///{tmp_path / 'other.db'}"), lambda number: [])
    assert max(float((found[n] - apart[n]).abs().max()) for n in found) > 2e-2


def test_memory_holds_as_many_rows_of_each_class(tmp_path: Path) -> None:
    contexts = protocols.series(source(180), protocol="split", scenario="class", seed=1)
    kept: list[Registry] = []

    def contestant(context: int, knob: float) -> list[Any]:
        return []

    real = contestants.backtest

    def watched(*args: Any, **settings: Any) -> Any:
        kept.append(Registry(url=f"sqlite:///{tmp_path / 'registry.db'}"))
        return real(*args, **{**settings, "registry": kept[0]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, "backtest", watched)
        contestants.compete(
            contestants.Contestant(contestant),
            contexts,
            scenario="class",
            setting=contestants.Setting(iterations=2, memory_per_class=5, accelerator="cpu"),
            seed=0,
            knob=0,
        )
    for number in (1, 2, 3):
        rows = stored(kept[0].version(f"backtest@{number}"))
        assert np.bincount(rows.label).tolist() == [5] * 2 * number


def test_the_frontier_by_hand() -> None:
    points = [(0.9, 0.5), (0.8, 0.8), (0.7, 0.8), (0.5, 0.9), (0.9, 0.4), (0.8, 0.8)]
    assert frontier.pareto(points) == [True, True, False, True, False, True]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seeds", "0"), ("--classes-per-context", "0"), ("--iterations", "-1"), ("--batch", "2.5")],
)
def test_a_count_of_nothing_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        retention.parsed([option, value])
    assert (
        f"argument {option}: '{value}' is not a whole number from 1 up" in capsys.readouterr().err
    )


def test_a_share_of_the_rows_is_of_each_class_in_training_and_test_alike() -> None:
    given = source(600, classes=6, test=True)
    found = protocols.thinned(given, 0.2)
    assert np.bincount(found.label).tolist() == [20] * 6
    assert found.test is not None
    assert np.bincount(found.label[found.test]).tolist() == [4] * 6
    first = np.flatnonzero((given.label == 2) & ~given.test)[:16]
    kept = found.features["image"][(found.label == 2) & ~found.test]
    assert np.array_equal(kept, given.features["image"][first])
    assert protocols.thinned(source(60), 1.0).test is None
    assert np.array_equal(protocols.thinned(given, 1.0).label, given.label)


@pytest.mark.parametrize("text", ["0", "1.5", "-1", "much", "nan"])
def test_a_share_of_nothing_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        retention.parsed(["--fraction", text])
    assert f"{text!r} is no share, above 0 and up to 1" in capsys.readouterr().err


def test_retention_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "retention.json"
    line = "--reduced --scenario class --method replay ewc --knob ewc=30 --json"
    monkeypatch.setattr(sys, "argv", ["retention.py", *line.split(), str(path)])
    with pytest.raises(SystemExit) as ended:
        retention.main()
    assert ended.value.code == 0
    record = json.loads(path.read_text())
    assert record["bars"] == [], "the reference was measured with more steps"
    assert [(row["method"], row["knob"]) for row in record["rows"]] == [("replay", 0), ("ewc", 30)]
    for row in record["rows"]:
        assert (row["seed"], row["optimizer_steps"], len(row["matrix"])) == (0, 50, 5)
    # 64 new rows a step, and from the second context on as many remembered ones
    assert [row["replayed_rows"] for row in record["rows"]] == [40 * 64, 0]
    assert [row["train_rows"] for row in record["rows"]] == [50 * 64 + 40 * 64, 50 * 64]


@pytest.mark.parametrize("each", ["3", "10", "20"])
def test_classes_that_do_not_divide_into_contexts_are_refused(each: str) -> None:
    with pytest.raises(SystemExit, match=f"{each} does not divide the 10 classes.*1, 2, 5"):
        retention.Comparison(retention.parsed(["--classes-per-context", each]))
    retention.Comparison(retention.parsed(["--protocol", "rotated", "--classes-per-context", each]))


def test_popularity_is_that_of_the_weeks_before_alone() -> None:
    items = ["a", "a", "b", "c", "c", "c", "b", "b", "d", "d", "d", "d"]
    weeks = [1, 1, 1, 2, 2, 2, 6, 6, 7, 7, 7, 7]
    found = films.popular(items, weeks, 7)
    assert found == {"last week": ["b"], "last four": ["b"], "all": ["b", "c", "a"]}
    assert films.popular(items, weeks, 6)["last four"] == ["c"]


def test_hits_are_among_the_first_twenty_that_a_user_has_not_rated() -> None:
    ranked = [str(number) for number in range(40)]
    assert films.hits([ranked] * 4, ["0", "19", "20", "x"]) == 0.5
    all_of_them, some = films.unrated(ranked, [set(), {"0", "5", "30"}])
    assert all_of_them == ranked[:20]
    assert some == [name for name in ranked[:22] if name not in ("0", "5")]


def test_baselines_of_ratings_count_what_a_user_had_rated_when(tmp_path: Path) -> None:
    week = 7 * 24 * 3600
    # 21 films are rated once, the first of them twice; then one user rates two of these in a row
    lines = [f"9::{film:02}::5::{film}" for film in range(21)] + ["8::00::5::30"]
    lines += [f"7::00::5::{week}", f"7::20::5::{week + 1}"]
    (tmp_path / "ratings.dat").write_text("\n".join(lines) + "\n")
    found = films.baselines(str(tmp_path / "ratings.dat"), 2)
    assert found["last week"] == found["all"] == 0.5, "film 20 is the twenty-first"
    assert found["last week, unrated"] == 1.0, "until film 00 is out of the way"


def test_evaluations_are_each_a_tenth_later_and_the_last_step_is_one() -> None:
    found = recovery.moments(1000)
    assert found[:8] == [5, 6, 7, 8, 9, 10, 11, 12]
    assert found[-1] == 1000
    assert all(a < b <= 1.1 * a + 1 for a, b in itertools.pairwise(found))


def test_a_goal_is_reached_where_both_holdouts_are_at_it_at_once() -> None:
    pairs = [(0.9, 0.1), (0.8, 0.7), (0.5, 0.9), (0.9, 0.7), (1.0, 1.0)]
    points = [recovery.Point(step, 0.0, *pair) for step, pair in enumerate(pairs)]
    assert recovery.reached(points, {"history": 0.9, "new": 0.7}) == points[3]
    assert recovery.reached(points[:3], {"history": 0.9, "new": 0.7}) is None


def test_evaluation_costs_no_time() -> None:
    now = [0.0]

    def logits(model: torch.nn.Module, data: Any) -> torch.Tensor:
        assert not model.training
        now[0] += 100  # an evaluation is slow
        return F.one_hot((data[1] + data[0]) % 3, 3).float()

    right, wrong = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 0, 1])
    label = torch.tensor([0, 1, 2, 0])
    watch = recovery.Watch(
        moments=[2, 4],
        held={"history": (right, label), "new": (wrong, label)},
        goal={"history": 0.8, "new": 0.2},
        clock=lambda: now[0],
    )
    now[0] = 50  # before training
    watch.prepare(None)  # type: ignore[arg-type]
    model = torch.nn.Linear(1, 1)
    for taken in range(4):
        now[0] += 1
        watch.after_step(
            StepContext(
                batch=Batch(data=None, ids=np.array(["a"]), is_new=np.array([True])),
                model=model,
                parameters={},
                global_step=taken,
                logits_of=logits,
            )
        )
    assert [(p.step, p.seconds, p.history, p.new) for p in watch.points] == [
        (2, 2.0, 0.75, 0.25),
        (4, 4.0, 0.75, 0.25),
    ]
    assert model.training


def test_training_ends_at_the_goal_and_its_points_are_the_versions_scores() -> None:
    drift = replace(recovery.DRIFTS["digits"], steps=60)
    windows = drift.windows(3)
    kept: list[Any] = []
    real = recovery.backtest

    def watched(*args: Any, **settings: Any) -> Any:
        kept.append(real(*args, **settings))
        return kept[0]

    arguments: dict[str, Any] = {"methods": lambda: [Scratch()], "lr": 0.003, "seed": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "backtest", watched)
        points = recovery.trained(drift, windows, steps=60, **arguments)
    assert [point.step for point in points] == recovery.moments(60)
    assert [points[-1].history, points[-1].new] == kept[0].matrix[-1].tolist()
    assert [window.optimizer_steps for window in kept[0].windows] == [1, 60]
    low = {"history": points[8].history, "new": 0.0}
    first = recovery.reached(points, low)
    short = recovery.trained(drift, windows, steps=60, goal=low, **arguments)
    assert first is not None
    assert short[-1].step == first.step < 60


def test_images_of_a_drift_are_inverted_and_held_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, rows in (("train", 40), ("t10k", 20)):
        images = generator.integers(0, 256, (rows, 4, 4)).astype(np.uint8)
        head = bytes([0, 0, 8, 3]) + np.array([rows, 4, 4], ">u4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = bytes([0, 0, 8, 1]) + np.array([rows], ">u4").tobytes()
        labels = (np.arange(rows) % 10).astype(np.uint8)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    windows = recovery.fashion(str(tmp_path), (20, 10, 8), 1)
    history, new = map(columns, windows)
    held = history["split"] == "holdout"
    assert (held.sum(), (~held).sum(), (new["split"] == "train").sum()) == (8, 20, 10)
    assert (new["image"][10:] == 255 - history["image"][20:]).all()
    assert (new["label"][10:] == history["label"][20:]).all()
    assert not set(history["group"][:20]) & set(new["group"][:10])
    inputs, label = recovery.held_out(windows)["new"]
    assert inputs.shape == (8, 1, 4, 4)
    assert np.allclose(inputs.numpy(), new["image"][10:] / 255)
    assert label.tolist() == new["label"][10:].tolist()


def test_the_default_that_recovers_is_the_configured_one() -> None:
    found = {
        name: OmegaConf.load(CONF_DIR / f"{name}.yaml")
        for name in ("method/replay", "method/ewc", "optimizer/adamw", "trainer/default")
    }
    assert found["method/replay"].replay.new_fraction == recovery.NEW_FRACTION
    assert found["method/ewc"].ewc.strength is None
    assert found["optimizer/adamw"].lr == recovery.DEFAULT_RATE
    assert found["optimizer/adamw"].weight_decay == recovery.WEIGHT_DECAY
    assert found["trainer/default"].max_steps == recovery.DRIFTS["digits"].steps
    assert found["trainer/default"].batch_size == recovery.DRIFTS["digits"].batch


def test_recovery_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recovery.json"
    monkeypatch.setattr(
        sys, "argv", ["recovery.py", "--drift", "digits", "--reduced", "--json", str(path)]
    )
    with pytest.raises(SystemExit):
        recovery.main()
    record = json.loads(path.read_text())
    (row,), (bar,) = record["rows"], record["bars"]
    assert row["scratch"]["rows"] == 64 * row["scratch"]["step"]
    assert row["scratch"]["step"] <= 50
    assert bar["value"] == pytest.approx(row["default"]["rows"] / row["scratch"]["rows"])
    assert bar["passed"] == (bar["value"] <= 0.2)
    best = max(row["ends"].values(), key=lambda end: end["history"] + end["new"])
    for part, goal in row["goal"].items():
        assert goal == pytest.approx(best[part] - 0.005)
        if row["reached"]:
            assert row["default"][part] >= goal


@pytest.mark.slow
def test_performance_alarms_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alarms.json"
    monkeypatch.setattr(sys, "argv", ["performance_alarms.py", "--reduced", "--json", str(path)])
    with pytest.raises(SystemExit):
        performance_alarms.main()
    record = json.loads(path.read_text())
    (watched, unlabelled), (realised, estimated) = record["rows"], record["bars"]
    both = watched["false_alarms"]["ADWIN"] + watched["false_alarms"]["Page–Hinkley"]
    assert realised["value"] == pytest.approx(both / watched["allowed"])
    assert watched["delay"]["either"] < watched["delay"]["river's own ADWIN"]
    assert watched["delay"]["either"] <= watched["slow_delay"]["either"] < 400
    assert estimated["value"] == pytest.approx(unlabelled["alarms"]["none"] / 0.05)
    assert unlabelled["alarms"]["harder inputs"] > 0.9
    assert unlabelled["alarms"]["labels alone"] < 0.3


def reduced(module: Any, path: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a benchmark of drift writes in its reduced form."""
    patch.setattr(sys, "argv", [f"{module.__name__}.py", "--reduced", "--json", str(path)])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    record: dict[str, Any] = json.loads(path.read_text())
    assert (stopped.value.code == 0) == all(one["passed"] for one in record["bars"])
    return record


@pytest.mark.slow
def test_monitor_cost_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = reduced(monitor_cost, tmp_path / "cost.json", monkeypatch)
    (row,) = record["rows"]
    assert row["rows"] == 200_000
    assert not row["alarm"], "nothing moved"
    assert row["largest_difference"] < 1e-8
    assert len(record["bars"]) == 3


@pytest.mark.slow
def test_false_alarms_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = reduced(false_alarms, tmp_path / "alarms.json", monkeypatch)
    assert record["bars"] == [], "so few streams tell no rate"
    streams = {row["streams"]: row for row in record["rows"] if "streams" in row}
    assert set(streams) == {"stationary", "stationary, by the classifier", *false_alarms.SEASONS}
    rate, plain = "weekly, 1 a year", "any column p < 0.05"
    assert streams["stationary"]["count"] == 20
    assert streams["stationary"][rate] < 0.05 < streams["stationary"][plain]
    assert streams["weekends"][rate] < 0.2 < streams["weekends"][plain]
    found = {(row["shift"], row["rule"]): row["share"] for row in record["rows"] if "shift" in row}
    assert found["mean", "monitor"] > 0.5
    assert found["P(y|x)", "ADWIN on errors"] == 1
    assert found["P(y|x)", "monitor"] < 0.5, "which inputs do not show"


def test_all_intents_are_the_experiment() -> None:
    config = OmegaConf.load(CONF_DIR / "experiment" / "intents.yaml")
    given = dict(one.split("=") for one in intents.sizes(intents.INTENTS, intents.ROWS))
    assert (given.pop("per_domain"), given.pop("per_intent")) == ("15", "100"), "all there are"
    for key, value in given.items():
        assert OmegaConf.select(config, key) == int(value), key
    assert config.trainer.batch_size == intents.BATCH
    assert config.method.replay.new_fraction == intents.NEW_FRACTION
    fewer = dict(one.split("=") for one in intents.sizes(2, 40))
    assert [int(value) for value in fewer.values()] == [2, 40, 10, 40, 25, 25]


def test_each_method_is_the_experiment_with_its_own_protection() -> None:
    found = {name: intents.composed(*given) for name, given in intents.METHODS.items()}
    methods = {name: sorted(config["method"]) for name, config in found.items()}
    assert methods == {
        "none": [],
        "replay": ["replay"],
        "default": ["ewc", "replay"],
        "joint": ["joint"],
    }
    history = {name: config["history"] for name, config in found.items()}
    assert history == dict.fromkeys(("none", "replay", "default"), "memory") | {"joint": "all"}
    rest = [{k: v for k, v in c.items() if k not in ("method", "history")} for c in found.values()]
    assert rest == [rest[0]] * 4


@pytest.mark.slow
@pytest.mark.skipif("PERENNIAL_DATA" not in os.environ, reason="PERENNIAL_DATA is not set")
def test_intents_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "intents.json"
    monkeypatch.setenv("PERENNIAL_HOME", "put back afterwards")
    line = ["intents.py", "--reduced", "--method", "none", "replay", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        intents.main()
    assert ended.value.code == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["method"] for row in rows] == ["none", "replay"]
    assert {row["champion"] for row in rows} == {"intents@1"}, "no candidate was promoted"
    assert rows[0]["history_champion"] == rows[1]["history_champion"]
    assert [row["train_rows"] for row in rows] == [6 * 64] * 2
    # half of a batch, and more where a pass over the new rows ends
    assert rows[0]["replayed_rows"] == 0
    assert 3 * 64 < rows[1]["replayed_rows"] < 4.5 * 64
