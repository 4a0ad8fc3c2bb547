"""Figures as the documents want them: medians with their range, and the machine they were taken on."""

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

__all__ = ["machine_line", "median_range", "table"]


def median_range(values: Sequence[float], digits: int = 3) -> str:
    """`median (least to greatest)`."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine_line() -> str:
    """Date, processor, cores and load of the machine at this moment: figures mean nothing without them."""
    load = f"load average {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "load unknown"
    return f"{time.strftime('%Y-%m-%d')}, {_processor()}, {os.cpu_count()} logical CPUs, {platform.system()}, {load}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
