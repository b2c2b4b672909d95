"""Every YAML composes, and every node in it builds what it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perennial.config import check_node, locate, nearest
from perennial.errors import ConfigError
from perennial.launch import _model, build, constructed
from perennial.paths import CONF_DIR

Compose = Callable[..., dict[str, Any]]
GROUPS = sorted(path for path in CONF_DIR.glob("*/*.yaml"))
GIVEN = {
    "data/files": ["data.new=rows.csv"],
    "data/table": ["data.new=rows.csv"],
    "data/text": ["data.new=rows.csv", "data.preprocess.tokenizer=tokenizer.json"],
    "model/tabular": ["model.numerical=3", "model.cardinalities=[4,2]"],
    "model/huggingface": ["model.path=folder"],
    "model/sequential": ["model.items=9"],
    "notify/command": ["notify.command=[true]"],
    "model/custom": [
        "model._target_=torch.nn.Linear",
        "+model.in_features=2",
        "+model.out_features=2",
    ],
}


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_choice_composes_and_builds(
    path: Any, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_DATA", "data")
    choice = f"{path.parent.name}/{path.stem}"
    config = compose(f"{path.parent.name}={path.stem}", *GIVEN.get(choice, []))
    for group in ("model", "task", "optimizer", "trainer", "gate", "registry", "tracking"):
        node = constructed(config[group], group)
        given = {key: value for key, value in node.items() if value is not None}
        check_node(given if group == "model" else node, where=group)
        if group == "model" and {"huggingface", "intents", "intrusions", "campaigns", "films"} & {
            path.stem
        }:
            continue  # what it is made of comes from a folder, or from preprocessing
        assert build(node, where=group) is not None
    for name, node in config["method"].items():
        check_node(node, where=name)
        assert build(node, where=name).name == name


@pytest.mark.parametrize("path", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_opens_with_the_command_that_uses_it(path: Any) -> None:
    head = path.read_text().splitlines()[:2]
    assert any(
        line.startswith(("# python train.py", "# perennial ", "# wandb agent ")) for line in head
    )


METHODS = sorted(CONF_DIR.glob("method/*.yaml"))


def overrides_in(command: str) -> list[str]:
    return command.removeprefix("# python train.py").split()


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_the_command_of_every_method_works(path: Any, compose: Compose) -> None:
    config = compose(*overrides_in(path.read_text().splitlines()[0]))
    assert path.stem in {*config["method"], "default", "none"}
    for name, node in config["method"].items():
        check_node(node, where=f"method.{name}")
        assert build(node, where=f"method.{name}").name == name


@pytest.mark.parametrize("kind", ["sampled", "true", "empirical", "'true'"])
def test_every_fisher_is_chosen_as_it_is_written(kind: str, compose: Compose) -> None:
    node = compose("method=ewc", f"method.ewc.fisher={kind}")["method"]["ewc"]
    check_node(node, where="method.ewc")
    assert build(node, where="method.ewc").fisher == kind.strip("'")


def test_no_fisher_is_none_of_them(compose: Compose) -> None:
    node = compose("method=ewc", "method.ewc.fisher=false")["method"]["ewc"]
    check_node(node, where="method.ewc")
    with pytest.raises(ConfigError, match="one of sampled, true, empirical"):
        build(node, where="method.ewc")


def test_defaults_are_those_of_the_design(compose: Compose, home: Any) -> None:
    config = compose()
    assert config["model_name"] == "digits"
    assert config["registry"]["url"] == f"sqlite:///{home}/registry.db"
    assert config["seed"] == 0
    assert config["gate"]["alpha"] == 0.05
    assert config["gate"]["retention"]["margin"] == 0.02
    assert config["method"]["replay"]["new_fraction"] == 0.2


def test_a_waived_retention_is_one_override(compose: Compose) -> None:
    assert build(compose("gate.retention=waived")["gate"], where="gate").waived


def test_gates_are_ordered_by_what_they_let_through(compose: Compose) -> None:
    strict, default, lenient = (
        build(compose(f"gate={name}")["gate"], where="gate")
        for name in ("strict", "default", "lenient")
    )
    for one, other in ((strict, default), (default, lenient)):
        assert one.retention.margin < other.retention.margin
        assert one.retention.total < other.retention.total
        assert one.slices.margin < other.slices.margin
    assert strict.flips is not None
    assert (default.flips, lenient.flips) == (None, None)


def test_the_default_gate_is_the_constructor_s(compose: Compose) -> None:
    node = compose()["gate"]
    assert vars(build(node, where="gate")) == vars(build({"_target_": node["_target_"]}, where=""))


def test_a_custom_check_is_built_from_its_path(compose: Compose) -> None:
    check = {"_target_": "perennial.promotion.gate.decide"}
    gate = compose()["gate"]
    policy = build({**gate, "checks": [{**check, "_partial_": True}]}, where="gate")
    assert callable(policy.checks[0])
    with pytest.raises(ConfigError) as caught:
        build({**gate, "checks": [check]}, where="gate")
    assert "_partial_: true" in str(caught.value.mend)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"max_stepss": 3}, r"did you mean trainer\.max_steps"),
        ({"max_steps": "many"}, "takes a whole number"),
        ({"find_lr": 1}, "true or false"),
        ({"patience": 1.5}, "a whole number or null"),
        ({"max_steps": 0}, "at least 1"),
    ],
)
def test_wrong_keys_and_types_are_refused(node: dict[str, Any], message: str) -> None:
    whole = {"_target_": "perennial.training.fit.Training", **node}

    def both() -> None:
        check_node(whole, where="trainer")
        build(whole, where="trainer")

    with pytest.raises(ConfigError, match=message):
        both()


def test_an_import_that_fails_is_named() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        check_node({"_target_": "nowhere.Net"}, where="model")


@pytest.mark.parametrize(
    ("target", "mend"),
    [
        ("mylib.model.Credit", "did you mean mylib.models.Credit?"),
        ("mylb.models.Credit", "did you mean mylib.models.Credit?"),
        ("mylib.models.Credits", "did you mean mylib.models.Credit?"),
        ("mylib.models.Zzz", "check the import path"),
        ("mylib.broken.Net", "check the import path"),
        ("Credit", "check the import path"),
    ],
)
def test_a_path_that_leads_nowhere_names_the_nearest(
    target: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mylib").mkdir()
    (tmp_path / "mylib" / "__init__.py").touch()
    (tmp_path / "mylib" / "models.py").write_text("class Credit: ...\nCREDITS = 3\n")
    (tmp_path / "mylib" / "broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [one for one in sys.modules if one.partition(".")[0] == "mylib"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError) as caught:
        locate(target, where="model")
    assert (caught.value.mend or "").startswith(mend), caught.value.mend


def test_nearest_looks_at_the_last_part_too() -> None:
    known = ["trainer.max_steps", "method.replay.new_fraction"]
    assert nearest("new_fracton", known) == "method.replay.new_fraction"
    assert nearest("xyz", known) is None


def test_arguments_of_a_checkpoint_are_values_and_never_nodes() -> None:
    """A mapping with a ``_target_`` in a file is not built, and an interpolation not resolved."""
    constructor = _model({"_target_": "collections.OrderedDict", "width": 3})
    carried = {"inner": {"_target_": "os.getcwd"}, "text": "${oc.env:HOME}"}
    assert dict(constructor.build(**carried)) == {"width": 3, **carried}
