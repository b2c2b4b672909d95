"""Metrics by name, against the functions of other libraries and loops over rows."""

import numpy as np
import pytest
from sklearn import metrics as sk

from perennial.errors import ConfigError, EvaluationError
from perennial.evaluation.measure import build_metric, measure, measured
from perennial.types import EvaluationReport, Predictions

N = 300


def made(classes, seed=0, n=N):
    generator = np.random.default_rng(seed)
    raw = generator.random((n, classes)).astype(np.float32)
    label = generator.integers(0, classes, n)
    raw[np.arange(n), label] += 0.6
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    prediction = probabilities.argmax(axis=1)
    right = (prediction == label).astype(np.float64)
    return Predictions(prediction, right, 1 - right, probabilities), label


def alone(n=N):
    return np.array([f"r{row}" for row in range(n)])


def ask(name, arguments=None, *, classes=4, cluster=None, **options):
    predictions, label = made(classes)
    cluster = alone() if cluster is None else cluster
    return measure(
        name,
        arguments or {},
        predictions=predictions,
        label=label,
        cluster=cluster,
        classes=classes,
        **options,
    )


def top_k(label, probabilities, k):
    order = np.argsort(-probabilities, axis=1)[:, :k]
    return np.mean([row in found for row, found in zip(label, order, strict=True)])


def macro(function):
    return lambda label, p: function(label, p.argmax(axis=1), average="macro")


def area(label, p):
    return sk.roc_auc_score(label, p, multi_class="ovr", average="macro")


REFERENCES = {
    "f1": ("MulticlassF1Score", {"average": "macro"}, macro(sk.f1_score)),
    "recall of a task": ("Recall", {"average": "macro"}, macro(sk.recall_score)),
    "probabilities": ("MulticlassAUROC", {}, area),
    "top 2": (
        "MulticlassAccuracy",
        {"top_k": 2, "average": "micro"},
        lambda label, p: top_k(label, p, 2),
    ),
    "kappa": ("CohenKappa", {}, lambda label, p: sk.cohen_kappa_score(label, p.argmax(axis=1))),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_values_against_scikit_learn(case):
    name, arguments, reference = REFERENCES[case]
    predictions, label = made(4)
    found = ask(name, arguments)
    assert found.value == pytest.approx(reference(label, predictions.probabilities), abs=1e-5)
    assert found.higher_is_better is True
    assert found.n == N


def test_two_classes_give_binary_metrics_the_second_ones_probability():
    predictions, label = made(2)
    expected = sk.roc_auc_score(label, predictions.probabilities[:, 1])
    for name, arguments in (("BinaryAUROC", {}), ("AUROC", {"task": "binary"})):
        assert ask(name, arguments, classes=2).value == pytest.approx(expected, abs=1e-5)


def test_lower_is_better_where_the_metric_says_so():
    found = ask("MulticlassHammingDistance", {"average": "micro"})
    assert found.higher_is_better is False


def test_a_task_without_classes_has_metrics_of_numbers():
    generator = np.random.default_rng(3)
    truth, given = generator.normal(size=N), generator.normal(size=N)
    predictions = Predictions(given, -np.abs(given - truth), (given - truth) ** 2)
    found = measure(
        "MeanAbsoluteError",
        {},
        predictions=predictions,
        label=truth,
        cluster=alone(),
        classes=0,
        kind="number",
    )
    assert found.value == pytest.approx(np.abs(given - truth).mean())
    assert found.higher_is_better is False


def test_replicates_resample_whole_clusters_and_are_deterministic():
    cluster = np.array([f"u{row // 5}" for row in range(N)])
    found = ask("MulticlassAccuracy", {"average": "micro"}, cluster=cluster)
    assert found.replicates.tolist() == (
        ask("MulticlassAccuracy", {"average": "micro"}, cluster=cluster).replicates.tolist()
    )
    # by a loop over clusters with the same draws
    predictions, _ = made(4)
    names, generator = np.unique(cluster), np.random.default_rng(0)
    expected = []
    for _ in range(200):
        chosen = names[generator.integers(0, len(names), len(names))]
        expected.append(
            np.concatenate([predictions.score[cluster == name] for name in chosen]).mean()
        )
    assert found.replicates == pytest.approx(np.array(expected), abs=1e-6)


def test_the_spread_of_replicates_is_that_of_the_mean_over_clusters():
    generator = np.random.default_rng(5)
    users = generator.integers(0, 2, 60).astype(float)
    score = np.repeat(users, 5)
    label = np.zeros(N, dtype=np.int64)
    probabilities = np.stack([score, 1 - score], axis=1).astype(np.float32)
    predictions = Predictions((1 - score).astype(np.int64), score, 1 - score, probabilities)
    found = measure(
        "MulticlassAccuracy",
        {"average": "micro"},
        predictions=predictions,
        label=label,
        cluster=np.repeat([f"u{user}" for user in range(60)], 5),
        classes=2,
        replicates=2000,
    )
    assert found.replicates.std() == pytest.approx(users.std() / np.sqrt(60), rel=0.06)


def test_what_cannot_be_asked_is_refused():
    for name, arguments, message in (
        ("MulticlasF1Score", {}, "did you mean MulticlassF1Score"),
        ("MeanSquaredError", {}, "for classification into 4 classes"),
        ("MultilabelF1Score", {}, "There is no metric"),
        ("BinaryAUROC", {}, "There is no metric"),
        ("ConfusionMatrix", {}, "whether higher is better"),
        ("MulticlassF1Score", {"averag": "macro"}, "averag[\\s\\S]*its arguments are num_classes"),
        ("MulticlassF1Score", {"average": "mean"}, "cannot be built"),
        ("MulticlassRecall", {"average": None}, "gives 4 numbers"),
        ("MulticlassF1Score", {"num_classes": 2}, "does not take the stored predictions"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            ask(name, arguments)
        assert error.value.where == "gate.bounds"
        assert error.value.mend


def test_a_metric_is_built_without_rows():
    assert build_metric("MulticlassF1Score", {"average": "macro"}, classes=7).num_classes == 7
    with pytest.raises(ConfigError, match="There is no metric"):
        build_metric("F1", {}, classes=7)


def test_one_group_and_rows_without_a_number_are_refused():
    with pytest.raises(EvaluationError, match="in one group"):
        ask("MulticlassF1Score", cluster=np.full(N, "u"))
    nothing = Predictions(np.zeros(N), np.zeros(N), np.zeros(N))
    unknown = np.full(N, np.nan)
    with pytest.raises(EvaluationError, match="no finite number"):
        measure(
            "R2Score",
            {},
            predictions=nothing,
            label=unknown,
            cluster=alone(),
            classes=0,
            kind="number",
        )


class Bound:
    def __init__(self, on):
        self.metric, self.arguments, self.rows = "MulticlassAccuracy", {"average": "micro"}, on
        self.key = f"accuracy on {on}"


def report():
    predictions, label = made(4)
    holdout = np.repeat(["new", "history/cycle-1", "history/cycle-2"], N // 3)
    return EvaluationReport(
        row_id=alone(),
        cluster=alone(),
        holdout=holdout,
        label=label,
        seen_by_champion=np.zeros(N, dtype=bool),
        champion=predictions,
        candidate=predictions,
        label_names=tuple("abcd"),
    )


def test_bounds_are_measured_on_the_rows_they_name():
    whole = report()
    score = whole.candidate.score
    parts = {
        "new": whole.holdout == "new",
        "history": whole.holdout != "new",
        "history/cycle-2": whole.holdout == "history/cycle-2",
    }
    found = measured(whole, [Bound(on) for on in parts])
    assert list(found) == [Bound(on).key for on in parts]
    for on, mask in parts.items():
        one = found[Bound(on).key]
        assert one.value == pytest.approx(score[mask].mean())
        assert one.n == mask.sum()
    assert measured(whole, [Bound("history/cycle-3")]) == {}
