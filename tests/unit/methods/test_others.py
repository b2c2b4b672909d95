"""SI, LwF, A-GEM, L2-SP, interpolation and the baselines, against their formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.errors import ConfigError, MethodError
from perennial.methods.agem import AGEM
from perennial.methods.base import Method, arrange
from perennial.methods.baselines import Joint, Scratch
from perennial.methods.ewc import EWC
from perennial.methods.interpolation import Interpolation, choose, mixed
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.types import Batch, MethodContext, StepContext, VersionView


def batch(x: Tensor, new: int | None = None) -> Batch:
    ids = np.array([str(i) for i in range(len(x))])
    return Batch(data=(x,), ids=ids, is_new=np.arange(len(x)) < (len(x) if new is None else new))


def logits_of(model: nn.Module, data: Any) -> Tensor:
    found: Tensor = model(data[0])
    return found


def context(
    model: nn.Module,
    *,
    methods: Mapping[str, Mapping[str, Tensor]] | None = None,
    new: Callable[[], Any] = tuple,
    history: Callable[[], Any] = tuple,
    validate: Callable[[], dict[str, float]] = dict,
    weights: Mapping[str, Tensor] | None = None,
    champion_scores: Mapping[str, float] | None = None,
    **changes: Any,
) -> MethodContext:
    return MethodContext(
        model=model,
        champion=VersionView(
            id="m@1", weights=weights or model.state_dict(), methods=methods or {}
        ),
        champion_scores=champion_scores or {},
        logits=logits_of,
        per_example_loss=None,
        features=None,
        history=history,
        new=new,
        validate=validate,
        seed=0,
        generator=torch.Generator(),
        device=torch.device("cpu"),
        **{"history_count": 0, "new_count": 10, **changes},
    )


def step(model: nn.Module, data: Tensor | None = None, **changes: Any) -> StepContext:
    rows = torch.zeros(2, 1) if data is None else data
    given = changes.pop("batch", None) or batch(rows)
    return StepContext(
        batch=given,
        own_logits=lambda: logits_of(model, given.data),
        model=model,
        parameters=dict(model.named_parameters()),
        logits_of=logits_of,
        **changes,
    )


def test_si_collects_the_path_of_sgd() -> None:
    """On a quadratic under SGD the whole of ω is known: Σ lr g², the loss's fall to order lr."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False)
    start = model.weight.detach().clone()
    method = SI(strength=0.5, damping=0.1)
    method.prepare(context(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    omega = torch.zeros_like(start)
    curvature = torch.tensor([[0.0, 1.0, 4.0, 9.0]])
    for _ in range(30):
        optimizer.zero_grad()
        (0.5 * curvature * (model.weight - 1).square()).sum().backward()
        gradient = model.weight.grad.clone()
        now = step(model)
        method.observe_gradients(now)
        model.weight.grad.mul_(0.5)  # what others do afterwards does not enter g
        optimizer.step()
        omega += 0.5 * 0.01 * gradient.square()
        method.after_step(now)
    left = method.finish(context(model))["weight"]
    expected = omega / ((model.weight.detach() - start).square() + 0.1)
    torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-7)
    assert left[0, 0] == 0

    again = SI(strength=0.5)
    again.prepare(context(model, methods={"si": {"weight": left}}))
    anchor = model.weight.detach().clone()
    model.weight.data.add_(0.3)
    penalty = 0.5 * (left * (model.weight - anchor).square()).sum()
    (wanted,) = torch.autograd.grad(penalty, model.weight)
    model.weight.grad = None
    again.add_gradients(step(model))
    torch.testing.assert_close(model.weight.grad, wanted)


def test_si_takes_a_path_that_raised_the_loss_for_nothing() -> None:
    """Steps along the gradient, as momentum makes them, give ω below 0, which protects nothing."""
    model = nn.Linear(2, 1, bias=False)
    method = SI(damping=0.1)
    method.prepare(context(model))
    model.weight.grad = torch.tensor([[1.0, 1.0]])
    now = step(model)
    method.observe_gradients(now)
    model.weight.data += torch.tensor([[0.5, -0.5]])
    method.after_step(now)
    left = method.finish(context(model))["weight"]
    torch.testing.assert_close(left, torch.tensor([[0.0, 0.5 / (0.25 + 0.1)]]))


def test_si_forgets_a_gradient_that_a_later_step_does_not_have() -> None:
    """A parameter may move by a penalty alone: no loss fell along that path."""
    model = nn.Linear(2, 1, bias=False)
    method = SI(damping=0.1)
    method.prepare(context(model))
    for gradient, moved in ((torch.ones(1, 2), -0.5), (None, -1.0)):
        model.weight.grad = gradient
        now = step(model)
        method.observe_gradients(now)
        model.weight.data += moved
        method.after_step(now)
    torch.testing.assert_close(method.path["weight"], torch.full((1, 2), 0.5))
    left = method.finish(context(model))["weight"]
    torch.testing.assert_close(left, torch.full((1, 2), 0.5 / (1.5**2 + 0.1)))


def test_si_counts_the_displacement_of_its_own_path() -> None:
    """Weights that were put elsewhere afterwards are not where the path led."""
    model = nn.Linear(2, 1, bias=False)
    method = SI(damping=0.1)
    method.prepare(context(model))
    model.weight.grad = torch.ones(1, 2)
    now = step(model)
    method.observe_gradients(now)
    model.weight.data -= 0.5
    method.after_step(now)
    resumed = SI(damping=0.1)
    resumed.load_state_dict(method.state_dict())
    model.weight.data += 0.4
    for one in (method, resumed):
        left = one.finish(context(model))["weight"]
        torch.testing.assert_close(left, torch.full((1, 2), 0.5 / (0.25 + 0.1)))


def test_si_counts_only_steps_that_were_taken() -> None:
    model = nn.Linear(2, 1)
    method = SI()
    method.prepare(context(model))
    model(torch.ones(1, 2)).sum().backward()
    method.observe_gradients(step(model))
    before = {name: value.clone() for name, value in method.path.items()}
    # the scaler skipped the step, so the hook did not run; the next one replaces what was seen
    method.observe_gradients(step(model))
    assert all(torch.equal(before[name], value) for name, value in method.path.items())
    assert SI().finish(context(model)) == {}
    with pytest.raises(MethodError, match="'weight' does not fit"):
        SI().prepare(context(model, methods={"si": {"weight": torch.zeros(3)}}))


@pytest.mark.parametrize("rows", ["all", "new", "replayed"])
def test_lwf_is_the_divergence_from_the_teacher(rows: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9), nn.Linear(6, 3))
    method = LwF(strength=0.7, temperature=3.0, rows=rows)
    method.prepare(context(model, replays=rows == "replayed"))
    teacher = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9), nn.Linear(6, 3)).eval()
    teacher.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(10, 4)
    logits = model(x)
    now = step(model, batch=batch(x, new=4), outputs={"loss": 0, "logits": logits})
    term = method.loss_terms(now)["distillation"]
    part = {"all": slice(0, 10), "new": slice(0, 4), "replayed": slice(4, 10)}[rows]
    p = torch.softmax(teacher(x[part]) / 3, dim=1)
    log_ratio = p.log() - torch.log_softmax(logits[part] / 3, dim=1)
    torch.testing.assert_close(term, 0.7 * 9 * (p * log_ratio).sum(dim=1).mean())
    term.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert not any(p.requires_grad for p in method._teacher.parameters())
    if rows == "replayed":
        assert method.loss_terms(step(model, batch=batch(x))) == {}


def test_lwf_holds_one_copy_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    method = LwF()
    method.prepare(context(model))
    method.loss_terms(step(model, torch.randn(5, 4)))
    kept = method.state_dict()["weights"]
    taught = method._teacher.state_dict()
    assert kept.keys() == taught.keys() == model.state_dict().keys()
    for name, value in taught.items():
        assert kept[name].data_ptr() == value.data_ptr() != model.state_dict()[name].data_ptr()


def test_lwf_of_replayed_rows_needs_replay() -> None:
    with pytest.raises(MethodError, match="batches hold none") as caught:
        LwF(rows="replayed").prepare(context(nn.Linear(4, 3)))
    assert caught.value.where == "method.lwf.rows"
    assert "method=[replay,lwf]" in caught.value.mend
    LwF(rows="new").prepare(context(nn.Linear(4, 3)))


def test_lwf_starts_at_zero_and_forms_logits_where_the_module_keeps_them() -> None:
    model = nn.Linear(4, 3)
    method = LwF()
    method.prepare(context(model))
    term = method.loss_terms(step(model, torch.randn(5, 4)))["distillation"]
    term.backward()
    assert float(term.detach()) == pytest.approx(0, abs=1e-6)
    assert float(model.weight.grad.abs().max()) < 1e-6


def test_agem_projects_only_what_points_against_memory() -> None:
    model = nn.Linear(3, 1, bias=False)
    for gradient, memory in (
        ([1.0, 2.0, -1.0], [-1.0, 0.5, 2.0]),
        ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0]),
    ):
        g, r = torch.tensor([gradient]), torch.tensor([memory])
        model.weight.grad = g.clone()
        asked: list[int] = []

        def remembered(count: int, r: Tensor = r, asked: list[int] = asked) -> dict[str, Tensor]:
            asked.append(count)
            return {"weight": r}

        AGEM(rows=7).project_gradients(step(model, memory_gradients=remembered))
        along = float((g * r).sum())
        expected = g if along >= 0 else g - along / float((r * r).sum()) * r
        torch.testing.assert_close(model.weight.grad, expected)
        assert float((model.weight.grad * r).sum()) >= -1e-6
        assert asked == [7]
    model.weight.grad = torch.ones(1, 3)
    AGEM().project_gradients(step(model, memory_gradients=lambda n: {"weight": torch.zeros(1, 3)}))
    assert torch.equal(model.weight.grad, torch.ones(1, 3))


@pytest.mark.parametrize(("rows", "lines"), [(8, 1), (7, 0)])
def test_agem_says_where_memory_is_smaller_than_its_rows(rows: int, lines: int) -> None:
    told: list[str] = []
    AGEM(rows=rows).prepare(context(nn.Linear(3, 1), history_count=7, warn=told.append))
    assert len(told) == lines
    assert all("7 rows, fewer than the 8 of a step" in line for line in told)


def test_l2sp_pulls_every_parameter_alike() -> None:
    model = nn.Linear(3, 2)
    method = L2SP(strength=0.3)
    method.prepare(context(model))
    anchor = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.weight.data.add_(1.0)
    logged: dict[str, float] = {}
    method.add_gradients(step(model, is_logging=True, log=logged.__setitem__))
    torch.testing.assert_close(model.weight.grad, 0.3 * (model.weight.detach() - anchor["weight"]))
    assert logged["l2sp/penalty"] == pytest.approx(0.15 * 6, rel=1e-5)


def test_alpha_is_the_best_on_new_rows_within_the_budget() -> None:
    tried = [(0.25, 0.50, 0.90), (0.5, 0.60, 0.89), (0.75, 0.60, 0.88), (1.0, 0.70, 0.50)]
    scores = [(a, {"new": n, "history": h}) for a, n, h in tried]
    assert choose(scores, 0.90, 0.0) == 0.25
    assert choose(scores, 0.90, 0.02) == 0.5, "of equal ones the nearest to the champion"
    assert choose(scores, 0.90, 0.5) == 1.0
    assert choose(scores, 0.95, 0.0) == 0.25, "none within: the one that loses least"
    assert choose([(a, {"new": s["new"]}) for a, s in scores], None, 0.0) == 1.0


def test_interpolated_batch_norms_get_statistics_of_mixed_rows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[1].weight.add_(1.0)
        model[0].running_mean.add_(1.0)
    new, old = torch.randn(8, 3) + 4, torch.randn(8, 3) - 4
    scores = iter([{"new": 0.5, "history": 0.9}, {"new": 0.9, "history": 0.1}])
    modes = [module.training for module in model.modules()]
    method = Interpolation(points=2)
    method.adjust(
        context(
            model, weights=weights, new=lambda: [batch(new)], history=lambda: [batch(old)],
            validate=lambda: next(scores), champion_scores={"new": 0.1, "history": 0.9},
            new_count=8, history_count=8,
        )
    )  # fmt: skip
    assert method.alpha == 0.5
    both = torch.cat([new, old])
    torch.testing.assert_close(model[0].running_mean, both.mean(dim=0))
    torch.testing.assert_close(model[0].running_var, both.var(dim=0))
    torch.testing.assert_close(model[1].weight.detach(), weights["1.weight"] + 0.5)
    assert [module.training for module in model.modules()] == modes
    assert model[0].momentum == 0.1


@pytest.mark.parametrize(
    ("new_rows", "old_rows"), [(513, 200), (513, 0), (513, 1), (100, 2000), (1025, 513), (2, 0)]
)
@pytest.mark.parametrize("size", [512, 64, 1])
def test_statistics_are_those_of_all_rows_however_they_are_batched(
    new_rows: int, old_rows: int, size: int
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for norm in (model[0], model[2]):
        norm.running_var.mul_(2.0)  # training moved them
    new, old = torch.randn(new_rows, 3) + 4, 3 * torch.randn(old_rows, 3) - 4
    rows = torch.cat([new, old])
    forwards: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda _, inputs: forwards.append(inputs[0]))
    Interpolation(points=2).adjust(
        context(
            model, weights=weights, new=lambda: map(batch, new.split(size)),
            history=lambda: map(batch, old.split(size) if old_rows else ()),
            validate=lambda: {"new": 0.5}, champion_scores={"new": 0.1},
            new_count=new_rows, history_count=old_rows,
        )
    )  # fmt: skip
    torch.testing.assert_close(model[0].running_mean, rows.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model[0].running_var, rows.var(dim=0), rtol=1e-4, atol=1e-4)
    # what a batch norm deeper down gets was normalised by the batch
    assert model[2].running_mean.isfinite().all()
    assert (model[2].running_var > 0).all()
    # each of two to try it, and once to leave the model at the best one
    assert sum(map(len, forwards)) == 3 * len(rows)
    assert min(map(len, forwards)) >= 2
    assert max(map(len, forwards)) <= max(size, 6) + 2
    if min(new_rows, old_rows) > 1 and size > 1:
        share = new_rows / len(rows)
        assert all(abs(float((x[:, 0] > 0.5).float().mean()) - share) < 0.25 for x in forwards)
    assert len(model[0]._forward_pre_hooks) == 1, "its own hooks are gone"
    assert int(model[0].num_batches_tracked) == int(weights["0.num_batches_tracked"])


@pytest.mark.parametrize("best", [0.5, 1.0])
def test_statistics_are_of_one_kind_at_every_alpha_and_frozen_ones_stay(best: float) -> None:
    """The first norm is kept in evaluation mode, the second one trained with frozen statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model[0].eval()
    model[0].running_mean.add_(2.0)
    model[2].running_mean.add_(2.0)
    model.register_buffer("calls", torch.zeros(()))

    def counted(*_: Any) -> None:
        model.calls.add_(1)

    model.register_forward_pre_hook(counted)
    x = 3 * torch.randn(50, 3) + 4
    scores = iter([{"new": 0.9 if best == alpha else 0.1} for alpha in (0.5, 1.0)])
    method = Interpolation(points=2)
    method.adjust(
        context(
            model, weights=weights, new=lambda: [batch(x)], champion_scores={"new": 0.1},
            validate=lambda: next(scores), new_count=50,
        )
    )  # fmt: skip
    assert method.alpha == best
    torch.testing.assert_close(model[0].running_mean, torch.full((3,), 2.0 * best))
    assert torch.equal(model[1].running_mean, weights["1.running_mean"])
    before = (x - 2.0 * best) / (1 + 1e-5)
    torch.testing.assert_close(model[2].running_mean, before.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model[2].running_var, before.var(dim=0), rtol=1e-4, atol=1e-4)
    assert float(model.calls) == 0
    assert [module.training for module in model] == [False, True, True, True]


def test_the_end_of_the_line_is_bit_equal() -> None:
    a, b = {"w": torch.randn(3), "n": torch.tensor(1)}, {"w": torch.randn(3), "n": torch.tensor(5)}
    assert mixed(a, b, 1.0) is b
    assert int(mixed(a, b, 0.5)["n"]) == 5


def test_joint_takes_rows_as_they_are_and_scratch_draws_anew() -> None:
    assert Joint().new_share(100, 300) == 0.25
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
    before = model[0].weight.detach().clone()
    Scratch().prepare(context(model))
    assert not torch.equal(before, model[0].weight)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(MethodError, match=r"'1'.*Own.*cannot be drawn anew"):
        Scratch().prepare(context(nn.Sequential(nn.Linear(2, 2), Own())))


@pytest.mark.parametrize("holding", [EWC, SI, L2SP, LwF, Interpolation])
def test_what_holds_on_to_the_champion_is_refused_beside_scratch(
    holding: Callable[[], Method],
) -> None:
    with pytest.raises(MethodError, match="'scratch' does not start from the champion, and"):
        arrange([Scratch(), holding()])
    assert len(arrange([Joint(), holding()])) == 2
    assert len(arrange([Scratch(), AGEM()])) == 2


def test_two_ways_to_make_up_a_batch_are_refused() -> None:
    with pytest.raises(MethodError, match="joint and replay both say"):
        arrange([Replay(), Joint()])


@pytest.mark.parametrize(
    ("build", "where"),
    [
        (lambda: SI(strength=-1), "si.strength"),
        (lambda: SI(damping=0), "si.damping"),
        (lambda: LwF(temperature=0), "lwf.temperature"),
        (lambda: LwF(rows="old"), "lwf.rows"),
        (lambda: LwF(strength="much"), "lwf.strength"),
        (lambda: AGEM(rows=0), "agem.rows"),
        (lambda: AGEM(rows=2.5), "agem.rows"),
        (lambda: L2SP(strength=float("inf")), "l2sp.strength"),
        (lambda: Interpolation(budget=1), "interpolation.budget"),
        (lambda: Interpolation(points=0), "interpolation.points"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], Method], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.where == f"method.{where}"
