"""Predicted memory beside what the engines say in their dry run, as Markdown: docs/measurements/memory.md.

    python scripts/bench/memory_table.py MODELS --native LLAMA_SERVER --ready PYTHON

MODELS is the demo's folder of repos. The native engine is also asked about large models, by headers of their
dimensions without weights, with ggml-rpc-server processes in place of GPUs.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from report import machine_line, table

from qrun.gguf_header import read_header
from qrun.memory import MemoryNeed, memory_need
from qrun.model import ModelShape, Weights
from qrun.placement import Placement
from qrun.shape import shape_of
from qrun.units import MIB

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from dry_run import Row, dry_run, native_command, ready_command, stand_in_gpus
from sparse_gguf import MODELS, write_sparse

CONTEXTS, SLOTS, KV_TYPES = (512, 2048, 8192), (1, 4), ("f16", "q8_0", "q4_0")
Ask = Callable[..., list[Row]]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--native", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    args = parser.parse_args()
    print(f"{machine_line()}\n")
    print("## The demo's files on the CPU\n")
    print(_demo_table(args.models, _asking_native(args.native), _asking_ready(args.ready)))
    print("\n## Large models on devices\n")
    print(_device_table(args.native))


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


def _device_table(server: Path) -> str:
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, dims in MODELS.items():
            model = write_sparse(Path(folder) / f"{name}.gguf", dims)
            shape, weights = _load(model)
            for placement, more in _placements(shape):
                with stand_in_gpus(server, len(placement.tensor_split or (1,))) as devices:
                    command = native_command(
                        server, model, n_ctx=8192, n_parallel=1, kv="f16", more=["--rpc", devices, *more]
                    )
                    said = dry_run(command)
                ours = _predict(shape, weights, placement, n_ctx=8192, n_parallel=1, kv="f16")
                predicted = [*(device.total_bytes / MIB for device in ours.devices), ours.host_bytes / MIB]
                gaps = [mine / row.total - 1 for mine, row in zip(predicted, said, strict=True)]
                worst = max(worst, *gaps, key=abs)
                rows.append([name, _in_words(placement), _joined(predicted), _joined(row.total for row in said)])
                rows[-1].append(", ".join(f"{gap:+.1%}" for gap in gaps))
    head = ("model", "placement", "predicted, MiB", "engine", "gaps")
    return f"8,192 tokens, one slot, KV f16; devices in order, then host RAM. Largest gap: {worst:+.1%}.\n\n" + table(
        head, rows
    )


def _placements(shape: ModelShape) -> Iterator[tuple[Placement, list[str]]]:
    whole, half = shape.n_layer + 1, shape.n_layer // 2
    yield Placement("gpu", whole), []
    yield Placement("split", half), ["-ngl", str(half)]
    yield Placement("gpu", whole, None, (0.5, 0.5)), ["-ts", "1,1"]
    yield Placement("gpu", whole, None, (0.75, 0.25)), ["-ts", "3,1"]
    if shape.n_expert:
        yield Placement("experts-on-cpu", whole, 10), ["-ngl", "999", "-ncmoe", "10"]
        yield Placement("experts-on-cpu", whole, shape.n_layer), ["-ngl", "999", "-ncmoe", "999"]


def _in_words(placement: Placement) -> str:
    if placement.mode == "split":
        return f"split, {placement.n_gpu_layers} layers"
    if placement.mode == "experts-on-cpu":
        return f"experts of {placement.n_cpu_moe} layers on the CPU"
    split = placement.tensor_split
    return "whole" if split is None else "whole, " + " : ".join(f"{part:.0%}" for part in split)


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


def _joined(mib: Sequence[float] | Iterator[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in mib)


if __name__ == "__main__":
    main()
