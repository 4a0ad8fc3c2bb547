"""A refusal for memory names who holds it."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pynvml

from candidates import card, cpu_only
from nvml_double import Card, NvmlDouble
from qrun.memory_holders import memory_holders
from qrun.units import GIB

_HOLD = "import sys; held = bytearray(768 * 2**20); print('ready', flush=True); sys.stdin.read()"


class _WithProcesses(NvmlDouble):
    """A double of NVML (no GPU is here) whose cards have processes on them."""

    def nvmlDeviceGetComputeRunningProcesses(self, card):  # noqa: ARG002, N802 - NVML's name and signature
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB), SimpleNamespace(pid=1, usedGpuMemory=None)]


def test_in_ram_the_largest_processes_are_named():
    """A process that holds 768 MiB is among those that are named, with its pid and size."""
    holding = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        named = memory_holders(cpu_only(32), most=50)
        child.stdin.close()

    assert any(f"(pid {child.pid}): 0." in one for one in named)


def test_on_a_gpu_the_processes_on_its_cards_are_named():
    """NVML tells who computes there; a process of two cards is counted once, one of unknown size is left out."""
    nvml = _WithProcesses([Card("a", "GPU-a"), Card("b", "GPU-b")])

    named = memory_holders(card(8, count=2), nvml=nvml)

    assert len(named) == 1
    assert f"(pid {os.getpid()}): 6.0 GiB" in named[0]
    assert nvml.open == 0


def test_where_nobody_can_be_asked_nobody_is_named():
    """No driver, no names, and no error on top of the one that is being told."""
    nvml = _WithProcesses(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    assert memory_holders(card(8), nvml=nvml) == ()
    assert memory_holders(replace(card(8), gpus=card(8, kind="metal").gpus), nvml=nvml) == ()
