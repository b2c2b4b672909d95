"""Series of contexts from any labelled source: split, permuted and rotated.

The protocols and scenarios are those of van de Ven, Tuytelaars & Tolias, Three types of incremental
learning, Nature Machine Intelligence 4 (2022).

Shapes: N rows; T contexts; K classes of one context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import Tensor

from perennial.data.published import located
from perennial.data.source import open_source, read_rows
from perennial.tasks.classification import Classification
from perennial.tasks.likelihood import Categorical

Array = npt.NDArray[Any]
SCENARIOS = ("class", "domain")
TEST_FRACTION = 397 / 1797


class SeenClasses(Categorical):
    """The softmax over the first classes alone: the density of the loss below."""

    def __init__(self, seen: int) -> None:
        super().__init__()
        self.seen = seen

    def _masked(self, outputs: Tensor) -> Tensor:
        masked = outputs.clone()
        masked[:, self.seen :] = -float("inf")
        return masked

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One-hot label minus probabilities (B, C)."""
        return super().gradient(self._masked(outputs), target)

    def draw(self, outputs: Tensor, ids: Any, seed: int, observed: Tensor | None = None) -> Tensor:
        """Labels (B,) of the classes seen."""
        return super().draw(self._masked(outputs), ids, seed, observed)

    def expectation(self, outputs: Tensor, observed: Tensor | None = None) -> Iterator[Tensor]:
        """√p_c (e_c − p), (B, C), nothing for a class not seen."""
        return super().expectation(self._masked(outputs), observed)


class SeenSoFar(Classification):
    """Classification whose loss is over the classes seen so far; predictions are over all.

    Args:
        seen: Number of classes that training has met, the first ones.
    """

    def __init__(self, *, seen: int) -> None:
        super().__init__()
        self.seen = seen
        self.likelihood = SeenClasses(seen)

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Cross-entropy (B,) over the classes seen so far and the row's own."""
        unseen = outputs.new_ones(outputs.shape, dtype=bool)
        unseen[:, : self.seen] = False
        unseen.scatter_(1, self.split_batch(batch)[1][:, None], False)
        return super().per_example_loss(outputs.masked_fill(unseen, -float("inf")), batch)


@dataclass(frozen=True)
class Source:
    """A labelled source.

    Attributes:
        features: Column to values (N, ...).
        label: Class (N,), from 0.
        test: Test rows (N,), where the source declares them.
    """

    features: Mapping[str, Array]
    label: Array
    test: Array | None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.label.max()) + 1


@dataclass(frozen=True)
class Series:
    """The contexts of one protocol.

    Attributes:
        windows: One data set per context.
        outputs: Outputs of the model.
        inputs: Numbers per row.
        per_context: K.
    """

    windows: tuple[datasets.Dataset, ...]
    outputs: int
    inputs: int
    per_context: int


def load(path: str, label: str = "label") -> Source:
    """The bundled digits, pixels in [0, 1], or any source that Perennial opens."""
    if path == "digits":
        bundled = load_digits()
        pixels = (bundled.images / 16).astype(np.float32)
        return Source(features={"image": pixels}, label=bundled.target, test=None)
    opened = open_source(located(path), name="source")
    split = "split" if "split" in opened.column_names else None
    read = read_rows(opened, name="source", label=label, split_column=split)
    test = None if read.declared_role is None else np.isin(read.declared_role, ("test", "holdout"))
    return Source(features=read.rows.features, label=np.asarray(read.rows.label), test=test)


def thinned(source: Source, fraction: float) -> Source:
    """The first rows of each class, of training and test rows alike.

    Args:
        source: N rows.
        fraction: Share of them, in (0, 1].
    """
    test = np.zeros(len(source.label), dtype=bool) if source.test is None else source.test
    kept = [
        rows[: max(1, round(fraction * len(rows)))]
        for one in np.unique(source.label)
        for part in (False, True)
        if len(rows := np.flatnonzero((source.label == one) & (test == part)))
    ]
    at = np.sort(np.concatenate(kept))
    return Source(
        features={name: values[at] for name, values in source.features.items()},
        label=source.label[at],
        test=None if source.test is None else source.test[at],
    )


def series(
    source: Source,
    *,
    protocol: str,
    scenario: str,
    seed: int,
    classes_per_context: int = 2,
    contexts: int = 5,
    test_fraction: float = TEST_FRACTION,
    tuning: float = 0.0,
) -> Series:
    """Contexts in order.

    Args:
        source: N rows.
        protocol: ``split`` gives each context some classes of its own, in their order; ``permuted``
            an order of the features of its own; ``rotated`` an angle of its own, k · 180° / T.
        scenario: ``class``: a label of its own for each class of each context; ``domain``: the
            class's position within its context.
        seed: Of the test rows, where none are declared, and of the permutations.
        classes_per_context: K of ``split``.
        contexts: T of the other two.
        test_fraction: Share of rows to test on, where none are declared.
        tuning: Where above 0, this share of the training rows stands in for the test rows, which
            are left out altogether: for choosing a setting.
    """
    count = len(source.label)
    order = np.random.default_rng(seed).permutation(count)
    if source.test is None:
        test = np.isin(np.arange(count), order[count - round(count * test_fraction) :])
    else:
        test = source.test
    kept = np.ones(count, dtype=bool)
    if tuning:
        train = order[~test[order]]
        kept, test = ~test, np.isin(np.arange(count), train[: round(len(train) * tuning)])
    parts = _PROTOCOLS[protocol](source, classes_per_context, contexts, seed)
    per_context = classes_per_context if protocol == "split" else source.classes
    windows = []
    for number, (features, rows, position) in enumerate(parts):
        chosen = rows & kept
        first = number * per_context if scenario == "class" else 0
        windows.append(
            dataset(
                {name: values[chosen] for name, values in features.items()},
                label=first + position[chosen],
                split=np.where(test[chosen], "test", "train"),
                id=np.array([f"{number}-{row}" for row in np.flatnonzero(chosen)]),
            )
        )
    return Series(
        windows=tuple(windows),
        outputs=per_context * (len(windows) if scenario == "class" else 1),
        inputs=sum(int(np.prod(values.shape[1:])) for values in source.features.values()),
        per_context=per_context,
    )


Part = tuple[Mapping[str, Array], Array, Array]


def _split(source: Source, size: int, _: int, __: int) -> list[Part]:
    """Features, which rows (N,), and every row's position within its context (N,)."""
    return [
        (source.features, source.label // size == context, source.label % size)
        for context in range(source.classes // size)
    ]


def _permuted(source: Source, _: int, contexts: int, seed: int) -> list[Part]:
    everything = np.ones(len(source.label), dtype=bool)
    generator = np.random.default_rng([seed, 1])
    parts: list[Part] = []
    for _context in range(contexts):
        features = {}
        for name, values in source.features.items():
            order = generator.permutation(int(np.prod(values.shape[1:])))
            features[name] = values.reshape(len(values), -1)[:, order].reshape(values.shape)
        parts.append((features, everything, source.label))
    return parts


def _rotated(source: Source, _: int, contexts: int, __: int) -> list[Part]:
    everything = np.ones(len(source.label), dtype=bool)
    parts: list[Part] = []
    for context in range(contexts):
        angle = 180 * context / contexts
        turned = {
            name: rotate(values, angle, axes=(-2, -1), reshape=False, order=1)
            for name, values in source.features.items()
        }
        parts.append((turned, everything, source.label))
    return parts


_PROTOCOLS: dict[str, Callable[[Source, int, int, int], list[Part]]] = {
    "split": _split,
    "permuted": _permuted,
    "rotated": _rotated,
}
PROTOCOLS = tuple(_PROTOCOLS)


def dataset(features: Mapping[str, Array], **columns: Array) -> datasets.Dataset:
    """Columns (N, ...) as a built data set."""
    arrays = {name: _nested(values) for name, values in {**features, **columns}.items()}
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(arrays)))


def _nested(values: Array) -> pa.Array:
    if values.dtype.kind == "U":
        return pa.array(values.tolist())
    nested = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:0:-1]:
        nested = pa.FixedSizeListArray.from_arrays(nested, size)
    return nested
