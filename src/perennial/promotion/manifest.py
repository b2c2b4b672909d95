"""What a version's manifest must hold before anything is built of it.

A registry may be shared, and what lies in it is data: of any shape until it has been looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from perennial.errors import RegistryError
from perennial.promotion.records import Version
from perennial.types import TARGET_KINDS

_DTYPE = r"str|bool|u?int(8|16|32|64)|float(16|32|64)"
_KIND = re.compile(rf"(image |list )?({_DTYPE}) \((\d{{1,18}}(, \d{{1,18}})*,?)?\)")
_SHOWN = 80
_NOTHING = object()


def check_manifest(version: Version) -> None:
    """Refuse a version whose model, task, columns or preprocessing are not described as they are.

    Only form is checked here; what a constructor takes it checks itself, where it is built.

    Raises:
        RegistryError: Names the entry.
    """
    for path, (is_right, words) in _REQUIRED.items():
        try:
            found = _at(version.manifest, path)
        except KeyError:
            told = "missing"
        else:
            if found is _NOTHING or is_right(found):
                continue
            told = repr(found)[:_SHOWN]
        raise RegistryError(
            f"The manifest of {version.id} is malformed: {path.replace('?', '')} is {told}; it "
            f"must be {words}.",
            where=version.id,
            mend="restore the version from a copy",
        )


def _at(manifest: Any, path: str) -> Any:
    """The entry at a dotted path, `_NOTHING` where a part marked ``?`` is left out or null.

    Raises:
        KeyError: There is none.
    """
    found = manifest
    for part in path.split("."):
        name, optional = part.rstrip("?"), part.endswith("?")
        if not isinstance(found, Mapping) or (name not in found and not optional):
            raise KeyError(name)
        found = found.get(name)
        if found is None and optional:
            return _NOTHING
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _names(value: Any) -> bool:
    return _texts(value) and len(set(value)) == len(value)


def _width(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _schema(value: Any) -> bool:
    return _plain(value) and all(
        isinstance(kind, str) and _KIND.fullmatch(kind) for kind in value.values()
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


_MAPPING = (_plain, "a mapping of names to values")
_PATH = (_text, "an import path")
_REQUIRED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": _MAPPING,
    "model.target": _PATH,
    "model.arguments": _MAPPING,
    "model.recorded?": _MAPPING,
    "model.carried?": _MAPPING,
    "model.adapter?": _MAPPING,
    "model.head?": _MAPPING,
    "model.head?.name": (_text, "the name of a layer"),
    "model.head?.outputs": (_width, "a whole number above 0"),
    "preprocess?": _MAPPING,
    "preprocess?.target": _PATH,
    "preprocess?.arguments": _MAPPING,
    "preprocess?.state": _MAPPING,
    "preprocess?.files": (_texts, "a list of file names"),
    "task": _MAPPING,
    "task.kind": (lambda kind: kind in TARGET_KINDS, f"one of {', '.join(TARGET_KINDS)}"),
    "task.arguments": _MAPPING,
    "label_names": (_names, "a list of class names, each once"),
    "schema": (_schema, 'columns and what they hold, as "float32 (8, 8)"'),
    "columns": _MAPPING,
    "columns.form": (lambda form: form in ("tuple", "dict"), "tuple or dict"),
}
