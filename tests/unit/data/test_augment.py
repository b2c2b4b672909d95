from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from perennial.data.augment import FlipAndCrop, Noise, augmented, cut_out
from perennial.errors import ConfigError


def drawn(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_images_are_cut_out_of_a_frame_and_mirrored_as_by_hand() -> None:
    images = torch.rand(6, 3, 5, 4, generator=drawn())
    moved = torch.tensor([[0, 0], [4, 4], [2, 2], [1, 3], [3, 0], [2, 2]])
    mirrored = torch.tensor([False, False, False, True, True, True])
    found = cut_out(images, moved, mirrored, padding=2)
    framed = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    for row in range(6):
        down, along = moved[row].tolist()
        part = framed[row, :, down : down + 5, along : along + 4]
        if mirrored[row]:
            part = part[:, :, ::-1]
        assert np.array_equal(found[row].numpy(), part)
    assert torch.equal(found[2], images[2])
    assert torch.equal(found[5], images[5].flip(2))


def test_images_of_a_row_change_alike_and_other_inputs_stay() -> None:
    images = torch.rand(64, 1, 6, 6, generator=drawn()) + 1
    inputs = {"image": images, "depth": images * 10, "age": torch.ones(64)}
    found = FlipAndCrop(padding=1)(inputs, generator=drawn(1))
    torch.testing.assert_close(found["depth"], found["image"] * 10)
    assert found["age"] is inputs["age"]
    same = (found["image"] == images).flatten(1).all(dim=1)
    # one of nine corners, and not mirrored: one row in eighteen
    assert 0 <= int(same.sum()) < 12
    still = FlipAndCrop(flip=0, padding=0)((images,), generator=drawn())[0]
    assert torch.equal(still, images)
    turned = FlipAndCrop(flip=1, padding=0)((images,), generator=drawn())[0]
    assert torch.equal(turned, images.flip(3))


def test_grey_images_need_no_channels() -> None:
    grey = torch.rand(16, 8, 8, generator=drawn())
    alone = FlipAndCrop()((grey, torch.ones(16, 3)), generator=drawn(1))
    channels = FlipAndCrop()((grey.unsqueeze(1),), generator=drawn(1))
    assert torch.equal(alone[0], channels[0].squeeze(1))
    assert not torch.equal(alone[0], grey)
    # beside images with channels, three dimensions are something else
    states = torch.rand(16, 7, 5, generator=drawn())
    inputs = {"image": grey.unsqueeze(1), "states": states}
    assert FlipAndCrop()(inputs, generator=drawn())["states"] is states
    with pytest.raises(ConfigError, match=r"which are images\? .*states \(16, 7, 5\)"):
        FlipAndCrop()({"image": grey, "states": states}, generator=drawn())


def test_noise_has_its_scale_and_spares_what_is_counted() -> None:
    inputs = (torch.zeros(4000, 5), torch.ones(4000, dtype=torch.long))
    values, counted = Noise(scale=0.3)(inputs, generator=drawn())
    assert values.std() == pytest.approx(0.3, rel=0.02)
    assert abs(values.mean()) < 0.01
    assert counted is inputs[1]


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_a_target_is_never_changed_and_draws_depend_on_the_key_alone(form: str) -> None:
    x, y = torch.zeros(8, 3), torch.arange(8.0)
    data: Any = (x, y) if form == "tuple" else {"label": y, "x": x}

    def values(found: Any) -> tuple[Tensor, Tensor]:
        return found if form == "tuple" else (found["x"], found["label"])

    first = augmented(data, Noise(), label="label", key=(0, 1, 2, 0))
    torch.manual_seed(99)
    again = augmented(data, Noise(), label="label", key=(0, 1, 2, 0))
    other = augmented(data, Noise(), label="label", key=(0, 1, 3, 0))
    assert torch.equal(values(first)[0], values(again)[0])
    assert not torch.equal(values(first)[0], values(other)[0])
    assert values(first)[1] is y
    assert not x.any()
    if form == "dict":
        assert list(first) == ["label", "x"]


def test_without_a_target_every_input_may_change() -> None:
    (found,) = augmented((torch.zeros(4, 2),), Noise(), label=None, key=(0,))
    assert found.any()


def test_what_cannot_be_changed_is_refused() -> None:
    ids = torch.ones(4, 7, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"no floating-point inputs .* input_ids \(4, 7\)"):
        Noise()({"input_ids": ids}, generator=drawn())
    with pytest.raises(ConfigError, match="no images"):
        FlipAndCrop()((torch.rand(4, 7),), generator=drawn())
    for bad in ({"flip": 1.5}, {"padding": -1}):
        with pytest.raises(ConfigError):
            FlipAndCrop(**bad)
    with pytest.raises(ConfigError, match="scale"):
        Noise(scale=0)

    def halved(inputs: Any, *, generator: Generator) -> Any:
        return tuple(one[:2] for one in inputs)

    def renamed(inputs: Any, *, generator: Generator) -> Any:
        return {"other": inputs[0]}

    for own in (halved, renamed, lambda inputs, generator: inputs[0]):
        with pytest.raises(ConfigError, match="another form of batch"):
            augmented((torch.zeros(4, 2), torch.zeros(4)), own, label="label", key=(0,))
