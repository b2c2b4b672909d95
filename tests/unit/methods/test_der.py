"""DER++ against a loop over rows and classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perennial.errors import ConfigError, MethodError
from perennial.methods.base import arrange, check_capabilities
from perennial.methods.baselines import Joint
from perennial.methods.der import DER, distance
from perennial.methods.replay import Replay
from perennial.types import Batch, StepContext

NAN = math.nan
STORED = [[NAN, NAN, NAN], [1.0, NAN, 3.0], [0.5, -1.0, 2.0], [NAN, NAN, NAN]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_term_is_the_mean_over_what_is_known(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 3)
    stored = torch.tensor(STORED, dtype=dtype)
    x = torch.randn(4, 2)
    logits = model(x)
    step = StepContext(
        batch=Batch(
            data=(x,), ids=np.array(list("abcd")), is_new=np.arange(4) == 0, logits=stored
        ),
        model=model,
        parameters=dict(model.named_parameters()),
        outputs={"loss": 0, "logits": logits},
    )  # fmt: skip
    term = DER(alpha=0.7).loss_terms(step)["logits"]
    z = logits.detach().tolist()
    total, count = 0.0, 0
    for i, row in enumerate(stored.tolist()):
        for j, value in enumerate(row):
            if not math.isnan(value):
                total += (z[i][j] - value) ** 2
                count += 1
    assert count == 5
    assert float(term.detach()) == pytest.approx(0.7 * total / count, rel=1e-6)
    (gradient,) = torch.autograd.grad(term, logits)
    for i, row in enumerate(stored.tolist()):
        for j, value in enumerate(row):
            known = not math.isnan(value)
            expected = 0.7 * 2 * (z[i][j] - value) / count if known else 0.0
            assert float(gradient[i, j]) == pytest.approx(expected, rel=1e-5)


def test_nothing_known_is_no_term_and_no_gradient() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    term = distance(logits, torch.full((3, 2), NAN))
    term.backward()
    assert float(term.detach()) == 0
    assert not logits.grad.any()


def test_it_needs_a_method_that_replays() -> None:
    with pytest.raises(MethodError, match="no method replays") as caught:
        arrange([DER()])
    assert "method=[replay,der]" in str(caught.value.mend)
    assert [m.name for m in arrange([Replay(), DER()])] == ["der", "replay"]
    assert len(arrange([Joint(), DER()])) == 2


def test_a_module_whose_stored_logits_would_be_wrong_is_refused() -> None:
    missing = {"stored_logits": "its on_after_batch_transfer may change batches"}
    with pytest.raises(MethodError, match=r"'der' needs 'stored_logits'.*may change") as caught:
        check_capabilities([DER()], missing, "Net")
    assert "without stored logits" in str(caught.value.mend)
    check_capabilities([Replay()], missing, "Net")


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"alpha": -0.1}, "method.der.alpha"),
        ({"alpha": math.inf}, "method.der.alpha"),
        ({"alpha": "much"}, "method.der.alpha"),
        ({"alpha": True}, "method.der.alpha"),
        ({"dtype": "int8"}, "method.der.dtype"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DER(**settings)
    assert caught.value.where == where
