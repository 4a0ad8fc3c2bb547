"""NVIDIA's GPUs. All but the last tests use a double of NVML (nvml_double.py): no GPU is here."""

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from nvml_double import MIB, Card, NvmlDouble
from planted import plant
from qrun.hardware import Cpu
from qrun.probe_nvidia import probe_nvidia
from qrun.probed import Gpus, Host
from qrun.units import GIB

HOST = Host(cpu=Cpu("A CPU", "x86_64"), ram_bytes=128 * GIB, ram_free_bytes=100 * GIB)
RTX_4090 = Card("NVIDIA GeForce RTX 4090", "GPU-0a1b2c3d-0000-0000-0000-000000000001", "00000000:01:00.0")
RTX_3060 = Card(
    "NVIDIA GeForce RTX 3060",
    "GPU-4e5f6a7b-0000-0000-0000-000000000002",
    "00000000:02:00.0",
    total_bytes=12288 * MIB,
    free_bytes=12000 * MIB,
    capability=(8, 6),
)
RTX_3090 = Card("NVIDIA GeForce RTX 3090", "GPU-4e9f6a7b-0000-0000-0000-000000000003", "00000000:41:00.0")
THREE = (RTX_4090, RTX_3060, RTX_3090)

SLICE = "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
A100 = Card(
    "NVIDIA A100-SXM4-40GB",
    "GPU-aaaaaaaa-0000-0000-0000-000000000004",
    "00000000:07:00.0",
    total_bytes=40960 * MIB,
    capability=(8, 0),
    mig=True,
    parts=(
        Card(SLICE, "MIG-c7384736-a75d-5afc-978f-d2f1294409fd", total_bytes=20096 * MIB, free_bytes=20000 * MIB),
        None,  # instances need not be numbered without gaps
        Card(SLICE, "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d", total_bytes=20096 * MIB, free_bytes=19000 * MIB),
    ),
)


def probe(cards=(), environ=None, **errors) -> Gpus:
    """What the probe makes of `cards`; NVML must be closed again whatever happens."""
    nvml = NvmlDouble(cards, **errors)

    found = probe_nvidia(HOST, environ or {}, nvml=nvml, root=Path("/nowhere"))

    assert nvml.open == 0
    return found


def names(found: Gpus) -> list[str]:
    """The last four characters of each GPU's name."""
    return [device.name[-4:] for device in found.devices]


def test_a_card_is_described_whole():
    """Name, memory, what is free, compute capability, driver, and what tells it from its like."""
    card = probe([RTX_3060]).devices[0]

    assert (card.name, card.kind) == ("NVIDIA GeForce RTX 3060", "cuda")
    assert (card.memory_bytes, card.free_bytes) == (12288 * MIB, 12000 * MIB)
    assert (card.compute_capability, card.driver) == ("8.6", "570.86.15")
    assert (card.uuid, card.pci_bus_id) == (RTX_3060.uuid, "00000000:02:00.0")
    assert not card.unified


def test_names_as_bytes_are_text():
    """Older bindings hand out bytes."""
    card = Card(b"Tesla T4", b"GPU-1", b"00000000:00:1E.0")

    device = probe([card]).devices[0]

    assert (device.name, device.uuid, device.pci_bus_id) == ("Tesla T4", "GPU-1", "00000000:00:1E.0")


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, ["4090", "3060", "3090"]),
        ("", []),
        ("-1", []),
        ("0", ["4090"]),
        ("2,0", ["3090", "4090"]),
        (" 1 , 2 ", ["3060", "3090"]),
        ("0,-1,1", ["4090"]),
        ("0,7,1", ["4090"]),
        ("1,1", []),
        ("GPU-0a1b", ["4090"]),
        ("gpu-4E5F", ["3060"]),
        ("GPU-4e", []),  # two begin so
        (f"{RTX_3090.uuid},0", ["3090", "4090"]),
        ("none", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(value, seen):
    """Indexes, beginnings of UUIDs, an order of one's own; the first that is no GPU ends the list."""
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}

    assert names(probe(THREE, {**environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})) == seen


@pytest.mark.parametrize(("value", "named"), [("0,7", "7"), ("GPU-4e", "GPU-4e"), ("1,1", "1"), ("none", "none")])
def test_an_entry_that_is_no_gpu_is_named(value, named):
    """A typo in the variable hides GPUs: that is said."""
    notes = probe(THREE, {"CUDA_VISIBLE_DEVICES": value, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).notes

    assert len(notes) == 1
    assert f"{named} is no GPU here" in notes[0]


@pytest.mark.parametrize("value", ["", "-1", "GPU-0a1b"])
def test_what_is_meant_gives_no_note(value):
    """Hiding all GPUs, or naming one by UUID, is no mistake."""
    assert probe(THREE, {"CUDA_VISIBLE_DEVICES": value}).notes == ()


def test_indexes_among_unlike_cards_are_doubtful_without_pci_order():
    """CUDA counts the fastest first unless told otherwise, NVML by PCI address."""
    unlike = probe(THREE, {"CUDA_VISIBLE_DEVICES": "0"})
    ordered = probe(THREE, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    alike = probe([RTX_4090, RTX_4090], {"CUDA_VISIBLE_DEVICES": "0"})

    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in unlike.notes[0]
    assert ordered.notes == alike.notes == ()


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, "MIG-c7384736"),
        ("0", "MIG-c7384736"),
        ("GPU-aaaa", "MIG-c7384736"),
        ("MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d", "MIG-a28ad590"),
    ],
)
def test_of_a_card_in_mig_mode_one_instance_is_used(value, seen):
    """CUDA gives a process one instance, the first unless another is named: its memory counts, not the card's."""
    found = probe([A100], {} if value is None else {"CUDA_VISIBLE_DEVICES": value})

    device = found.devices[0]
    assert len(found.devices) == 1
    assert device.uuid.startswith(seen)
    assert device.memory_bytes == 20096 * MIB
    assert (device.compute_capability, device.pci_bus_id) == ("8.0", "00000000:07:00.0")


def test_further_mig_instances_are_told_of():
    """Who has two instances and uses one hears how to use the other."""
    assert "Of the 2 MIG instances" in probe([A100]).notes[0]
    assert probe([A100], {"CUDA_VISIBLE_DEVICES": "MIG-a28ad590"}).notes == ()


def test_a_card_in_mig_mode_without_instances_is_not_used():
    """Such a card has no memory to give, whatever its total says."""
    found = probe([Card("NVIDIA A100", "GPU-a", mig=True), RTX_3060])

    assert names(found) == ["3060"]
    assert "without an instance" in found.notes[0]


def test_a_card_with_mig_off_is_whole():
    """A card that could be divided and is not counts as itself."""
    assert probe([Card("NVIDIA H100", "GPU-h", mig=False)]).devices[0].name == "NVIDIA H100"


def test_a_gpu_without_memory_of_its_own_shares_the_host_s():
    """GB10 and Jetson: NVML knows no memory there, and RAM is what they have."""
    device = probe([Card("NVIDIA GB10", "GPU-g", total_bytes=None, capability=(12, 1))]).devices[0]

    assert device.unified
    assert (device.memory_bytes, device.free_bytes) == (128 * GIB, 100 * GIB)


def test_a_card_that_fell_off_the_bus_is_told_of_and_the_others_stay():
    """A lost GPU neither hides the rest nor passes in silence, and it keeps its index."""
    lost = Card("lost", "GPU-l", failing=pynvml.NVML_ERROR_GPU_IS_LOST)

    found = probe([lost, RTX_3060])
    second = probe([lost, RTX_3060], {"CUDA_VISIBLE_DEVICES": "1"})
    first = probe([lost, RTX_3060], {"CUDA_VISIBLE_DEVICES": "0"})

    assert names(found) == names(second) == ["3060"]
    assert first.devices == ()
    assert "GPU 0 cannot be read (GPU is lost)" in found.notes[0]


def test_without_a_driver_there_are_no_gpus_and_no_note():
    """Most machines have no NVIDIA driver; that is no fault."""
    assert probe(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND) == Gpus()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Restart the machine"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"),
        (pynvml.NVML_ERROR_UNKNOWN, "nvidia-smi"),
    ],
)
def test_a_driver_that_fails_is_a_note_and_no_crash(code, words):
    """A broken driver means no GPUs today, and the user hears why."""
    found = probe(init_error=code)

    assert found.devices == ()
    assert words in found.notes[0]


def test_a_driver_that_fails_later_is_a_note_and_is_closed():
    """NVML may start and then not answer."""
    found = probe(count_error=pynvml.NVML_ERROR_TIMEOUT)

    assert found.devices == ()
    assert "Timeout" in found.notes[0]


def test_a_container_with_the_devices_and_without_the_library_is_told(tmp_path):
    """The kernel's driver is there, its library is not: the container was started without the NVIDIA runtime."""
    plant(tmp_path, {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\n"})

    found = probe_nvidia(HOST, {}, nvml=NvmlDouble(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), root=tmp_path)

    assert "libnvidia-ml.so.1" in found.notes[0]


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has an NVIDIA driver")
def test_the_real_binding_finds_none_on_a_machine_without_a_driver():
    """Real pynvml on this machine: no GPU, no error, no note."""
    assert probe_nvidia(HOST, dict(os.environ)) == Gpus()


@pytest.mark.gpu
def test_a_real_card_is_found():
    """Real pynvml on a machine with a GPU agrees with nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].split(", ")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no NVIDIA GPU here: {error}")

    device = probe_nvidia(HOST, {}).devices[0]

    assert device.uuid == told[0]
    assert device.memory_bytes == pytest.approx(int(told[1]) * MIB, rel=0.03)


def test_pynvml_is_imported_only_when_asked():
    """`qrun --help` must not pay for it."""
    program = "import qrun.probe, sys; print('pynvml' in sys.modules, 'psutil' in sys.modules)"

    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert out == "False False\n"
