"""Packed documents cost and teach what they do alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.tasks.language import CausalLanguage
from perennial.tasks.packing import first_fit, packing

WORDS, LENGTH = 23, 12


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": WORDS}
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **off))


def llama(attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64, attn_implementation=attention,
        )
    )  # fmt: skip


class Backwards(nn.Module):
    """Looks at the token before, whoever's it is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WORDS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V)."""
        own: Tensor = self.embed(input_ids)
        return own + torch.cat([torch.zeros_like(own[:, :1]), own[:, :-1]], dim=1)


class Counting(nn.Module):
    """Attends to nothing, and counts positions by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(WORDS, WORDS), nn.Embedding(99, WORDS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V)."""
        place: Tensor = self.place(torch.arange(input_ids.shape[1]))
        return self.embed(input_ids) + place


def documents(rows: int = 7, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, WORDS, (rows, LENGTH), generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (rows, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def losses(model: nn.Module, batch: dict[str, Tensor], pack: int | None) -> Tensor:
    task = CausalLanguage(pack=pack)
    return task.per_example_loss(task.outputs(model, batch), batch)


@pytest.mark.parametrize("build", [gpt2, llama, lambda: llama("eager")])
def test_losses_and_gradients_of_documents_are_those_of_documents_alone(build: Any) -> None:
    model, batch = build().train(), documents()
    found = losses(model, batch, 16)
    gradients = torch.autograd.grad(found.square().mean(), list(model.parameters()))
    model.zero_grad()
    expected = losses(model, batch, None)
    alone = torch.cat(
        [
            losses(model, {k: v[i : i + 1, : batch["attention_mask"][i].sum()] for k, v in batch.items()}, None)  # noqa: E501
            for i in range(len(found))
        ]
    )  # fmt: skip
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, alone)
    known = torch.autograd.grad(expected.square().mean(), list(model.parameters()))
    for a, b in zip(gradients, known, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_rows_are_fewer_and_of_one_length_in_training_alone() -> None:
    model, batch = gpt2(), documents(rows=12)
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    task = CausalLanguage(pack=24)
    task.outputs(model.train(), batch)
    task.outputs(model, batch)
    task.outputs(model.eval(), batch)
    tokens = int(batch["attention_mask"].sum())
    # four documents are tried alone and packed, once
    assert [shape[0] for shape in seen[:2]] == [4, 1]
    assert seen[2] == seen[3]
    assert seen[2][1] == 24
    assert tokens / 24 <= seen[2][0] < 12 * LENGTH / 24
    assert seen[4] == (12, LENGTH)


@pytest.mark.parametrize("build", [Backwards, Counting])
def test_a_model_that_looks_across_documents_is_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match="see each other, or counts their positions on"):
        losses(build().train(), documents(), 24)


def test_a_model_that_fails_on_a_block_mask_is_refused_with_its_reason() -> None:
    class Narrow(Counting):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            assert attention_mask is not None
            if attention_mask.ndim != 2:
                raise ValueError("a mask has two dimensions")
            return super().forward(input_ids)

    with pytest.raises(ConfigError, match="fails on them: a mask has two dimensions"):
        losses(Narrow().train(), documents(), 24)


def test_what_cannot_be_packed_is_refused() -> None:
    model, batch = gpt2().train(), documents()
    with pytest.raises(ConfigError, match="12 tokens, and a packed row 8"):
        losses(model, batch | {"attention_mask": torch.ones(7, LENGTH)}, 8)
    with pytest.raises(ConfigError, match="padding before"):
        losses(model, {name: values.flip(1) for name, values in batch.items()}, 24)
    with pytest.raises(ConfigError, match="no column 'attention_mask'"):
        losses(model, {"input_ids": batch["input_ids"]}, 24)
    with pytest.raises(ConfigError, match="Column 'age'"):
        losses(model, batch | {"age": torch.zeros(7)}, 24)
    with pytest.raises(ConfigError, match="without a mask"):
        CausalLanguage(mask=None, pack=24)


def test_first_fit_keeps_documents_apart_and_is_near_the_fewest_rows() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        lengths = generator.integers(1, 9, size=generator.integers(1, 8)).tolist()
        places, rows = first_fit(lengths, length=8)
        taken = [
            {(row, at + t) for t in range(n)} for (row, at), n in zip(places, lengths, strict=True)
        ]
        assert len(set.union(*taken)) == sum(lengths)
        assert all(0 <= row < rows and at < 8 for one in taken for row, at in one)
        fewest = next(
            count
            for count in range(1, rows + 1)
            if any(
                all(
                    sum(n for n, r in zip(lengths, told, strict=True) if r == row) <= 8
                    for row in range(count)
                )
                for told in itertools.product(range(count), repeat=len(lengths))
            )
        )
        assert rows <= 11 / 9 * fewest + 1


def test_a_packing_gives_back_what_it_took() -> None:
    batch = documents()
    used = batch["attention_mask"] != 0
    plan = packing(used, length=16)
    rows = plan.packed(batch["input_ids"])
    assert rows.shape == (plan.rows, 16)
    assert torch.equal(plan.unpacked(rows[..., None])[..., 0][used], batch["input_ids"][used])
    assert sorted(plan.positions()[rows != 0].tolist()) == sorted(
        t for n in used.sum(dim=1).tolist() for t in range(n)
    )
    # a position sees as many as its own place in its document has, itself among them
    seen = (plan.visible(torch.float32) == 0).sum(dim=3)[:, 0]
    assert torch.equal(seen[rows != 0], plan.positions()[rows != 0] + 1)
    assert (seen[rows == 0] == 1).all()
