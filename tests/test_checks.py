"""The doctor's verdicts: pure functions from facts to ok, warn or fail, each with its remedy."""

import dataclasses
from pathlib import Path

import pytest

from qrun import checks
from qrun.checks import Check, has_failed
from qrun.hardware import Cpu, Device, Hardware
from qrun.probe_hub import HubAnswer
from qrun.resolution import EngineState
from qrun.runner import Engine
from qrun.units import GIB, MIB

READY = Engine("llamacpp", "ready", "2026.10", Path("/e/python"), "qrun's own environment")
READY_GPU = dataclasses.replace(READY, flavour="ready-gpu", version="0.1.3")
NATIVE = dataclasses.replace(READY, flavour="native", version="0.3.36")
LLAMACPP = EngineState("llamacpp", frozenset({"gguf"}), installed=True)
MLX_ELSEWHERE = EngineState("mlx", frozenset({"mlx"}), False, can_install=False, why_not="needs Apple silicon")
X86 = frozenset({"avx", "avx2", "fma", "f16c", "bmi2"})


def machine(**changes) -> Hardware:
    """A machine of 32 GiB, 20 GiB of them free, with `changes`."""
    base = Hardware("m", "linux", Cpu("A CPU", "x86_64", isa=X86), ram_bytes=32 * GIB, ram_free_bytes=20 * GIB)
    return dataclasses.replace(base, **changes)


def engine_checks(states, engines, *, has_gpu=False):
    """The verdicts on these runners."""
    return checks.check_engines(states, engines, has_gpu=has_gpu)


def test_an_engine_in_place_is_told_by_build_version_and_origin():
    """Which of several builds runs is what people ask first."""
    (check,) = engine_checks([LLAMACPP], {"llamacpp": READY})

    assert check == Check("engine llamacpp", "ok", "ready 2026.10 (qrun's own environment)")


def test_no_engine_at_all_is_a_failure_with_the_command_that_installs_it():
    """Without an engine nothing can be served."""
    state = dataclasses.replace(LLAMACPP, installed=False)

    (check,) = engine_checks([state], {})

    assert check == Check("engine llamacpp", "fail", "not installed", "Run: qrun engines install llamacpp")


def test_a_missing_engine_beside_another_is_only_a_warning():
    """One engine serves; the other can be had."""
    vllm = EngineState("vllm", frozenset({"awq"}), installed=False)

    found = engine_checks([LLAMACPP, vllm], {"llamacpp": READY})

    assert [check.status for check in found] == ["ok", "warn"]
    assert found[1].remedy == "Run: qrun engines install vllm"


def test_the_runner_s_own_words_come_first():
    """A runner that knows why its engine is missing and what mends it is believed."""
    state = EngineState("llamacpp", frozenset({"gguf"}), False, why_not="the CPU lacks AVX2", remedy="Build it.")

    assert engine_checks([state], {}) == [Check("engine llamacpp", "fail", "the CPU lacks AVX2", "Build it.")]


def test_an_engine_for_other_machines_is_no_fault():
    """Nobody can mend that this is no Mac."""
    found = engine_checks([LLAMACPP, MLX_ELSEWHERE], {"llamacpp": READY})

    assert found[1] == Check("engine mlx", "ok", "needs Apple silicon")


def test_only_engines_for_other_machines_is_a_failure():
    """Where no engine can run here nothing can be served."""
    assert has_failed(engine_checks([MLX_ELSEWHERE], {}))


def test_an_installed_engine_that_cannot_run_here_is_a_warning():
    """It stands there and will not be used."""
    state = dataclasses.replace(LLAMACPP, why_not="needs AVX2")

    (check,) = engine_checks([state], {"llamacpp": READY})

    assert check.status == "warn"
    assert "needs AVX2" in check.detail


@pytest.mark.parametrize(("backends", "status"), [({"cpu"}, "warn"), ({"cpu", "cuda"}, "ok")])
def test_a_cpu_engine_on_a_gpu_machine_is_a_warning(backends, status):
    """A GPU that lies idle is what its owner should hear of."""
    engine = dataclasses.replace(NATIVE, backends=frozenset(backends))

    (check,) = engine_checks([LLAMACPP], {"llamacpp": engine}, has_gpu=True)

    assert check.status == status


def test_no_runner_at_all_is_a_broken_installation():
    """The runners come with qrun."""
    assert has_failed(engine_checks([], {}))


@pytest.mark.parametrize(
    ("isa", "engine", "status"),
    [
        (X86, READY, "ok"),
        (X86 - {"avx2"}, READY, "fail"),
        (X86 - {"avx2"}, READY_GPU, "fail"),
        (X86 - {"avx2", "bmi2"}, NATIVE, "ok"),
        (X86 - {"f16c"}, None, "warn"),
        (None, READY, "warn"),
    ],
)
def test_the_ready_engine_needs_its_instructions(isa, engine, status):
    """Without AVX2, FMA, F16C and BMI2 it dies of SIGILL; a build for the machine does not need them."""
    check = checks.check_isa(Cpu("A CPU", "x86_64", isa=isa), engine)

    assert check.status == status
    assert status == "ok" or "--build" in check.remedy


def test_what_is_lacking_is_named():
    """The user reads which instructions are missing."""
    check = checks.check_isa(Cpu("Sandy Bridge", "x86_64", isa=frozenset({"avx"})), READY)

    assert check.detail.startswith("lacks AVX2, BMI2, F16C, FMA")


def test_other_architectures_need_no_particular_instructions():
    """ARM's ready engines run on every core of theirs."""
    assert checks.check_isa(Cpu("M2", "arm64"), READY).status == "ok"


@pytest.mark.parametrize(
    ("found", "engine", "status"),
    [
        (True, READY, "ok"),
        (False, READY, "fail"),
        (False, READY_GPU, "warn"),
        (False, NATIVE, "warn"),
        (False, None, "warn"),
    ],
)
def test_the_ready_engine_needs_libgomp(found, engine, status):
    """The wheel does not bring it; how to install it is said."""
    check = checks.check_libgomp(engine, found=found)

    assert check.status == status
    assert found or "apt install libgomp1" in check.remedy


@pytest.mark.parametrize(
    ("hardware", "status"),
    [
        (machine(), "ok"),
        (machine(ram_free_bytes=2 * GIB + 512 * MIB), "warn"),
        (machine(ram_free_bytes=GIB), "fail"),
        (machine(ram_free_bytes=GIB, gpus=(Device("RTX", "cuda", 8 * GIB),)), "ok"),
    ],
)
def test_the_largest_budget_counts(hardware, status):
    """Where no device has room nothing fits; a GPU with room makes up for full RAM."""
    check = checks.check_memory(hardware)

    assert check.status == status
    assert (check.remedy is None) == (status == "ok")


def test_a_container_s_limit_is_named_with_its_remedy():
    """Closing programs does not help where the cgroup is what is small."""
    check = checks.check_memory(machine(ram_free_bytes=GIB, ram_limit_bytes=GIB))

    assert "1.0 GiB by the cgroup's limit" in check.detail
    assert "limit" in check.remedy


def test_what_the_probe_could_not_do_is_a_warning_each():
    """A broken driver is not a machine without a GPU."""
    found = checks.check_gpus(machine(notes=("NVIDIA's driver does not answer.",)))

    assert [check.status for check in found] == ["ok", "warn"]
    assert found[1].detail == "NVIDIA's driver does not answer."


@pytest.mark.parametrize(
    ("free_bytes", "writable", "status"),
    [(50 * GIB, True, "ok"), (5 * GIB, True, "warn"), (100 * MIB, True, "fail"), (50 * GIB, False, "fail")],
)
def test_a_full_or_closed_folder_is_told_of(free_bytes, writable, status):
    """An engine takes hundreds of MiB, and must be written."""
    check = checks.check_disk("data", Path("/d"), free_bytes, writable=writable)

    assert (check.name, check.status) == ("disk data", status)
    assert "/d" in check.detail
    assert (check.remedy is None) == (status == "ok")


@pytest.mark.parametrize(
    ("folder", "n_repos", "status"),
    [(None, None, "warn"), (Path("/m"), None, "fail"), (Path("/m"), 0, "warn"), (Path("/m"), 3, "ok")],
)
def test_the_models_folder_is_set_there_and_filled(folder, n_repos, status):
    """Each way it can be wrong has a remedy of its own."""
    check = checks.check_models_dir(folder, n_repos)

    assert check.status == status
    assert (check.remedy is None) == (status == "ok")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, "ok"),
        (HubAnswer("http://hub", 200), "ok"),
        (HubAnswer("http://hub", 302), "ok"),
        (HubAnswer("http://hub", 404), "ok"),
        (HubAnswer("http://hub", 503), "warn"),
        (HubAnswer("http://hub", None, "connection refused"), "warn"),
    ],
)
def test_the_hub_is_never_a_failure(answer, status):
    """Off line the models that are here still work."""
    check = checks.check_hub(answer)

    assert check.status == status
    assert (check.remedy is None) == (status == "ok")


@pytest.mark.parametrize(("is_64_bit", "status"), [(True, "ok"), (False, "fail")])
def test_a_32_bit_python_is_refused(is_64_bit, status):
    """It cannot map a model's file."""
    check = checks.check_python("3.12.1", "0.1.0", is_64_bit=is_64_bit)

    assert check.status == status
    assert "0.1.0" in check.detail
    assert "3.12.1" in check.detail
