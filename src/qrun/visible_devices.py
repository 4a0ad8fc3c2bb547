"""Which GPUs a variable like CUDA_VISIBLE_DEVICES leaves, by the rules of CUDA's own runtime.

Pure. The rules (CUDA C++ Programming Guide, environment variables): unset shows all; the list's order is the new order;
an entry is an index or the beginning of one UUID; the first entry that is no GPU ends the list, so `-1` and the empty
text show none. An entry that comes twice shows none at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Visible", "select_visible"]

_Gpu = TypeVar("_Gpu")


@dataclass(frozen=True, slots=True)
class Visible(Generic[_Gpu]):
    """The GPUs that are left, in their new order. `stopped_at`: the entry that is no GPU and ended the list."""

    gpus: tuple[_Gpu, ...]
    stopped_at: str | None = None
    by_index: bool = False  # some were named by index, which counts in the runtime's order, not in the driver's


def select_visible(value: str, by_index: Sequence[_Gpu], by_uuid: Mapping[str, _Gpu]) -> Visible[_Gpu]:
    """The GPUs that the variable's `value` leaves of `by_index`, or names among `by_uuid`."""
    chosen: list[_Gpu] = []
    used_index = False
    for entry in (part.strip() for part in value.split(",")):
        gpu = _named(entry, by_index, by_uuid)
        if gpu is None:
            # Empty text and -1 are how users say "none": nothing to complain about.
            return Visible(tuple(chosen), None if entry in ("", "-1") else entry, used_index)
        if any(gpu is other for other in chosen):
            return Visible((), entry, used_index)
        used_index = used_index or entry.isdecimal()
        chosen.append(gpu)
    return Visible(tuple(chosen), None, used_index)


def _named(entry: str, by_index: Sequence[_Gpu], by_uuid: Mapping[str, _Gpu]) -> _Gpu | None:
    if entry.isdecimal():
        return by_index[int(entry)] if int(entry) < len(by_index) else None
    if not entry:
        return None
    matches = [gpu for uuid, gpu in by_uuid.items() if uuid.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None
