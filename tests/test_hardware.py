"""Budgets and threads: what a model may take of a machine."""

import dataclasses

import pytest

from qrun.hardware import Cpu, Device, Hardware, engine_threads
from qrun.units import GIB


def machine(**changes) -> Hardware:
    """A plain machine of 32 GiB with `changes`."""
    base = Hardware(name="m", os="linux", cpu=Cpu(name="A CPU", arch="x86_64"), ram_bytes=32 * GIB)
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("kind", "budget_gib"), [("cuda", 6.5), ("rocm", 7.0), ("vulkan", 7.0)], ids=["cuda", "rocm", "vulkan"]
)
def test_a_card_keeps_the_reserve_of_its_kind(kind, budget_gib):
    """CUDA leaves 1.5 GiB a card, ROCm and Vulkan 1 GiB (DESIGN 3.4)."""
    assert Device(name="d", kind=kind, memory_bytes=8 * GIB).budget_bytes == budget_gib * GIB


def test_a_budget_is_of_free_memory_where_that_is_known():
    """What another program holds is not promised again."""
    device = Device(name="d", kind="cuda", memory_bytes=24 * GIB, free_bytes=10 * GIB)

    assert device.budget_bytes == 8.5 * GIB


def test_a_full_card_has_no_budget_and_not_a_negative_one():
    """Less free than the reserve is nothing."""
    assert Device(name="d", kind="cuda", memory_bytes=8 * GIB, free_bytes=GIB).budget_bytes == 0


@pytest.mark.parametrize(
    ("memory_gib", "share"), [(16, 2 / 3), (32, 2 / 3), (36, 3 / 4), (64, 3 / 4), (96, 0.84), (128, 0.84)]
)
def test_metal_has_the_working_set_macos_allows(memory_gib, share):
    """Two thirds of memory up to 32 GiB, three quarters to 64, 84 % above, less 1 GiB (DESIGN 3.4)."""
    budget = Device(name="M", kind="metal", memory_bytes=memory_gib * GIB, unified=True).budget_bytes

    assert budget == int(memory_gib * GIB * share) - GIB


def test_a_working_set_the_machine_tells_replaces_the_rule():
    """Who raised iogpu.wired_limit_mb gets what was raised, and no more than is free."""
    device = Device(name="M", kind="metal", memory_bytes=32 * GIB, working_set_bytes=28 * GIB)

    assert device.budget_bytes == 27 * GIB
    assert dataclasses.replace(device, free_bytes=9 * GIB).budget_bytes == 8 * GIB


def test_host_memory_keeps_2_gib_within_every_limit():
    """RAM's budget is what is free, or what the cgroup allows where that is less, without 2 GiB."""
    assert machine().ram_budget_bytes == 30 * GIB
    assert machine(ram_free_bytes=10 * GIB).ram_budget_bytes == 8 * GIB
    assert machine(ram_free_bytes=10 * GIB, ram_limit_bytes=4 * GIB).ram_budget_bytes == 2 * GIB
    assert machine(ram_free_bytes=GIB).ram_budget_bytes == 0


def test_devices_are_the_gpus_in_order_and_then_the_host():
    """`hardware.devices` of the resolve contract: tensor_split counts in this order, RAM stands last."""
    gpus = (Device("a", "cuda", 8 * GIB), Device("b", "rocm", 16 * GIB))

    devices = machine(gpus=gpus, ram_free_bytes=20 * GIB).devices

    assert [(device.name, device.kind) for device in devices] == [("a", "cuda"), ("b", "rocm"), ("A CPU", "cpu")]
    assert [device.memory_bytes for device in devices] == [8 * GIB, 16 * GIB, 32 * GIB]
    assert [device.budget_bytes for device in devices] == [6.5 * GIB, 15 * GIB, 18 * GIB]


def test_the_host_entry_has_a_name_where_the_processor_has_none():
    """Programs get a string for every device."""
    assert machine(cpu=Cpu(name=None, arch="aarch64")).devices[-1].name == "aarch64"


@pytest.mark.parametrize(
    ("cpu", "threads"),
    [
        (Cpu("hybrid", "x86_64", logical_cores=20, physical_cores=12, performance_cores=8), 8),
        (Cpu("smt", "x86_64", logical_cores=16, physical_cores=8), 8),
        (Cpu("bare", "x86_64", logical_cores=6), 6),
        (Cpu("unknown", "x86_64"), 1),
        (Cpu("quota", "x86_64", physical_cores=64, quota_cores=4.0), 4),
        (Cpu("broken quota", "x86_64", physical_cores=64, quota_cores=2.5), 2),
        (Cpu("tiny quota", "x86_64", physical_cores=64, quota_cores=0.5), 1),
        (Cpu("wide quota", "x86_64", physical_cores=4, quota_cores=16.0), 4),
        (Cpu("pinned", "x86_64", physical_cores=64, allowed_cores=3), 3),
        (Cpu("pinned, quota", "x86_64", physical_cores=64, allowed_cores=8, quota_cores=6.0), 6),
    ],
    ids=lambda value: value.name if isinstance(value, Cpu) else "",
)
def test_threads_are_the_performance_cores_within_every_limit(cpu, threads):
    """Neither hyper-threads nor efficiency cores, nor more than quota and affinity allow, and never none."""
    assert engine_threads(cpu) == threads
