"""A whole lineage per task on small made data: founded, retrained, judged, served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import perennial
from perennial.errors import ConfigError, MethodError
from perennial.promotion import predictions
from perennial.promotion.registry import Registry
from perennial.reporting.result import schema

Run = Callable[..., dict[str, Any]]
SHORT = ("trainer.max_steps=150", "trainer.validate_every=75", "optimizer.lr=0.01")
ITEMS, WORDS, LENGTH = 40, 21, 8


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Tagger(nn.Module):
    """A label at each position, or the next token, from an embedding and a look at the one before.

    Args:
        words: Tokens.
        classes: Outputs at each position.
    """

    def __init__(self, words: int = WORDS, classes: int = WORDS) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 16)
        self.head = nn.Linear(32, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, classes) of ids (B, T)."""
        own = self.embed(input_ids)
        before = torch.cat([torch.zeros_like(own[:, :1]), own[:, :-1]], dim=1)
        logits: Tensor = self.head(torch.cat([own, before], dim=2))
        return logits


class Recommender(nn.Module):
    """A score for each item from the last one seen."""

    def __init__(self, items: int = ITEMS) -> None:
        super().__init__()
        self.embed = nn.Embedding(items, 16)
        self.head = nn.Linear(16, items)

    def forward(self, seen: Tensor) -> Tensor:
        """Scores (B, V) of items seen (B, L)."""
        scores: Tensor = self.head(self.embed(seen[:, -1]))
        return scores


class Attending(nn.Module):
    """The next token by attention over what it may see.

    Args:
        words: Tokens.
    """

    def __init__(self, words: int = WORDS) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, 16), nn.Embedding(LENGTH, 16)
        self.mix, self.head = nn.Linear(16, 48), nn.Linear(16, words)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, words) of ids (B, T); a mask of four dimensions is added to the scores."""
        ROWS_SEEN.append(len(input_ids))
        place = torch.arange(input_ids.shape[1]) if position_ids is None else position_ids
        own = self.embed(input_ids) + self.place(place)
        q, k, v = self.mix(own)[:, None].chunk(3, dim=-1)
        packed = attention_mask is not None and attention_mask.ndim == 4
        seen = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=attention_mask if packed else None, is_causal=not packed
        )
        logits: Tensor = self.head(own + seen[:, 0])
        return logits


ROWS_SEEN: list[int] = []


def numbers(rows: int, *, shift: float, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4)) + np.array([0, 0, 0, 2 * shift])
    y = 3 * x[:, 0] - x[:, 1] + shift * x[:, 2] + generator.normal(scale=0.2, size=rows)
    return pd.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "target": y})


def tags(rows: int, *, shift: float, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4)) + np.array([0, 0, 0, 2 * shift])
    on = x[:, :3] * np.array([1, 1, 1 - shift]) > 0
    names = [[n for n, o in zip(("red", "round", "sweet"), row, strict=True) if o] for row in on]
    return pd.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "target": names})


def clicks(rows: int, *, shift: float, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    low = ITEMS // 2 if shift else 0
    seen = generator.integers(0, ITEMS // 2, size=(rows, 5))
    after = (seen[:, -1] + 1) % (ITEMS // 2)
    likely = generator.random(rows) < 0.9
    after = np.where(likely, after, generator.integers(0, ITEMS // 2, size=rows))
    return pd.DataFrame({"seen": list(low + seen), "target": low + after})


def sentences(rows: int, *, shift: float, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    ids = generator.integers(1, 11, size=(rows, LENGTH)) + (10 if shift else 0)
    before = np.concatenate([np.zeros((rows, 1), dtype=int), ids[:, :-1]], axis=1)
    odd = (before if shift else ids) % 2
    length = generator.integers(2, LENGTH + 1, size=rows)
    names = [
        ["odd" if one else "even" for one in row[:n]] for row, n in zip(odd, length, strict=True)
    ]
    return pd.DataFrame({"input_ids": list(ids), "target": names})


def texts(rows: int, *, shift: float, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    step = generator.integers(0, 10, size=(rows, LENGTH))
    step[:, 1:] = np.where(generator.random((rows, LENGTH - 1)) < 0.6, 1, step[:, 1:])
    ids = (11 if shift else 1) + step.cumsum(axis=1) % 10
    mask = np.ones_like(ids)
    mask[: rows // 2, -2:] = 0
    return pd.DataFrame({"input_ids": list(ids), "attention_mask": list(mask)})


MADE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "regression": (
        numbers,
        (
            "model.inputs=4",
            "model.classes=1",
            "gate.retention.margin=0.2",
            "gate.retention.total=0.3",
        ),
    ),
    "multilabel": (tags, ("model.inputs=4", "model.classes=3")),
    "ranking": (
        clicks,
        (
            "model=custom",
            f"model._target_={__name__}.Recommender",
        ),
    ),
    "tokens": (
        sentences,
        ("model=custom", f"model._target_={__name__}.Tagger", "+model.classes=2", "data.form=dict"),
    ),
    "language": (
        texts,
        (
            "model=custom",
            f"model._target_={__name__}.Tagger",
            "data.form=dict",
            "data.label=null",
        ),
    ),
}
SCORES = {
    "regression": ("number", "minus_mae", ""),
    "multilabel": ("classes", "f1", "points"),
    "ranking": ("item", "mrr", ""),
    "tokens": ("tokens", "token_accuracy", "points"),
    "language": ("none", "token_accuracy", "points"),
}


def lineage(task: str, folder: Path, *extra: str) -> tuple[str, ...]:
    make, own = MADE[task]
    for name, rows, shift, seed in (("old", 1600, 0.0, 0), ("new", 1200, 1.5, 1)):
        make(rows, shift=shift, seed=seed).to_parquet(folder / f"{name}.parquet")
    label = () if task == "language" else ("data.label=target",)
    return (
        f"task={task}", "data=files", "data.history=old.parquet", "data.new=new.parquet",
        f"model_name={task}", "gate.retention.margin=0.05", "gate.retention.total=0.06",
        *SHORT, *label, *own, *extra,
    )  # fmt: skip


@pytest.mark.parametrize("task", MADE)
def test_a_lineage_is_founded_retrained_judged_and_served(
    task: str, run: Run, here: Path, home: Path
) -> None:
    result = run(*lineage(task, here))
    kind, score, unit = SCORES[task]
    folder = Path(result.pop("folder"))
    jsonschema.validate(json.loads(json.dumps(result)), schema())
    assert result["task"] == {"kind": kind, "score": score, "unit": unit}
    assert result["status"] == "promoted", [c["reason"] for c in result["decision"]["checks"]]
    metrics = result["metrics"]
    assert metrics["candidate"]["new"][score] > metrics["champion"]["new"][score]
    improvement = next(c for c in result["decision"]["checks"] if c["name"] == "improvement")
    assert improvement["unit"] == unit
    gain = metrics["candidate"]["new"][score] - metrics["champion"]["new"][score]
    assert improvement["estimate"] == pytest.approx(gain, abs=1e-6)
    names = [check["name"] for check in result["decision"]["checks"]]
    assert not any(name.startswith(("slice/", "sanity/constant")) for name in names)

    page = (folder / "report.html").read_text()
    assert score.replace("_", " ") in page
    for absent in ("accuracy on", "Rows that flipped", "Calibration", "Each class"):
        assert absent not in page.replace("token accuracy on", "")

    version = Registry(url=f"sqlite:///{home / 'registry.db'}").version(f"{task}@champion")
    report = predictions.read(version.open(predictions.ROWS), version.open(predictions.FACTS))
    assert report.target_kind == kind
    assert len(report.label) == len(report) == len(report.candidate.prediction)

    allow = [Tagger, Recommender]
    predictor = perennial.load(f"{task}@champion", allow=allow)
    frame = pd.read_parquet(here / "new.parquet").head(50)
    told = predictor.predict(frame)
    assert len(told) == 50
    if task == "regression":
        error = np.abs(np.array(told) - frame["target"].to_numpy()).mean()
        assert -error == pytest.approx(metrics["candidate"]["new"][score], abs=0.2)
    elif task == "multilabel":
        assert set().union(*told) == {"red", "round", "sweet"}
        assert torch.equal(predictor.probabilities(frame)[:, 0] >= 0.5, _has(told, "red"))
    elif task == "ranking":
        assert (np.array(told)[:, 0] == frame["target"]).mean() > 0.6
        assert {"recall@5", "ndcg@20"} <= set(metrics["candidate"]["new"])
    elif task == "tokens":
        truth = [row.tolist() for row in frame["target"]]
        # a sequence is labelled as long as it is, the targets of a short one end earlier
        assert {len(row) for row in told} == {LENGTH}
        agree = [a == b for row, own in zip(told, truth, strict=True) for a, b in zip(row, own)]  # noqa: B905
        assert np.mean(agree) > 0.7
    else:
        assert {len(row) for row in told} == {LENGTH - 1}
        assert metrics["candidate"]["new"]["perplexity"] < metrics["champion"]["new"]["perplexity"]


def _has(told: list[list[str]], name: str) -> Tensor:
    return torch.tensor([name in row for row in told])


def test_packed_documents_are_judged_one_by_one(run: Run, here: Path, home: Path) -> None:
    given = lineage("language", here, f"model._target_={__name__}.Attending", "task.pack=32")
    ROWS_SEEN.clear()
    result = run(*given)
    assert result["status"] == "promoted", result["error"] or result["decision"]["checks"]
    version = Registry(url=f"sqlite:///{home / 'registry.db'}").version("language@champion")
    report = predictions.read(version.open(predictions.ROWS), version.open(predictions.FACTS))
    assert len(set(report.row_id.tolist())) == len(report)
    assert report.candidate.prediction.shape == (len(report), LENGTH - 1)
    # 64 documents of 6 or 8 tokens fit 16 rows of 32
    steps = [rows for rows in ROWS_SEEN if rows <= 16]
    assert len(steps) >= result["cost"]["optimizer_steps"] == 150
    assert not any(rows == 64 for rows in ROWS_SEEN)
    leaky = run(*lineage("language", here, "task.pack=32", "model_name=leaky"))
    assert leaky["status"] == "failed"
    assert "see each other" in leaky["error"]["what"]


@pytest.mark.parametrize(
    ("task", "extra", "error", "words"),
    [
        ("regression", ("method=lwf",), MethodError, "'softmax'"),
        ("regression", ("method=der",), MethodError, "no classes with names"),
        ("multilabel", ("method=lwf",), MethodError, "'softmax'"),
        ("tokens", ("method=der",), MethodError, "'stored_logits'"),
        ("language", ("data.label=input_ids",), ConfigError, "takes its targets from the inputs"),
        ("regression", ("data.label=null",), ConfigError, "needs targets"),
        ("regression", ("data.new_classes=grow",), ConfigError, "rows of one class each"),
        (
            "ranking",
            ("gate.score=ndcg", "gate.retention.total=null"),
            ConfigError,
            "none of their own",
        ),
        (
            "language",
            ("gate.bounds=[{metric: MulticlassAccuracy, limit: 0.1}]",),
            ConfigError,
            "a language model",
        ),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_reason(
    task: str, extra: tuple[str, ...], error: type[Exception], words: str, run: Run, here: Path
) -> None:
    result = run(*lineage(task, here, "trainer.max_steps=2", *extra))
    assert result["status"] == "failed"
    assert words in result["error"]["what"], result["error"]
    assert error.__name__ not in result["error"]["what"]
    assert result["error"]["mend"]


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("regression", "ewc"), ("regression", "si"), ("regression", "agem"), ("regression", "l2sp"),
        ("regression", "interpolation"), ("multilabel", "der"), ("multilabel", "ewc"),
        ("ranking", "lwf"), ("tokens", "ewc"), ("tokens", "agem"), ("language", "si"),
    ],
)  # fmt: skip
def test_methods_work_with_every_kind_of_target(
    task: str, method: str, run: Run, here: Path
) -> None:
    result = run(*lineage(task, here, "trainer.max_steps=20", f"method={method}"))
    assert result["status"] in ("promoted", "rejected", "inconclusive"), result["error"]


@pytest.mark.parametrize("kind", ["sampled", "true", "empirical"])
@pytest.mark.parametrize("task", ["regression", "multilabel", "ranking"])
def test_every_fisher_of_every_density(task: str, kind: str, run: Run, here: Path) -> None:
    result = run(
        *lineage(task, here, "trainer.max_steps=20", "method=ewc", f"method.ewc.fisher={kind}")
    )
    assert result["status"] in ("promoted", "rejected", "inconclusive"), result["error"]
