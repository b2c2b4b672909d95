"""A test set of the user's own, held out by a lineage that exists already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perennial.data.forgotten import without_forgotten
from perennial.data.learned import Learned, refuse_changed_ids, tied
from perennial.data.rows import Rows
from perennial.data.source import check_schema
from perennial.errors import DataError
from perennial.steps.collect import Data
from perennial.steps.lineage import Lineage
from perennial.types import Booleans


@dataclass(frozen=True)
class Given:
    """A test set of the user's own that joins the lineage's holdouts.

    Attributes:
        name: Of the holdout, ``given-<number>``.
        rows: Rows that the lineage did not hold out before.
        seen: Which of them it was trained on (N,).
        fingerprint: SHA-256 over the source's rows.
    """

    name: str
    rows: Rows
    seen: Booleans
    fingerprint: str

    @property
    def learned(self) -> Learned:
        """The rows as held-out ones."""
        return Learned.of(self.rows, np.full(len(self.rows), "holdout"))

    @property
    def note(self) -> str:
        """A line for the user."""
        told = f"history_holdout: {len(self.rows)} rows are held out from now on as {self.name}"
        if self.seen.any():
            told += f"; {int(self.seen.sum())} of them were trained on before and cannot reject"
        return told


def collect_given(data: Data, *, lineage: Lineage) -> Given | None:
    """``data.history_holdout``, where the lineage does not hold all of it out already.

    Raises:
        DataError: It is unreadable or of another schema, its ids are those of other rows, or the
            lineage was trained on all of it.
    """
    if data.history_holdout is None:
        return None
    manifest, name = lineage.champion.manifest, "history_holdout"
    schema, names = dict(manifest["schema"]), tuple(manifest["label_names"])
    source = data.read(data.history_holdout, name=name, label_names=names, schema=schema)
    check_schema(schema, source.schema, "history", name)
    learned = lineage.learned
    refuse_changed_ids(source.rows, learned, name=name, column=data.id_column)
    source, _ = without_forgotten(source, lineage.forgotten, name)
    rows = source.rows.take(~np.isin(source.rows.content, learned.held.content))
    if not len(rows):
        return None
    seen = tied(rows, learned.trained, data.ties)
    if seen.all():
        raise DataError(
            f"{lineage.champion.name!r} was trained on every row of data.history_holdout, or on "
            "its groups, so that it tests nothing.",
            where="data.history_holdout",
            mend="give rows that no version has learned, or leave it out",
        )
    return Given(f"given-{lineage.next_number}", rows, seen, source.fingerprint)
