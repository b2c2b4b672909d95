"""The contract of a preprocessor, and how its fitted state travels with a version.

Shapes: N rows; a column is (N, ...).
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from perennial.data.columns import TEXT
from perennial.data.images import seen
from perennial.data.rows import Rows
from perennial.errors import ConfigError, RegistryError

Column = npt.NDArray[Any]
Features = Mapping[str, Column]

# by exact name: what a module of ours merely holds beside them, a version must not name
OURS = frozenset(
    {
        "perennial.data.preprocess.lists.Lists",
        "perennial.data.preprocess.sequence.Sequence",
        "perennial.data.preprocess.table.Table",
        "perennial.data.preprocess.text.Text",
    },
)


class Preprocessor(Protocol):
    """Raw columns to model inputs.

    ``type(self)(**self.settings)``, followed by `load`, has to give it again.

    Attributes:
        columns: Feature columns that it takes, in order; None for all that have no other purpose.
        settings: Arguments as plain values; a lineage is held to them.
    """

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Feature columns, or None."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments that a lineage is held to."""
        ...

    def kind(self, column: str, nature: str) -> str:
        """How a column is read.

        Args:
            column: Its name.
            nature: What its values are: ``text``, ``number``, or ``other``.

        Returns:
            ``number`` (float, NaN where missing), ``category`` (text, empty where missing),
            ``text``, ``sequence`` (names, of which a row may have none), ``list`` (numbers, in
            each row as many as there are), or ``fixed``: numbers of
            one shape a row, none missing.
        """
        ...

    def fit(self, features: Features) -> None:
        """Learn from raw columns (N, ...) of training rows."""
        ...

    def knowing(self, label_names: Sequence[str]) -> Preprocessor:
        """The same where the lineage knows these classes or items; itself where that is nothing.

        Args:
            label_names: All of them in the order of their positions, the newest last.
        """
        ...

    def apply(self, features: Features) -> dict[str, Column]:
        """Raw columns (N, ...) to numeric model inputs (N, ...), row by row."""
        ...

    def notes(self, features: Features, *, name: str) -> list[str]:
        """Lines for the user about rows that the fitted state does not know.

        Args:
            features: Raw columns (N, ...).
            name: Of their source.
        """
        ...

    def fills(self) -> dict[str, Any]:
        """Arguments that a model's constructor may leave to it, such as ``cardinalities``."""
        ...

    def state(self) -> dict[str, Any]:
        """What was fitted, as plain JSON values."""
        ...

    def files(self) -> dict[str, bytes]:
        """What was fitted or given, as files by name."""
        ...

    def load(self, state: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Take what `state` and `files` gave."""
        ...


def fitted(
    preprocess: Preprocessor | None, features: Features, label_names: Sequence[str] = ()
) -> Preprocessor | None:
    """A preprocessor fitted on training rows; the one that is given stays as it is.

    Args:
        preprocess: As declared.
        features: Raw columns (N, ...) of the training rows that found the lineage.
        label_names: The classes or items of all rows that found it.
    """
    if preprocess is None:
        return None
    own = copy.deepcopy(preprocess)
    own.fit(features)
    return own.knowing(label_names)


def applied(preprocess: Preprocessor | None, rows: Rows) -> Rows:
    """Rows with model inputs in the place of their raw columns.

    Raises:
        DataError: An encoded image cannot be read.
    """
    features = seen(rows)
    return replace(rows, features=features if preprocess is None else preprocess.apply(features))


def nature(kind: str) -> str:
    """What the values of a column are, by its dtype and shape, ``float32 ()``: see `Preprocessor`.

    Examples:
        >>> nature("str ()"), nature("int64 ()"), nature("uint8 (1, 28, 28)")
        ('text', 'number', 'other')
    """
    dtype, _, shape = kind.partition(" ")
    if dtype == "str":
        return "text"
    return "number" if shape == "()" else "other"


def describe(preprocess: Preprocessor | None) -> dict[str, Any] | None:
    """A fitted preprocessor as a version's manifest keeps it."""
    if preprocess is None:
        return None
    return {
        "target": _path(preprocess),
        "arguments": preprocess.settings,
        "state": preprocess.state(),
        "files": sorted(preprocess.files()),
    }


def restored(
    described: Mapping[str, Any] | None,
    read: Callable[[str], bytes],
    *,
    allow: Iterable[str] = (),
    ref: str,
) -> Preprocessor | None:
    """A version's preprocessor.

    A version is not trusted: of the project's own classes those in `OURS` are built, of arguments
    that their `settings` hold, so that all they read is what ``read`` gives.

    Args:
        described: As `describe` gave it.
        read: A file of the version by its path.
        allow: Import paths of the user's own classes that may be built.
        ref: The version, for messages.

    Raises:
        RegistryError: The class is not allowed or not there, or takes other arguments or state.
    """
    if described is None:
        return None
    target = str(described["target"])
    if target not in {*OURS, *allow}:
        raise RegistryError(
            f"{ref} preprocesses by {target}, which is not built unless you allow it.",
            where=ref,
            mend=f'name it, if you trust it: perennial.load(..., allow=["{target}"]), '
            f"allow=[{target}], or data.preprocess._target_",
        )
    module, _, name = target.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), name)
        is_preprocessor = inspect.isclass(found) and hasattr(found, "load")
        if not is_preprocessor:
            raise TypeError("it is no class of a preprocessor")
        arguments = described["arguments"]
        if target in OURS and (odd := sorted(arguments.keys() - found().settings.keys())):
            raise ValueError(f"it takes no {odd[0]!r} from a version")
        preprocess: Preprocessor = found(**arguments)
        files = {one: read(f"preprocess/{one}") for one in described["files"]}
        preprocess.load(described["state"], files)
    except (
        ImportError, AttributeError, TypeError, ValueError, KeyError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise RegistryError(
            f"The preprocessing of {ref}, {target}, cannot be restored: {error}.",
            where=ref,
            mend="use the code that the version was trained with",
        ) from error
    return preprocess


def check_same(
    given: Preprocessor | None, stored: Preprocessor | None, *, ref: str, where: str
) -> None:
    """Refuse a declared preprocessor that is not the one a version was trained with.

    Args:
        given: As the configuration declares it, not fitted.
        stored: As the version keeps it.
        ref: The version, for messages.
        where: The setting, for messages.

    Raises:
        ConfigError: Names what differs.
    """
    name = ref.partition("@")[0]
    mend = f"declare it as the lineage does, or found another one with model_name={name}-2"
    if given is None or stored is None:
        if given is not stored:
            raise ConfigError(
                f"{ref} was trained {_shown(stored)}, and now the rows come {_shown(given)}.",
                where=where,
                mend=mend,
            )
        return
    then: Mapping[str, Any] = {"_target_": _path(stored), **stored.settings}
    now: Mapping[str, Any] = {"_target_": _path(given), **given.settings}
    for key in dict.fromkeys([*then, *now]):
        if then.get(key) != now.get(key):
            raise ConfigError(
                f"{ref} was trained with {key}={then.get(key)}, and now it is {now.get(key)}; what "
                "was fitted to the founding rows stays for the lineage's life.",
                where=f"{where}.{key}",
                mend=mend,
            )
    kept = stored.files()
    for one, content in given.files().items():
        if kept.get(one) != content:
            raise ConfigError(
                f"{one} is not the one that {ref} was trained with.", where=where, mend=mend
            )


def setting_of(preprocess: Preprocessor, column: str) -> tuple[str, bool]:
    """The setting that names a column, ``data.preprocess.column`` say, and whether it is a list."""
    for key, value in preprocess.settings.items():
        listed = isinstance(value, list | tuple)
        if value == column or (listed and column in value):
            return f"data.preprocess.{key}", listed
    return "data.preprocess", False


def refuse_lacking(preprocess: Preprocessor, features: Sequence[str] | None) -> None:
    """Refuse features that leave out what a preprocessor takes.

    Raises:
        ConfigError: Names the columns.
    """
    columns = preprocess.columns or ()
    lacking = [name for name in columns if features is not None and name not in features]
    if not lacking or features is None:
        return
    setting, listed = setting_of(preprocess, lacking[0])
    others = [name for name in features if name not in columns]
    instead = others[0] if len(others) == 1 else "NAME"
    raise ConfigError(
        f"data.preprocess takes {', '.join(lacking)}, which data.features leaves out.",
        where=f"data.features, {setting}",
        mend=f"leave data.features out and set {setting}={f'[{instead}]' if listed else instead} "
        "where the column has another name, or add what is left out",
    )


def as_text(values: Column) -> Column:
    """A column of category names or texts (N,) as `TEXT`, whatever strings it came as."""
    return values if values.dtype == TEXT else np.asarray(values).astype(TEXT)


def _path(preprocess: Preprocessor) -> str:
    return f"{type(preprocess).__module__}.{type(preprocess).__qualname__}"


def _shown(preprocess: Preprocessor | None) -> str:
    return "without preprocessing" if preprocess is None else f"through {_path(preprocess)}"
