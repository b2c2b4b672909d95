"""A pickle's opcodes, walked without running them, for what would bring the process down."""

from __future__ import annotations

import pickletools

MAX_DEPTH = 500
MAX_HASHED = 1 << 20
_PUT = ("PUT", "BINPUT", "LONG_BINPUT")
_GET = ("GET", "BINGET", "LONG_BINGET")
_FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_HASHING = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_LEAVING = ("PROTO", "FRAME", "STOP")


def absurd(content: bytes) -> str | None:
    """Why a pickle must not be run, or None.

    Three things end a process where an exception should: a memo index beyond all bounds (the memo
    is an array as long as its largest index), containers nested so deeply that hashing one
    overflows the C stack, and tuples that hold one another twice over and over, whose hash takes
    time that doubles with each. Depths and the number of values that a hash would visit are
    followed over a model of the pickle machine's stack.

    Args:
        content: The pickle.

    Raises:
        ValueError: No pickle.
        IndexError: It takes more from the stack than there is.
        KeyError: It refers to something that was never memoised.
    """
    # depth and values to hash, shared with the memo, or None for a mark
    stack: list[list[int] | None] = []
    memo: dict[int, list[int]] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in _PUT or name == "MEMOIZE":
            index = len(memo) if name == "MEMOIZE" else argument
            if not (isinstance(index, int) and 0 <= index <= len(content)):
                return "its pickle asks for an absurd amount of memory"
            memo[index] = _top(stack)
        elif name in _GET:
            stack.append(memo[argument])  # type: ignore[index]
        elif name == "DUP":
            stack.append(_top(stack))
        elif name == "MARK":
            stack.append(None)
        elif name not in _LEAVING:
            depth, hashed = _step(stack, opcode)
            if depth >= MAX_DEPTH:
                return "its pickle nests containers too deeply"
            if hashed > MAX_HASHED:
                return "its pickle nests tuples in one another beyond all bounds"
    return None


def _step(stack: list[list[int] | None], opcode: pickletools.OpcodeInfo) -> tuple[int, int]:
    """Take an opcode's operands and put its results; their depth and values to hash."""
    inner: list[list[int]] = []
    before = list(opcode.stack_before)
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            inner.append(top)
        before = before[: before.index(pickletools.markobject)]
    taken = [_pop(stack) for _ in before]
    # what is filled stays the same object, also where the memo knows it
    filled = taken.pop() if opcode.name in _FILLING else None
    depth = 1 + max((one[0] for one in (*inner, *taken)), default=0)
    hashed = 1
    if opcode.name in _HASHING:
        hashed += sum(one[1] for one in (*inner, *taken))
    if filled is None:
        stack.extend([depth, hashed] for _ in opcode.stack_after)
    else:
        filled[0] = max(filled[0], depth)
        stack.append(filled)
    return depth, hashed


def _top(stack: list[list[int] | None]) -> list[int]:
    value = stack[-1]
    if value is None:
        raise ValueError("a mark where an object was expected")
    return value


def _pop(stack: list[list[int] | None]) -> list[int]:
    value = _top(stack)
    stack.pop()
    return value
