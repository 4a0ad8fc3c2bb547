"""`Hardware` for people and for programs (`qrun hardware`).

Unknown is `unknown` for people and null for programs; nothing is left out for being unknown.
"""

import json
import sys
from collections.abc import Iterator

import click

from qrun.hardware import BandwidthSource, Cpu, Device, Hardware, engine_threads
from qrun.units import gib

__all__ = ["hardware_json", "show_hardware"]

# Wider than any row: in a pipe each fact stays on its one line.
_PIPE_WIDTH = 10_000
_GPU_COLUMNS = ("GPU", "Name", "Backend", "Memory", "Free", "Budget", "Bandwidth", "Driver")


def show_hardware(hardware: Hardware, *, as_json: bool) -> None:
    """Print `hardware` on stdout."""
    if as_json:
        click.echo(json.dumps(hardware_json(hardware), indent=2, ensure_ascii=False))
        return
    for line in _lines(hardware):
        click.echo(line)


def hardware_json(hardware: Hardware) -> dict[str, object]:
    """The contract of `qrun hardware --json`: sizes in bytes, rates in bytes per second, unknown is null."""
    return {
        "schema": 1,
        "name": hardware.name,
        "os": hardware.os,
        "simulated": hardware.simulated,
        "cpu": _cpu_json(hardware.cpu),
        "ram": {
            "total_bytes": hardware.ram_bytes,
            "free_bytes": hardware.ram_free_bytes,
            "limit_bytes": hardware.ram_limit_bytes,
            "budget_bytes": hardware.ram_budget_bytes,
            "bandwidth_bytes_per_s": hardware.ram_bandwidth_bytes_per_s,
            "bandwidth_source": hardware.ram_bandwidth_source,
        },
        "gpus": [_gpu_json(index, gpu) for index, gpu in enumerate(hardware.gpus)],
        "devices": [
            {
                "name": device.name,
                "kind": device.kind,
                "memory_bytes": device.memory_bytes,
                "budget_bytes": device.budget_bytes,
            }
            for device in hardware.devices
        ],
        "notes": list(hardware.notes),
    }


def _cpu_json(cpu: Cpu) -> dict[str, object]:
    return {
        "name": cpu.name,
        "arch": cpu.arch,
        "logical_cores": cpu.logical_cores,
        "physical_cores": cpu.physical_cores,
        "performance_cores": cpu.performance_cores,
        "allowed_cores": cpu.allowed_cores,
        "quota_cores": cpu.quota_cores,
        "isa": None if cpu.isa is None else sorted(cpu.isa),
        "engine_threads": engine_threads(cpu),
    }


def _gpu_json(index: int, gpu: Device) -> dict[str, object]:
    return {
        "index": index,
        "name": gpu.name,
        "kind": gpu.kind,
        "memory_bytes": gpu.memory_bytes,
        "free_bytes": gpu.free_bytes,
        "budget_bytes": gpu.budget_bytes,
        "bandwidth_bytes_per_s": gpu.bandwidth_bytes_per_s,
        "bandwidth_source": gpu.bandwidth_source,
        "compute_capability": gpu.compute_capability,
        "unified": gpu.unified,
        "working_set_bytes": gpu.working_set_bytes,
        "uuid": gpu.uuid,
        "pci_bus_id": gpu.pci_bus_id,
        "driver": gpu.driver,
    }


def _lines(hardware: Hardware) -> list[str]:
    from rich.console import Console
    from rich.table import Table

    # No markup: a device's name may hold brackets.
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    facts = Table.grid(padding=(0, 2))
    for row in _facts(hardware):
        facts.add_row(*row)
    gpus = Table(*_GPU_COLUMNS, box=None, pad_edge=False, padding=(0, 1))
    for index, gpu in enumerate(hardware.gpus):
        gpus.add_row(*_gpu_row(index, gpu))
    with console.capture() as captured:
        console.print(facts)
        if hardware.gpus:
            console.print()
            console.print(gpus)
    # rich fills cells with blanks to the column's width; at a line's end nobody needs them.
    return [line.rstrip() for line in captured.get().splitlines()]


def _facts(hardware: Hardware) -> Iterator[tuple[str, str]]:
    """The rows of the upper part, each a word and its fact."""
    cpu = hardware.cpu
    origin = "from a hardware file" if hardware.simulated else hardware.os
    yield "Machine", f"{hardware.name} ({origin})"
    yield "CPU", f"{cpu.name or 'unknown'} ({cpu.arch})"
    yield "Cores", _cores(cpu)
    yield "Threads", f"an engine gets {engine_threads(cpu)}{_threads_reason(cpu)}"
    yield "Instructions", "unknown" if cpu.isa is None else " ".join(sorted(cpu.isa)) or "none that engines ask for"
    yield "RAM", _ram(hardware)
    yield "RAM budget", f"{gib(hardware.ram_budget_bytes)} for a model"
    yield "Bandwidth", _bandwidth(hardware.ram_bandwidth_bytes_per_s, hardware.ram_bandwidth_source)
    if not hardware.gpus:
        yield "GPUs", "none found"
    for note in hardware.notes:
        yield "Note", note


def _cores(cpu: Cpu) -> str:
    physical = "unknown" if cpu.physical_cores is None else f"{cpu.physical_cores} physical"
    fast = (
        "" if cpu.performance_cores in (None, cpu.physical_cores) else f", {cpu.performance_cores} of them performance"
    )
    logical = "" if cpu.logical_cores is None else f", {cpu.logical_cores} logical"
    return physical + fast + logical


def _threads_reason(cpu: Cpu) -> str:
    """Which limit holds, where one does."""
    limits = []
    if cpu.quota_cores is not None:
        limits.append(f"the cgroup allows {cpu.quota_cores:g} cores of CPU time")
    if cpu.allowed_cores is not None:
        limits.append(f"the affinity mask leaves {cpu.allowed_cores} core{'' if cpu.allowed_cores == 1 else 's'}")
    return f" ({', '.join(limits)})" if limits else ""


def _ram(hardware: Hardware) -> str:
    free = "unknown" if hardware.ram_free_bytes is None else gib(hardware.ram_free_bytes)
    limit = "" if hardware.ram_limit_bytes is None else f", limited to {gib(hardware.ram_limit_bytes)} by the cgroup"
    return f"{gib(hardware.ram_bytes)}{limit}, {free} free"


def _bandwidth(bytes_per_s: float | None, source: BandwidthSource | None) -> str:
    """A rate and whose figure it is; a hardware file's own needs no word."""
    if bytes_per_s is None:
        return "unknown"
    words = {"specification": " (specification)", "measured": " (measured)", None: ""}
    return f"{bytes_per_s / 1e9:.0f} GB/s{words[source]}"


def _gpu_row(index: int, gpu: Device) -> tuple[str, ...]:
    kind = f"{gpu.kind} {gpu.compute_capability}" if gpu.compute_capability else gpu.kind
    return (
        str(index),
        gpu.name,
        kind,
        gib(gpu.memory_bytes) + (" shared with RAM" if gpu.unified else ""),
        "unknown" if gpu.free_bytes is None else gib(gpu.free_bytes),
        gib(gpu.budget_bytes),
        _bandwidth(gpu.bandwidth_bytes_per_s, gpu.bandwidth_source),
        gpu.driver or "unknown",
    )
