"""The processor and memory of a Linux machine, from /proc and /sys.

`root` is where those stand, so that a test can show it another machine. Formats: the kernel's own
Documentation/admin-guide/cputopology.rst and Documentation/filesystems/proc.rst.
"""

from collections.abc import Collection
from pathlib import Path

from qrun.cgroup import read_cgroup
from qrun.errors import Failure
from qrun.hardware import Cpu
from qrun.isa import isa_of_linux
from qrun.probed import Host

__all__ = ["parse_cpu_list", "probe_linux"]

# ARM servers name no processor, only a part number (arch/arm64/include/asm/cputype.h; implementer 0x41 is Arm Ltd).
_ARM_PARTS = {
    ("0x41", "0xd0c"): "Arm Neoverse-N1",
    ("0x41", "0xd40"): "Arm Neoverse-V1",
    ("0x41", "0xd49"): "Arm Neoverse-N2",
    ("0x41", "0xd4f"): "Arm Neoverse-V2",
    ("0x41", "0xd84"): "Arm Neoverse-V3",
    ("0xc0", "0xac3"): "Ampere-1",
}
# cpu_capacity is relative to the machine's fastest core (1024). Little cores of the known mixed chips stand well below
# half of it (A55 beside A76 or X1, A53 beside A72), middle cores above.
_BIG_CORE_SHARE = 0.5


def probe_linux(arch: str, *, affinity: Collection[int] | None = None, root: Path = Path("/")) -> Host:
    """What this machine has and what of it `affinity` and the cgroups leave. Raises Failure without /proc/meminfo."""
    memory = _meminfo(root)
    if "MemTotal" not in memory:
        raise Failure("The machine's memory is unknown: /proc/meminfo cannot be read.", "Is /proc mounted?")
    limits = read_cgroup(root)
    total_bytes = memory["MemTotal"]
    limit_bytes = limits.memory_limit_bytes
    free = [size for size in (memory.get("MemAvailable"), limits.memory_free_bytes) if size is not None]
    return Host(
        cpu=_cpu(arch, affinity, limits.quota_cores, root),
        ram_bytes=total_bytes,
        ram_free_bytes=min(free, default=None),
        ram_limit_bytes=limit_bytes if limit_bytes is not None and limit_bytes < total_bytes else None,
    )


def parse_cpu_list(text: str) -> frozenset[int]:
    """The kernel's list of CPUs, like `0-3,8`. Empty where `text` is none."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes; its kB are 1024 bytes."""
    lines = (line.split() for line in (_read(root / "proc/meminfo") or "").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


def _cpu(arch: str, affinity: Collection[int] | None, quota_cores: float | None, root: Path) -> Cpu:
    processors = _cpuinfo(root)
    first = processors[0] if processors else {}
    online = parse_cpu_list(_read(root / "sys/devices/system/cpu/online") or "")
    cores = _core_of_each(online, root)
    fast = _performance_cpus(online, root)
    flags = first.get("flags", first.get("Features"))
    return Cpu(
        name=_name(first, root),
        arch=arch,
        logical_cores=len(online) or len(processors) or None,
        physical_cores=_count_cores(online, cores),
        performance_cores=_count_cores(fast, cores),
        allowed_cores=_allowed_cores(online, fast, affinity, cores),
        quota_cores=quota_cores,
        isa=None if flags is None else isa_of_linux(flags.split()),
    )


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """The processors of /proc/cpuinfo, each with its own keys; blocks about the board (ARM) are left out."""
    entries = []
    for block in (_read(root / "proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        entry = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" in entry:
            entries.append(entry)
    return entries


def _name(first: dict[str, str], root: Path) -> str | None:
    part = _ARM_PARTS.get((first.get("CPU implementer", ""), first.get("CPU part", "")))
    board = (_read(root / "proc/device-tree/model") or "").strip("\0 \n")
    name = first.get("model name") or part or board
    return " ".join(name.split()) or None


def _core_of_each(cpus: Collection[int], root: Path) -> dict[int, frozenset[int]] | None:
    """For each CPU the hyper-threads of its core; None where the kernel does not say so of every one."""
    cores = {}
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        # core_cpus_list is the name since 5.2, thread_siblings_list the older one.
        text = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
        if text is None:
            return None
        cores[cpu] = parse_cpu_list(text)
    return cores or None


def _performance_cpus(online: frozenset[int], root: Path) -> frozenset[int]:
    """The CPUs that are not efficiency cores: Intel's hybrid chips list them, others rate each CPU; else all."""
    intel = parse_cpu_list(_read(root / "sys/devices/cpu_core/cpus") or "") & online
    if intel:
        return intel
    ratings = {cpu: _read(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity") for cpu in online}
    capacities = {cpu: int(text) for cpu, text in ratings.items() if text and text.strip().isdigit()}
    if not online or len(capacities) < len(online):
        return online
    least = max(capacities.values()) * _BIG_CORE_SHARE
    return frozenset(cpu for cpu, capacity in capacities.items() if capacity >= least)


def _count_cores(cpus: Collection[int], cores: dict[int, frozenset[int]] | None) -> int | None:
    if cores is None:
        return None
    return len({cores[cpu] for cpu in cpus}) or None


def _allowed_cores(
    online: frozenset[int],
    fast: frozenset[int],
    affinity: Collection[int] | None,
    cores: dict[int, frozenset[int]] | None,
) -> int | None:
    """The cores that an affinity mask leaves, efficiency cores only where it leaves no other; None: it leaves all."""
    if affinity is None or online <= set(affinity):
        return None
    mask = online & set(affinity)
    usable = mask & fast or mask
    return len(usable) if cores is None else _count_cores(usable, cores)


def _read(path: Path) -> str | None:
    # Kernels and containers leave files out: what cannot be read is unknown.
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
