"""Densities of a target given a model's outputs: categorical, Bernoulli, by token and Gaussian.

What a method needs of one is its gradient with respect to the outputs, at a target that was
observed or drawn, and a square root of the Fisher information of the outputs, which is known in
closed form. See `perennial.types.Likelihood` for the contract.

Shapes: B rows, C classes, K output dimensions, T positions of a sequence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from perennial.errors import ConfigError, MethodError
from perennial.types import Strings

# a position without a label, as torch's cross-entropy and transformers have it
IGNORED = -100


class Categorical:
    """One label of C by the softmax of the logits (B, C): cross-entropy's density.

    Args:
        weights: Of the rows of the first classes in the loss, 1 for all others. A row of weight w
            counts as w rows, so its gradient is √w times as long.
    """

    def __init__(self, *, weights: Sequence[float] = ()) -> None:
        self.weights = tuple(weights)

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One-hot label minus probabilities (B, C), for labels (B,).

        A label for which there is no output has no probability to change: its gradient is 0.
        """
        difference = -_softmax(outputs)
        known = target.long()[:, None] < difference.shape[1]
        label = torch.where(known, target.long()[:, None], 0)
        difference.scatter_add_(1, label, torch.ones_like(difference[:, :1]))
        return (difference * self._roots(difference)[label] * known).to(outputs.dtype)

    def draw(
        self, outputs: Tensor, ids: Strings, seed: int, observed: Tensor | None = None
    ) -> Tensor:
        """Labels (B,): the class whose interval of cumulated probability the row's number hits."""
        p = _softmax(outputs)
        uniform = uniform_by_id(ids, seed).to(p.device)
        cumulative = (p / p.sum(dim=1, keepdim=True)).cumsum(dim=1)
        label = torch.searchsorted(cumulative, uniform, right=True)[:, 0]
        return label.clamp(max=p.shape[1] - 1)

    def expectation(self, outputs: Tensor, observed: Tensor | None = None) -> Iterator[Tensor]:
        """√(w_c p_c) (e_c − p), (B, C), for each class c."""
        p = _softmax(outputs)
        roots = self._roots(p)
        for label in range(p.shape[1]):
            term = -p
            term[:, label] += 1
            yield term.mul_(p[:, label, None].sqrt() * roots[label]).to(outputs.dtype)

    def terms(self, outputs: Tensor) -> int:
        """C."""
        return outputs.shape[1]

    def _roots(self, p: Tensor) -> Tensor:
        """√w_c (C,)."""
        roots = p.new_ones(p.shape[1])
        known = self.weights[: p.shape[1]]
        roots[: len(known)] = p.new_tensor(known).sqrt()
        return roots


class Bernoulli:
    """C labels of a row, each on or off on its own, by the sigmoid of its logit.

    The loss is the *mean* over labels of the binary cross-entropy, 1/C of the product's negative
    log: the constant is C, and the gradient that of the log density over √C.
    """

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(y − p) / √C, (B, C)."""
        difference = target.double() - torch.sigmoid(outputs.detach().double())
        return (difference / math.sqrt(outputs.shape[1])).to(outputs.dtype)

    def draw(
        self, outputs: Tensor, ids: Strings, seed: int, observed: Tensor | None = None
    ) -> Tensor:
        """Labels (B, C) of 0 and 1, each by a number of its own."""
        p = torch.sigmoid(outputs.detach().double())
        return (uniform_by_id(ids, seed, count=p.shape[1]).to(p.device) < p).double()

    def expectation(self, outputs: Tensor, observed: Tensor | None = None) -> Iterator[Tensor]:
        """√(p_c (1 − p_c) / C) e_c, (B, C), for each label c."""
        logits = outputs.detach().double()
        root = (torch.sigmoid(logits) * torch.sigmoid(-logits) / outputs.shape[1]).sqrt()
        for label in range(outputs.shape[1]):
            term = torch.zeros_like(root)
            term[:, label] = root[:, label]
            yield term.to(outputs.dtype)

    def terms(self, outputs: Tensor) -> int:
        """C."""
        return outputs.shape[1]


class CategoricalTokens:
    """A label of C at each of T positions, by the softmax of the logits (B, T, C).

    The loss is the *mean* over the positions that have a label, 1/n of the negative log density of
    n independent labels: the constant is n, and the gradient that of the log density over √n.
    Positions whose observed target is `IGNORED` have no part in it.
    """

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One-hot label minus probabilities over √n, (B, T, C), for labels (B, T)."""
        counted = target != IGNORED
        difference = -torch.softmax(outputs.detach().double(), dim=2)
        ones = torch.ones_like(difference[..., :1])
        difference.scatter_add_(2, target.long().clamp(min=0)[..., None], ones)
        return (difference * self._scale(counted)[..., None]).to(outputs.dtype)

    def draw(
        self, outputs: Tensor, ids: Strings, seed: int, observed: Tensor | None = None
    ) -> Tensor:
        """Labels (B, T), `IGNORED` where the observed ones are."""
        rows, length, classes = outputs.shape
        p = torch.softmax(outputs.detach().double(), dim=2).reshape(-1, classes)
        uniform = uniform_by_id(ids, seed, count=length).to(p.device).reshape(-1, 1)
        label = torch.searchsorted(p.cumsum(dim=1), uniform, right=True)[:, 0]
        drawn = label.clamp(max=classes - 1).reshape(rows, length)
        return drawn if observed is None else drawn.masked_fill(observed == IGNORED, IGNORED)

    def expectation(self, outputs: Tensor, observed: Tensor | None = None) -> Iterator[Tensor]:
        """√(p_tc / n) (e_c − p_t) at position t, (B, T, C), for each position and class."""
        p = torch.softmax(outputs.detach().double(), dim=2)
        everywhere = p.new_ones(p.shape[:2], dtype=torch.bool)
        scale = self._scale(everywhere if observed is None else observed != IGNORED)
        for place in range(p.shape[1]):
            for label in range(p.shape[2]):
                term = torch.zeros_like(p)
                term[:, place] = -p[:, place]
                term[:, place, label] += 1
                factor = p[:, place, label].sqrt() * scale[:, place]
                yield (term * factor[:, None, None]).to(outputs.dtype)

    def terms(self, outputs: Tensor) -> int:
        """T · C."""
        return outputs.shape[1] * outputs.shape[2]

    def _scale(self, counted: Tensor) -> Tensor:
        """1/√n where a position counts, else 0, (B, T)."""
        number = counted.sum(dim=1, keepdim=True).clamp(min=1)
        return counted.double() / number.double().sqrt()


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

    def draw(
        self, outputs: Tensor, ids: Strings, seed: int, observed: Tensor | None = None
    ) -> Tensor:
        """Targets f + σε in the outputs' shape, ε standard normal by the row's numbers."""
        width = outputs[:1].numel()
        # within half a step of 0 and 1, where the normal quantile is finite
        uniform = uniform_by_id(ids, seed, count=width).clamp(min=2**-54)
        noise = torch.special.ndtri(uniform).to(outputs.device).reshape(outputs.shape)
        drawn: Tensor = outputs.double() + math.sqrt(self.variance) * noise
        return drawn

    def expectation(self, outputs: Tensor, observed: Tensor | None = None) -> Iterator[Tensor]:
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
