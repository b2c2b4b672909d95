"""How a promoted version is used: loaded from the registry, ready to predict.

Shapes: N rows, C classes, K items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from perennial.errors import EvaluationError
from perennial.paths import home
from perennial.types import NAMED_KINDS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from perennial.data.preprocess import Preprocessor
    from perennial.tasks.base import Task


class Predictor:
    """A version's model in evaluation mode, with its label names and its columns.

    Attributes:
        model: The module itself.
        label_names: Class names in the order of its outputs; none for a task without classes.
        id: ``name@number``.
        schema: Feature column to dtype and shape of a row.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        label_names: tuple[str, ...],
        id: str,
        schema: Mapping[str, str],
        form: str,
        task: Task,
        preprocess: Preprocessor | None = None,
    ) -> None:
        self.model = model.eval()
        self.label_names = label_names
        self.id = id
        self.schema = dict(schema)
        self._form, self._task = form, task
        self._preprocess = preprocess

    def __repr__(self) -> str:
        classes = f", classes {_shortened(self.label_names)}" if self.label_names else ""
        return (
            f"<{self.id}: {type(self.model).__name__}, columns {', '.join(self.schema)}{classes}>"
        )

    def probabilities(self, inputs: Any) -> Tensor:
        """Class probabilities (N, C); of several labels a row, that of each.

        Args:
            inputs: A table (pandas, Arrow, or a mapping of columns), matched by name; a list of
                records or of images; an array or tensor (N, ...), its columns by position; or one
                row of these. They become what the model was trained on.

        Raises:
            DataError: A column is missing, or has another dtype or shape.
            EvaluationError: The task has no probabilities.
        """
        found = self._task.probabilities(self._outputs(inputs))
        if found is None:
            raise EvaluationError(
                f"{self.id} has no class probabilities.",
                where="probabilities",
                mend="use predict, or the module itself, model",
            )
        return found

    def predict(self, inputs: Any) -> list[Any]:
        """What is predicted for each row; inputs as `probabilities` takes them.

        The most probable class by name; of several labels those that are on, by name; a number;
        the class of each position by name, or the token of each next one; the K first items of a
        ranking, best first, by name where they have names.

        Raises:
            DataError: As `probabilities` does.
            EvaluationError: The model predicts a class that the version has no name for.
        """
        predicted = self._task.predictions(self._outputs(inputs))
        names, kind = self.label_names, self._task.target_kind
        if kind in NAMED_KINDS:
            self._refuse_nameless(predicted, several=kind == "classes")
        found = predicted.tolist()
        if kind == "class":
            return [names[winner] for winner in found]
        if kind == "classes":
            return [[name for name, on in zip(names, row, strict=True) if on] for row in found]
        if kind == "tokens":
            return [[names[one] for one in row] for row in found]
        if kind == "item" and names:  # the first is no item
            return [[names[one] for one in row if one] for row in found]
        rows: list[Any] = found
        return rows

    def _refuse_nameless(self, predicted: Tensor, *, several: bool) -> None:
        known = len(self.label_names)
        if several:
            named = predicted.shape[-1] == known
        else:
            named = not predicted.numel() or int(predicted.max()) < known
        if not named:
            raise EvaluationError(
                f"The model predicts other classes than the {known} that {self.id} names.",
                where="predict",
                mend="restore the version from a copy, or train it on rows of every class",
            )

    def _outputs(self, inputs: Any) -> Tensor:
        import numpy as np
        import torch

        from perennial.data.datamodule import move
        from perennial.data.form import to_data
        from perennial.data.inputs import to_columns
        from perennial.data.preprocess.base import applied
        from perennial.data.rows import Rows

        columns = to_columns(inputs, self.schema, preprocess=self._preprocess)
        count = len(next(iter(columns.values())))
        none = np.zeros(count, dtype=np.str_)
        kind = self._task.target_kind
        # a sequence may be as long as it likes: what is given has no targets to be cut to
        label = np.zeros((count, 0) if kind == "tokens" else count, dtype=np.int64)
        rows = Rows(features=columns, label=label, id=none, content=none, cluster=none)
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        rows = applied(self._preprocess, rows)
        key = None if kind == "none" else self._task.arguments["label"]
        data = move(to_data(rows, form=self._form, label=key), device)
        with torch.no_grad():
            return self._task.outputs(self.model, data)


def load(
    ref: str, *, allow: Iterable[str | type] = (), url: str | None = None, files: str | None = None
) -> Predictor:
    """Load a version, ready to predict.

    A version names its model's class but is never trusted to choose what is imported: a class
    that is not Perennial's own is built only if it is allowed here.

    Args:
        ref: ``name@champion``, ``name@previous`` or ``name@3``.
        allow: Your own classes that may be built, or their import paths,
            ``my_package.models.Net``.
        url: Registry; by default the one under ``PERENNIAL_HOME``.
        files: Where the registry's files lie, if not beside its database.

    Raises:
        RegistryError: No such version, its class is not allowed or has changed, or its manifest is
            malformed.
        IntegrityError: A stored file was changed.
    """
    from perennial.data.preprocess import restored
    from perennial.models.checkpoint import version_weights
    from perennial.models.rebuild import rebuild
    from perennial.promotion.manifest import check_manifest
    from perennial.promotion.registry import Registry
    from perennial.tasks.by_kind import task_of

    registry = Registry(url=url or f"sqlite:///{home() / 'registry.db'}", files=files)
    version = registry.version(ref)
    check_manifest(version)
    allowed = [one if isinstance(one, str) else _path(one) for one in allow]
    model = rebuild(
        version.manifest["model"],
        weights=version_weights(version),
        allow=allowed,
        ref=version.id,
        how=f'perennial.load("{ref}", allow=["{{target}}"])',
    )
    columns, stored = version.manifest["columns"], version.manifest["task"]
    return Predictor(
        model=model,
        label_names=tuple(version.manifest["label_names"]),
        id=version.id,
        schema=version.manifest["schema"],
        form=columns["form"],
        task=task_of(stored["kind"], stored["arguments"], ref=version.id),
        preprocess=restored(
            version.manifest["preprocess"],
            lambda path: version.open(path).read_bytes(),
            allow=allowed,
            ref=version.id,
        ),
    )


def _shortened(names: Iterable[str]) -> str:
    shown = [name for name in names if name]
    return ", ".join(shown[:10]) + (f", … ({len(shown):,})" if len(shown) > 10 else "")


def _path(allowed: type) -> str:
    return f"{allowed.__module__}.{allowed.__qualname__}"
