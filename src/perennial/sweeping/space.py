"""What a sweep searches: parameters with their values or bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from perennial.errors import ConfigError

Value = str | int | float
# a grid of more trainings than this is a slip of the pen, and its list may not fit into memory
GRID = 10_000


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting that is searched.

    Attributes:
        name: Its key, as an override has it.
        choices: Values in an override's own words, where it has any.
        low: Lowest value of a range or an interval.
        high: Highest value, itself included.
        step: Distance of the values of a range; None for an interval.
        log: Whether an interval is drawn on a logarithmic scale.
        integer: Whether values are whole numbers.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        good = bool(self.choices) or self.low <= self.high
        if not good or (self.log and self.low <= 0):
            raise ConfigError(
                f"{self.name} is searched from {self.low:g} to {self.high:g}"
                f"{' on a logarithmic scale' if self.log else ''}.",
                where=self.name,
                mend="give the lower end first, above 0 for tag(log,...)",
            )

    @property
    def size(self) -> int | None:
        """How many different values it has; None for an interval, which has no end of them."""
        if self.choices:
            return len(set(self.choices))
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    @property
    def values(self) -> Sequence[Value] | None:
        """All its values in their order; None for an interval."""
        if self.choices:
            return self.choices
        if self.step is None or self.size is None:
            return None
        if self.integer:  # listed as one asks for them: there may be a thousand million
            return range(int(self.low), int(self.high) + 1, int(self.step))
        return tuple(round(self.low + self.step * place, 12) for place in range(self.size))

    @property
    def first(self) -> Value:
        """One of its values."""
        if self.choices:
            return self.choices[0]
        return int(self.low) if self.integer else self.low


def points(space: Sequence[Parameter]) -> list[dict[str, Value]]:
    """Every combination, the last parameter changing first.

    Raises:
        ConfigError: An interval has no end of values, or there are too many.

    >>> points([Parameter(name="a", choices=("1", "2")), Parameter(name="b", choices=("x",))])
    [{'a': '1', 'b': 'x'}, {'a': '2', 'b': 'x'}]
    """
    for one in space:
        if one.values is None:
            raise ConfigError(
                f"A grid has no values for {one.name}, which is an interval.",
                where=f"sweep.sampler=grid, {one.name}",
                mend=f"list values, {one.name}=A,B,C, or use sweep.sampler=random or tpe",
            )
    count = size(space)
    assert count is not None
    if count > GRID:
        raise ConfigError(
            f"This grid has {count:,} points; at most {GRID:,} are tried one by one.",
            where="sweep.sampler=grid",
            mend="list fewer values, or use sweep.sampler=random or tpe",
        )
    names = [one.name for one in space]
    found = itertools.product(*(one.values or () for one in space))
    return [dict(zip(names, point, strict=True)) for point in found]


def size(space: Sequence[Parameter]) -> int | None:
    """Number of combinations; None where an interval makes them endless."""
    sizes = [one.size for one in space]
    return None if None in sizes else math.prod(count for count in sizes if count is not None)


def describe(space: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Plain values, the same for the same space."""
    return [{**asdict(one), "choices": list(one.choices)} for one in space]


def overrides(params: Mapping[str, Value]) -> list[str]:
    """The words of a command line that set them.

    >>> overrides({"optimizer.lr": 0.001, "method": "ewc"})
    ['optimizer.lr=0.001', 'method=ewc']
    """
    return [f"{name}={value}" for name, value in params.items()]


def shown(value: Value) -> str:
    """A value as a person reads it.

    >>> shown(0.3842539614), shown(100), shown("ewc")
    ('0.3843', '100', 'ewc')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_space(
    space: Sequence[Parameter],
    *,
    sampler: str,
    promises: Sequence[str],
    free: Sequence[str] = (),
) -> None:
    """Refuse a space that a sampler cannot search.

    Args:
        space: As read from the command line.
        sampler: See `perennial.sweeping.settings.Sweep`.
        promises: Prefixes of keys that all trials share.
        free: Those below them that trials may differ in.

    Raises:
        ConfigError: There is nothing to search, or it is not to be searched.
    """
    if sampler == "mix":
        if space:
            raise ConfigError(
                f"sweep=mix searches method.replay.new_fraction alone, not {space[0].name}.",
                where=space[0].name,
                mend=f"give {space[0].name} one value, or use sweep=optuna",
            )
        return
    if not space:
        raise ConfigError(
            "There is nothing to search: every setting has one value.",
            where="command line",
            mend="give a setting several, such as method.replay.new_fraction=0.1,0.2 or "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))'",
        )
    for one in space:
        if _below(one.name, promises) and not _below(one.name, free):
            raise ConfigError(
                f"{one.name} cannot be searched: trials are compared on the same rows, against "
                "one champion.",
                where=one.name,
                mend="run one sweep for each",
            )
    if sampler == "grid":
        points(space)


def _below(name: str, keys: Sequence[str]) -> bool:
    """Whether an override's key, with its signs and package, is one of these or lies below it."""
    bare = name.lstrip("+~").partition("@")[0].replace("/", ".")
    return any(bare == key or bare.startswith(f"{key}.") for key in keys)
