"""Changes of training batches on the device, by chance: what a row might have been as well.

Shapes: B rows of a batch; an image is (C, H, W).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from perennial.errors import ConfigError

WHERE = "data.augment"


class Augmentation(Protocol):
    """Any callable of this form, your own too; a function is named with ``_partial_: true``."""

    def __call__(self, inputs: Any, *, generator: Generator) -> Any:
        """Change the inputs of a training batch.

        Args:
            inputs: A dict or a tuple of tensors (B, ...) on the device, without the target.
            generator: Draws on that device; nothing else may, or a resumed run would differ.

        Returns:
            The same dict or tuple with other values, rows in the same order.
        """
        ...


class FlipAndCrop:
    """Images mirrored left to right, and cut out of a frame of zeros around them.

    All images (B, C, H, W) of a row get the same; other inputs stay. Where none has four
    dimensions, those of three are grey images (B, H, W).

    Args:
        flip: Probability to be mirrored, in [0, 1].
        padding: Pixels of the frame on each side, so that an image moves by as many at most.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(self, *, flip: float = 0.5, padding: int = 4) -> None:
        if not 0 <= flip <= 1 or padding < 0:
            raise ConfigError(
                f"Images cannot be mirrored with probability {flip} in a frame of {padding}.",
                where=WHERE,
                mend="give a probability, and a number of pixels from 0 up",
            )
        self.flip, self.padding = flip, padding

    def __call__(self, inputs: Any, *, generator: Generator) -> Any:
        """Mirror and move; see `Augmentation`."""
        images = _images(inputs)
        if not images:
            raise _nothing_of("images (rows, channels, height, width)", inputs)
        dimensions = images[0].ndim
        if dimensions == 3 and len({one.shape for one in images}) > 1:
            raise ConfigError(
                f"Of inputs with three dimensions, which are images? {_shown(inputs)}.",
                where=WHERE,
                mend="give images as (rows, channels, height, width), or name a class of your own",
            )
        rows, device = len(images[0]), images[0].device
        mirrored = torch.rand(rows, generator=generator, device=device) < self.flip
        moved = torch.randint(2 * self.padding + 1, (rows, 2), generator=generator, device=device)

        def change(images: Tensor) -> Tensor:
            channels = images.unsqueeze(1) if dimensions == 3 else images
            return cut_out(channels, moved, mirrored, padding=self.padding).view(images.shape)

        return _mapped(inputs, change, lambda one: any(one is image for image in images))


class Noise:
    """Normal noise on all floating-point inputs, of tables or embeddings.

    Args:
        scale: Its standard deviation, in the inputs' unit; after standardisation in standard
            deviations of a column.

    Raises:
        ConfigError: The scale is not above 0.
    """

    def __init__(self, *, scale: float = 0.1) -> None:
        if not scale > 0:
            raise ConfigError(
                f"Noise cannot have the scale {scale}.", where=WHERE, mend="give a number above 0"
            )
        self.scale = scale

    def __call__(self, inputs: Any, *, generator: Generator) -> Any:
        """Add noise; see `Augmentation`."""
        if not any(one.is_floating_point() for one in _values(inputs)):
            raise _nothing_of("floating-point inputs", inputs)

        def change(values: Tensor) -> Tensor:
            noise = torch.randn(
                values.shape, generator=generator, device=values.device, dtype=values.dtype
            )
            return values + self.scale * noise

        return _mapped(inputs, change, Tensor.is_floating_point)


def cut_out(images: Tensor, moved: Tensor, mirrored: Tensor, *, padding: int) -> Tensor:
    """Images (B, C, H, W) cut out of a frame of zeros at their corners, then mirrored.

    Args:
        images: B images.
        moved: Row and column of each corner (B, 2), in [0, 2 · padding].
        mirrored: Which ones (B,) are mirrored left to right.
        padding: Pixels of the frame on each side.
    """
    rows, channels, height, width = images.shape
    device = images.device
    framed = F.pad(images, (padding,) * 4)
    down = moved[:, :1] + torch.arange(height, device=device)
    along = moved[:, 1:] + torch.arange(width, device=device)
    along = torch.where(mirrored[:, None], along.flip(1), along)
    row = torch.arange(rows, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return framed[row, channel, down[:, None, :, None], along[:, None, None, :]]


def augmented(data: Any, augment: Augmentation, *, label: str | None, key: tuple[int, ...]) -> Any:
    """A batch with changed inputs; its target is as it was.

    Args:
        data: A dict or a tuple of tensors (B, ...), on the device.
        augment: Changes the inputs.
        label: Key of the target in a dict, which is a tuple's last element; None where there is
            none.
        key: What the draws depend on, and nothing else: seed, epoch, position, rank.

    Raises:
        ConfigError: What comes back has not the form of what went in.
    """
    target: Any
    if isinstance(data, Mapping):
        inputs: Any = {name: value for name, value in data.items() if name != label}
        target = {} if label is None else {label: data[label]}
    else:
        inputs, target = (tuple(data), ()) if label is None else (tuple(data[:-1]), (data[-1],))
    rows = len(_values(inputs)[0])
    device = _values(inputs)[0].device
    number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "big")
    changed = augment(inputs, generator=Generator(device).manual_seed(number))
    if _form(changed) != _form(inputs) or any(len(one) != rows for one in _values(changed)):
        raise ConfigError(
            f"{type(augment).__name__} gave back another form of batch than it got: "
            f"{_shown(changed)} for {_shown(inputs)}.",
            where=WHERE,
            mend="return the dict or tuple that came in, with as many rows",
        )
    if isinstance(changed, Mapping):
        # in the order that the module knows
        return {name: {**changed, **target}[name] for name in data}
    return (*changed, *target)


def _values(inputs: Any) -> list[Tensor]:
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def _form(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return set(inputs)
    return len(inputs) if isinstance(inputs, tuple) else None


def _shown(inputs: Any) -> str:
    if _form(inputs) is None:
        return f"a {type(inputs).__name__}"
    shapes = [tuple(one.shape) for one in _values(inputs)]
    names = list(inputs) if isinstance(inputs, Mapping) else range(len(shapes))
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))


def _images(inputs: Any) -> list[Tensor]:
    """Those with channels; where there are none, those without."""
    values = [one for one in _values(inputs) if one.is_floating_point()]
    return [one for one in values if one.ndim == 4] or [one for one in values if one.ndim == 3]


def _mapped(inputs: Any, change: Any, where: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {k: change(one) if where(one) else one for k, one in inputs.items()}
    return tuple(change(one) if where(one) else one for one in inputs)


def _nothing_of(what: str, inputs: Any) -> ConfigError:
    return ConfigError(
        f"There are no {what} to change; the inputs are {_shown(inputs)}.",
        where=WHERE,
        mend="choose another data.augment, or null",
    )
