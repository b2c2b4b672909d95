"""Densities of a target given a model's outputs: categorical and Gaussian.

What a method needs of one is its gradient with respect to the outputs, at a target that was
observed or drawn, and a square root of the Fisher information of the outputs, which is known in
closed form. See `perennial.types.Likelihood` for the contract.

Shapes: B rows, C classes, K output dimensions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from perennial.errors import ConfigError, MethodError
from perennial.types import Strings


class Categorical:
    """One label of C by the softmax of the logits (B, C): cross-entropy's density."""

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One-hot label minus probabilities (B, C), for labels (B,)."""
        difference = -_softmax(outputs)
        ones = torch.ones_like(difference[:, :1])
        return difference.scatter_add_(1, target.long()[:, None], ones).to(outputs.dtype)

    def draw(self, outputs: Tensor, ids: Strings, seed: int) -> Tensor:
        """Labels (B,): the class whose interval of cumulated probability the row's number hits."""
        p = _softmax(outputs)
        uniform = uniform_by_id(ids, seed).to(p.device)
        cumulative = (p / p.sum(dim=1, keepdim=True)).cumsum(dim=1)
        label = torch.searchsorted(cumulative, uniform, right=True)[:, 0]
        return label.clamp(max=p.shape[1] - 1)

    def expectation(self, outputs: Tensor) -> Iterator[Tensor]:
        """√p_c (e_c − p), (B, C), for each class c."""
        p = _softmax(outputs)
        for label in range(p.shape[1]):
            term = -p
            term[:, label] += 1
            yield term.mul_(p[:, label, None].sqrt()).to(outputs.dtype)

    def terms(self, outputs: Tensor) -> int:
        """C."""
        return outputs.shape[1]


class Gaussian:
    """Independent normal targets around the outputs, (B,) or (B, K), all of one variance.

    Squared error, summed over K, is its negative log up to an added constant at variance ½, half
    the squared error at variance 1.

    Args:
        variance: σ², above 0.

    Raises:
        ConfigError: The variance is not a positive number.
    """

    def __init__(self, *, variance: float = 1.0) -> None:
        if not 0 < variance < math.inf:
            raise ConfigError(
                f"The variance of a Gaussian is {variance!r}.",
                where="task",
                mend="give a number above 0, such as 0.5 for squared error",
            )
        self.variance = float(variance)

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(y − f) / σ² in the outputs' shape, for targets with as many values.

        Raises:
            MethodError: Targets and outputs differ in their number of values.
        """
        if len(target) != len(outputs) or target.numel() != outputs.numel():
            raise MethodError(
                f"The targets are {tuple(target.shape)} and the model's outputs "
                f"{tuple(outputs.shape)}.",
                where="task",
                mend="let the model give one output per target value",
            )
        difference = target.reshape(outputs.shape).double() - outputs.double()
        return (difference / self.variance).to(outputs.dtype)

    def draw(self, outputs: Tensor, ids: Strings, seed: int) -> Tensor:
        """Targets f + σε in the outputs' shape, ε standard normal by the row's numbers."""
        width = outputs[:1].numel()
        # within half a step of 0 and 1, where the normal quantile is finite
        uniform = uniform_by_id(ids, seed, count=width).clamp(min=2**-54)
        noise = torch.special.ndtri(uniform).to(outputs.device).reshape(outputs.shape)
        drawn: Tensor = outputs.double() + math.sqrt(self.variance) * noise
        return drawn

    def expectation(self, outputs: Tensor) -> Iterator[Tensor]:
        """e_k / σ for each output dimension k, in the outputs' shape."""
        for position in range(self.terms(outputs)):
            term = torch.zeros_like(outputs).reshape(len(outputs), -1)
            term[:, position] = 1 / math.sqrt(self.variance)
            yield term.reshape(outputs.shape)

    def terms(self, outputs: Tensor) -> int:
        """K."""
        return outputs[:1].numel()


def uniform_by_id(ids: Strings, seed: int, *, count: int = 1) -> Tensor:
    """Numbers in [0, 1) for each row id, float64 (B, count), from a hash of seed and id."""
    salts = [position.to_bytes(16, "little") for position in range(count)]
    values = [[_hashed(f"{seed}\0{row}".encode(), salt) for salt in salts] for row in ids.tolist()]
    return torch.tensor(values, dtype=torch.float64).reshape(len(ids), count)


def _hashed(text: bytes, salt: bytes) -> float:
    digest = hashlib.blake2b(text, digest_size=8, salt=salt, person=b"fisher").digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def _softmax(outputs: Tensor) -> Tensor:
    # in float64, so that 1 − p keeps its digits where the model is sure
    return torch.softmax(outputs.detach().double(), dim=1)
