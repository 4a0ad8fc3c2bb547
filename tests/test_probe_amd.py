"""AMD's GPUs, on doubles: planted trees of the amdgpu driver's files. No such card is here."""

import struct

import pytest

from planted import plant
from qrun.hardware import Cpu
from qrun.probe_amd import probe_amd
from qrun.probed import Gpus, Host
from qrun.units import GIB, MIB

HOST = Host(cpu=Cpu("A CPU", "x86_64"), ram_bytes=64 * GIB, ram_free_bytes=50 * GIB)

# How libdrm's table of names looks.
IDS = "# List of AMDGPU IDs\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n"


def metrics(format_revision: int) -> bytes:
    """The head of gpu_metrics: size, format and content revision (kgd_pp_interface.h), then measurements."""
    return struct.pack("<HBB", 120, format_revision, 3) + bytes(116)


def card(number: int, **changes: str | bytes | None) -> dict[str, str | bytes]:
    """An RX 7900 XTX as card `number`; `changes` replace its files, None takes one away."""
    files: dict[str, str | bytes | None] = {
        "vendor": "0x1002\n",
        "device": "0x744c\n",
        "revision": "0xc8\n",
        "mem_info_vram_total": f"{24560 * MIB}\n",
        "mem_info_vram_used": f"{560 * MIB}\n",
        "mem_info_gtt_total": f"{32 * GIB}\n",
        "mem_info_gtt_used": f"{20 * MIB}\n",
        "unique_id": f"deadbeef0000000{number}\n",
        "gpu_metrics": metrics(1),
        **changes,
    }
    folder = f"sys/class/drm/card{number}/device"
    node = f"renderD{128 + number}"
    planted = {f"{folder}/{name}": content for name, content in files.items() if content is not None}
    return {**planted, f"{folder}/drm/{node}/dev": "226:128\n", f"dev/dri/{node}": ""}


def strix_halo() -> dict[str, str | bytes]:
    """A Ryzen AI Max+ 395 with the smallest carve-out: 512 MiB of its own, 31 GiB of the host's by GTT."""
    return card(
        0,
        device="0x1586\n",
        mem_info_vram_total=f"{512 * MIB}\n",
        mem_info_vram_used=f"{100 * MIB}\n",
        mem_info_gtt_total=f"{31 * GIB}\n",
        mem_info_gtt_used=f"{GIB}\n",
        gpu_metrics=metrics(3),
    )


def test_a_discrete_card_counts_its_own_memory(tmp_path):
    """VRAM alone: what a discrete card could borrow of the host is not its memory."""
    root = plant(tmp_path, {**card(0), "dev/kfd": "", "usr/share/libdrm/amdgpu.ids": IDS})

    found = probe_amd(HOST, {}, root=root)

    device = found.devices[0]
    assert found.notes == ()
    assert (device.name, device.kind, device.driver) == ("AMD Radeon RX 7900 XTX", "rocm", "amdgpu")
    assert (device.memory_bytes, device.free_bytes) == (24560 * MIB, 24000 * MIB)
    assert device.uuid == "GPU-deadbeef00000000"
    assert not device.unified


def test_without_rocm_s_device_the_card_is_vulkan_s(tmp_path):
    """No /dev/kfd: ROCm cannot run, Vulkan can."""
    assert probe_amd(HOST, {}, root=plant(tmp_path, card(0))).devices[0].kind == "vulkan"


def test_an_apu_counts_what_it_may_take_of_the_host(tmp_path):
    """An APU is not its carve-out: GTT counts, is unified, and only as far as the host has memory free."""
    root = plant(tmp_path, {**strix_halo(), "dev/kfd": ""})

    device = probe_amd(HOST, {}, root=root).devices[0]
    tight = probe_amd(Host(HOST.cpu, 64 * GIB, ram_free_bytes=8 * GIB), {}, root=root).devices[0]

    assert device.unified
    assert device.memory_bytes == 512 * MIB + 31 * GIB
    assert device.free_bytes == 412 * MIB + 30 * GIB
    assert tight.free_bytes == 412 * MIB + 8 * GIB


@pytest.mark.parametrize("content", [None, b"", b"\x78\x00"], ids=["absent", "empty", "short"])
def test_a_card_that_does_not_tell_its_kind_counts_as_discrete(tmp_path, content):
    """Unknown must not promise the host's memory at a card's speed."""
    device = probe_amd(HOST, {}, root=plant(tmp_path, card(0, gpu_metrics=content))).devices[0]

    assert not device.unified
    assert device.memory_bytes == 24560 * MIB


def test_what_is_not_told_is_unknown(tmp_path):
    """An older driver without usage and identity: None, not a guess."""
    root = plant(tmp_path, card(0, mem_info_vram_used=None, unique_id=None))

    device = probe_amd(HOST, {}, root=root).devices[0]

    assert device.free_bytes is None
    assert device.uuid is None
    assert device.name == "AMD GPU 744C"


def test_a_server_card_names_itself(tmp_path):
    """Instinct cards have a product name of their own."""
    root = plant(tmp_path, card(0, product_name="AMD Instinct MI210\n"))

    assert probe_amd(HOST, {}, root=root).devices[0].name == "AMD Instinct MI210"


def test_other_makers_cards_and_connectors_are_passed_over(tmp_path):
    """/sys/class/drm also holds Intel's cards and each card's sockets."""
    root = plant(
        tmp_path,
        {
            **card(1),
            "sys/class/drm/card0/device/vendor": "0x8086\n",
            "sys/class/drm/card1-DP-1/status": "connected\n",
            "sys/class/drm/version": "drm 1.1.0\n",
        },
    )

    assert len(probe_amd(HOST, {}, root=root).devices) == 1


def test_cards_keep_the_kernel_s_order(tmp_path):
    """Card 10 comes after card 2."""
    cards = [card(number, product_name=f"card {number}") for number in (10, 2, 1)]
    root = plant(tmp_path, {path: text for files in cards for path, text in files.items()})

    assert [device.name for device in probe_amd(HOST, {}, root=root).devices] == ["card 1", "card 2", "card 10"]


def test_a_card_a_container_was_not_given_is_a_note(tmp_path):
    """/sys shows every card of the host; without its device file nothing can use it."""
    root = plant(tmp_path, card(0))
    (root / "dev/dri/renderD128").unlink()

    found = probe_amd(HOST, {}, root=root)

    assert found.devices == ()
    assert "--device /dev/dri" in found.notes[0]


def test_a_card_the_user_may_not_open_is_a_note(tmp_path, monkeypatch):
    """The groups render and video guard the device file."""
    root = plant(tmp_path, card(0))
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root, who may open all

    found = probe_amd(HOST, {}, root=root)

    assert found.devices == ()
    assert "groups render and video" in found.notes[0]


def test_a_card_without_memory_figures_is_a_note(tmp_path):
    """A driver that tells no memory leaves nothing to decide by."""
    found = probe_amd(HOST, {}, root=plant(tmp_path, card(0, mem_info_vram_total=None)))

    assert found.devices == ()
    assert "does not tell its memory" in found.notes[0]


@pytest.mark.parametrize(
    ("environ", "seen"),
    [
        ({"HIP_VISIBLE_DEVICES": "1"}, ["b"]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"ROCR_VISIBLE_DEVICES": "GPU-deadbeef00000001,0"}, ["b", "a"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["b"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["a", "b"]),
    ],
)
def test_rocm_s_variables_hide_cards(tmp_path, environ, seen):
    """ROCR_VISIBLE_DEVICES counts first, HIP_VISIBLE_DEVICES among what it leaves."""
    files = {**card(0, product_name="a"), **card(1, product_name="b"), "dev/kfd": ""}

    found = probe_amd(HOST, environ, root=plant(tmp_path, files))

    assert [device.name for device in found.devices] == seen


def test_a_wrong_entry_in_rocm_s_variable_is_told_of(tmp_path):
    """A typo hides cards: that is said."""
    found = probe_amd(HOST, {"HIP_VISIBLE_DEVICES": "4"}, root=plant(tmp_path, {**card(0), "dev/kfd": ""}))

    assert found.devices == ()
    assert "4 is no GPU here" in found.notes[0]


def test_rocm_s_variables_mean_nothing_to_vulkan(tmp_path):
    """Without ROCm they are not read."""
    assert len(probe_amd(HOST, {"HIP_VISIBLE_DEVICES": ""}, root=plant(tmp_path, card(0))).devices) == 1


def test_a_machine_without_cards_has_none(tmp_path):
    """No /sys/class/drm at all, as on a server or in a sandbox."""
    assert probe_amd(HOST, {}, root=tmp_path) == Gpus()
