"""A checkpoint's names and the model's: prefixes that wrappers add, and tied weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from perennial.errors import CheckpointError, shortened


def renamed(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The renaming under which most names agree.

    That is none, a prefix off, a prefix on, or one off and another on where every name of the model
    is met so.

    Args:
        weights: As read.
        wanted: The model's.

    Raises:
        CheckpointError: Several models that fit lie beside each other.
    """
    candidates = [
        dict(weights),
        *(_without(weights, prefix) for prefix in _prefixes(weights, wanted)),
        *({f"{p}{n}": v for n, v in weights.items()} for p in _prefixes(wanted, weights)),
        *_exchanged(weights, wanted),
    ]
    # stable: of equal ones the first, which changes least
    candidates.sort(key=lambda one: (len(one.keys() & wanted.keys()), len(one)), reverse=True)
    best = candidates[0]
    rivals = [
        other
        for other in candidates[1:]
        if other.keys() == best.keys() and any(other[name] is not best[name] for name in best)
    ]
    if best.keys() & wanted.keys() and rivals:
        raise CheckpointError(
            "The checkpoint holds several models that fit: which one is meant is not clear.",
            where=shortened(", ".join(sorted({name.partition(".")[0] for name in weights}))),
            mend="save the state_dict of the one that serves, and adopt that",
        )
    return best


def unused(weights: Mapping[str, Tensor], taken: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that are not among those taken."""
    kept = {id(value) for value in taken.values()}
    return sorted(name for name, value in weights.items() if id(value) not in kept)


def with_tied(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with those filled in that a checkpoint leaves out since the model ties them.

    Hugging Face's ``save_pretrained`` stores one of several names of a weight.

    Args:
        found: Under the model's names.
        wanted: The model's; what is tied shares its memory.

    Raises:
        CheckpointError: Tied names have different values.
    """
    filled = dict(found)
    for names in _tied(wanted):
        given = [name for name in names if name in found]
        for name in given[1:]:
            if not _equal(found[name], found[given[0]]):
                raise CheckpointError(
                    f"The model ties {given[0]!r} and {name!r}, and the checkpoint holds different "
                    "values for them.",
                    where=name,
                    mend="build the model without the tie, as it was when it was saved "
                    "(tie_word_embeddings in a Hugging Face configuration)",
                )
        if given:
            filled.update({name: found[given[0]] for name in names if name not in found})
    return filled


def _prefixes(longer: Iterable[str], shorter: Mapping[str, Tensor]) -> list[str]:
    """What stands before a name of ``shorter`` in one of ``longer``, ending in a dot."""
    # no more of a name is looked at than could agree: it may be as long as a file
    most = max(map(len, shorter), default=0)
    found = set()
    for name in longer:
        at = name.find(".", max(len(name) - most - 1, 0))
        while at >= 0:
            if name[at + 1 :] in shorter:
                found.add(name[: at + 1])
            at = name.find(".", at + 1)
    return sorted(found)


def _exchanged(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[dict[str, Tensor]]:
    """Each renaming that takes a prefix off and puts on one that all names of the model begin with.

    Only those that give every name of the model: elsewhere a part of it would agree by chance.
    """
    found = []
    for put in _common(wanted):
        rest = [name[len(put) :] for name in wanted]
        for off in _prefixes(weights, {max(rest, key=len): next(iter(wanted.values()))}):
            if all(f"{off}{name}" in weights for name in rest):
                found.append({f"{put}{n}": v for n, v in _without(weights, off).items()})
    return found


def _common(names: Iterable[str]) -> list[str]:
    """The prefixes, ending in a dot, that all names begin with."""
    given = list(names)
    first = min(given, default="")
    prefixes = [first[: at + 1] for at, letter in enumerate(first) if letter == "."]
    return [one for one in prefixes if all(name.startswith(one) for name in given)]


def _without(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}


def _tied(wanted: Mapping[str, Tensor]) -> list[list[str]]:
    places: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, value in wanted.items():
        if value.numel() and value.data_ptr():
            places[value.data_ptr(), value.shape, value.stride(), value.dtype].append(name)
    return [names for names in places.values() if len(names) > 1]


def _equal(left: Tensor, right: Tensor) -> bool:
    same = left.shape == right.shape and left.dtype == right.dtype
    return left is right or (same and bool((left == right).logical_or_(left != left).all()))
