"""An Apple machine's processor, memory and GPU, from sysctl.

Apple silicon has one memory for CPU and GPU: the GPU is `unified`, and its budget is Metal's working set. Names of the
values: `man 3 sysctl`, and on a Mac `sysctl hw machdep.cpu iogpu`.
"""

import subprocess
from collections.abc import Callable, Mapping

from qrun.errors import Failure
from qrun.hardware import Cpu, Device
from qrun.isa import isa_of_sysctl
from qrun.probed import Gpus, Host
from qrun.units import MIB

__all__ = ["parse_sysctl", "probe_apple_gpu", "probe_apple_host", "read_sysctl"]

# By its full path: Homebrew and others put a sysctl of their own on PATH.
_SYSCTL = "/usr/sbin/sysctl"
_TREES = ("hw", "machdep.cpu", "iogpu")
_TIMEOUT_S = 5

_ROSETTA = (
    "This Python is built for Intel and runs under Rosetta: the GPU is out of reach. Install qrun with a native one."
)


def read_sysctl() -> dict[str, str]:
    """What `sysctl` prints of this machine's hardware, by name. Raises Failure where it cannot be run."""
    # A tree that this Mac lacks (iogpu on Intel) makes it exit 1 and still print the others: the status tells nothing.
    try:
        done = subprocess.run([_SYSCTL, *_TREES], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"The machine cannot be asked: {_SYSCTL} fails ({error}).") from error
    return parse_sysctl(done.stdout)


def parse_sysctl(text: str) -> dict[str, str]:
    """`name: value` lines as a mapping; a value's further lines are left out."""
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon and " " not in name}


def probe_apple_host(values: Mapping[str, str], arch: str, *, available: Callable[[], int | None]) -> Host:
    """Processor and memory. `available` tells what is free now. Raises Failure without hw.memsize."""
    ram_bytes = _number(values, "hw.memsize")
    if not ram_bytes:
        raise Failure("The machine's memory is unknown: sysctl hw.memsize says nothing.")
    physical_cores = _number(values, "hw.physicalcpu")
    cpu = Cpu(
        name=values.get("machdep.cpu.brand_string") or None,
        arch=arch,
        logical_cores=_number(values, "hw.logicalcpu"),
        physical_cores=physical_cores,
        # perflevel0 is the fastest kind of core; Intel Macs have one kind and no such name.
        performance_cores=_number(values, "hw.perflevel0.physicalcpu") or physical_cores,
        isa=isa_of_sysctl(values),
    )
    return Host(cpu=cpu, ram_bytes=ram_bytes, ram_free_bytes=available())


def probe_apple_gpu(values: Mapping[str, str], host: Host) -> Gpus:
    """The GPU of Apple silicon; none on an Intel Mac, whose Metal no engine of ours uses."""
    if host.cpu.arch != "arm64":
        translated = values.get("hw.optional.arm64") == "1"
        return Gpus(notes=(_ROSETTA,) if translated else ())
    # 0 or absent: macOS's own limit holds, which `Device.budget_bytes` knows.
    wired_limit_mb = _number(values, "iogpu.wired_limit_mb")
    gpu = Device(
        name=host.cpu.name or "Apple GPU",
        kind="metal",
        memory_bytes=host.ram_bytes,
        free_bytes=host.ram_free_bytes,
        unified=True,
        working_set_bytes=min(wired_limit_mb * MIB, host.ram_bytes) if wired_limit_mb else None,
    )
    return Gpus((gpu,))


def _number(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "")
    return int(text) if text.isdigit() else None
