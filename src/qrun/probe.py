"""Asks this machine what it has. Slow parts (NVML, sysctl) are asked once a call; nothing is remembered.

Each platform and each maker of GPUs has a probe of its own; here they are put together to one `Hardware`.
"""

import os
import platform
import sys
from collections.abc import Mapping, Sequence

from qrun.devices import with_bandwidths
from qrun.errors import UsageError
from qrun.hardware import Cpu, Device, Hardware
from qrun.probe_amd import probe_amd
from qrun.probe_apple import probe_apple_gpu, probe_apple_host, read_sysctl
from qrun.probe_linux import probe_linux
from qrun.probe_nvidia import probe_nvidia
from qrun.probed import Gpus, Host

__all__ = ["host_and_gpus", "machine_name", "probe_hardware", "select_gpus"]

_OS_NAMES = {"darwin": "macos", "win32": "windows"}


def probe_hardware(*, gpus: tuple[int, ...] | None = None, environ: Mapping[str, str]) -> Hardware:
    """This machine as it is now, with its devices' nominal bandwidths where their names tell them.

    `gpus` keeps those of the found GPUs, counted as `qrun hardware` lists them: None keeps all, `()` none. `environ`
    is asked for CUDA_VISIBLE_DEVICES and its like. Raises UsageError for a GPU that is not there, Failure where even
    the memory cannot be read.
    """
    host, found = host_and_gpus(sys.platform, environ)
    machine = Hardware(
        name=machine_name(host, found.devices),
        os=_OS_NAMES.get(sys.platform, sys.platform),
        cpu=host.cpu,
        ram_bytes=host.ram_bytes,
        ram_free_bytes=host.ram_free_bytes,
        ram_limit_bytes=host.ram_limit_bytes,
        gpus=select_gpus(found.devices, gpus),
        notes=found.notes,
    )
    return with_bandwidths(machine)


def select_gpus(found: Sequence[Device], wanted: Sequence[int] | None) -> tuple[Device, ...]:
    """The GPUs of `found` at the indexes `wanted`, in that order; None: all. Raises UsageError."""
    if wanted is None:
        return tuple(found)
    for index in wanted:
        if not 0 <= index < len(found):
            there = ", ".join(f"{number} ({gpu.name})" for number, gpu in enumerate(found)) or "none"
            raise UsageError(f"--gpus: there is no GPU {index} on this machine. There are: {there}.")
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"--gpus: {', '.join(map(str, wanted))} names a GPU twice.")
    return tuple(found[index] for index in wanted)


def host_and_gpus(system: str, environ: Mapping[str, str]) -> tuple[Host, Gpus]:
    """What the probes of `system` (as `sys.platform` names it) report. Raises Failure where memory is unknown."""
    arch = _arch(platform.machine())
    if system == "darwin":
        values = read_sysctl()
        host = probe_apple_host(values, arch, available=_available_bytes)
        return host, probe_apple_gpu(values, host)
    if system == "linux":
        host = probe_linux(arch, affinity=os.sched_getaffinity(0))
        nvidia, amd = probe_nvidia(host, environ), probe_amd(host, environ)
        return host, Gpus(nvidia.devices + amd.devices, nvidia.notes + amd.notes)
    host = _any_host(arch)
    return host, probe_nvidia(host, environ)


def _arch(machine: str) -> str:
    """Windows says AMD64 and ARM64 where the others say x86_64 and arm64 or aarch64."""
    return {"amd64": "x86_64"}.get(machine.lower(), machine.lower())


def _available_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _any_host(arch: str) -> Host:
    """Windows and whatever else psutil knows: no instruction sets and no kinds of cores, which stay unknown."""
    import psutil

    memory = psutil.virtual_memory()
    cpu = Cpu(
        name=platform.processor() or None,
        arch=arch,
        logical_cores=psutil.cpu_count(),
        physical_cores=psutil.cpu_count(logical=False),
    )
    return Host(cpu=cpu, ram_bytes=int(memory.total), ram_free_bytes=int(memory.available))


def machine_name(host: Host, gpus: Sequence[Device]) -> str:
    """What people call the machine by: its GPUs, else its processor."""
    if not gpus:
        return host.cpu.name or host.cpu.arch
    names = [gpu.name for gpu in gpus]
    counts = {name: names.count(name) for name in names}
    return " + ".join(name if count == 1 else f"{count}x {name}" for name, count in counts.items())
