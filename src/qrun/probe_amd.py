"""AMD's GPUs, from the amdgpu driver's files under /sys.

`root` is where /sys, /dev and /usr stand. Formats: the kernel's Documentation/gpu/amdgpu/driver-misc.rst (memory) and
drivers/gpu/drm/amd/include/kgd_pp_interface.h (gpu_metrics).
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from qrun.hardware import Device, DeviceKind
from qrun.probed import Gpus, Host
from qrun.visible_devices import select_visible

__all__ = ["probe_amd"]

_VENDOR = "0x1002"
# gpu_metrics begins with its size (2 bytes) and its format: 1 is a discrete GPU, 2 and above an APU.
_METRICS_FORMAT_AT = 2
_FIRST_APU_FORMAT = 2


def probe_amd(host: Host, environ: Mapping[str, str], *, root: Path = Path("/")) -> Gpus:
    """The AMD GPUs an engine can open, by ROCm where the machine has it (/dev/kfd), else by Vulkan."""
    kind: DeviceKind = "rocm" if (root / "dev/kfd").exists() else "vulkan"
    devices: list[Device] = []
    notes: list[str] = []
    for folder in _cards(root):
        closed = _why_closed(folder, root)
        device = _device(folder, kind, host, root)
        if device is None:
            notes.append(f"The AMD GPU at {folder.resolve().name} does not tell its memory and is not used.")
        elif closed:
            notes.append(f"{device.name} is not used: {closed}")
        else:
            devices.append(device)
    # HIP's variables mean nothing to Vulkan.
    return _visible(devices, notes, environ) if kind == "rocm" else Gpus(tuple(devices), tuple(notes))


def _cards(root: Path) -> Iterator[Path]:
    """The device folders of AMD's cards, in the kernel's order."""
    found = [path for path in (root / "sys/class/drm").glob("card*") if path.name.removeprefix("card").isdigit()]
    for card in sorted(found, key=lambda path: int(path.name.removeprefix("card"))):
        if _read(card / "device/vendor") == _VENDOR:
            yield card / "device"


def _why_closed(folder: Path, root: Path) -> str | None:
    """Why an engine could not open the card; None: it could. A container shows /sys of cards it was not given."""
    nodes = [root / "dev/dri" / path.name for path in (folder / "drm").glob("renderD*")]
    if not any(node.exists() for node in nodes):
        return "its /dev/dri/renderD* is not here. In a container, start it with --device /dev/dri --device /dev/kfd."
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return "you may not open it. Add yourself to the groups render and video, and log in again."
    return None


def _device(folder: Path, kind: DeviceKind, host: Host, root: Path) -> Device | None:
    vram_bytes = _number(folder / "mem_info_vram_total")
    if not vram_bytes:
        return None
    free_bytes = _free(folder, "vram", vram_bytes)
    gtt_bytes = _number(folder / "mem_info_gtt_total") if _is_apu(folder) else None
    if gtt_bytes:
        # An APU takes host memory (GTT) beside its carve-out, as far as the host has it free.
        shared = [size for size in (_free(folder, "gtt", gtt_bytes), host.ram_free_bytes) if size is not None]
        free_bytes = free_bytes + min(shared) if free_bytes is not None and shared else None
    unique_id = _read(folder / "unique_id")
    return Device(
        name=_name(folder, root),
        kind=kind,
        memory_bytes=vram_bytes + (gtt_bytes or 0),
        free_bytes=free_bytes,
        unified=bool(gtt_bytes),
        uuid=f"GPU-{unique_id}" if unique_id else None,  # as ROCR_VISIBLE_DEVICES names it
        pci_bus_id=folder.resolve().name if ":" in folder.resolve().name else None,
        driver="amdgpu",
    )


def _free(folder: Path, pool: str, total_bytes: int) -> int | None:
    used_bytes = _number(folder / f"mem_info_{pool}_used")
    return None if used_bytes is None else max(0, total_bytes - used_bytes)


def _is_apu(folder: Path) -> bool:
    # Unknown counts as discrete: taking a card's GTT for its memory would promise the host's RAM at the card's speed.
    try:
        head = (folder / "gpu_metrics").read_bytes()[: _METRICS_FORMAT_AT + 1]
    except OSError:
        return False
    return len(head) > _METRICS_FORMAT_AT and head[_METRICS_FORMAT_AT] >= _FIRST_APU_FORMAT


def _name(folder: Path, root: Path) -> str:
    """The card's name: its own (server cards), libdrm's table (lines `device, revision, name`), else its number."""
    own = _read(folder / "product_name")
    if own:
        return own
    device, revision = _hex(folder / "device"), _hex(folder / "revision")
    for line in (_read(root / "usr/share/libdrm/amdgpu.ids") or "").splitlines():
        fields = [field.strip() for field in line.split(",", 2)]
        if len(fields) == 3 and [field.upper() for field in fields[:2]] == [device, revision]:  # noqa: PLR2004 - the three fields
            return fields[2]
    return f"AMD GPU {device}" if device else "AMD GPU"


def _hex(path: Path) -> str:
    return (_read(path) or "").removeprefix("0x").upper().lstrip("0") or ""


def _visible(devices: list[Device], notes: list[str], environ: Mapping[str, str]) -> Gpus:
    """What ROCR_VISIBLE_DEVICES leaves, and of that what HIP_VISIBLE_DEVICES leaves (ROCm docs, GPU isolation)."""
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        value = environ.get(variable)
        if value is None:
            continue
        by_uuid = {device.uuid: device for device in devices if device.uuid}
        seen = select_visible(value, devices, by_uuid)
        if seen.stopped_at is not None:
            notes = [*notes, f"{variable}={value}: {seen.stopped_at} is no GPU here, or comes twice; ROCm stops there."]
        devices = list(seen.gpus)
    return Gpus(tuple(devices), tuple(notes))


def _number(path: Path) -> int | None:
    text = _read(path) or ""
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str | None:
    # Drivers of different age have different files: what is not there is unknown.
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
