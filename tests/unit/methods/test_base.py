from __future__ import annotations

import pytest

from perennial.errors import MethodError
from perennial.methods.base import Method, arrange, check_capabilities, overrides
from perennial.methods.ewc import EWC
from perennial.methods.replay import Replay
from perennial.types import StepContext


class Projecting(Method):
    name = "gem"

    def project_gradients(self, step: StepContext) -> None:
        """Leave them."""


class AlsoProjecting(Projecting):
    name = "agem"

    def project_gradients(self, step: StepContext) -> None:
        """Leave them."""


def test_methods_run_sorted_by_name_however_they_are_listed() -> None:
    for methods in ([Replay(), EWC()], [EWC(), Replay()]):
        assert [method.name for method in arrange(methods)] == ["ewc", "replay"]


def test_a_method_listed_twice_is_refused() -> None:
    with pytest.raises(MethodError, match="'ewc' is listed twice"):
        arrange([EWC(), Replay(), EWC()])


def test_at_most_one_method_projects() -> None:
    assert arrange([Projecting(), EWC()])
    with pytest.raises(MethodError, match="agem and gem both project"):
        arrange([Projecting(), AlsoProjecting()])


def test_overrides_tells_a_phase_of_its_own() -> None:
    assert overrides(EWC(), "add_gradients")
    assert not overrides(EWC(), "project_gradients")
    assert not overrides(Replay(), "finish")


def test_a_missing_capability_names_method_and_reason() -> None:
    missing = {"logits": "its forward failed"}
    check_capabilities([Replay()], missing, "Net")
    check_capabilities([EWC()], {"features": "no layer"}, "Net")
    with pytest.raises(MethodError, match=r"'ewc' needs 'logits', which Net .* its forward failed"):
        check_capabilities([Replay(), EWC()], missing, "Net")
