"""Who holds the memory that a model wanted: the largest processes on the GPUs, or of host RAM.

For the words of a refusal alone, so whatever cannot be asked is left out.
"""

from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from qrun.hardware import Hardware
from qrun.units import GIB, gib

__all__ = ["memory_holders"]

_WORTH_NAMING_BYTES = GIB // 2


def memory_holders(hardware: Hardware, *, most: int = 3, nvml: ModuleType | None = None) -> tuple[str, ...]:
    """The processes that hold most of the GPUs' memory, or of RAM where there is no GPU: `name (pid N): 4.1 GiB`.

    Only those that hold half a GiB or more. Of GPUs other than NVIDIA's nobody tells, so their list is empty.
    """
    held = _on_gpus(nvml or import_module("pynvml")) if hardware.gpus else dict(_in_ram())
    largest = sorted(held.items(), key=lambda item: -item[1])[:most]
    return tuple(f"{_name(pid)} (pid {pid}): {gib(size)}" for pid, size in largest if size >= _WORTH_NAMING_BYTES)


def _in_ram() -> Iterator[tuple[int, int]]:
    import psutil

    for process in psutil.process_iter(["pid", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is not None:  # of another user's process, where that is not told
            yield process.info["pid"], memory.rss


def _on_gpus(nvml: ModuleType) -> dict[int, int]:
    held: defaultdict[int, int] = defaultdict(int)
    try:
        nvml.nvmlInit()
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    held[process.pid] += process.usedGpuMemory or 0  # None in a container
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return {}
    return dict(held)


def _name(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "a process"
