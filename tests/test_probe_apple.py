"""Apple's machines, on doubles: published outputs of sysctl. No Mac is here."""

import pytest

from qrun.errors import Failure
from qrun.hardware import engine_threads
from qrun.probe_apple import parse_sysctl, probe_apple_gpu, probe_apple_host, read_sysctl
from qrun.probed import Gpus
from qrun.units import GIB

# An M2 Max of 64 GiB.
M2_MAX = """\
hw.ncpu: 12
hw.physicalcpu: 12
hw.logicalcpu: 12
hw.perflevel0.physicalcpu: 8
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.memsize: 68719476736
hw.model: Mac14,6
hw.optional.arm64: 1
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 0
machdep.cpu.brand_string: Apple M2 Max
iogpu.wired_limit_mb: 0
"""
I9 = """\
hw.physicalcpu: 8
hw.logicalcpu: 16
hw.memsize: 34359738368
hw.model: MacBookPro16,1
machdep.cpu.brand_string: Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz
machdep.cpu.features: FPU SSE3 SSSE3 FMA SSE4.1 SSE4.2 AVX1.0 F16C
machdep.cpu.leaf7_features: BMI1 AVX2 BMI2
"""


def host_of(text, arch="arm64", free_bytes=40 * GIB):
    """The host that sysctl's `text` describes."""
    return probe_apple_host(parse_sysctl(text), arch, available=lambda: free_bytes)


def test_apple_silicon_has_performance_and_efficiency_cores():
    """perflevel0 is the fast kind; engines get its cores."""
    host = host_of(M2_MAX)

    assert host.cpu.name == "Apple M2 Max"
    assert (host.cpu.logical_cores, host.cpu.physical_cores, host.cpu.performance_cores) == (12, 12, 8)
    assert host.cpu.isa == {"neon", "dotprod", "fp16", "i8mm", "bf16"}
    assert (host.ram_bytes, host.ram_free_bytes) == (64 * GIB, 40 * GIB)
    assert engine_threads(host.cpu) == 8


def test_its_gpu_is_unified_with_the_working_set_macos_allows():
    """A limit of 0 means macOS's own rule; memory is the whole machine's, free what is free now."""
    gpu = probe_apple_gpu(parse_sysctl(M2_MAX), host_of(M2_MAX, free_bytes=60 * GIB)).devices[0]

    assert (gpu.name, gpu.kind, gpu.unified) == ("Apple M2 Max", "metal", True)
    assert (gpu.memory_bytes, gpu.working_set_bytes) == (64 * GIB, None)
    assert gpu.budget_bytes == 47 * GIB


def test_a_raised_wired_limit_is_the_working_set():
    """`sudo sysctl iogpu.wired_limit_mb=58982` gives the GPU 90 % of 64 GiB."""
    values = parse_sysctl(M2_MAX.replace("wired_limit_mb: 0", "wired_limit_mb: 58982"))

    gpu = probe_apple_gpu(values, host_of(M2_MAX, free_bytes=62 * GIB)).devices[0]

    assert gpu.working_set_bytes == 58982 * 2**20
    assert gpu.budget_bytes == 58982 * 2**20 - GIB


def test_an_intel_mac_has_its_instruction_sets_and_no_gpu():
    """Intel's names are normalised; its Metal is used by no engine."""
    host = host_of(I9, arch="x86_64")

    assert (host.cpu.physical_cores, host.cpu.performance_cores) == (8, 8)
    assert host.cpu.isa >= {"avx", "avx2", "fma", "f16c", "bmi2", "sse4_2"}
    assert probe_apple_gpu(parse_sysctl(I9), host) == Gpus()


def test_rosetta_is_told_of():
    """An Intel Python on Apple silicon sees no GPU, and the user hears why."""
    found = probe_apple_gpu(parse_sysctl(M2_MAX), host_of(M2_MAX, arch="x86_64"))

    assert found.devices == ()
    assert "Rosetta" in found.notes[0]


def test_a_mac_that_tells_no_features_has_unknown_ones():
    """None, not an empty set."""
    assert host_of("hw.memsize: 17179869184\n").cpu.isa is None


def test_without_a_memory_size_the_refusal_says_so():
    """No memory, no decision."""
    with pytest.raises(Failure, match=r"hw\.memsize"):
        host_of("hw.ncpu: 8\n")


def test_lines_that_are_no_values_are_passed_over():
    """Sysctl prints errors and values of several words beside what is asked for."""
    text = "vm.swapusage: total = 2048.00M  used = 370.38M\nsysctl: unknown oid 'iogpu'\nhw.memsize: 1\n\n"

    values = parse_sysctl(text)

    assert values["hw.memsize"] == "1"
    assert "iogpu" not in values


def test_a_machine_without_sysctl_is_one_line(monkeypatch):
    """Where it cannot be run the refusal names it."""
    monkeypatch.setattr("qrun.probe_apple._SYSCTL", "/nowhere/sysctl")

    with pytest.raises(Failure, match="/nowhere/sysctl"):
        read_sysctl()
