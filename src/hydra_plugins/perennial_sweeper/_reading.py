"""From Hydra's override grammar to a search space, and back to words of a command line."""

from __future__ import annotations

from collections.abc import Sequence

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
    found = sorted(value.range())
    if not found:
        raise ConfigError(
            f"{name} is a range without a value.", where=name, mend="write range(start,stop,step)"
        )
    return Parameter(
        name=name,
        low=found[0],
        high=found[-1],
        step=float(abs(value.step or 1)),
        integer=all(isinstance(one, int) for one in found),
    )


def quoted(value: object) -> str:
    """A text as an override's value, whatever is in it."""
    return str(QuotedString(text=str(value), quote=Quote.single).with_quotes())


def first(space: Sequence[Parameter]) -> dict[str, Value]:
    """One point of a space, to see whether its settings exist at all."""
    return {
        one.name: one.values[0] if one.values else (int(one.low) if one.integer else one.low)
        for one in space
    }


def _whole(value: IntervalSweep) -> bool:
    return isinstance(value.start, int) and isinstance(value.end, int)
