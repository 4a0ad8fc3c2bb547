"""Devices by the names that drivers give them: the row it is, or none, never a look-alike's."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candidates import card, cpu_only
from qrun.devices import all_devices, find_device, with_bandwidths
from qrun.hardware import Cpu
from qrun.units import GIB

AS_REPORTED = [
    # NVML
    ("NVIDIA GeForce RTX 4090", None, "RTX 4090"),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", None, "RTX 4090 Laptop"),
    ("NVIDIA GeForce RTX 4090 D", None, "RTX 4090 D"),
    ("NVIDIA GeForce RTX 3080", 10, "RTX 3080"),
    ("NVIDIA GeForce RTX 3080", 12, "RTX 3080 12GB"),
    ("NVIDIA GeForce RTX 3080 Ti", 12, "RTX 3080 Ti"),
    ("NVIDIA GeForce RTX 3080 Ti Laptop GPU", 16, "RTX 3080 Ti Laptop"),
    ("NVIDIA GeForce RTX 3060", 12, "RTX 3060"),
    ("NVIDIA GeForce RTX 3060", 8, "RTX 3060 8GB"),
    ("NVIDIA GeForce RTX 3060", None, "RTX 3060"),
    ("NVIDIA GeForce RTX 3050", None, "RTX 3050"),
    ("NVIDIA GeForce RTX 3050 Laptop GPU", 4, "RTX 3050 Laptop"),
    ("NVIDIA GeForce RTX 3050 6GB Laptop GPU", 6, "RTX 3050 Laptop 6GB"),
    ("NVIDIA GeForce RTX 2070 with Max-Q Design", 8, "RTX 2070 Max-Q"),
    ("NVIDIA GeForce RTX 4060 Ti", 16, "RTX 4060 Ti"),
    ("NVIDIA RTX 6000 Ada Generation", 48, "RTX 6000 Ada"),
    ("Quadro RTX 6000", 24, "Quadro RTX 6000"),
    ("NVIDIA RTX A6000", 48, "RTX A6000"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96, "RTX PRO 6000 Blackwell"),
    ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96, "RTX PRO 6000 Blackwell Max-Q"),
    ("NVIDIA A100-SXM4-80GB", 80, "A100 SXM 80GB"),
    ("NVIDIA A100 80GB PCIe", 80, "A100 PCIe 80GB"),
    ("NVIDIA H100 80GB HBM3", 80, "H100 SXM"),
    ("NVIDIA H100 PCIe", 80, "H100 PCIe"),
    ("Tesla V100-SXM2-32GB", 32, "V100 SXM2"),
    ("Tesla T4", 15, "T4"),
    ("NVIDIA GB10", 119, "GB10 (DGX Spark)"),
    ("Orin", 61, "Jetson AGX Orin 64GB"),
    # amdgpu.ids, RADV
    ("AMD Radeon RX 7900 XTX", 24, "RX 7900 XTX"),
    ("AMD Radeon RX 7900 XT (RADV NAVI31)", 20, "RX 7900 XT"),
    ("AMD Radeon Graphics (RADV GFX1151)", 96, "Radeon 8060S (Strix Halo)"),
    ("AMD Radeon 780M Graphics (RADV PHOENIX)", 8, "Radeon 780M"),
    ("AMD Instinct MI300X", 192, "Instinct MI300X"),
    # sysctl
    ("Apple M3", 16, "M3 (8-core GPU)"),
    ("Apple M3 Pro", 18, "M3 Pro (14-core GPU)"),
    ("Apple M3 Max", 36, "M3 Max (30-core GPU)"),
    ("Apple M3 Max", 128, "M3 Max (40-core GPU)"),
    ("Apple M4 Max", 36, "M4 Max (32-core GPU)"),
    # Mesa, Level Zero
    ("Intel(R) Arc(TM) A770 Graphics", 16, "Arc A770 16GB"),
    ("Intel(R) Arc(tm) A770 Graphics (DG2)", 8, "Arc A770 8GB"),
    ("Intel(R) Arc(TM) B580 Graphics", 12, "Arc B580"),
    # /proc/cpuinfo
    ("AMD EPYC 7763 64-Core Processor", None, "EPYC 7003 (Milan)"),
    ("AMD EPYC 9654 96-Core Processor", None, "EPYC 9004 (Genoa)"),
    ("Intel(R) Xeon(R) Platinum 8480+", None, "Xeon Scalable Gen 4 (Sapphire Rapids)"),
    ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", None, "Xeon E5 v4"),
    ("Intel(R) Xeon(R) Gold 6132 CPU @ 2.60GHz", None, "Xeon Scalable Gen 1/2"),
    ("AMD Ryzen 9 7950X 16-Core Processor", None, "Ryzen 9 7950X"),
    ("AMD Ryzen 5 5600X 6-Core Processor", None, "Ryzen 3000/5000 desktop"),
    ("AMD Ryzen Threadripper PRO 7995WX 96-Cores", None, "Threadripper PRO 7000WX"),
    ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", None, "Ryzen 7 7840HS"),
    ("13th Gen Intel(R) Core(TM) i9-13900K", None, "Core i9-13900K"),
    ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", None, "Core 8th/9th generation desktop"),
    ("Intel(R) N100", None, "Intel N100"),
    ("Raspberry Pi 5 Model B Rev 1.0", None, "Raspberry Pi 5"),
]
UNKNOWN = [
    "",
    "GPU 0",
    "AMD Radeon Graphics",
    "AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)",
    "AMD EPYC",  # a virtual machine's, whichever it runs on
    "Intel(R) Xeon(R) Processor",
    "NVIDIA A100-SXM4-80GB MIG 3g.40gb",  # a part of the card
    "GRID A10-24Q",
    "NVIDIA GeForce RTX 2080 with Max-Q Design",
    "NVIDIA GeForce RTX 9999",
]


@pytest.mark.parametrize(("reported", "gib", "name"), AS_REPORTED, ids=str)
def test_a_name_as_drivers_report_it_finds_its_row(reported, gib, name):
    """Makers' words, marks and brackets aside, a name leads to its own device; memory parts devices of one name."""
    found = find_device(reported, memory_bytes=gib and gib * GIB)

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("reported", UNKNOWN)
def test_a_name_of_no_row_finds_nothing(reported):
    """What is not known by all of its words is unknown: a part of a card is not the card."""
    assert find_device(reported) is None


def test_of_devices_of_one_name_the_slowest_is_meant_where_memory_tells_nothing():
    """An Apple M3 Max of unknown size is taken for the smaller one: no promise is made of the name alone."""
    assert find_device("Apple M3 Max").bandwidth_bytes_per_s == 300e9


@given(
    st.sampled_from([one for one in all_devices() if one.kind == "gpu"]), st.sampled_from(["Ti", "SUPER", "Laptop GPU"])
)
def test_a_further_word_never_leads_to_the_same_device(device, word):
    """`Ti`, `SUPER` and `Laptop` make another device of any name."""
    found = find_device(f"{device.name} {word}")

    assert found is None or found.name != device.name


def test_every_device_is_found_by_its_own_name_and_says_whose_figures_it_has():
    """The table has at least 150 devices, each with a bandwidth and a source, and no name leads elsewhere."""
    devices = all_devices()
    gpus = [one for one in devices if one.kind == "gpu"]

    assert len(devices) >= 150
    assert all(one.source and one.bandwidth_bytes_per_s > 0 for one in devices)
    assert len({one.name for one in devices}) == len(devices)
    assert all(find_device(one.name, kind="gpu").bandwidth_bytes_per_s <= one.bandwidth_bytes_per_s for one in gpus)


def test_unknown_bandwidths_are_filled_in_and_known_ones_kept():
    """What a file or a measurement says stands; what nobody said comes from the device's name, and says so."""
    machine = card(24, count=2)
    named, told = (replace(gpu, name="NVIDIA GeForce RTX 4090") for gpu in machine.gpus)
    told = replace(told, bandwidth_bytes_per_s=5e11)
    cpu = Cpu("AMD Ryzen 9 7950X 16-Core Processor", "x86_64")

    filled = with_bandwidths(replace(machine, cpu=cpu, gpus=(named, told)))

    assert [gpu.bandwidth_bytes_per_s for gpu in filled.gpus] == [1008e9, 5e11]
    assert [gpu.bandwidth_source for gpu in filled.gpus] == ["specification", None]
    assert filled.ram_bandwidth_bytes_per_s == pytest.approx(83.2e9)
    assert filled.ram_bandwidth_source == "specification"


def test_a_machine_of_unknown_parts_stays_as_it_is():
    """Unknown is not guessed."""
    machine = card(24)

    assert with_bandwidths(machine) == machine
    assert with_bandwidths(cpu_only(16)) == cpu_only(16)
