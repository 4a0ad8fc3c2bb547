"""NVIDIA's GPUs, by NVML, as CUDA_VISIBLE_DEVICES leaves them.

NVML lists GPUs in the order of their PCI addresses. CUDA, and every engine, lists the fastest first unless
CUDA_DEVICE_ORDER=PCI_BUS_ID: an index means different cards in the two, which is why each device carries its UUID.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from qrun.hardware import Device
from qrun.probed import Gpus, Host
from qrun.visible_devices import select_visible

__all__ = ["probe_nvidia"]

_T = TypeVar("_T")

_NO_LIBRARY = (
    "NVIDIA's driver is loaded but its library libnvidia-ml.so.1 is not here: GPUs are not used. "
    "In a container, start it with the NVIDIA runtime (--gpus all)."
)
_MIG_REMEDY = "set CUDA_VISIBLE_DEVICES to another's UUID (nvidia-smi -L) to use that."
_OTHER_ORDER = (
    "CUDA_VISIBLE_DEVICES names GPUs by index, and CUDA counts the fastest first: other cards may be meant. "
    "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID."
)


@dataclass(frozen=True, slots=True)
class _Card:
    """A card by NVML's index. In MIG mode its `parts` are what can be used, and the whole is not."""

    device: Device
    mig: bool
    parts: tuple[Device, ...] = ()

    @property
    def usable(self) -> Device | None:
        # A process that names no part gets the first one (NVIDIA MIG User Guide, "CUDA Device Enumeration").
        if not self.mig:
            return self.device
        return self.parts[0] if self.parts else None


def probe_nvidia(
    host: Host, environ: Mapping[str, str], *, nvml: ModuleType | None = None, root: Path = Path("/")
) -> Gpus:
    """The NVIDIA GPUs a child of this process would see. Without a driver there are none, which is no error.

    `host` lends its memory to GPUs that have none of their own. A failing NVML gives no GPUs and a note.
    """
    if nvml is None:
        nvml = import_module("pynvml")  # 20 ms, so not at the top
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return Gpus(notes=_library_missing(root))
    except nvml.NVMLError as error:
        return Gpus(notes=(_init_failed(nvml, error),))
    try:
        return _visible(*_cards(nvml, host), environ)
    except nvml.NVMLError as error:
        return Gpus(notes=(f"NVIDIA's driver does not list its GPUs: {error}.",))
    finally:
        nvml.nvmlShutdown()


def _library_missing(root: Path) -> tuple[str, ...]:
    # The kernel's driver without its user library: a container that was given the devices but not the driver's files.
    return (_NO_LIBRARY,) if (root / "proc/driver/nvidia/version").exists() else ()


def _init_failed(nvml: ModuleType, error: Exception) -> str:
    if isinstance(error, nvml.NVMLError_LibRmVersionMismatch):
        return "NVIDIA's driver was updated and its old version still runs: GPUs are not used. Restart the machine."
    return f"NVIDIA's driver does not answer ({error}): GPUs are not used. Does nvidia-smi work?"


def _cards(nvml: ModuleType, host: Host) -> tuple[list[_Card | None], tuple[str, ...]]:
    """Every card by NVML's index; None keeps the place of one that cannot be read, which a note names."""
    driver = _known(nvml, lambda: _text(nvml.nvmlSystemGetDriverVersion()))
    cards: list[_Card | None] = []
    notes: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            cards.append(_card(nvml, nvml.nvmlDeviceGetHandleByIndex(index), driver, host))
        except nvml.NVMLError as error:
            cards.append(None)
            notes.append(f"NVIDIA GPU {index} cannot be read ({error}) and is not used.")
    return cards, tuple(notes)


def _card(nvml: ModuleType, handle: object, driver: str | None, host: Host) -> _Card:
    whole = _device(nvml, handle, handle, driver, host)
    mode = _known(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return _Card(whole, mig=False)
    parts = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError_NotFound:  # instances need not be numbered without gaps
            continue
        parts.append(_device(nvml, part, handle, driver, host))
    return _Card(whole, mig=True, parts=tuple(parts))


def _device(nvml: ModuleType, handle: object, card: object, driver: str | None, host: Host) -> Device:
    """The device of `handle`, which is `card` itself or a MIG part of it."""
    memory = _known(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    capability = _known(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(card))
    return Device(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        kind="cuda",
        # A GPU without memory of its own (GB10, Jetson) shares the host's, and NVML does not tell of that.
        memory_bytes=int(memory.total) if memory else host.ram_bytes,
        free_bytes=int(memory.free) if memory else host.ram_free_bytes,
        unified=memory is None,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=_known(nvml, lambda: _text(nvml.nvmlDeviceGetPciInfo(card).busId)),
        driver=driver,
    )


def _known(nvml: ModuleType, ask: Callable[[], _T]) -> _T | None:
    """What `ask` says, None where this GPU or driver does not know it. Any other failure is raised."""
    try:
        return ask()
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _visible(cards: list[_Card | None], notes: tuple[str, ...], environ: Mapping[str, str]) -> Gpus:
    readable = [card for card in cards if card is not None]
    notes += tuple(note for card in readable if (note := _mig_note(card, environ)))
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return Gpus(tuple(card.usable for card in readable if card.usable), notes)
    by_uuid = {device.uuid: device for card in readable for device in card.parts if device.uuid}
    by_uuid |= {card.device.uuid: card.usable for card in readable if card.device.uuid and card.usable}
    seen = select_visible(value, [card.usable if card else None for card in cards], by_uuid)
    if seen.stopped_at is not None:
        notes += (f"CUDA_VISIBLE_DEVICES={value}: {seen.stopped_at} is no GPU here, or comes twice; CUDA stops there.",)
    if seen.by_index and len({card.device.name for card in readable}) > 1 and not _in_pci_order(environ):
        notes += (_OTHER_ORDER,)
    return Gpus(tuple(device for device in seen.gpus if device), notes)


def _in_pci_order(environ: Mapping[str, str]) -> bool:
    return environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"


def _mig_note(card: _Card, environ: Mapping[str, str]) -> str | None:
    if not card.mig:
        return None
    if not card.parts:
        return f"{card.device.name} is in MIG mode without an instance and is not used. Create one by nvidia-smi mig."
    if len(card.parts) > 1 and "MIG-" not in environ.get("CUDA_VISIBLE_DEVICES", ""):
        return f"Of the {len(card.parts)} MIG instances of {card.device.name} the first is used; {_MIG_REMEDY}"
    return None
