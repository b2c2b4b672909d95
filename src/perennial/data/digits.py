"""Bundled example data: scikit-learn's handwritten digits, with a drift on demand.

1,797 grey images of 8 x 8 pixels (UCI Optical Recognition of Handwritten Digits). Nothing is
downloaded.
"""

from __future__ import annotations

import datasets
import numpy as np
from sklearn.datasets import load_digits

from perennial.errors import ConfigError

HOLDOUT_ROWS = 600
HISTORY_ROWS = 797


def digits(*, part: str, inverted: bool, seed: int = 0) -> datasets.Dataset:
    """One part of the digits.

    600 images are the holdout of either part; of the rest, history trains on 797 and new on 400.

    Args:
        part: ``history`` or ``new``.
        inverted: Whether pixels x become 1 - x: the drift.
        seed: Of the permutation that divides the images.

    Returns:
        Columns ``image`` (8, 8) float32 in [0, 1], ``label`` (class names 0 to 9), ``split``
        (train or holdout) and ``group``, the source image's number: a clean and an inverted copy
        of one image are one group.

    Raises:
        ConfigError: No such part.
    """
    if part not in ("history", "new"):
        raise ConfigError(f"Digits have no part {part!r}.", where="part", mend="use history or new")
    bundled = load_digits()
    order = np.random.default_rng(seed).permutation(len(bundled.target))
    end = HOLDOUT_ROWS + HISTORY_ROWS
    train = order[HOLDOUT_ROWS:end] if part == "history" else order[end:]
    picked = np.concatenate([train, order[:HOLDOUT_ROWS]])
    pixels = (bundled.images[picked] / 16).astype(np.float32)
    features = datasets.Features(
        {
            "image": datasets.List(datasets.List(datasets.Value("float32"), length=8), length=8),
            "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)]),
            "split": datasets.Value("string"),
            "group": datasets.Value("string"),
        }
    )
    columns = {
        "image": (1 - pixels if inverted else pixels).tolist(),
        "label": bundled.target[picked].tolist(),
        "split": ["train"] * len(train) + ["holdout"] * HOLDOUT_ROWS,
        "group": [str(index) for index in picked],
    }
    return datasets.Dataset.from_dict(columns, features=features)
