"""The built-in machines: enough of every kind, each whole, found by its name however it is spelt."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from candidates import LLAMA_3_8B, LLAMACPP, QWEN_30B_A3B, model
from qrun.cli import cli
from qrun.devices import find_device
from qrun.errors import UsageError
from qrun.hardware_file import load_hardware
from qrun.profiles import all_profiles, nearest_profiles, profile_named
from qrun.request import Request
from qrun.resolve import resolve
from qrun.units import GIB

PROFILES = {machine.name: machine for machine in all_profiles()}


def kinds(machine):
    return {gpu.kind for gpu in machine.gpus}


def test_there_are_machines_of_every_kind():
    """At least 40: GPUs of 6 to 192 GB of three makers, all of Apple's generations, APUs, CPUs, pairs."""
    cards = [gpu for machine in PROFILES.values() for gpu in machine.gpus if not gpu.unified]
    sizes = {gpu.memory_bytes // GIB for gpu in cards}

    assert len(PROFILES) == len(all_profiles()) >= 40
    assert {6, 8, 12, 16, 24, 32, 48, 80, 96, 141, 192} <= sizes
    for maker in ("NVIDIA", "AMD", "Intel"):
        assert any(maker in gpu.name for gpu in cards)
    for generation in range(1, 6):
        assert any(name.startswith(f"apple-m{generation}") for name in PROFILES)
    assert any(
        machine.gpus and machine.gpus[0].unified and kinds(machine) & {"vulkan", "rocm"} for machine in all_profiles()
    )
    assert sum(not machine.gpus for machine in all_profiles()) >= 4
    assert sum(len(machine.gpus) == 2 for machine in all_profiles()) >= 4


@pytest.mark.parametrize("machine", all_profiles(), ids=lambda machine: machine.name)
def test_every_machine_is_whole(machine):
    """Memory, bandwidth and processor are known, CUDA cards have a compute capability, shared memory is within RAM."""
    assert machine.simulated
    assert machine.ram_bandwidth_bytes_per_s
    assert machine.ram_budget_bytes > 0
    for gpu in machine.gpus:
        assert gpu.bandwidth_bytes_per_s
        assert gpu.budget_bytes > 0
        assert (gpu.compute_capability is None) == (gpu.kind != "cuda")
        assert not gpu.unified or gpu.memory_bytes <= machine.ram_bytes


@pytest.mark.parametrize("machine", [one for one in all_profiles() if one.gpus], ids=lambda machine: machine.name)
def test_a_profiles_bandwidth_is_that_of_the_device_table(machine):
    """One device, one figure: where the table knows the name, both say the same."""
    for gpu in machine.gpus:
        known = find_device(gpu.name, memory_bytes=gpu.memory_bytes, kind="gpu")

        assert known is None or gpu.bandwidth_bytes_per_s == pytest.approx(known.bandwidth_bytes_per_s, rel=0.15)


@pytest.mark.parametrize("machine", all_profiles(), ids=lambda machine: machine.name)
def test_every_machine_gets_a_decision(machine):
    """An 8B model and a mixture of 30B: a choice, or a refusal that says what would fit."""
    for name in (LLAMA_3_8B, QWEN_30B_A3B):
        resolution = resolve(Request(name), model(name), machine, [LLAMACPP])

        assert resolution.chosen or "It would fit" in str(resolution.error)


@pytest.mark.parametrize("name", ["rtx-4090", "RTX 4090", "rtx_4090"])
def test_a_name_is_found_however_it_is_spelt(name):
    """Case, spaces, hyphens and underscores are no matter."""
    assert profile_named(name) == PROFILES["rtx-4090"] == load_hardware(Path(name))


def test_a_name_that_is_none_is_a_usage_error_with_the_nearest():
    """Exit 2; a file's name with its ending is told as a file."""
    with pytest.raises(UsageError, match=r"no built-in machine 'rtx-409'\. The nearest: rtx-4090, ") as caught:
        load_hardware(Path("rtx-409"))
    with pytest.raises(UsageError, match=r"hardware file rtx-409\.toml cannot be read"):
        load_hardware(Path("rtx-409.toml"))

    assert caught.value.exit_code == 2
    assert nearest_profiles("m4 max")[0].startswith("apple-m4-max")
    assert nearest_profiles("%&/") == ()


def test_a_file_of_that_name_is_taken_before_the_built_in_machine(tmp_path, monkeypatch):
    """What lies there is what was meant."""
    monkeypatch.chdir(tmp_path)
    text = 'name = "mine"\nos = "linux"\narch = "x86_64"\ncpu_cores = 4\nram_bytes = 8589934592\n'
    Path("rtx-4090").write_text(text)

    assert load_hardware(Path("rtx-4090")).name == "mine"


def test_the_command_lists_them_for_people_and_for_programs():
    """One row or one entry each."""
    listed = CliRunner().invoke(cli, ["hardware", "--profiles"])
    as_json = CliRunner().invoke(cli, ["hardware", "--profiles", "--json"])

    assert len(listed.stdout.splitlines()) == len(PROFILES) + 1
    assert as_json.stdout.count('"simulated": true') == len(PROFILES)
