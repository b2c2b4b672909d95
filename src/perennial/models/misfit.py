"""Why a checkpoint does not fit a model, as far as names and shapes tell."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_COUNTER = ".num_batches_tracked"
_LEAST_COPY = 2  # names that a copy has in common with the model before it is called one


def cause(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The likely cause, and how to mend it.

    Args:
        found: The checkpoint's, under the model's names as far as they agree.
        wanted: The model's.
    """
    wrong = [n for n, value in wanted.items() if n in found and found[n].shape != value.shape]
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    if len(missing) == len(wanted):
        return "no name agrees: the checkpoint is of another model class (model._target_)"
    if wrong:
        return _of_shapes(wrong, found, wanted)
    if missing and not extra and all(f".{name}".endswith(_COUNTER) for name in missing):
        return (
            "only the counts of batches are missing, as in checkpoints of torch before 0.4.1: load "
            "it into the model with strict=False, and save its state_dict"
        )
    if not missing and (copy := _copy(extra, wanted)):
        return (
            f"what lies under {copy!r} mirrors the model, as averaged weights (EMA) do: save the "
            "state_dict of the one that serves, alone"
        )
    return "the model was changed since: build the one that was saved (model.*)"


def _of_shapes(wrong: list[str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    theirs, ours = (found[wrong[0]].shape[:1], wanted[wrong[0]].shape[:1])
    layer = wrong[0].rpartition(".")[0]
    whole = [name for name in wanted if name.rpartition(".")[0] == layer]
    # one layer has another number of rows, and each of its tensors has that number
    rows = [(found[n].shape[:1], wanted[n].shape[:1]) for n in wrong] == [(theirs, ours)] * len(
        wrong
    )
    alike = all(found[name].shape[1:] == wanted[name].shape[1:] for name in wrong)
    if not (theirs and ours and rows and alike and set(whole) == set(wrong)):
        return "give the model the arguments it was trained with (model.* in --cfg job)"
    matrices = [name for name, value in wanted.items() if value.ndim >= 2]
    if matrices and matrices[-1] in wrong:
        return (
            f"the last layer, {layer}, has {theirs[0]} outputs in the checkpoint and {ours[0]} in "
            "the model: another number of classes"
        )
    return (
        f"{layer} alone differs, with {theirs[0]} rows in the checkpoint and {ours[0]} in the "
        "model: another number of classes, where it gives the outputs, or of tokens, items or "
        "categories, where it is an embedding (model.*)"
    )


def _copy(extra: list[str], wanted: Mapping[str, Tensor]) -> str | None:
    """The first part of names that are there once more, under another prefix."""
    tops: dict[str, list[str]] = {}
    for name in extra:
        tops.setdefault(name.partition(".")[0], []).append(name)
    endings = {name.partition(".")[2] for name in wanted} | set(wanted)
    for top, names in tops.items():
        met = sum(_ends(name, endings) for name in names)
        if met >= min(_LEAST_COPY, len(endings)) and 2 * met > len(names):
            return f"{top}."
    return None


def _ends(name: str, endings: set[str]) -> bool:
    """Whether what is left of a name, one or two parts off, is among the endings."""
    once = name.partition(".")[2]
    return once in endings or once.partition(".")[2] in endings
