"""The probe as a whole, on this machine, and the choice of GPUs."""

import sys

import pytest

from qrun.errors import UsageError
from qrun.hardware import Cpu, Device
from qrun.probe import host_and_gpus, machine_name, probe_hardware, select_gpus
from qrun.probed import Host
from qrun.units import GIB

A = Device("A", "cuda", 8 * GIB)
B = Device("B", "cuda", 24 * GIB)
C = Device("C", "rocm", 16 * GIB)


def test_this_machine_is_described():
    """Real: memory and cores are there, and budgets follow from them."""
    hardware = probe_hardware(environ={})

    assert hardware.os in {"linux", "macos", "windows"}
    assert hardware.ram_bytes > 0
    assert 0 <= hardware.ram_budget_bytes < hardware.ram_bytes
    assert hardware.cpu.logical_cores
    assert hardware.devices[-1].kind == "cpu"
    assert not hardware.simulated


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's GPU is no card")
def test_gpus_can_be_hidden():
    """An empty CUDA_VISIBLE_DEVICES and `gpus=()` each leave no NVIDIA GPU."""
    assert not any(gpu.kind == "cuda" for gpu in probe_hardware(environ={"CUDA_VISIBLE_DEVICES": ""}).gpus)
    assert probe_hardware(gpus=(), environ={}).gpus == ()


@pytest.mark.parametrize(
    ("wanted", "chosen"), [(None, (A, B, C)), ((), ()), ((0, 2), (A, C)), ((2, 0), (C, A)), ((1,), (B,))]
)
def test_gpus_are_chosen_by_their_place_in_the_list(wanted, chosen):
    """None keeps all, an empty choice none; the order is the user's."""
    assert select_gpus((A, B, C), wanted) == chosen


@pytest.mark.parametrize(
    ("wanted", "words"),
    [((3,), "no GPU 3"), ((-1,), "no GPU -1"), ((0, 0), "twice")],
)
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(wanted, words):
    """Exit 2 names the GPUs of this machine."""
    with pytest.raises(UsageError, match=words) as refused:
        select_gpus((A, B, C), wanted)

    assert "twice" in words or "0 (A), 1 (B), 2 (C)" in str(refused.value)


def test_a_machine_without_gpus_says_so_when_one_is_asked_for():
    """`--gpus 0` on a CPU machine."""
    with pytest.raises(UsageError, match="There are: none"):
        select_gpus((), (0,))


@pytest.mark.parametrize(
    ("gpus", "name"),
    [((), "A CPU"), ((A,), "A"), ((A, A), "2x A"), ((A, C, A), "2x A + C")],
)
def test_a_machine_is_called_by_its_gpus(gpus, name):
    """People say "two 3090s", or name the processor where there is no GPU."""
    assert machine_name(Host(Cpu("A CPU", "x86_64"), 8 * GIB), gpus) == name


def test_a_platform_without_a_probe_of_its_own_is_read_by_psutil():
    """Windows' way, taken on this machine: memory and cores are real, instruction sets stay unknown."""
    import psutil

    host, found = host_and_gpus("win32", {"CUDA_VISIBLE_DEVICES": ""})

    assert host.ram_bytes == psutil.virtual_memory().total
    assert host.cpu.logical_cores == psutil.cpu_count()
    assert host.cpu.physical_cores == psutil.cpu_count(logical=False)
    assert (host.cpu.isa, host.cpu.performance_cores) == (None, None)
    assert found.devices == ()


def test_a_mac_is_read_by_sysctl(monkeypatch):
    """A double of sysctl, no Mac is here: host and GPU come from it, what is free from psutil."""
    told = {"hw.memsize": str(64 * GIB), "machdep.cpu.brand_string": "Apple M2 Max", "hw.physicalcpu": "12"}
    monkeypatch.setattr("qrun.probe.read_sysctl", lambda: told)
    monkeypatch.setattr("platform.machine", lambda: "arm64")

    host, found = host_and_gpus("darwin", {})

    assert host.ram_bytes == 64 * GIB
    assert host.ram_free_bytes > 0
    assert [(gpu.name, gpu.kind) for gpu in found.devices] == [("Apple M2 Max", "metal")]


@pytest.mark.parametrize(("machine", "arch"), [("AMD64", "x86_64"), ("ARM64", "arm64"), ("aarch64", "aarch64")])
def test_one_architecture_has_one_name_whatever_windows_calls_it(monkeypatch, machine, arch):
    """AMD64 is x86_64."""
    monkeypatch.setattr("platform.machine", lambda: machine)

    assert host_and_gpus("win32", {"CUDA_VISIBLE_DEVICES": ""})[0].cpu.arch == arch
