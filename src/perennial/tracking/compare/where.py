"""``--where``: a small language of comparisons, read by hand and never run as code.

    expression = all {"or" all}
    all        = one {"and" one}
    one        = "not" one | "(" expression ")" | key operator value
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">="

A key reaches whatever `perennial.tracking.compare.values.of_run` tells; a value is a number, a
word, a text in quotes, true, false or null.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from perennial.errors import ConfigError
from perennial.tracking.compare.values import meant

Values = Mapping[str, Any]
Test = Callable[[Values], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<op><=|>=|!=|==|=|<|>)|(?P<bracket>[()])|(?P<text>"[^"]*"|'[^']*')"""
    r"""|(?P<word>[^\s()<>=!"']+))"""
)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONSTANTS = {"true": True, "false": False, "null": None}


def parse(text: str, known: Set[str]) -> Test:
    """The test that an expression says.

    Args:
        text: The expression.
        known: Keys that any run has.

    Returns:
        From a run's values to whether it passes; a run without the key fails every comparison.

    Raises:
        ConfigError: It cannot be read, or asks for a key that no run has.
    """
    parser = _Parser(_tokens(text), text, known)
    test = parser.expression()
    if parser.left:
        raise wrong(text, f"{parser.left[0][1]!r} is one word too many")
    return test


def wrong(text: str, why: str) -> ConfigError:
    """The error about an expression that cannot be read."""
    return ConfigError(
        f"{text!r} cannot be read: {why}.",
        where="--where",
        mend='write comparisons, such as --where "verdict=promoted and cost.wall_seconds<60"',
    )


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            raise wrong(text, f"{text[place:].strip()!r} is not closed, or no comparison")
        assert found.lastgroup is not None
        tokens.append((found.lastgroup, found[found.lastgroup]))
        place = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: Sequence[tuple[str, str]], text: str, known: Set[str]) -> None:
        self.left = list(tokens)
        self.text, self.known = text, known

    def expression(self, depth: int = 0) -> Test:
        return self._joined("or", lambda: self._joined("and", lambda: self._one(depth), all), any)

    def _joined(self, word: str, part: Callable[[], Test], of: Callable[..., bool]) -> Test:
        parts = [part()]
        while self.left[:1] == [("word", word)]:
            self.left.pop(0)
            parts.append(part())
        return parts[0] if len(parts) == 1 else lambda values: of(one(values) for one in parts)

    def _one(self, depth: int) -> Test:
        if depth > 50:
            raise wrong(self.text, "it is nested too deep")
        if self.left[:1] == [("word", "not")]:
            self.left.pop(0)
            inner = self._one(depth + 1)
            return lambda values: not inner(values)
        if self.left[:1] == [("bracket", "(")]:
            self.left.pop(0)
            inner = self.expression(depth + 1)
            if self._next("a closing bracket") != ("bracket", ")"):
                raise wrong(self.text, "a bracket is not closed")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        kind, key = self._next("a key")
        if kind != "word":
            raise wrong(self.text, f"a key is missing before {key!r}")
        kind, sign = self._next(f"a comparison after {key!r}")
        if kind != "op":
            raise wrong(self.text, f"a comparison is missing after {key!r}")
        kind, word = self._next(f"a value after {sign!r}")
        if kind not in ("word", "text"):
            raise wrong(self.text, f"a value is missing after {sign!r}")
        wanted = word[1:-1] if kind == "text" else _value(word)
        name = meant(key, self.known)
        if sign in _ORDER:
            if isinstance(wanted, bool | None):
                raise wrong(self.text, f"{word} has no order, so {sign} cannot be asked")
            return lambda values: _ordered(values.get(name), _ORDER[sign], wanted)
        even = sign != "!="
        return lambda values: name in values and _equal(values[name], wanted) == even

    def _next(self, what: str) -> tuple[str, str]:
        if not self.left:
            raise wrong(self.text, f"{what} is missing at its end")
        return self.left.pop(0)


def _value(word: str) -> Any:
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    try:
        number = float(word)
    except ValueError:
        return word
    return word if math.isnan(number) else number


def _ordered(value: Any, order: Callable[[Any, Any], bool], wanted: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(value, str) and order(value, wanted)
    return isinstance(value, int | float) and not isinstance(value, bool) and order(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)
