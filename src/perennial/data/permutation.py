"""Part of a seeded permutation of any number of rows, without forming the whole.

Up to `EXACT` rows it is a shuffle that is kept. Beyond that it is a Feistel network over the
smallest power of two that holds all rows, walked along its cycles until it lands inside (Black and
Rogaway, Ciphers with Arbitrary Finite Domains, 2002): a bijection of which any part costs the same
and no memory. Parts are formed `PART` positions at a time, so that a batch costs a slice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

EXACT = 1 << 16
PART = 1 << 13
ROUNDS = 8
_KEPT = 4
# of the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def permuted(key: tuple[int, ...], rows: int, start: int, count: int) -> Index:
    """Positions ``start`` to ``start + count`` of a permutation, fewer where it ends before.

    Args:
        key: Whole numbers of at least 0 that fix the permutation.
        rows: That are permuted, from 1 to 2^62.
        start: From 0.
        count: From 0.
    """
    stop = min(start + count, rows)
    if rows <= EXACT:
        return _kept(key, rows, 0)[start:stop]
    first, last = start // PART, max(stop - 1, start) // PART
    parts = [
        _kept(key, rows, number)[max(start - number * PART, 0) : stop - number * PART]
        for number in range(first, last + 1)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _kept(key: tuple[int, ...], rows: int, number: int) -> Index:
    place = (*key, rows, number)
    if place not in _CACHE:
        while len(_CACHE) >= _KEPT:
            _CACHE.pop(next(iter(_CACHE)))
        generator = np.random.Generator(np.random.PCG64(list(key)))
        if rows <= EXACT:
            _CACHE[place] = generator.permutation(rows)
        else:
            keys = generator.integers(0, 1 << 64, size=ROUNDS, dtype=np.uint64)
            first = number * PART
            at = np.arange(first, min(first + PART, rows), dtype=np.uint64)
            _CACHE[place] = _walk(at, rows, keys).astype(np.int64)
    return _CACHE[place]


def _walk(at: Words, rows: int, keys: Words) -> Words:
    """Apply the network until every position lies below ``rows``."""
    bits = (rows - 1).bit_length()
    found = _network(at, bits, keys)
    while len(outside := np.flatnonzero(found >= rows)):
        found[outside] = _network(found[outside], bits, keys)
    return found


def _network(values: Words, bits: int, keys: Words) -> Words:
    """An even number of rounds over halves whose widths differ by one bit at most."""
    width, other = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    left, right = values >> other, values & _mask(other)
    for key in keys:
        left, right = right, left ^ (_mixed(right, key) & _mask(width))
        width, other = other, width
    return (left << other) | right


def _mixed(values: Words, key: np.uint64) -> Words:
    mixed = (values ^ key) * _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _mask(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


_CACHE: dict[tuple[int, ...], Index] = {}
