"""Usual machines by name (`--hardware rtx-4090`), so that a decision can be seen for hardware that is not here.

Pure but for its data file (`data/profiles.tsv`): names, memory and bandwidths of machines, each ready to be simulated.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from qrun.hardware import Cpu, Device, DeviceKind, Hardware
from qrun.units import GIB

__all__ = ["all_profiles", "nearest_profiles", "profile_named"]

_KINDS: Mapping[str, DeviceKind] = {"cuda": "cuda", "rocm": "rocm", "vulkan": "vulkan", "metal": "metal"}
_MOST_NEAREST = 3
_LEAST_LIKENESS = 0.4


def all_profiles() -> tuple[Hardware, ...]:
    """Every machine, in the order of the data file: by kind, then by size."""
    return tuple(_profiles().values())


def profile_named(name: str) -> Hardware | None:
    """The machine of that name, however it is spelt (`RTX 4090`, `rtx_4090`); None where there is none."""
    return _profiles().get(_slug(name))


def nearest_profiles(name: str) -> tuple[str, ...]:
    """The names most like `name`, the most like first; those that hold it whole before those that only resemble it."""
    slug = _slug(name)
    holding = [one for one in _profiles() if slug and slug in one]
    alike = get_close_matches(slug, _profiles(), n=_MOST_NEAREST, cutoff=_LEAST_LIKENESS)
    return tuple(dict.fromkeys([*holding, *alike]))[:_MOST_NEAREST]


def _slug(name: str) -> str:
    return "-".join(name.casefold().replace("_", " ").replace("-", " ").split())


@cache
def _profiles() -> Mapping[str, Hardware]:
    text = (files("qrun") / "data" / "profiles.tsv").read_text(encoding="utf-8")
    head, *rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {row[0]: _machine(dict(zip(head, row, strict=True))) for row in rows}


def _machine(row: Mapping[str, str]) -> Hardware:
    cores = int(row["cpu_cores"])
    gpus = () if row["gpus"] == "-" else tuple(_gpu(entry) for entry in row["gpus"].split("|"))
    return Hardware(
        name=row["name"],
        os=row["os"],
        cpu=Cpu(name=None, arch=row["arch"], physical_cores=cores, performance_cores=cores),
        ram_bytes=int(row["ram_gib"]) * GIB,
        ram_bandwidth_bytes_per_s=float(row["ram_gb_s"]) * 1e9,
        gpus=gpus,
        simulated=True,
        ram_bandwidth_source="specification",
    )


def _gpu(entry: str) -> Device:
    name, backend, memory_gib, bandwidth_gb_s, capability, *shared = entry.split(",")
    kind = _KINDS[backend]
    return Device(
        name=name,
        kind=kind,
        memory_bytes=int(memory_gib) * GIB,
        bandwidth_bytes_per_s=float(bandwidth_gb_s) * 1e9,
        compute_capability=None if capability == "-" else capability,
        unified=kind == "metal" or bool(shared),
        bandwidth_source="specification",
    )
