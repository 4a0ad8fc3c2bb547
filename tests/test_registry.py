"""The registry: runners by entry point, and the broken ones by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from qrun import registry as registry_module
from qrun.errors import UsageError
from qrun.registry import registry, runner_named, runners


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Installs a distribution with one runner, as a package manager would leave it; returns how."""

    def install(name: str, target: str, source: str) -> None:
        (tmp_path / f"{name}_plugin.py").write_text(source)
        info = tmp_path / f"{name}_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry_module.GROUP}]\n{name} = {name}_plugin:{target}\n")

    monkeypatch.syspath_prepend(tmp_path)
    registry.cache_clear()
    yield install
    registry.cache_clear()
    for name in [name for name in sys.modules if name.endswith("_plugin")]:
        del sys.modules[name]


def test_the_llamacpp_runner_is_found_by_its_entry_point():
    """An installed qrun knows its own runner without importing it by name."""
    assert runners()["llamacpp"].formats == {"gguf"}
    assert list(runners()) == sorted(runners())


def test_a_runner_of_another_distribution_is_found(plugin):
    """Whoever installs a distribution with the entry point adds a runner."""
    plugin("aaa", "Runner", "class Runner:\n    name = 'aaa'\n    formats = frozenset({'x'})\n")

    assert next(iter(runners())) == "aaa"


@pytest.mark.parametrize(
    ("target", "source", "why"),
    [
        ("Runner", "import no_such_engine_library\n", "ModuleNotFoundError"),
        ("Runner", "raise RuntimeError('no GPU driver')\n", "no GPU driver"),
        ("NotThere", "", "AttributeError"),
        ("Runner", "class Runner:\n    def __init__(self, needed): ...\n", "TypeError"),
    ],
)
def test_a_broken_runner_is_reported_and_takes_none_down(plugin, target, source, why):
    """A runner that cannot be had is named with its error; the others work."""
    plugin("broken", target, source)

    assert "llamacpp" in runners()
    assert [(one.name, why in one.why) for one in registry().broken] == [("broken", True)]
    with pytest.raises(UsageError, match="the runner broken does not load"):
        runner_named("broken")


def test_an_unknown_name_is_refused_with_those_there_are():
    """A typo in a runner's name is answered with the names."""
    with pytest.raises(UsageError, match=r"no engine 'lamacpp'.*llamacpp"):
        runner_named("lamacpp")


def test_qrun_imports_no_runner_by_itself():
    """Importing what knows engines imports no runner's package: only looking for runners does."""
    code = "import sys, qrun.engines, qrun.engine_install; print([m for m in sys.modules if m.startswith('qrun_')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path.home())

    assert done.stdout.strip() == "[]"
