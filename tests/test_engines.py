"""Which engines this machine has, as the resolver and people are told."""

from dataclasses import replace
from pathlib import Path

import pytest

from qrun.config import read_config
from qrun.engine_list import list_engines
from qrun.engine_stamp import Stamp, write_stamp
from qrun.engines import engine_states, find_engine, search_for
from qrun.errors import EngineMissing
from qrun.hardware import Cpu, Device, Hardware
from qrun.registry import BrokenRunner, Registry, registry
from qrun.units import GIB

MODERN = frozenset({"avx2", "fma", "f16c", "bmi2"})
MACHINE = Hardware("test", "linux", Cpu("a CPU", "x86_64", isa=MODERN), 16 * GIB)
WITH_GPU = replace(MACHINE, gpus=(Device("a card", "cuda", 8 * GIB),))


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A qrun with empty folders, on a machine without compilers and Vulkan drivers."""
    monkeypatch.setattr("qrun.engine_site._USUAL_FOLDERS", {})
    folders = {f"QRUN_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "CACHE", "STATE")}
    return read_config({**folders, "PATH": str(tmp_path), "VK_DRIVER_FILES": str(tmp_path / "no-driver.json")})


def plant(config, backends=("cpu",)):
    """An engine in force, as an installation leaves it."""
    folder = config.engine_dir("llamacpp")
    environment = folder / "native-1"
    packages = environment / "lib" / "python3.11" / "site-packages"
    (packages / "bin").mkdir(parents=True)
    (packages / "bin" / "llama-server").write_text("")
    (packages / "llama_cpp_python-1.dist-info").mkdir()
    (packages / "lib").mkdir()
    for backend in backends:
        (packages / "lib" / f"libggml-{backend}.so").write_text("")
    write_stamp(folder, Stamp(environment, "native", "1", frozenset(backends), "2026-11-24T10:00:00+00:00", 0.1))
    return environment


def state(config, hardware=MACHINE):
    """llama.cpp's state."""
    (found,) = [one for one in engine_states(config, hardware) if one.runner == "llamacpp"]
    return found


def test_nothing_installed_can_be_installed(config):
    """The resolver hears what could be had, and people the command."""
    found = state(config)

    assert (found.installed, found.can_install, found.backends) == (False, True, {"cpu"})
    assert found.remedy == "Run: qrun engines install llamacpp"


def test_what_is_in_force_is_installed(config):
    """The stamp's environment is where the runner looks, and what it finds is told."""
    environment = plant(config, ("cpu", "cuda"))

    assert search_for(config, "llamacpp").environment == environment
    assert (state(config).installed, state(config).backends) == (True, {"cpu", "cuda"})
    assert find_engine(config, "llamacpp").executable.is_relative_to(environment)


def test_no_engine_names_the_command_that_installs_one(config):
    """The error of a serve without an engine: exit code 7, and what to type."""
    with pytest.raises(EngineMissing) as missing:
        find_engine(config, "llamacpp")

    assert missing.value.exit_code == 7
    assert str(missing.value).endswith("Run: qrun engines install llamacpp")


def test_a_machine_that_no_source_suits_cannot_install(config):
    """An old processor without a compiler: both reasons, and the remedy."""
    old = replace(MACHINE, cpu=replace(MACHINE.cpu, isa=frozenset({"sse4_2"})))
    found = state(config, old)

    assert (found.installed, found.can_install) == (False, False)
    assert "AVX2" in found.why_not
    assert "C++ compiler" in found.remedy


def test_on_a_gpu_machine_a_cpu_engine_is_offered_with_the_remedy_for_the_gpu(config):
    """The resolver refuses it unless allowed; what it then says is how to get one for the card."""
    found = state(config, WITH_GPU)

    assert (found.can_install, found.backends) == (True, {"cpu"})
    assert "the CUDA toolkit" in found.remedy
    assert "--allow-cpu-engine" in found.remedy


def test_what_can_be_had_for_the_gpu_is_what_is_offered(config, tmp_path):
    """With compilers and the card's toolkit the resolver decides for the GPU before anything is installed."""
    for name in ("cc", "c++", "nvcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    found = state(config, WITH_GPU)

    assert (found.can_install, found.backends) == (True, {"cpu", "cuda"})
    assert found.remedy == "Run: qrun engines install llamacpp"


def test_a_named_server_that_will_not_do_hides_every_other_engine(config):
    """QRUN_LLAMA_SERVER is the user's word: nothing is installed or taken in its place."""
    plant(config)
    named = replace(config, llama_server="/no/such/llama-server")
    found = state(named)

    assert (found.installed, found.can_install) == (False, False)
    assert "QRUN_LLAMA_SERVER" in found.why_not
    assert "QRUN_LLAMA_SERVER" in found.remedy


def test_an_environment_that_is_gone_is_not_installed(config):
    """Somebody removed the folder: the stamp alone is no engine."""
    plant(config).rename(Path(config.data_dir) / "elsewhere")

    assert not state(config).installed


def test_the_list_tells_of_broken_runners_too(config, monkeypatch):
    """A runner that does not load stands in the list with its error, beside those that do."""
    broken = Registry(registry().runners, (BrokenRunner("zzz", "ImportError: no torch"),))
    monkeypatch.setattr("qrun.engine_list.registry", lambda: broken)
    listed = {one.runner: one for one in list_engines(config, MACHINE)}

    assert list(listed) == ["llamacpp", "zzz"]
    assert listed["zzz"].why_not == "the runner does not load: ImportError: no torch"
    assert listed["zzz"].engine is None
