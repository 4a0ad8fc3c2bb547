"""How much of the machine programs other than the measured ones took: a figure taken beside them means nothing.

Linux counts all processor time, and each process's own; what is left over is somebody else's. Elsewhere it is unknown.
"""

import time
from collections.abc import Sequence

import psutil

__all__ = ["Others"]

_IDLE = ("idle", "iowait", "guest", "guest_nice")  # guest time stands in user time too


class Others:
    """Counts from its making; `roots` are the measured processes, their children and this process belong to them."""

    def __init__(self, roots: Sequence[psutil.Process]) -> None:
        self._roots = (psutil.Process(), *roots)
        self._started = time.monotonic()
        self._others_s = self._count()

    def share(self) -> float:
        """The part of all cores' time that others took since then, 0 to 1."""
        took_s = self._count() - self._others_s
        return max(0.0, took_s / ((time.monotonic() - self._started) * (psutil.cpu_count() or 1)))

    def _count(self) -> float:
        times = psutil.cpu_times()._asdict()
        all_s = sum(seconds for name, seconds in times.items() if name not in _IDLE)
        family = {process.pid: process for root in self._roots for process in (root, *root.children(recursive=True))}
        return all_s - sum(sum(process.cpu_times()[:2]) for process in family.values())
