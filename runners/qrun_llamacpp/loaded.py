"""What llama.cpp says of itself once it serves: in its log where the model lies, in its metrics how fast it works.

The lines are those of log level 4 (`native.LOG_LEVEL`), in both engines: `DEVICE KIND buffer size = N MiB`, one for
each buffer, and `offloaded N/M layers to GPU`.
"""

import re
from collections import defaultdict

from qrun.runner import Loaded, PlaceMemory, WorkDone
from qrun.units import MIB

__all__ = ["loaded_in", "work_done_in"]

_BUFFER = re.compile(r"(?P<device>\S+) +(?P<kind>model|KV|RS|compute|output) buffer size = +(?P<mib>[\d.]+) MiB")
_LAYERS = re.compile(r"offloaded (?P<count>\d+)/\d+ layers to GPU")
_SERIES = ("tokens_predicted_total", "tokens_predicted_seconds_total", "prompt_tokens_total", "prompt_seconds_total")


def loaded_in(log_text: str) -> Loaded | None:
    """The memory of each place, host RAM last; None where the log tells of no buffer."""
    sizes: dict[str | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for found in _BUFFER.finditer(log_text):
        of_place, kind, mib = sizes[_place(found["device"])], found["kind"], float(found["mib"])
        if kind == "compute":
            key = f"compute {found['device']}"  # reserved anew when the graph changes: the last one stands
            of_place[key] = mib
        else:
            of_place[kind] += mib
    if not sizes:
        return None
    layers = _LAYERS.search(log_text)
    places = sorted(sizes, key=lambda place: (place is None, place or ""))
    return Loaded(tuple(_memory(place, sizes[place]) for place in places), int(layers["count"]) if layers else None)


def work_done_in(metrics_text: str) -> WorkDone | None:
    """The engine's own counters; None where one of them is missing."""
    values = []
    for name in _SERIES:
        found = re.search(rf"^llamacpp:{name} (\S+)$", metrics_text, re.MULTILINE)
        if found is None:
            return None
        values.append(float(found[1]))
    return WorkDone(*values)


def _place(buffer_type: str) -> str | None:
    """`CUDA0`, `Vulkan1`, `Metal` (also Metal_Mapped) for accelerators; None for the host's, pinned ones among them."""
    if buffer_type.startswith("CPU") or buffer_type.endswith("_Host"):
        return None
    return buffer_type.partition("_")[0]


def _memory(place: str | None, mib: dict[str, float]) -> PlaceMemory:
    cache = mib.get("KV", 0.0) + mib.get("RS", 0.0)
    compute = mib.get("output", 0.0) + sum(value for kind, value in mib.items() if kind.startswith("compute"))
    return PlaceMemory(place, *(int(value * MIB) for value in (mib.get("model", 0.0), cache, compute)))
