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
NO_LOADER = replace(LINUX, missing=frozenset({"libvulkan.so.1"}), vulkan_drivers=frozenset({"nvidia_icd.json"}))
NVIDIA_VULKAN = replace(LINUX, vulkan_drivers=frozenset({"intel_icd.x86_64.json", "nvidia_icd.x86_64.json"}))
MESA_VULKAN = replace(LINUX, vulkan_drivers=frozenset({"radeon_icd.x86_64.json", "lvp_icd.x86_64.json"}))
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
        (NVIDIA_VULKAN, machine(), {}, "ready", {"cpu"}),
        (NVIDIA_VULKAN, machine("cuda"), {}, "ready-gpu", {"cpu", "vulkan"}),
        (replace(NVIDIA_VULKAN, compilers=None), machine("cuda"), {}, "ready-gpu", {"cpu", "vulkan"}),
        (
            replace(NVIDIA_VULKAN, arch="arm64", isa=frozenset({"neon"})),
            machine("cuda"),
            {},
            "ready-gpu",
            {"cpu", "vulkan"},
        ),
        (MESA_VULKAN, machine("rocm"), {}, "ready-gpu", {"cpu", "vulkan"}),
        (MESA_VULKAN, machine("vulkan"), {}, "ready-gpu", {"cpu", "vulkan"}),
        (MESA_VULKAN, machine("cuda", "vulkan"), {}, "ready-gpu", {"cpu", "vulkan"}),
        (NVIDIA_VULKAN, machine("cuda"), {"allow_cpu": True}, "ready-gpu", {"cpu", "vulkan"}),
        (replace(NVIDIA_VULKAN, tools=NVCC.tools), machine("cuda"), {}, "native", {"cpu", "cuda"}),
        (replace(NVIDIA_VULKAN, tools=NVCC.tools, compilers=None), machine("cuda"), {}, "ready-gpu", {"cpu", "vulkan"}),
        (NVIDIA_VULKAN, machine("cuda"), {"build": True, "allow_cpu": True}, "native", {"cpu"}),
        (MESA_VULKAN, machine("cuda"), {"allow_cpu": True}, "ready", {"cpu"}),
    ],
)
def test_the_source_that_suits_the_machine_is_taken(site, hardware, options, flavour, backends):
    """The ready wheel where it runs, else a build; on a GPU machine what uses the GPU, by Vulkan where nothing else."""
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
        (
            NO_LOADER,
            machine("cuda"),
            {},
            ["libvulkan.so.1 is missing", "or install Vulkan's loader (libvulkan1", "CUDA"],
        ),
        (MESA_VULKAN, machine("cuda"), {}, ["no Vulkan driver", "or install the GPU's Vulkan driver (nvidia_icd.json"]),
        (
            LINUX,
            machine("vulkan"),
            {},
            ["no Vulkan driver", "or install the GPU's Vulkan driver for", "the Vulkan SDK"],
        ),
        (
            replace(LINUX, missing=NO_LOADER.missing),
            machine("cuda"),
            {},
            ["loader (libvulkan1 or vulkan-loader) and the"],
        ),
        (NVIDIA_VULKAN, machine("cuda"), {"build": True}, ["CUDA toolkit is not installed", "or leave --build out"]),
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
    """Whatever compiler is there: without toolkit and Vulkan driver there is no engine, unless the user allows one."""
    for kind in ("cuda", "rocm", "vulkan"):
        with pytest.raises(EngineMissing):
            choose(LINUX, machine(kind))

        assert choose(LINUX, machine(kind), allow_cpu=True).backends == {"cpu"}


@pytest.mark.parametrize(
    ("site", "kind", "words"),
    [(NVIDIA_VULKAN, "cuda", "with the CUDA toolkit, --build"), (MESA_VULKAN, "rocm", "with ROCm's HIP SDK, --build")],
)
def test_the_ready_engine_for_gpus_says_whose_it_is_and_what_would_be_better(site, kind, words):
    """It is never taken in silence: MinerU's build, by Vulkan, and what a toolkit would give."""
    note = choose(site, machine(kind)).note

    assert note.startswith("MinerU's build of llama.cpp's server, which reaches the GPU by Vulkan; ")
    assert words in note


def test_where_an_old_system_bars_the_vulkan_engine_no_loader_is_advised():
    """What would not help is not told: with too old a glibc neither loader nor driver makes the wheel run."""
    with pytest.raises(EngineMissing) as refused:
        choose(replace(NO_LOADER, glibc=(2, 17)), machine("cuda"))

    assert "it needs glibc 2.28, here is 2.17" in str(refused.value)
    assert "loader" not in str(refused.value)


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
