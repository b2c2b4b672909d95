from __future__ import annotations

import pytest
import torch

from perennial.data.placement import SHARE, free_bytes, on_device, require_batch
from perennial.errors import ConfigError, DataError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_auto_takes_the_device_up_to_its_share_of_free_memory() -> None:
    assert on_device("auto", device=CUDA, needed=int(SHARE * 1000), free=1000)
    assert not on_device("auto", device=CUDA, needed=int(SHARE * 1000) + 1, free=1000)
    assert not on_device("auto", device=CPU, needed=1, free=1000)


def test_host_and_device_are_what_they_say() -> None:
    assert not on_device("host", device=CUDA, needed=1, free=1000)
    assert on_device("device", device=CUDA, needed=1000, free=1000)


@pytest.mark.parametrize(
    ("placement", "device", "match"),
    [
        ("device", CPU, "no device to put rows on"),
        ("device", CUDA, r"rows take 2\.0 KiB, and 1\.0 KiB are free on cuda:0"),
        ("disk", CUDA, "use auto, host, device"),
    ],
)
def test_what_cannot_be_is_refused(placement: str, device: torch.device, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        on_device(placement, device=device, needed=2048, free=1024)


def test_a_batch_that_no_memory_holds_is_refused_with_one_that_it_does() -> None:
    require_batch(needed=1 << 20, rows=64, free=1 << 20, where="memory")
    with pytest.raises(
        DataError, match=r"64 rows takes 4\.0 MiB, 64\.0 KiB a row(?s:.*)batch_size=8"
    ):
        require_batch(needed=1 << 22, rows=64, free=1 << 20, where="memory")
    with pytest.raises(DataError, match="use smaller rows"):
        require_batch(needed=1 << 22, rows=2, free=1 << 20, where="memory")


def test_free_memory_is_some_of_what_there_is() -> None:
    assert 1 << 20 < free_bytes(CPU) < 1 << 50
