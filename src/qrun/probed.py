"""What single probes report, before `probe` puts them together to one `Hardware`.

Pure values. A probe never raises for a device it cannot read: it leaves it out and says so in `notes`.
"""

from dataclasses import dataclass

from qrun.hardware import Cpu, Device

__all__ = ["Gpus", "Host"]


@dataclass(frozen=True, slots=True)
class Host:
    """A machine without its GPUs. `ram_limit_bytes`: a cgroup's limit below the machine's memory, None where none."""

    cpu: Cpu
    ram_bytes: int
    ram_free_bytes: int | None = None
    ram_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that one interface shows, in its order, and what the user should hear about those it does not."""

    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()
