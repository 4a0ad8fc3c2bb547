"""What llama.cpp says of memory before it loads a model: its "memory breakdown", one line a place in whole MiB.

Printed where it may fit parameters (`--fit on`), for a model laid out without allocating anything: common/fit.cpp.
Lines of buffer types of their own (CPU_REPACK) stand behind the host's and are host RAM.
"""

import re

from qrun.runner import PlaceMemory
from qrun.units import MIB

__all__ = ["places_told", "refusal"]

# A device's line has its total and free memory before these, in `total = free + (self = model + context + compute)`.
_ROW = re.compile(
    r"memory_breakdown_print: \|\s+- (?P<name>[^|]*?)\s*\|.*?"
    r"\d+ = +(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)"
)
_AFTER = re.compile(r"params_fit_impl: (?!getting)")
_HOST = "Host"
_REFUSALS = (
    (re.compile(r"unknown model architecture: '(?P<name>[^']*)'"), "it does not know the architecture {name!r}"),
    (re.compile(r"invalid ggml type (?P<name>\d+)"), "it does not know the tensor type {name}"),
)


def places_told(log_text: str) -> tuple[PlaceMemory, ...]:
    """The devices in order, then the host with all that is in host RAM; empty until the first table has ended."""
    devices: list[PlaceMemory] = []
    host: PlaceMemory | None = None
    for line in log_text.splitlines():
        if row := _ROW.search(line):
            sizes = [int(row[part]) * MIB for part in ("model", "context", "compute")]
            if host is None and row["name"] != _HOST:
                devices.append(PlaceMemory(row["name"], *sizes))
            else:
                host = _together(host, sizes)
        elif host is not None and _AFTER.search(line):
            return (*devices, host)
    return ()


def refusal(log_text: str) -> str | None:
    """Why the model can never be loaded by this llama.cpp; None where the log has no such reason."""
    for pattern, words in _REFUSALS:
        if found := pattern.search(log_text):
            return words.format(name=found["name"])
    return None


def _together(host: PlaceMemory | None, sizes: list[int]) -> PlaceMemory:
    weights, kv_cache, compute = sizes
    if host is None:
        return PlaceMemory(None, weights, kv_cache, compute)
    return PlaceMemory(None, host.weights_bytes + weights, host.kv_cache_bytes + kv_cache, host.compute_bytes + compute)
