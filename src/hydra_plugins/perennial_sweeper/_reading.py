"""From Hydra's override grammar to a search space, and back to words of a command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)

from perennial.errors import ConfigError
from perennial.sweeping.space import Parameter, Value

OWN = ("sweep", "trial")


def read(overrides: Sequence[Override]) -> tuple[list[str], list[Parameter]]:
    """What all trials share, as overrides, and what is searched.

    Settings of the sweep itself are in neither.

    Raises:
        ConfigError: A setting of the sweep has several values, or a tag is not known.
    """
    fixed, space = [], []
    for one in overrides:
        key = one.get_key_element().lstrip("+~")
        own = key in OWN or key.startswith("sweep.")
        if own and one.is_sweep_override():
            raise ConfigError(
                f"{key} has several values, and a sweep has one.",
                where=key,
                mend="run one sweep for each",
            )
        if one.is_sweep_override():
            space.append(parameter(one))
        elif not own:
            fixed.append(str(one.input_line))
    return fixed, space


def parameter(override: Override) -> Parameter:
    """One override with several values, or with bounds."""
    name, value = override.get_key_element(), override.value()
    if getattr(value, "shuffle", False):
        raise ConfigError(
            f"{name} is shuffled, which a search does by its own seed.",
            where=name,
            mend="list its values without shuffle; sweep.sampler=random draws them in any order",
        )
    if override.is_choice_sweep():
        return Parameter(name=name, choices=tuple(override.sweep_string_iterator()))
    assert isinstance(value, RangeSweep | IntervalSweep)
    odd = sorted(set(value.tags) - {"log"})
    if odd or (value.tags and isinstance(value, RangeSweep)):
        raise ConfigError(
            f"{name} has the tag {', '.join(odd) or 'log'!r}.",
            where=name,
            mend="the one tag is log, of an interval: tag(log,interval(1e-4,1e-2))",
        )
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return Parameter(
            name=name,
            low=value.start,
            high=value.end,
            log="log" in value.tags,
            integer=isinstance(value.start, int) and isinstance(value.end, int),
            step=1.0 if _whole(value) and "log" not in value.tags else None,
        )
    return _range(name, value)


def _range(name: str, value: RangeSweep) -> Parameter:
    """Ends and step of a range, which is never listed: it may be long.

    In decimals, as it was written: in binary 0.1 + 0.1 + 0.1 is no multiple of 0.1.
    """
    assert value.start is not None
    assert value.stop is not None
    start, stop, step = (Decimal(str(one)) for one in (value.start, value.stop, value.step))
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ConfigError(
            f"{name} is a range without a value.", where=name, mend="write range(start,stop,step)"
        )
    ends = sorted([start, start + step * (count - 1)])
    whole = all(isinstance(one, int) for one in (value.start, value.stop, value.step))
    low, high = (int(one) if whole else float(one) for one in ends)
    return Parameter(name=name, low=low, high=high, step=float(abs(step)), integer=whole)


def for_trials(words: Sequence[str]) -> list[str]:
    """A command's words without whom to tell: a trial tells nobody, and addresses are secrets."""
    keys = [word.lstrip("+~").partition("=")[0] for word in words]
    return [
        word
        for word, key in zip(words, keys, strict=True)
        if key != "notify" and not key.startswith("notify.")
    ]


def quoted(value: object) -> str:
    """A text as an override's value, whatever is in it."""
    return str(QuotedString(text=str(value), quote=Quote.single).with_quotes())


def first(space: Sequence[Parameter]) -> dict[str, Value]:
    """One point of a space, to see whether its settings exist at all."""
    return {one.name: one.first for one in space}


def _whole(value: IntervalSweep) -> bool:
    return isinstance(value.start, int) and isinstance(value.end, int)
