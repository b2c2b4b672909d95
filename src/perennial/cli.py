"""Every command: init, train, watch, adopt, evaluate, decide, backtest, compare, data, and others.

Heavy libraries are imported inside functions, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from perennial.config import nearest
from perennial.errors import EXIT_FAILED, ConfigError, PerennialError
from perennial.masking import MASK, mask_text
from perennial.nested import flatten
from perennial.paths import CONF_DIR, home
from perennial.usage import asks_for_help, help_text
from perennial.verbs.parsing import flags_first

_HYDRA = Path(hydra.__file__).parent
USAGE = """perennial: retrain deployed PyTorch models without forgetting

  perennial init [FOLDER]                  a small project of your own that runs at once
  perennial train [overrides]              one retraining cycle, the same as python train.py
  perennial watch [overrides]              follow data.new, a cycle whenever enough has arrived
  perennial adopt checkpoint=PATH ...      the model that serves today becomes the champion
  perennial evaluate [data.new=PATH] ...   score the champion on any data set, without training
  perennial data check [data.new=PATH] ... validate and describe data, without training
  perennial monitor [data.new=PATH] ...    have rows moved, and does the champion still do well?
  perennial decide REF [gate=...] ...      decide again on a version's stored predictions
  perennial backtest [policy=...] ...      how often to retrain: policies replayed over a past
  perennial compare [RUNS] ...             runs, sweeps and versions side by side
  perennial forget NAME ids=... ...        rows leave memory, holdouts and stored predictions
  perennial registry list                  lineages and their versions
  perennial registry show REF              one version: metrics, decision, files
  perennial registry path REF              a folder with the version's files
  perennial registry rollback NAME         the previous champion serves again
  perennial registry sync [NAME]           bring versions and aliases in W&B up to date

REF is NAME@champion, NAME@previous or NAME@NUMBER. More: perennial VERB --help
"""


def main() -> None:
    """The console script ``perennial``."""
    verbs = {
        "init": init,
        "train": train,
        "watch": watch,
        "adopt": adopt,
        "evaluate": evaluate,
        "decide": decide,
        "backtest": backtest,
        "compare": compare,
        "data": data,
        "monitor": monitor,
        "forget": forget,
        "registry": registry,
    }
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(USAGE)  # noqa: T201
        raise SystemExit(0)
    if verb == "--version":
        from importlib.metadata import version

        print(version("perennial"))  # noqa: T201
        raise SystemExit(0)
    if verb not in verbs:
        close = nearest(verb, verbs)
        _stop(
            ConfigError(
                f"{verb!r} is not a verb of perennial.",
                where="command line",
                mend=f"did you mean {close}?" if close else "see perennial --help",
            )
        )
    del sys.argv[1]
    sys.path.insert(0, str(Path.cwd()))
    verbs[verb]()


def init() -> None:
    """``perennial init [FOLDER]``: write an example project, by default into this folder."""
    from perennial.verbs.init import init_verb

    _verb(init_verb)


def train() -> None:
    """``python train.py``: one retraining cycle; exits with the verdict's code."""
    codes: list[int] = []

    def job(config: DictConfig) -> float | None:
        from perennial.launch import run_job

        output, secrets = HydraConfig.get(), _secrets(config)
        _mask(Path(output.runtime.output_dir) / str(output.output_subdir), secrets)
        _mask(Path(output.sweep.dir), secrets)
        multirun = output.mode == RunMode.MULTIRUN
        result, objective = run_job(
            plain_config(config), folder=Path(output.runtime.output_dir), multirun=multirun
        )
        codes.append(int(result["exit_code"]))
        return objective

    _run(_hydra("train", job), "train")
    raise SystemExit(max(codes, default=0))


def watch() -> None:
    """``perennial watch``: follow ``data.new``, and run one cycle at a time."""
    try:
        from perennial.verbs.watch import follow, parse, triggered

        pace, settings = parse(sys.argv[1:])
    except PerennialError as error:
        _stop(error)

    def job(config: DictConfig) -> None:
        from rich.console import Console

        from perennial.launch import build

        given, chosen = plain_config(config), HydraConfig.get().runtime.choices["trigger"]
        follow(
            registry=build(given["registry"], where="registry"),
            name=str(given["model_name"]),
            source=given["data"]["new"],
            pace=pace,
            settings=triggered(settings, chosen=str(chosen)),
            console=Console(soft_wrap=False),
        )

    sys.argv[1:] = [*settings, "hydra.run.dir=.", "hydra.output_subdir=null"]
    _run(_hydra("train", job), "train")


def evaluate() -> None:
    """``perennial evaluate``: score a version without training."""

    def job(config: DictConfig) -> None:
        from perennial.launch import evaluate_job

        evaluate_job(plain_config(config))

    _run(_hydra("evaluate", job), "evaluate")


def decide() -> None:
    """``perennial decide``: decide again on stored predictions; exits with the verdict's code."""
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        from perennial.launch import decide_job

        codes.append(decide_job(plain_config(config)))

    _refuse_several(
        "perennial decide takes one version and one policy at a time.",
        mend="decide once for each policy",
    )
    # before Hydra reads them: a version is named bare, as by the other verbs
    given = _with_json(sys.argv[1:])
    if given and not given[0].startswith("-") and "=" not in given[0]:
        given[0] = f"version={given[0]}"
    sys.argv[1:] = given
    _run(_hydra("decide", job), "decide")
    raise SystemExit(max(codes, default=0))


def data() -> None:
    """``perennial data check``: validate and describe data.

    Exits with 0, 10 where nothing is new, or 30 for bad data.
    """
    codes: list[int] = []
    if sys.argv[1:2] != ["check"] and not asks_for_help(sys.argv[1:]):
        asked = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        _stop(
            ConfigError(
                f"{asked!r} is no verb for data.",
                where="command line",
                mend="perennial data check data.new=PATH",
            )
        )

    def job(config: DictConfig) -> None:
        from perennial.launch import check_job

        codes.append(check_job(plain_config(config)))

    sys.argv[1:] = _with_json(one for one in sys.argv[1:] if one != "check")
    _run(_hydra("check", job), "check")
    raise SystemExit(max(codes, default=0))


def monitor() -> None:
    """``perennial monitor``: have rows moved, and does the champion still do well?

    Exits with 0, 40 on an alarm, 30 for bad data or 1.
    """
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        from perennial.verbs.monitor import monitor_job

        codes.append(monitor_job(plain_config(config)))

    _refuse_several(
        "perennial monitor looks at one window at a time.",
        mend="look once for each window, in order of time",
    )
    sys.argv[1:] = _with_json(sys.argv[1:])
    _run(_hydra("monitor", job), "monitor")
    raise SystemExit(max(codes, default=0))


def adopt() -> None:
    """``perennial adopt``: register a checkpoint as champion without retraining it."""

    def job(config: DictConfig) -> None:
        from perennial.launch import adopt_job

        adopt_job(plain_config(config))

    _run(_hydra("adopt", job), "adopt")


def backtest() -> None:
    """``perennial backtest``: replay a past under several policies of retraining."""

    def job(config: DictConfig) -> None:
        from perennial.verbs.backtest import backtest_job

        backtest_job(lambda settings: plain_config(with_settings(config, settings)))

    _refuse_several(
        "perennial backtest runs all policies by itself.",
        mend="name them with commas: policy=never,every:1,every:4",
    )
    # commas would be several runs to Hydra, and are several policies here
    sys.argv[1:] = [_quoted(one) for one in _with_json(sys.argv[1:])]
    _run(_hydra("backtest", job), "backtest")


def compare() -> None:
    """``perennial compare``: runs, sweeps and versions side by side."""
    from perennial.verbs.compare import compare_verb

    _verb(compare_verb)


def forget() -> None:
    """``perennial forget``: rows leave every version of a lineage, and are never met again."""
    from perennial.verbs.forget import forget_verb

    _verb(forget_verb)


def registry() -> None:
    """``perennial registry``: look at versions, or roll back."""
    from perennial.verbs.registry import registry_verb

    _verb(registry_verb)


def _verb(verb: Callable[[Sequence[str]], None]) -> None:
    """Run a verb that knows nothing of Hydra."""
    try:
        verb(sys.argv[1:])
    except PerennialError as error:
        _stop(error)


def _hydra(name: str, job: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    def guarded(config: DictConfig) -> Any:
        # Hydra would print lines of its own about an error that left the job
        try:
            return job(config)
        except PerennialError as error:
            _stop(error)

    decorate = hydra.main(
        version_base="1.3", config_path=str(CONF_DIR.absolute()), config_name=name
    )
    wrapped: Callable[[], Any] = decorate(guarded)
    return wrapped


def _run(job: Callable[[], Any], name: str) -> None:
    if asks_for_help(sys.argv[1:]):
        own = "python train.py" if Path(sys.argv[0]).name == "train.py" else "perennial train"
        folders = [CONF_DIR, *_own_folders(sys.argv[1:])]
        sys.stdout.write(help_text(name, folders, train=own))
        raise SystemExit(0)
    sys.argv[1:] = flags_first(sys.argv[1:])
    # Hydra then raises instead of printing its own message, so that ours can name the nearest key
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        # one reading of it for Hydra and for us: ~ and an empty value included
        os.environ["PERENNIAL_HOME"] = str(home())
        # outside of a fit, where Lightning listens, a scheduler's SIGTERM ends like Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        job()
    except KeyboardInterrupt:
        _stop(
            PerennialError(
                "Interrupted.", mend="run the same command again; it goes on where it stopped"
            )
        )
    except PerennialError as error:
        _stop(error)
    except (HydraException, OmegaConfBaseException) as error:
        _stop(explain(error, name))
    except Exception as error:
        if Path(traceback.extract_tb(error.__traceback__)[-1].filename).is_relative_to(_HYDRA):
            _stop(explain(error, name))
        traceback.print_exc()
        _stop(
            PerennialError(
                f"An error that Perennial did not foresee: {type(error).__name__}: {error}",
                where="perennial",
                mend="please report it with the traceback above",
            )
        )


def _mask(folder: Path, secrets: Sequence[str]) -> None:
    """Hydra keeps the configuration as it was given, passwords included; they are taken out."""
    for path in folder.glob("*.yaml"):
        text = path.read_text()
        masked = mask_text(text)
        for secret in secrets:
            masked = masked.replace(secret, MASK)
        if masked != text:
            path.write_text(masked)


def _secrets(config: DictConfig) -> list[str]:
    """The words of a notifier's address and headers, where they were given as they are."""
    node = OmegaConf.to_container(config, resolve=False)
    notify = node.get("notify") if isinstance(node, dict) else None
    if not isinstance(notify, dict):
        return []
    headers = notify.get("headers")
    values = [notify.get("url"), *(headers.values() if isinstance(headers, dict) else [])]
    words = [word for value in values for word in str(value or "").split()]
    return sorted((w for w in words if len(w) > 5 and "${" not in w), key=len, reverse=True)


def _refuse_several(what: str, *, mend: str) -> None:
    """End a command that is one run, where several are asked for."""
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        _stop(ConfigError(what, where="-m", mend=f"leave out -m, and {mend}"))


def _with_json(arguments: Iterable[str]) -> list[str]:
    """``--json`` as the setting that it is to Hydra."""
    return ["json=-" if argument == "--json" else argument for argument in arguments]


def _quoted(argument: str) -> str:
    """``policy=a,b`` as one text to Hydra."""
    key, _, value = argument.partition("=")
    return f"policy='{value}'" if key == "policy" and value[:1] not in ("'", '"', "[") else argument


def with_settings(config: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    """A configuration with other settings, by their dotted names.

    Raises:
        ConfigError: It has no such setting.
    """
    found = copy.deepcopy(config)
    for key, value in settings.items():
        values = OmegaConf.to_container(found, resolve=False)
        assert isinstance(values, dict)
        known = flatten({str(name): value for name, value in values.items()})
        if key not in known:
            close = nearest(key, known)
            raise ConfigError(
                f"There is no setting {key!r} that a backtest could change.",
                where="backtest.key, backtest.founding",
                mend=f"did you mean {close}?" if close else "see all settings with --cfg job",
            )
        OmegaConf.update(found, key, value)
    return found


def _own_folders(arguments: Sequence[str]) -> list[Path]:
    """Folders of groups that the user added with ``--config-dir``."""
    found = [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    pairs = pairwise(arguments)
    found += [value for flag, value in pairs if flag in ("--config-dir", "-cd")]
    return [Path(folder) for folder in found]


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The configuration resolved, as plain values.

    Raises:
        ConfigError: A setting that must be given is not.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(
            f"{missing[0]} must be given.",
            where=missing[0],
            mend=f"add {missing[0]}=... to the command",
        )
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def explain(error: Exception, name: str) -> ConfigError:
    """A composition error in a user's words, with the nearest right name."""
    text = str(error).strip()
    key = None
    pattern = r"(?:[Cc]ould not override|Could not append to config.*?) '([^']+)'"
    if found := re.search(pattern, text):
        key = found.group(1)
    if isinstance(error, ConfigCompositionException) and key:
        return _unknown_setting(key, text, name)
    if found := re.search(r"find '([^']+)'", text):
        group, _, choice = found.group(1).rpartition("/")
        folders = [CONF_DIR, *_own_folders(sys.argv[1:])]
        options = sorted(p.stem for one in folders for p in (one / group).glob("*.yaml"))
        if not group or not options:
            close = nearest(choice, _groups())
            return ConfigError(text.splitlines()[0], where="command line", mend=close)
        close = nearest(choice, options)
        mend = f"did you mean {group}={close}? " if close else ""
        return ConfigError(
            f"There is no {group} named {choice!r}.",
            where=f"{group}={choice}",
            mend=f"{mend}choices: {', '.join(options)}",
        )
    if found := re.search(r"override '([^'=]+)'.*No match in the defaults list", text):
        group = found.group(1)
        close = nearest(group, _groups())
        return ConfigError(
            f"There is no group {group!r}.",
            where="command line",
            mend=f"did you mean {close}=...?" if close else f"groups: {', '.join(_groups())}",
        )
    return ConfigError(text, where="configuration", mend="see all settings with --cfg job")


def _unknown_setting(key: str, text: str, name: str) -> ConfigError:
    bare = key.lstrip("+~")
    if "already at" in text:
        return ConfigError(
            f"{bare} is there already.",
            where="command line",
            mend=f"write {bare}=..., once and without a plus, to change it",
        )
    if owners := _owners(bare):
        group = bare.partition(".")[0]
        others = f", beside another as {group}=[NAME,{owners[0]}]" if group == "method" else ""
        belongs = (
            f"it belongs to {' and '.join(f'{group}={owner}' for owner in owners)}: choose "
            f"that{others}, or leave the setting out"
        )
        own = f"write {_with_plus(bare)}, as an argument of your own class; otherwise "
        return ConfigError(
            f"The chosen {group} has no setting {bare!r}.",
            where="command line",
            mend=(own if f"{group}=custom" in sys.argv else "") + belongs,
        )
    group = bare.partition(".")[0]
    known = flatten(_defaults(name)) if group != "sweep" else _settings_of_sweeps()
    # trigger.evry is trigger.every, though another trigger is the default
    close = nearest(bare, [*known, *(_settings_of_choices(group) if "." in bare else [])])
    mend = f"did you mean {close}?" if close else "see all settings with --cfg job"
    if group in ("model", "optimizer"):
        mend += f" An argument of your own class is added with a plus: {_with_plus(bare)}"
    return ConfigError(f"There is no setting {key!r}.", where="command line", mend=mend)


def _groups() -> list[str]:
    return sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir())


def _with_plus(key: str) -> str:
    """A setting as it was given, with the plus that adds it."""
    given = [one for one in sys.argv if one.startswith(f"{key}=")]
    return f"+{given[-1]}" if given else f"+{key}=..."


def _owners(key: str) -> list[str]:
    """The choices of a setting's group that have it."""
    group, _, rest = key.partition(".")
    files = sorted((CONF_DIR / group).glob("*.yaml")) if rest else []
    known = {path.stem: flatten(yaml.safe_load(path.read_text()) or {}) for path in files}
    # a sweep's file sets more than its own group, and names it
    return [choice for choice, keys in known.items() if rest in keys or key in keys]


def _settings_of_choices(group: str) -> list[str]:
    """The settings that any choice of a group has."""
    files = sorted((CONF_DIR / group).glob("*.yaml"))
    keys = [key for path in files for key in flatten(yaml.safe_load(path.read_text()) or {})]
    return [f"{group}.{key}" for key in keys if key != "defaults" and not key.startswith("_")]


def _settings_of_sweeps() -> Mapping[str, Any]:
    files = (CONF_DIR / "sweep").glob("*.yaml")
    return {
        key: value
        for path in files
        for key, value in flatten(yaml.safe_load(path.read_text())).items()
    }


def _defaults(name: str) -> Mapping[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        config = OmegaConf.to_container(compose(name), resolve=False)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _stop(error: PerennialError) -> NoReturn:
    sys.stderr.write(f"perennial: {error}\n")
    raise SystemExit(error.exit_code if error.exit_code else EXIT_FAILED)


if __name__ == "__main__":  # a trial of a sweep, in its own process
    train()
