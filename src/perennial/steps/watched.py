"""The champion and the new rows as triggers look at them, each part made when it is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perennial import clock
from perennial.data.learned import ROLES
from perennial.data.rows import Rows, concatenate
from perennial.files import digest
from perennial.monitoring.performance import HeldOut, Record
from perennial.monitoring.reference import Reference
from perennial.monitoring.window import Window
from perennial.steps.loaded import configured
from perennial.steps.material import Material
from perennial.steps.predicted import (
    drop_outgrown,
    held_out_now,
    held_out_of,
    recorded_of,
)
from perennial.steps.recording import record
from perennial.steps.reference import reference_of, represent
from perennial.steps.settings import Cycle

if TYPE_CHECKING:
    from perennial.monitoring.drift import Represent
    from perennial.steps.learner import Learner


class Watched:
    """What a trigger may ask of a champion and of new rows with labels.

    Args:
        cycle: Builds the model.
        material: Its new rows are the window.
    """

    def __init__(self, cycle: Cycle, material: Material) -> None:
        self._cycle = cycle
        self._material = material
        self._champion = material.lineage.champion

    @cached_property
    def _learner(self) -> Learner:
        return configured(self._cycle, self._champion)

    @cached_property
    def _reference(self) -> Reference:
        return reference_of(self._champion)

    @cached_property
    def _rows(self) -> Rows:
        parts = [getattr(self._material.new, kind) for kind in ROLES]
        return concatenate([part for part in parts if len(part)])

    def reference(self) -> Reference:
        """What the champion carries; raises as `perennial.steps.reference.reference_of` does."""
        return self._reference

    def window(self) -> Window:
        """The new rows.

        Raises:
            DataError: A column is missing or of another type.
        """
        return Window.of(self._rows.features, self._reference, name="new")

    def represent(self) -> Represent:
        """Runs the champion on raw columns."""
        return represent(self._learner, tuple(self._champion.manifest["label_names"]))

    def errors(self) -> tuple[HeldOut, list[Record]]:
        """The champion on held-out rows, and what it predicted, the new rows among it.

        Their scores are recorded: as labels that came where they were predicted before, else as
        another window. A run that is killed here and comes again changes nothing more.

        Raises:
            DataError: There is no held-out row, or ids, times or the clock are not as they must be.
            RegistryError: Another process wrote meanwhile.
        """
        held_out = held_out_of(self._champion) or self._held_out()
        self._record()
        return held_out, recorded_of(self._cycle.registry, self._champion)

    def _record(self) -> None:
        rows, registry, champion = self._rows, self._cycle.registry, self._champion
        record(
            registry,
            champion,
            rows=rows,
            is_labelled=np.ones(len(rows), dtype=bool),
            keyed=True,
            found=self._learner.predict(rows, classes=len(self._names)),
            key=digest(sorted(rows.id.tolist())),
            now=clock.now(),
        )
        drop_outgrown(registry, champion.name)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._material.new.label_names)

    def _held_out(self) -> HeldOut:
        """Of a version that was decided on nothing, as a lineage's first is."""
        known = [held for name, held in self._material.held.items() if name != "new"]
        return held_out_now(self._champion, self._learner, known, names=self._names)
