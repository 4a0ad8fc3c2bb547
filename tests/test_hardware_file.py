"""Hardware files: what is described is read, what is wrong is refused by name."""

import pytest

from qrun.errors import UsageError
from qrun.hardware_file import load_hardware, read_hardware
from qrun.units import GIB

MACHINE = """\
name = "rtx-4060-8gb"
os = "linux"
arch = "x86_64"
cpu_cores = 8
ram_bytes = 34359738368
"""
GPU = """\
[[gpu]]
name = "NVIDIA GeForce RTX 4060"
backend = "cuda"
memory_bytes = 8589934592
"""


def test_the_example_of_the_contract_is_read_whole():
    """DESIGN's file with every key gives a simulated machine that has them all."""
    hardware = read_hardware(
        MACHINE
        + "ram_bandwidth_bytes_per_s = 60e9\nram_free_bytes = 17179869184\n"
        + GPU
        + 'free_bytes = 7516192768\nbandwidth_bytes_per_s = 272e9\ncompute_capability = "8.9"\n'
    )

    gpu = hardware.gpus[0]
    assert (hardware.name, hardware.os, hardware.cpu.arch) == ("rtx-4060-8gb", "linux", "x86_64")
    assert (hardware.ram_bytes, hardware.ram_free_bytes) == (32 * GIB, 16 * GIB)
    assert hardware.ram_bandwidth_bytes_per_s == 60e9
    assert (hardware.cpu.physical_cores, hardware.cpu.performance_cores) == (8, 8)
    assert (gpu.name, gpu.kind, gpu.memory_bytes) == ("NVIDIA GeForce RTX 4060", "cuda", 8 * GIB)
    assert (gpu.free_bytes, gpu.bandwidth_bytes_per_s, gpu.compute_capability) == (7 * GIB, 272e9, "8.9")
    assert hardware.simulated
    assert not gpu.unified


def test_what_may_be_left_out_is_unknown():
    """Optional keys have no default: free memory, bandwidth, instruction sets stay None."""
    hardware = read_hardware(MACHINE)

    assert hardware.gpus == ()
    assert hardware.ram_free_bytes is None
    assert hardware.ram_bandwidth_bytes_per_s is None
    assert hardware.cpu.isa is None
    assert hardware.ram_budget_bytes == 30 * GIB


def test_metal_is_unified_without_saying_so():
    """Apple's memory is one; an APU says `unified = true`."""
    metal = read_hardware(MACHINE + GPU.replace("cuda", "metal") + "working_set_bytes = 6442450944\n")
    apu = read_hardware(MACHINE + GPU.replace("cuda", "rocm") + "unified = true\n")

    assert metal.gpus[0].unified
    assert metal.gpus[0].budget_bytes == 5 * GIB
    assert apu.gpus[0].unified


def test_gpus_keep_the_order_of_the_file():
    """tensor_split counts in this order."""
    hardware = read_hardware(MACHINE + GPU + GPU.replace("4060", "4070"))

    assert [gpu.name[-4:] for gpu in hardware.gpus] == ["4060", "4070"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (MACHINE.replace('name = "rtx-4060-8gb"\n', ""), ["name", "missing", "cpu_cores"]),
        (MACHINE.replace("cpu_cores = 8\n", ""), ["cpu_cores", "missing"]),
        (MACHINE + "ram_gb = 32\n", ["ram_gb", "unknown", "ram_bytes"]),
        (MACHINE.replace('"linux"', '"beos"'), ["os", "linux, macos, windows", "beos"]),
        (MACHINE.replace('"linux"', "3"), ["os", "linux, macos, windows"]),
        (MACHINE.replace('"x86_64"', '"x86-64"'), ["arch", "x86_64", "x86-64"]),
        (MACHINE.replace("= 8", "= 0"), ["cpu_cores", "above 0"]),
        (MACHINE.replace("= 8", "= true"), ["cpu_cores", "whole number", "True"]),
        (MACHINE.replace("34359738368", '"32 GiB"'), ["ram_bytes", "whole number", "32 GiB"]),
        (MACHINE.replace("34359738368", "34e9"), ["ram_bytes", "decimal point"]),
        (MACHINE.replace('"rtx-4060-8gb"', '" "'), ["name", "not empty"]),
        (MACHINE + "ram_free_bytes = 99999999999\n", ["ram_free_bytes", "34359738368"]),
        (MACHINE + "ram_bandwidth_bytes_per_s = inf\n", ["ram_bandwidth_bytes_per_s", "272e9"]),
        (MACHINE + "ram_bandwidth_bytes_per_s = nan\n", ["ram_bandwidth_bytes_per_s"]),
        (MACHINE + 'ram_bandwidth_bytes_per_s = "60 GB/s"\n', ["ram_bandwidth_bytes_per_s"]),
        (MACHINE + "gpu = 3\n", ["gpu", "[[gpu]]"]),
        (MACHINE + 'gpu = ["RTX 4060"]\n', ["gpu", "[[gpu]]"]),
        (MACHINE + "[gpu]\n" + GPU.removeprefix("[[gpu]]\n"), ["gpu", "[[gpu]]"]),
        (MACHINE + GPU.replace('"cuda"', '"opencl"'), ["gpu[0].backend", "cuda, rocm, vulkan, metal"]),
        (MACHINE + GPU + GPU.replace("memory_bytes", "vram"), ["gpu[1].vram", "unknown"]),
        (MACHINE + GPU.replace("memory_bytes = 8589934592\n", ""), ["gpu[0].memory_bytes", "missing"]),
        (MACHINE + GPU + "free_bytes = -1\n", ["gpu[0].free_bytes", "from 0"]),
        (MACHINE + GPU + "compute_capability = 8.9\n", ["gpu[0].compute_capability", '"8.9"']),
        (MACHINE + GPU + 'compute_capability = "sm_89"\n', ["gpu[0].compute_capability", '"8.9"']),
        (
            MACHINE + GPU.replace("cuda", "rocm") + 'compute_capability = "8.9"\n',
            ["gpu[0].compute_capability", "cuda", "rocm"],
        ),
        (MACHINE + GPU + 'unified = "yes"\n', ["gpu[0].unified", "true or false"]),
        (MACHINE + GPU.replace("cuda", "metal") + "unified = false\n", ["gpu[0].unified", "Metal"]),
        ("name = \nos = 3\n", ["TOML", "line 1"]),
    ],
)
def test_a_wrong_file_is_refused_by_key_and_says_what_is_allowed(text, names):
    """Whatever is missing, unknown or of the wrong type is a usage error in one line; nothing is guessed."""
    with pytest.raises(UsageError) as refused:
        read_hardware(text)

    line = str(refused.value)
    assert "\n" not in line
    assert all(name in line for name in names), line


def test_a_refusal_names_the_file(tmp_path):
    """Who has several profiles is told which one is wrong."""
    path = tmp_path / "mine.toml"
    path.write_text(MACHINE.replace("= 8", "= 0"))

    with pytest.raises(UsageError, match=r"mine\.toml: cpu_cores"):
        load_hardware(path)


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path):
    """Absent, a folder or no text: exit 2 with the path, no traceback."""
    (tmp_path / "latin1.toml").write_bytes(b'name = "M\xfcller"')

    for name, why in [("absent.toml", "No such file"), (".", "directory"), ("latin1.toml", "UTF-8")]:
        with pytest.raises(UsageError, match=why):
            load_hardware(tmp_path / name)
