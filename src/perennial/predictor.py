"""How a promoted version is used: loaded from the registry, ready to predict.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from perennial.paths import home

if TYPE_CHECKING:
    from torch import Tensor, nn


class Predictor:
    """A version's model in evaluation mode, with its label names.

    Attributes:
        model: The module itself.
        label_names: Class names in the order of its outputs.
        id: ``name@number``.
    """

    def __init__(self, *, model: nn.Module, label_names: tuple[str, ...], id: str) -> None:
        self.model = model.eval()
        self.label_names = label_names
        self.id = id

    def probabilities(self, inputs: Any) -> Tensor:
        """Class probabilities (N, C) of inputs as the model's forward takes them.

        Args:
            inputs: A tensor or array (N, ...), or a mapping of them by argument name.
        """
        import torch

        with torch.no_grad():
            if isinstance(inputs, Mapping):
                outputs = self.model(**{k: _tensor(v) for k, v in inputs.items()})
            else:
                outputs = self.model(_tensor(inputs))
        return torch.softmax(getattr(outputs, "logits", outputs).float(), dim=1)

    def predict(self, inputs: Any) -> list[str]:
        """The most probable class of each row, by name."""
        winners: list[int] = self.probabilities(inputs).argmax(dim=1).tolist()
        return [self.label_names[winner] for winner in winners]


def load(
    ref: str, *, allow: Iterable[str] = (), url: str | None = None, files: str | None = None
) -> Predictor:
    """Load a version, ready to predict.

    A version names its model's class but is never trusted to choose what is imported: a class
    that is not Perennial's own is built only if it is allowed here.

    Args:
        ref: ``name@champion``, ``name@previous`` or ``name@3``.
        allow: Import paths of your own classes that may be built, ``my_package.models.Net``.
        url: Registry; by default the one under ``PERENNIAL_HOME``.
        files: Where the registry's files lie, if not beside its database.

    Raises:
        RegistryError: No such version, or its class is not allowed or has changed.
        IntegrityError: A stored file was changed.
    """
    from perennial.models.checkpoint import read_safetensors
    from perennial.models.rebuild import put_weights, rebuild
    from perennial.promotion.registry import Registry

    registry = Registry(url=url or f"sqlite:///{home() / 'registry.db'}", files=files)
    version = registry.version(ref)
    model = rebuild(
        version.manifest["model"],
        allow=allow,
        ref=version.id,
        how=f'perennial.load("{ref}", allow=["{{target}}"])',
    )
    put_weights(model, read_safetensors(version.open("model.safetensors")), ref=version.id)
    return Predictor(model=model, label_names=tuple(version.manifest["label_names"]), id=version.id)


def _tensor(values: Any) -> Tensor:
    import numpy as np
    import torch

    # a copy: arrays from Arrow are read-only, and a tensor would promise otherwise
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
