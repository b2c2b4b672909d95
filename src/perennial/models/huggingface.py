"""Models of ``transformers``, from a folder or the hub; a version needs neither again.

Shapes: B rows, L tokens, D width of the encoder.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perennial.errors import ConfigError, first_line
from perennial.models.hub import without_retries
from perennial.paths import folder_of

ENCODER = "AutoModel"
WITH_LOGITS = (
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
    "AutoModelForMaskedLM",
)
POOLINGS = ("mean", "first")
MOST = 1 << 16  # layers, heads and labels of a configuration


class HuggingFace(nn.Module):
    """A pretrained model with logits of its own, or a plain encoder under a small head of ours.

    Args:
        path: Folder with config.json and weights, hub id ``org/name``, or
            ``package:NAME/FOLDER`` for a folder inside an installed package.
        auto: The class of transformers that builds it: one of `WITH_LOGITS`, or ``AutoModel`` with
            a pooling.
        classes: Outputs; None takes the model's own.
        pooling: Of the encoder's last states: their mean over real tokens (``mean``), or that of
            the first token (``first``). None where the model gives logits.
        revision: Branch, tag or commit on the hub.
        config: The model's configuration as plain values; given, nothing is read from ``path``, and
            weights are random until they are loaded.

    Raises:
        ConfigError: transformers is not installed, the model cannot be read, or settings contradict
            each other.
    """

    def __init__(
        self,
        *,
        path: str,
        auto: str = WITH_LOGITS[0],
        classes: int | None = None,
        pooling: str | None = None,
        revision: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check(auto, pooling, classes)
        self.pooling = pooling
        own = {"num_labels": classes} if classes and pooling is None else {}
        if config is None:
            self.model = _pretrained(path, auto=auto, revision=revision, settings=own)
        else:
            self.model = _empty(auto, plain_config(config))
        if pooling is not None:
            assert classes is not None
            if isinstance(getattr(self.model, "pooler", None), nn.Module):
                self.model.pooler = nn.Identity()  # pretrained for another task, and not used
            self.output = nn.Linear(_width(self.model), classes)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits, (B, classes) or (B, L, classes), of the columns by name.

        Raises:
            ConfigError: The mean is asked for, and there is no ``attention_mask`` to take it by.
        """
        result = self.model(**inputs)
        if self.pooling is None:
            logits: Tensor = result.logits
            return logits
        states: Tensor = result.last_hidden_state
        if self.pooling == "first":
            pooled = states[:, 0]
        elif "attention_mask" in inputs:
            real = inputs["attention_mask"].to(states.dtype).unsqueeze(2)
            pooled = (states * real).sum(dim=1) / real.sum(dim=1).clamp_min(1)
        else:
            raise ConfigError(
                "The mean over tokens needs attention_mask among the columns.",
                where="model.pooling, data.features",
                mend="give attention_mask with input_ids, or model.pooling=first",
            )
        pooled_logits: Tensor = self.output(pooled)
        return pooled_logits

    def recorded(self) -> dict[str, Any]:
        """The configuration, with which the constructor reads nothing from ``path``."""
        config: Any = self.model.config
        text = config.to_json_string(use_diff=True)
        return {"config": plain_config(json.loads(text))}


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what names code, kernels or places to get them from.

    A version's manifest is not trusted: of these keys transformers would download, and run.
    """
    named = ("auto_map", "quantization_config", "custom_pipelines", "use_kernels", "name_or_path")
    return {
        key: plain_config(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not (key.startswith("_") or key in named or key.endswith("_implementation"))
    }


def _check(auto: str, pooling: str | None, classes: int | None) -> None:
    if auto not in (ENCODER, *WITH_LOGITS):
        raise ConfigError(
            f"model.auto is {auto!r}.",
            where="model.auto",
            mend=f"use {', '.join(WITH_LOGITS)}, or {ENCODER} with a pooling",
        )
    if pooling is not None and pooling not in POOLINGS:
        raise ConfigError(
            f"model.pooling is {pooling!r}.",
            where="model.pooling",
            mend=f"use {' or '.join(POOLINGS)}, or null",
        )
    if (auto == ENCODER) != (pooling is not None):
        raise ConfigError(
            f"{auto} {'gives states and no logits' if pooling is None else 'has its own head'}.",
            where="model.auto, model.pooling",
            mend=f"use auto={ENCODER} with pooling=mean, or another class without a pooling",
        )
    if pooling is not None and (classes is None or classes < 1):
        raise ConfigError(
            "A head over an encoder needs its number of outputs.",
            where="model.classes",
            mend="give model.classes",
        )
    if classes is not None and auto.endswith("LM"):
        raise ConfigError(
            f"{auto} has its vocabulary as outputs.",
            where="model.classes",
            mend="leave model.classes null",
        )


def _pretrained(
    path: str, *, auto: str, revision: str | None, settings: Mapping[str, Any]
) -> nn.Module:
    factory = getattr(_transformers(), auto)
    folder = folder_of(path, where="model.path")
    _refuse_misspelt(folder)
    try:
        with _quiet(), without_retries():
            model: nn.Module = factory.from_pretrained(
                folder,
                revision=revision or "main",
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=bool(settings),
                **settings,
            )
    except Exception as error:
        # what lies there is foreign: whatever transformers raises is the reason
        reason = first_line(error)
        raise ConfigError(
            f"No {auto} could be read: {reason}",
            where=f"model.path={path}",
            mend="give a folder with config.json and model.safetensors, or a hub id org/name that "
            "is in the local cache or within reach (HF_HUB_OFFLINE, HF_ENDPOINT)",
        ) from error
    return model


def _refuse_misspelt(path: str) -> None:
    """A bare name that is no folder, beside a folder of a model with nearly that name."""
    if Path(path).exists() or "/" in path or _is_cached(path):
        return
    folders = [one.parent.name for one in Path().glob("*/config.json")]
    if close := difflib.get_close_matches(path, folders, n=1):
        raise ConfigError(
            f"There is no folder {path!r}.",
            where=f"model.path={path}",
            mend=f"did you mean {close[0]}? A model of the hub is named org/name",
        )


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no name that the hub could have
        return False


def _empty(auto: str, config: Mapping[str, Any]) -> nn.Module:
    library = _transformers()
    _refuse_absurd(config)
    settings = {key: value for key, value in config.items() if key != "model_type"}
    built = library.AutoConfig.for_model(str(config["model_type"]), **settings)
    with _quiet():
        model: nn.Module = getattr(library, auto).from_config(
            built, trust_remote_code=False, dtype=torch.float32
        )
    return model


def _refuse_absurd(config: Mapping[str, Any]) -> None:
    """Refuse counts of which transformers would make a list before there is any layer."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            _refuse_absurd(value)
        counts = name.startswith("num_") or "layer" in name
        if counts and isinstance(value, int | float) and value > MOST:
            raise ConfigError(
                f"The configuration's {name} is {value}.",
                where="model.config",
                mend=f"give at most {MOST:,}",
            )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "This model needs transformers, which is not installed.",
            where="model",
            mend="pip install 'perennial[hf]'",
        ) from error
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and the list of weights that a head of ours replaces."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _width(model: nn.Module) -> int:
    config: Any = model.config
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    if width is None:
        raise ConfigError(
            f"The width of {type(model).__name__} is not known.",
            where="model.pooling",
            mend="use a class with logits of its own",
        )
    return int(width)
