"""The bandwidth of this machine's RAM, measured in about half a second, and remembered.

Each core that an engine would get scans memory of its own for a byte that is not there, in a Python process of its own
(`bytearray.isascii` reads eight bytes at a time and writes nothing; one process scans on one core alone). What all read
together in the best tenth of a second is the machine's read bandwidth; a C program with as many threads read the same
(docs/measurements/speed.md).
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from qrun.hardware import Hardware, engine_threads
from qrun.units import MIB
from qrun.whole_file import write_json

__all__ = ["BandwidthStore", "measure_read_bandwidth"]

_BLOCK_BYTES = 64 * MIB  # of each process: with all cores at it, more than any processor's cache of today
_MOST_PROCESSES = 64
_SCAN_S = 0.4
_WINDOW_S = 0.1
_TIMEOUT_S = 20.0
_MOST_OF_FREE = 0.25  # of the free memory, for all processes together
_BUSY_SHARE = 0.25  # of the machine's cores, by the load of the last minute
_RAM_STEP_BYTES = 2**28  # the kernel's own share of RAM differs a little from boot to boot

# Prints the moments at which it had read its block once more, by the clock that all processes share.
_SCANNER = """
import sys, time
block = bytearray(b"\\1") * int(sys.argv[1])
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
stop, ends = time.monotonic() + float(sys.argv[2]), [time.monotonic()]
while ends[-1] < stop:
    block.isascii()
    ends.append(time.monotonic())
sys.stdout.write(" ".join(map(repr, ends)))
"""


def measure_read_bandwidth(
    n_processes: int, *, block_bytes: int = _BLOCK_BYTES, scan_s: float = _SCAN_S
) -> float | None:
    """Bytes per second that `n_processes` read together; None where they cannot be started or do not answer."""
    argv = [sys.executable, "-I", "-S", "-c", _SCANNER, str(block_bytes), str(scan_s)]
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(n_processes):
            one = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.append(one)  # at once: whatever comes, it is ended below
        return _read_together(started, block_bytes)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    finally:
        for one in started:
            one.kill()
            one.communicate()


class BandwidthStore:
    """What was measured, by machine, in one file of a folder.

    What a busy machine reads is too little: such a figure serves the day, and a later, larger one takes its place.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bandwidth.json"

    def known(self, hardware: Hardware) -> Hardware:
        """`hardware` with what was measured on that machine earlier; as it is where nothing was."""
        found = _figure(self._kept().get(_machine(hardware)))
        return hardware if found is None else _with_bandwidth(hardware, found)

    def measured(self, hardware: Hardware) -> Hardware:
        """The same, measured now unless that was done on a quiet machine; as it is where it cannot be measured."""
        kept = self._kept().get(_machine(hardware))
        before = _figure(kept)
        if before is not None and isinstance(kept, dict) and kept.get("busy") is False:
            return _with_bandwidth(hardware, before)
        busy = _is_busy(hardware)
        found = measure_read_bandwidth(_processes(hardware))
        if found is None:
            return self.known(hardware)
        best = max(found, before or 0.0)
        self._keep(hardware, best, busy=busy)
        return _with_bandwidth(hardware, best)

    def _kept(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or not ours to read: it is measured anew
            return {}
        return kept if isinstance(kept, dict) else {}

    def _keep(self, hardware: Hardware, found: float, *, busy: bool) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"read_bytes_per_s": round(found), "measured_at": now, "busy": busy}
        try:
            write_json(self._path, self._kept() | {_machine(hardware): entry}, indent=1)
        except OSError:  # a folder that cannot be written costs the next decision the same half second, nothing more
            return


def _with_bandwidth(hardware: Hardware, found: float) -> Hardware:
    return replace(hardware, ram_bandwidth_bytes_per_s=found, ram_bandwidth_source="measured")


def _figure(kept: object) -> float | None:
    value = kept.get("read_bytes_per_s") if isinstance(kept, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _processes(hardware: Hardware) -> int:
    free = hardware.ram_bytes if hardware.ram_free_bytes is None else hardware.ram_free_bytes
    most = max(1, int(free * _MOST_OF_FREE) // _BLOCK_BYTES)
    return min(engine_threads(hardware.cpu), most, _MOST_PROCESSES)


def _is_busy(hardware: Hardware) -> bool:
    """Whether others are at work on this machine; False where its load is not told (Windows)."""
    if not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > _BUSY_SHARE * (hardware.cpu.logical_cores or 1)


def _machine(hardware: Hardware) -> str:
    cpu = hardware.cpu
    cores = (cpu.logical_cores, cpu.allowed_cores, cpu.quota_cores)
    return json.dumps([hardware.os, cpu.name, cpu.arch, *cores, round(hardware.ram_bytes / _RAM_STEP_BYTES)])


def _read_together(started: Sequence[subprocess.Popen[str]], block_bytes: int) -> float | None:
    for one in started:
        if one.stdout is None or one.stdout.readline() != "ready\n":
            return None
    for one in started:
        if one.stdin is not None:
            one.stdin.write("go\n")
            one.stdin.flush()
    ends = [[float(moment) for moment in one.communicate(timeout=_TIMEOUT_S)[0].split()] for one in started]
    return _best_window(ends, block_bytes)


def _best_window(ends: Sequence[Sequence[float]], block_bytes: int) -> float | None:
    """The most bytes per second that all processes read in a window in which all were at it."""
    if not ends or any(len(one) < 2 for one in ends):  # noqa: PLR2004 - a start and an end
        return None
    first, last = max(one[0] for one in ends), min(one[-1] for one in ends)
    if last <= first:
        return None
    width = min(_WINDOW_S, last - first)
    starts = [first + index * width / 2 for index in range(int(2 * (last - first - width) / width) + 1)]
    return max(sum(_blocks_within(one, start, start + width) for one in ends) * block_bytes / width for start in starts)


def _blocks_within(ends: Sequence[float], start: float, stop: float) -> float:
    """How many blocks were read from `start` to `stop`, parts of blocks by their time."""
    spans = ((begin, end) for begin, end in pairwise(ends) if end > begin)
    return sum(max(0.0, min(stop, end) - max(start, begin)) / (end - begin) for begin, end in spans)
