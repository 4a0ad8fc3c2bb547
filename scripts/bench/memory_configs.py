"""How near memory comes to llama-server's recorded dry runs, by architecture, as Markdown: docs/measurements/memory.md.

    python scripts/bench/memory_record.py LLAMA_SERVER --configs > TABLE
    python scripts/bench/memory_configs.py [TABLE]

TABLE is tests/data/llama_server_configs.tsv where none is named. The engine's figures are whole MiB, rounded down: half
a MiB is added to them.
"""

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import median

from report import table

from qrun.gguf_header import read_header
from qrun.memory import memory_need
from qrun.model import ModelShape, Weights
from qrun.placement import Placement
from qrun.shape import shape_of
from qrun.units import MIB

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS))

from config_gguf import CONFIGS, write_config  # noqa: E402 - found by the path above

CPU = "whole on the CPU: 4k, 32k, 128k, f16 and q8_0, 1 and 4 slots"
PLACEMENTS = {
    "whole on one device": lambda mode, split, _: mode == "gpu" and split == "-",
    "half of the layers": lambda mode, split, layers: mode == "split" and split == "-" and layers > 2,
    "last layer and head alone": lambda mode, split, layers: (mode == "split" and layers <= 2) or split.endswith(":5"),
    "head alone": lambda _, split, __: split.endswith(":3"),
    "two devices": lambda mode, split, _: split in ("1:1", "3:1") and mode in ("gpu", "split"),
    "experts on the CPU": lambda mode, *_: mode == "experts-on-cpu",
}
Gaps = dict[str, list[tuple[float, str]]]


def main() -> None:
    """Print both tables."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else TESTS / "data" / "llama_server_configs.tsv"
    by_architecture: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    by_placement: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    models: defaultdict[str, set[str]] = defaultdict(set)
    for row, gaps in compared(path):
        architecture = model_of(row["model"])[0].architecture
        models[architecture].add(row["model"])
        if row["mode"] == "cpu":
            by_architecture[architecture] += [(gap, row["model"]) for gap in gaps]
        else:
            by_placement[_placement(row)] += [(gap, row["model"]) for gap in gaps]
    every = [one for gaps in by_architecture.values() for one in gaps]
    print(f"## By architecture, {CPU}\n")
    print(_line("All", every), "\n")
    rows = [[name, len(models[name]), *_cells(gaps)] for name, gaps in sorted(by_architecture.items())]
    print(table(("architecture", "models", "runs", "median", "worst", "of"), rows))
    print("\n## By placement, each device and host RAM apart\n")
    rows = [[name, *_cells(by_placement[name])] for name in PLACEMENTS]
    print(table(("placement", "figures", "median", "worst", "of"), rows))
    print("\nOver 6 %:\n")
    over = defaultdict(list)
    for name, gaps in by_placement.items():
        for gap, model in gaps:
            if abs(gap) > 0.06:
                over[model, name].append(gap)
    for (model, name), gaps in sorted(over.items()):
        figures = f"{len(gaps)} figure{'s' if len(gaps) > 1 else ''}"
        print(f"- {model}, {name}: {min(gaps):+.0%} to {max(gaps):+.0%} in {figures}")


def compared(path: Path) -> Iterator[tuple[Mapping[str, str], list[float]]]:
    """Each run with how far every place's prediction is from the engine's figure."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines, delimiter="\t"):
        said = [int(total) for total in row["totals"].split(",")]
        yield (
            row,
            [
                mine / MIB / (total + 0.5) - 1 if total else 0.0
                for mine, total in zip(_predicted(row), said, strict=True)
            ],
        )


@cache
def model_of(name: str) -> tuple[ModelShape, Weights]:
    """Shape and weights by the header that the model's config makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_config(Path(folder) / "m.gguf", CONFIGS[name])
        with path.open("rb") as file:

            def read(offset: int, n_bytes: int) -> bytes:
                file.seek(offset)
                return file.read(n_bytes)

            return shape_of([read_header(read, path.stat().st_size)])


def _predicted(row: Mapping[str, str]) -> list[int]:
    shape, weights = model_of(row["model"])
    parts = [int(part) for part in row["split"].split(":")] if row["split"] != "-" else []
    numbers = [None if row[name] == "-" else int(row[name]) for name in ("n_gpu_layers", "n_cpu_moe")]
    placement = Placement(row["mode"], *numbers, tuple(part / sum(parts) for part in parts) or None)
    sizes = {"n_ctx": int(row["n_ctx"]), "n_parallel": int(row["n_parallel"])}
    need = memory_need(shape, weights, placement, **sizes, kv_cache_type=row["kv"])
    devices = [device.total_bytes for device in need.devices]
    return devices if row["mode"] == "cpu" else [*devices, need.host_bytes]


def _placement(row: Mapping[str, str]) -> str:
    layers = int(row["n_gpu_layers"]) if row["n_gpu_layers"] != "-" else 0
    return next(name for name, fits in PLACEMENTS.items() if fits(row["mode"], row["split"], layers))


def _cells(gaps: list[tuple[float, str]]) -> list[object]:
    worst, model = max(gaps, key=lambda one: abs(one[0]))
    return [len(gaps), f"{median(abs(gap) for gap, _ in gaps):.2%}", f"{worst:+.1%}", model]


def _line(name: str, gaps: list[tuple[float, str]]) -> str:
    n, middle, worst, model = _cells(gaps)
    return f"{name}: {n} runs, median {middle}, worst {worst} ({model})."


if __name__ == "__main__":
    main()
