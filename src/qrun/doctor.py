"""Gathers the facts that `qrun doctor` judges. The verdicts are `checks`; here the machine is asked.

A check that breaks is itself a finding: it is reported as failed, and the others go on.
"""

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import qrun
from qrun import checks
from qrun.checks import Check
from qrun.config import Config
from qrun.hardware import Hardware
from qrun.probe import probe_hardware
from qrun.probe_hub import reach_hub
from qrun.resolution import EngineState
from qrun.runner import Engine

__all__ = ["Step", "examine", "run_steps"]

# A check's name, for when it breaks, and what makes it.
Step = tuple[str, Callable[[], Sequence[Check]]]

_LLAMACPP = "llamacpp"


def examine(config: Config) -> tuple[Check, ...]:
    """Every check on this machine, in the order people should read them."""
    facts = _Facts(config)
    steps: list[Step] = [
        ("python", _python),
        ("engine", lambda: _engines(facts)),
        ("cpu", lambda: [checks.check_isa(facts.hardware.cpu, facts.llamacpp)]),
        ("libgomp", lambda: _libgomp(facts)),
        ("memory", lambda: [checks.check_memory(facts.hardware)]),
        ("gpu", lambda: checks.check_gpus(facts.hardware)),
        ("disk data", lambda: [_disk("data", config.data_dir)]),
        ("disk cache", lambda: [_disk("cache", config.cache_dir)]),
        ("models folder", lambda: [checks.check_models_dir(config.models_dir, _count_repos(config.models_dir))]),
        ("hub", lambda: [_hub(config)]),
    ]
    return run_steps(steps)


def run_steps(steps: Sequence[Step]) -> tuple[Check, ...]:
    """The checks of all `steps`. One that raises is a failed check that says so."""
    done: list[Check] = []
    for name, step in steps:
        try:
            done.extend(step())
        except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others must go on
            detail = f"this check broke: {type(error).__name__}: {error}"
            done.append(Check(name, "fail", detail, "Mend what it names; if that is qrun itself, please report it."))
    return tuple(done)


class _Facts:
    """What several checks need, asked once. Each may raise; the check that asked is then the one that broke."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # Set by the check of engines, which comes first; None too where that broke, which it has told of then.
        self.llamacpp: Engine | None = None

    @cached_property
    def hardware(self) -> Hardware:
        return probe_hardware(environ=self._config.environ)

    def engines(self) -> tuple[tuple[EngineState, ...], dict[str, Engine]]:
        """The state of every runner, and the installed engines by their runners."""
        # Imported here: a runner that cannot be imported is a finding, and the doctor must start all the same.
        from qrun.engines import engine_states, find_engine

        states = engine_states(self._config, self.hardware)
        return states, {state.runner: find_engine(self._config, state.runner) for state in states if state.installed}


def _python() -> list[Check]:
    return [checks.check_python(platform.python_version(), qrun.__version__, is_64_bit=sys.maxsize > 2**32)]


def _engines(facts: _Facts) -> list[Check]:
    states, engines = facts.engines()
    facts.llamacpp = engines.get(_LLAMACPP)
    return checks.check_engines(states, engines, has_gpu=facts.hardware.has_gpu)


def _libgomp(facts: _Facts) -> list[Check]:
    if sys.platform != "linux":
        return []
    try:
        ctypes.CDLL("libgomp.so.1")  # the loader's own answer; ctypes.util needs ldconfig or a compiler for its guess
    except OSError:
        return [checks.check_libgomp(facts.llamacpp, found=False)]
    return [checks.check_libgomp(facts.llamacpp, found=True)]


def _disk(name: str, folder: Path) -> Check:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return checks.check_disk(name, folder, shutil.disk_usage(there).free, writable=writable)


def _count_repos(folder: Path | None) -> int | None:
    """The folders `org/name` in `folder`, links included; None where it does not exist."""
    if folder is None or not folder.is_dir():
        return None
    return sum(1 for name in folder.glob("[!.]*/[!.]*") if name.is_dir())


def _hub(config: Config) -> Check:
    if config.hub.offline:
        return checks.check_hub(None)
    return checks.check_hub(reach_hub(config.hub.endpoint, config.environ))
