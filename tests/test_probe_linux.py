"""A Linux machine's processor and memory, on doubles of machines that are not here."""

import os
import platform
import sys

import pytest

from planted import MEM_AVAILABLE_BYTES, MEM_TOTAL_BYTES, MEMINFO, plant
from qrun.errors import Failure
from qrun.hardware import engine_threads
from qrun.probe_linux import parse_cpu_list, probe_linux
from qrun.units import GIB

V2 = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}


def cpuinfo(count: int, model: str, flags: str) -> str:
    """/proc/cpuinfo of `count` equal x86 processors."""
    return "\n".join(
        f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: {model}\nflags\t\t: {flags}\n"
        for cpu in range(count)
    )


def topology(cores: list[str], name: str = "core_cpus_list") -> dict[str, str]:
    """The topology files of cores whose hyper-threads are listed like `0-1`."""
    return {
        f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": f"{siblings}\n"
        for siblings in cores
        for cpu in parse_cpu_list(siblings)
    }


def alder_lake() -> dict[str, str]:
    """Core i7-12700K: 8 performance cores with two threads each (CPUs 0-15), 4 efficiency cores (16-19)."""
    cores = [f"{first}-{first + 1}" for first in range(0, 16, 2)] + [str(cpu) for cpu in range(16, 20)]
    return {
        "proc/meminfo": MEMINFO,
        "proc/cpuinfo": cpuinfo(20, "12th Gen Intel(R) Core(TM) i7-12700K", "sse4_2 avx avx2 fma f16c bmi2 avx_vnni"),
        "sys/devices/system/cpu/online": "0-19\n",
        "sys/devices/cpu_core/cpus": "0-15\n",
        "sys/devices/cpu_atom/cpus": "16-19\n",
        **topology(cores),
    }


def rk3588() -> dict[str, str]:
    """Rockchip RK3588: four Cortex-A55 and four A76, rated 530 and 1024 by its device tree, slowed to 2.4/1.8 GHz."""
    arm = "Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
    return {
        "proc/meminfo": MEMINFO,
        "proc/cpuinfo": "\n".join(f"processor\t: {cpu}\nBogoMIPS\t: 48.00\n{arm}" for cpu in range(8)),
        "proc/device-tree/model": "Radxa ROCK 5B\0",
        "sys/devices/system/cpu/online": "0-7\n",
        **{f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": f"{414 if cpu < 4 else 1024}\n" for cpu in range(8)},
        **topology([str(cpu) for cpu in range(8)]),
    }


def test_a_hybrid_intel_chip_has_its_performance_cores_counted_alone(tmp_path):
    """Engines run on the P-cores: one thread each, no E-core."""
    cpu = probe_linux("x86_64", root=plant(tmp_path, alder_lake())).cpu

    assert (cpu.logical_cores, cpu.physical_cores, cpu.performance_cores) == (20, 12, 8)
    assert cpu.name == "12th Gen Intel(R) Core(TM) i7-12700K"
    assert cpu.isa == {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"}
    assert engine_threads(cpu) == 8


def test_a_mixed_arm_chip_is_told_apart_by_its_capacities(tmp_path):
    """big.LITTLE: cores of less than half the fastest one's capacity are efficiency cores."""
    cpu = probe_linux("aarch64", root=plant(tmp_path, rk3588())).cpu

    assert (cpu.physical_cores, cpu.performance_cores) == (8, 4)
    assert cpu.name == "Radxa ROCK 5B"
    assert cpu.isa == {"neon", "fp16", "dotprod"}


def test_an_arm_server_is_named_by_its_part(tmp_path):
    """Graviton and its like tell no model name, only the core's part number."""
    entry = "processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"

    cpu = probe_linux("aarch64", root=plant(tmp_path, {"proc/meminfo": MEMINFO, "proc/cpuinfo": entry})).cpu

    assert cpu.name == "Arm Neoverse-V1"
    assert cpu.isa == {"neon", "sve", "i8mm", "bf16"}


def test_cores_of_one_capacity_are_all_performance_cores(tmp_path):
    """Where the kernel rates all CPUs alike nothing is left out."""
    files = {path: "1024\n" if path.endswith("cpu_capacity") else text for path, text in rk3588().items()}

    assert probe_linux("aarch64", root=plant(tmp_path, files)).cpu.performance_cores == 8


def test_older_kernels_name_the_siblings_otherwise(tmp_path):
    """Before 5.2 core_cpus_list was thread_siblings_list."""
    files = {
        "proc/meminfo": MEMINFO,
        "sys/devices/system/cpu/online": "0-3\n",
        **topology(["0,2", "1,3"], "thread_siblings_list"),
    }

    cpu = probe_linux("x86_64", root=plant(tmp_path, files)).cpu

    assert (cpu.logical_cores, cpu.physical_cores, cpu.performance_cores) == (4, 2, 2)


@pytest.mark.parametrize(
    ("affinity", "allowed"),
    [
        (None, None),
        (range(20), None),
        (range(64), None),  # a mask wider than the machine
        ({0, 1, 2, 3}, 2),  # four threads of two P-cores
        ({0, 2, 16, 17}, 2),  # two P-cores and two E-cores: the P-cores
        ({16, 17, 18}, 3),  # E-cores alone: better than nothing
    ],
)
def test_an_affinity_mask_leaves_the_cores_it_covers(tmp_path, affinity, allowed):
    """Masks of taskset and cpuset count by core, performance cores first."""
    cpu = probe_linux("x86_64", affinity=affinity, root=plant(tmp_path, alder_lake())).cpu

    assert cpu.allowed_cores == allowed
    assert engine_threads(cpu) == (8 if allowed is None else allowed)


def test_what_the_kernel_hides_stays_unknown(tmp_path):
    """A sandbox with nothing but /proc/meminfo: counts and instruction sets are None, not zero or empty."""
    cpu = probe_linux("x86_64", root=plant(tmp_path, {"proc/meminfo": MEMINFO})).cpu

    assert (cpu.name, cpu.isa) == (None, None)
    assert (cpu.logical_cores, cpu.physical_cores, cpu.performance_cores) == (None, None, None)
    assert engine_threads(cpu) == 1


def test_processors_are_counted_where_only_cpuinfo_is_left(tmp_path):
    """Without /sys the logical count is known and the physical one is not."""
    files = {"proc/meminfo": MEMINFO, "proc/cpuinfo": cpuinfo(6, "X", "avx")}

    cpu = probe_linux("x86_64", root=plant(tmp_path, files)).cpu

    assert (cpu.logical_cores, cpu.physical_cores) == (6, None)


def test_memory_is_total_and_available(tmp_path):
    """MemAvailable counts, not MemFree: cache is given up on demand."""
    host = probe_linux("x86_64", root=plant(tmp_path, alder_lake()))

    assert (host.ram_bytes, host.ram_free_bytes) == (MEM_TOTAL_BYTES, MEM_AVAILABLE_BYTES)
    assert host.ram_limit_bytes is None


def test_a_container_s_limit_holds_and_its_free_memory_counts(tmp_path):
    """In a container of 4 GiB the host's free memory is not ours, and its quota sets the threads."""
    group = {
        "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{GIB}\n",
        "sys/fs/cgroup/cpu.max": "300000 100000\n",
    }

    host = probe_linux("x86_64", root=plant(tmp_path, {**alder_lake(), **V2, **group}))

    assert (host.ram_limit_bytes, host.ram_free_bytes) == (4 * GIB, 3 * GIB)
    assert engine_threads(host.cpu) == 3


def test_a_machine_with_less_free_than_its_group_keeps_the_lesser(tmp_path):
    """A generous limit on a full machine promises nothing."""
    group = {"sys/fs/cgroup/memory.max": f"{30 * GIB}\n", "sys/fs/cgroup/memory.current": "0\n"}

    host = probe_linux("x86_64", root=plant(tmp_path, {**alder_lake(), **V2, **group}))

    assert host.ram_free_bytes == MEM_AVAILABLE_BYTES


def test_a_limit_above_the_machine_s_memory_is_none(tmp_path):
    """A limit that can never hold is not reported."""
    group = {"sys/fs/cgroup/memory.max": f"{64 * GIB}\n"}

    host = probe_linux("x86_64", root=plant(tmp_path, {**alder_lake(), **V2, **group}))

    assert host.ram_limit_bytes is None


def test_without_proc_the_refusal_says_so(tmp_path):
    """No memory, no decision: one clear line instead of a guess."""
    with pytest.raises(Failure, match="/proc/meminfo"):
        probe_linux("x86_64", root=tmp_path)


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8\n", {0, 1, 2, 3, 8}), ("0\n", {0}), ("\n", set()), ("", set()), ("a-b,3-", {3})]
)
def test_cpu_lists_are_read_as_the_kernel_writes_them(text, cpus):
    """Ranges and single CPUs; what is none is left out."""
    assert parse_cpu_list(text) == cpus


@pytest.mark.skipif(sys.platform != "linux", reason="reads this machine's own /proc")
def test_this_machine_agrees_with_psutil():
    """The real /proc and /sys: cores and memory as an independent reader counts them."""
    import psutil

    host = probe_linux(platform.machine(), affinity=os.sched_getaffinity(0))

    assert host.ram_bytes == psutil.virtual_memory().total
    assert host.cpu.logical_cores == psutil.cpu_count()
    assert host.cpu.physical_cores == psutil.cpu_count(logical=False)
    assert host.ram_free_bytes == pytest.approx(psutil.virtual_memory().available, rel=0.2)
