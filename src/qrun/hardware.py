"""What a machine has: its processor, memory and GPUs, as values.

Pure: asks no device (that is `probe`). Sizes are bytes, rates bytes per second, unknown is None.
"""

from dataclasses import dataclass
from typing import Literal

from qrun.units import GIB

__all__ = [
    "BandwidthSource",
    "Cpu",
    "Device",
    "DeviceKind",
    "DeviceSummary",
    "Hardware",
    "cuda_uuids",
    "engine_threads",
    "kinds_driven",
]

DeviceKind = Literal["cuda", "rocm", "vulkan", "metal", "cpu"]
# Whose figure a bandwidth is: the maker's peak, found by the device's name, or what was read here in a second. None: a
# hardware file's, which means the peak.
BandwidthSource = Literal["specification", "measured"]

# What stays free beside an engine, per device (DESIGN 3.4; the engine's own CUDA context is inside the 1.5 GiB).
_CUDA_RESERVE_BYTES = 3 * GIB // 2
_GPU_RESERVE_BYTES = GIB
_RAM_RESERVE_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor, and how much of it this process may use.

    The core counts are the machine's. `quota_cores` is the cgroup's share of CPU time (None: no limit), `allowed_cores`
    the physical cores that the affinity mask leaves for an engine (None: no limit known). `isa` holds normalised
    instruction-set names (`avx2`, `avx512_vnni`, `neon`, `sve`); None is unknown, which is not the same as empty.
    """

    name: str | None
    arch: str
    logical_cores: int | None = None
    physical_cores: int | None = None
    performance_cores: int | None = None
    allowed_cores: int | None = None
    quota_cores: float | None = None
    isa: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. On unified memory (`unified`) its bytes are the host's own and are never added to them.

    `uuid` and `pci_bus_id` name the card for engines: their order of GPUs differs from the driver's (DESIGN section 4).
    """

    name: str
    kind: DeviceKind
    memory_bytes: int
    free_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    compute_capability: str | None = None
    unified: bool = False
    working_set_bytes: int | None = None
    uuid: str | None = None
    pci_bus_id: str | None = None
    driver: str | None = None
    bandwidth_source: BandwidthSource | None = None

    @property
    def budget_bytes(self) -> int:
        """What a model may take of this device today: free memory less the reserve of its kind (DESIGN 3.4)."""
        free = self.memory_bytes if self.free_bytes is None else self.free_bytes
        if self.kind == "metal":
            free = min(free, self.working_set_bytes or _metal_limit(self.memory_bytes))
        reserve = _CUDA_RESERVE_BYTES if self.kind == "cuda" else _GPU_RESERVE_BYTES
        return max(0, free - reserve)


def _metal_limit(memory_bytes: int) -> int:
    """The Metal working set macOS allows by default: 2/3 of memory to 32 GiB, 3/4 to 64, 84 % above (DESIGN 3.4)."""
    if memory_bytes <= 32 * GIB:
        return memory_bytes * 2 // 3
    if memory_bytes <= 64 * GIB:
        return memory_bytes * 3 // 4
    return memory_bytes * 84 // 100


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """One entry of `Hardware.devices`: a place a model can be put, as programs are told of it."""

    name: str
    kind: DeviceKind
    memory_bytes: int
    budget_bytes: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine. `ram_limit_bytes` is the tightest cgroup limit, `ram_free_bytes` what is free within it now.

    `notes` are what the probe could not find out and the user should hear, one sentence each. `simulated`: it was read
    from a hardware file, and is not this machine.
    """

    name: str
    os: str
    cpu: Cpu
    ram_bytes: int
    ram_free_bytes: int | None = None
    ram_limit_bytes: int | None = None
    ram_bandwidth_bytes_per_s: float | None = None
    gpus: tuple[Device, ...] = ()
    simulated: bool = False
    notes: tuple[str, ...] = ()
    ram_bandwidth_source: BandwidthSource | None = None

    @property
    def ram_budget_bytes(self) -> int:
        """Host RAM a model may take today: what is free within every limit, less 2 GiB for the rest (DESIGN 3.4)."""
        free = self.ram_bytes if self.ram_free_bytes is None else self.ram_free_bytes
        if self.ram_limit_bytes is not None:
            free = min(free, self.ram_limit_bytes)
        return max(0, free - _RAM_RESERVE_BYTES)

    @property
    def has_gpu(self) -> bool:
        """Whether any accelerator was found."""
        return bool(self.gpus)

    @property
    def devices(self) -> tuple[DeviceSummary, ...]:
        """The GPUs in their order, then host RAM as one entry of kind `cpu` (DESIGN section 2).

        A GPU of unified memory and the last entry tell of the same bytes: they are never added.
        """
        gpus = (DeviceSummary(gpu.name, gpu.kind, gpu.memory_bytes, gpu.budget_bytes) for gpu in self.gpus)
        host = DeviceSummary(self.cpu.name or self.cpu.arch, "cpu", self.ram_bytes, self.ram_budget_bytes)
        return (*gpus, host)


def kinds_driven(backends: frozenset[str]) -> frozenset[str]:
    """The kinds of GPU that an engine built with these backends can use.

    Vulkan reaches a card that the probe lists by CUDA or ROCm too, where the card's Vulkan driver is there.
    """
    return backends | {"cuda", "rocm"} if "vulkan" in backends else backends


def engine_threads(cpu: Cpu) -> int:
    """Threads for an engine: performance cores within the affinity mask and the cgroup's quota, at least one.

    Decoding is bound by memory: hyper-threads and efficiency cores slow it, and threads beyond the quota wait for each
    other while throttled (DESIGN section 4).
    """
    cores = cpu.performance_cores or cpu.physical_cores or cpu.logical_cores or 1
    if cpu.allowed_cores is not None:
        cores = min(cores, cpu.allowed_cores)
    if cpu.quota_cores is not None:
        cores = min(cores, int(cpu.quota_cores))
    return max(1, cores)


def cuda_uuids(hardware: Hardware) -> tuple[str, ...]:
    """The cards that are left by `--gpus` and the user's own variables, for an engine to see just these in this order.

    Nothing where some GPU is of another kind or nameless: then a list would hide it, or shift the order.
    """
    uuids = tuple(gpu.uuid for gpu in hardware.gpus if gpu.kind == "cuda" and gpu.uuid)
    return uuids if len(uuids) == len(hardware.gpus) else ()
