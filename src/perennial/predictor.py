"""How a promoted version is used: loaded from the registry, ready to predict.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from perennial.errors import RegistryError
from perennial.paths import home

if TYPE_CHECKING:
    from torch import Tensor, nn

OURS = "perennial.models."


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
        RegistryError: No such version, or its class is not allowed.
        IntegrityError: A stored file was changed.
    """
    from perennial.models.checkpoint import read_safetensors
    from perennial.promotion.registry import Registry

    registry = Registry(url=url or f"sqlite:///{home() / 'registry.db'}", files=files)
    version = registry.version(ref)
    target = str(version.manifest["model"]["target"])
    if not target.startswith(OURS) and target not in set(allow):
        raise RegistryError(
            f"{version.id} is a {target}, which is not built unless you allow it.",
            where=ref,
            mend=f'perennial.load("{ref}", allow=["{target}"]), if you trust that class',
        )
    module, _, name = target.rpartition(".")
    model = getattr(importlib.import_module(module), name)(**version.manifest["model"]["arguments"])
    model.load_state_dict(dict(read_safetensors(version.open("model.safetensors"))))
    return Predictor(model=model, label_names=tuple(version.manifest["label_names"]), id=version.id)


def _tensor(values: Any) -> Tensor:
    import numpy as np
    import torch

    # a copy: arrays from Arrow are read-only, and a tensor would promise otherwise
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
