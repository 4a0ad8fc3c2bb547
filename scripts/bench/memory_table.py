"""Predicted memory of the demo's files beside what both engines say in their dry run: docs/measurements/memory.md.

    python scripts/bench/memory_table.py MODELS --native LLAMA_SERVER --ready PYTHON

MODELS is the demo's folder of repos. Large models are in `memory_configs.py`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from report import machine_line, table

from qrun.gguf_header import read_header
from qrun.memory import MemoryNeed, memory_need
from qrun.model import ModelShape, Weights
from qrun.placement import Placement
from qrun.shape import shape_of
from qrun.units import MIB

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from dry_run import Row, dry_run, native_command, ready_command

CONTEXTS, SLOTS, KV_TYPES = (512, 2048, 8192), (1, 4), ("f16", "q8_0", "q4_0")
Ask = Callable[..., list[Row]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--native", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    args = parser.parse_args()
    print(f"{machine_line()}\n")
    print("## The demo's files on the CPU\n")
    print(_demo_table(args.models, _asking_native(args.native), _asking_ready(args.ready)))


def _asking_native(server: Path) -> Ask:
    return lambda model, **settings: dry_run(native_command(server, model, **settings))


def _asking_ready(python: Path) -> Ask:
    return lambda model, **settings: dry_run(ready_command(python, model, **settings))


def _demo_table(folder: Path, native: Ask, ready: Ask) -> str:
    rows, gaps = [], {"native": [0.0], "ready": [0.0]}
    for path in sorted(folder.glob("*/*/*.gguf"), key=lambda path: path.stem[-4:]):
        for n_ctx in CONTEXTS:
            for n_parallel in SLOTS:
                for kv in KV_TYPES:
                    settings = {"n_ctx": n_ctx, "n_parallel": n_parallel, "kv": kv}
                    ours = _predict(*_load(path), Placement("cpu"), **settings)
                    said = {"native": native(path, **settings)[0], "ready": ready(path, **settings)[0]}
                    for name, row in said.items():
                        gaps[name].append(ours.total_bytes / MIB / row.total - 1)
                    cells = [cell for name, row in said.items() for cell in (_sum(row), f"{gaps[name][-1]:+.1%}")]
                    rows.append([path.stem[-4:], n_ctx, n_parallel, kv, _predicted(ours), *cells])
    worst = ", ".join(f"{name} {max(values, key=abs):+.1%}" for name, values in gaps.items())
    head = ("file", "context", "slots", "KV", "predicted, MiB", "native engine", "gap", "ready engine", "gap")
    return f"Largest gaps: {worst}. MiB as total = weights + KV cache + compute.\n\n{table(head, rows)}"


def _load(path: Path) -> tuple[ModelShape, Weights]:
    with path.open("rb") as file:

        def read(offset: int, n_bytes: int) -> bytes:
            file.seek(offset)
            return file.read(n_bytes)

        return shape_of([read_header(read, path.stat().st_size)])


def _predict(
    shape: ModelShape, weights: Weights, placement: Placement, *, n_ctx: int, n_parallel: int, kv: str
) -> MemoryNeed:
    return memory_need(shape, weights, placement, n_ctx=n_ctx, n_parallel=n_parallel, kv_cache_type=kv)


def _sum(row: Row) -> str:
    return f"{row.total} = {row.model} + {row.context} + {row.compute}"


def _predicted(need: MemoryNeed) -> str:
    parts = (need.weights_bytes, need.kv_cache_bytes, need.compute_bytes)
    return f"{need.total_bytes / MIB:.1f} = " + " + ".join(f"{part / MIB:.1f}" for part in parts)


if __name__ == "__main__":
    main()
