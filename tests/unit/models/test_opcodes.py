"""Pickles that would bring the process down are seen before they run."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from perennial.errors import CheckpointError
from perennial.models.checkpoint import read_state
from perennial.models.opcodes import MAX_DEPTH, absurd


def _nested(depth: int) -> bytes:
    """``{(((...))): 1}``, whose key is hashed."""
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."


def test_keys_nested_too_deeply_are_refused_and_others_are_not() -> None:
    assert absurd(_nested(100)) is None
    assert pickle.loads(_nested(100)), "the test's pickle is one"
    assert "too deeply" in (absurd(_nested(MAX_DEPTH + 1)) or "")


@pytest.mark.parametrize("by", ["memo", "appended", "mark"])
def test_depth_is_followed_through_memo_lists_and_marks(by: str) -> None:
    step = {
        "memo": b"q\x010h\x01\x85",  # memoise, pop, get back, wrap
        "appended": b"q\x01]q\x02h\x01a0h\x02q\x010h\x01\x85",  # into a list that the memo knows
        "mark": b"q\x010(h\x01t",
    }[by]
    assert "too deeply" in (absurd(b"\x80\x02)" + step * MAX_DEPTH + b".") or "")
    assert absurd(b"\x80\x02)" + step * 20 + b".") is None


def test_a_hash_that_would_visit_too_many_values_is_refused() -> None:
    doubled = b"\x80\x02})" + b"2\x86" * 25 + b"K\x01s."  # 25 deep, and 2^25 values
    assert "beyond all bounds" in (absurd(doubled) or "")
    assert absurd(b"\x80\x02})" + b"2\x86" * 15 + b"K\x01s.") is None


def test_long_flat_containers_are_no_depth() -> None:
    value = OrderedDict((f"layer{i}", [(i, (i,)), {"a": i}]) for i in range(5_000))
    for protocol in range(6):
        assert absurd(pickle.dumps(value, protocol=protocol)) is None


def test_a_real_checkpoint_is_none(tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(300)))
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "m.pt")
    assert len(read_state(tmp_path / "m.pt").weights) == 600


def test_a_hostile_file_ends_in_a_message_and_not_in_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "deep.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", _nested(2_000_000))
        archive.writestr("m/version", "3")
    with pytest.raises(CheckpointError, match="too deeply"):
        read_state(path)
    # and it would have been one: hashing that key overflows the stack of a process
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    crashed = subprocess.run(
        [sys.executable, "-c", code], input=_nested(2_000_000), check=False, capture_output=True
    )
    assert crashed.returncode < 0


def test_garbage_raises_what_the_reader_turns_into_a_message() -> None:
    for content in (b"", b"\x80\x02a.", b"\x80\x02h\x07.", b"\x80\x02(0."):
        with pytest.raises((ValueError, IndexError, KeyError)):
            absurd(content)


def test_python_reads_what_the_model_of_its_stack_accepts() -> None:
    for value in ({"a": (1, [2, {3, 4}])}, [None, b"x", 1.5, True], (((),),)):
        for protocol in range(6):
            buffer = io.BytesIO()
            pickle.Pickler(buffer, protocol=protocol).dump(value)
            assert absurd(buffer.getvalue()) is None
